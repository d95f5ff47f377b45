"""A look that fails: the control frame whose turn it was is handed on, and the camera goes on."""

from dataclasses import replace

import pytest

from edge.contract.samples import Reason, Xyxy
from edge.detector.tiling import tiles
from edge.observation import Mined, Observation
from tests.edge.spots import BRIGHT, street
from tests.edge.test_looks import SIZE, Scene, at


@pytest.mark.parametrize("broken", [0, 1, -1])
def test_a_look_that_fails_ends_the_wait_of_its_frame_only(broken: int) -> None:
    """The first tile, the second, the last: with one missing it was not looked at twice; the next frame is."""
    scene = Scene(share=1.0)
    tile_count = len(tiles(SIZE, input_size=scene.detector.input_size))
    failing = broken % tile_count
    detect = scene.detector.detect

    def fail(*_: object) -> None:
        msg = "the accelerator is gone"
        raise RuntimeError(msg)

    frame = scene.show(street((at(150), BRIGHT)))
    for number in range(2):
        whole = (0.0, 0.0, float(SIZE[0]), float(SIZE[1]))
        assert scene.looks.add_control(replace_number(frame, number, whole))
    for _ in range(failing):
        scene.looks.go_on()
    scene.detector.detect = fail
    with pytest.raises(RuntimeError, match="accelerator"):
        scene.looks.go_on()
    scene.detector.detect = detect
    (first,) = scene.looks.release()
    assert (first.at.frame.sequence, first.looked_twice, int(first.looks.found.sum())) == (0, False, 1)
    for _ in range(tile_count):
        scene.looks.go_on()
    (second,) = scene.looks.release()
    assert (second.at.frame.sequence, second.looked_twice) == (1, True)
    assert scene.looks.recall.frames == 1


def replace_number(seen: Observation, number: int, whole: Xyxy) -> Mined:
    """The control frame that this one would be under another number."""
    at_number = replace(seen, frame=replace(seen.frame, sequence=number), enlarged=[])
    return Mined(at_number, Reason.CONTROL, 0.0, whole)
