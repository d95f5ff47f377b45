"""The whole circle as a new user walks it: `hub demo`, its batch to an annotator and back, audited, counted, told back;
and the answered batch to a candidate: trained, evaluated, tuned, and refused.

Nobody is here to annotate. What the people of the demo's clip are is known from the clip as it was recorded, in which
the detector looks closer than any camera of the demo does: 512x512, in tiles. A frame of the dark or the noisy camera
shows the same street at the same moment, so the same boxes are true there. On them errors are planted, as people make
them. So the audit is asked about pictures that its model sees far worse than the boxes say.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.detector.detector import open_detector
from edge.detector.tiling import detect_tiled
from hub.annotation import AnnotatedImage, Annotation, AnnotationSet
from hub.batch_view import image_names
from hub.batches import batch_view
from hub.formats.cvat import read_cvat, write_cvat
from hub.store import Store
from hub.truth import truths
from tests.simulators.annotator import answer
from tests.test_docs import ROOT, run

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(400)]
BATCH = 30
PICKS = 8
SURE = 0.5
SMALL = "160x128"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo that has ended."""
    folder = tmp_path_factory.mktemp("demo")
    printed = run(f"hub demo --out demo-out --size {BATCH}", folder, timeout_s=300)
    assert f"batch 1: {BATCH} images" in printed
    return folder / "demo-out"


@pytest.fixture(scope="module")
def known(demo: Path) -> Mapping[str, tuple[Annotation, ...]]:
    """The people on each image of the batch, by the image's name."""
    return known_of(demo, 1)


def known_of(demo: Path, batch: int) -> Mapping[str, tuple[Annotation, ...]]:
    with Store.open(demo / "hub.db", create=False) as store:
        view = batch_view(store, batch)
        frames = {
            name: store.finding(member.event_id).finding().sequence
            for name, member in zip(image_names(view), view.members, strict=True)
        }
    people = {number: tuple(people_of(picture)) for number, picture in pictures(set(frames.values())).items()}
    return {name: people[number] for name, number in frames.items()}


def pictures(numbers: set[int]) -> dict[int, np.ndarray]:
    """These frames of the clip that all cameras of the demo play."""
    clip = cv2.VideoCapture(str(ROOT / "deploy" / "demo" / "street.mp4"))
    found = {number: clip.read()[1] for number in range(max(numbers) + 1)}
    return {number: found[number] for number in numbers}


def people_of(picture: np.ndarray) -> list[Annotation]:
    detector = people_of.__dict__.setdefault("detector", open_detector(input_size=(512, 512)))
    seen = detect_tiled(detector, picture, score_threshold=SURE)
    boxes = [xyxy for xyxy, one in zip(seen.xyxy, seen.class_id, strict=True) if detector.labels[one] == "person"]
    return [Annotation(tuple(map(float, xyxy)), "person") for xyxy in boxes if min(xyxy[2:] - xyxy[:2]) > 4]


def returned(exported: Path, known: Callable[[str], tuple[Annotation, ...]], *, seed: int, wrong: float):
    """What an annotator makes of an export: the file, and the fault of each image that has one."""
    drawn, faults = answer(read_cvat(exported), known, rng=np.random.default_rng(seed), wrong=wrong)
    back = exported.parent / f"back-{seed}.xml"
    back.write_bytes(write_cvat(drawn)["annotations.xml"])
    return back, faults


def test_the_weak_spots_are_the_cameras_that_were_made_weak(demo: Path) -> None:
    """On a busy machine frames are dropped, and one of the two can be too few to be significant."""
    table = run("hub weakspots", demo).splitlines()
    assert any("dark" in line or "noisy" in line for line in table), "the light or the noise of a camera"
    assert len(list((demo / "batch-1" / "images").iterdir())) == BATCH
    assert (demo / "batch-1" / "contact-sheet.png").is_file()
    run("hub status", demo)
    for line in ("hub batch list", "hub batch show 1"):
        assert run(line, demo)
    for camera in ("day", "dark", "noisy"):
        assert "NOT RUNNING" in run(f"edge status --config edge-{camera}.toml", demo, expect=1)


def test_a_batch_goes_out_and_comes_back_and_is_audited_and_told_back(demo: Path, known) -> None:
    """Exported, answered with errors, imported, audited, looked at again, consolidated, told back, counted."""
    exported = demo / "batch-1" / "annotations.xml"
    back, faults = returned(exported, known.__getitem__, seed=1, wrong=0.21)
    assert faults
    imported = json.loads(run(f"hub labels import {back} --batch 1 --annotator ann --minutes 12 --json", demo))
    assert imported["images"] == BATCH
    assert " annotated " in run("hub weakspots", demo)

    audit = json.loads(run(f"hub labels audit 1 --sheet recheck.png --export again --size {PICKS} --json", demo))
    names = names_of(demo)
    picks = {names[one["event_id"]] for one in audit["rechecks"] if one["fault"] != "random"}
    assert len(audit["rechecks"]) - len(picks) == 5, "drawn at random"
    assert len(picks & faults.keys()) / PICKS > len(faults) / BATCH, "more of the errors than chance would list"
    assert cv2.imread(str(demo / "recheck.png")) is not None

    again = read_cvat(demo / "again" / "annotations.xml")
    assert {one.name for one in again.images} == {names[one["event_id"]] for one in audit["rechecks"]}
    right = [AnnotatedImage(one.name, one.width, one.height, known[one.name]) for one in again.images]
    (demo / "right.xml").write_bytes(write_cvat(AnnotationSet(again.labels, tuple(right)))["annotations.xml"])
    run("hub labels import right.xml --batch 1 --annotator eve --review", demo)

    other, _ = returned(exported, known.__getitem__, seed=2, wrong=0.21)
    run(f"hub labels import {other} --batch 1 --annotator bob", demo)
    shown = run("hub labels show 1", demo)
    assert all(name in shown for name in ("ann", "bob", "eve"))
    with Store.open(demo / "hub.db", create=False) as store:
        found = truths(store, 1)
    assert {found[event_id].by for event_id, name in names.items() if name in picks} == {"review"}
    assert {found[event_id].by for event_id in names} == {"review", "person"}

    assert "missed" in run("hub verdicts", demo)
    assert run("hub costs", demo)
    assert "to train on" in run("hub dataset health --out health", demo), "exit 0: no test image has a near-duplicate"
    assert len(list((demo / "health").glob("*.png"))) >= 4
    run("hub check", demo)


def test_a_batch_becomes_a_candidate_that_the_gate_refuses(demo: Path, known, tmp_path: Path) -> None:
    """Frozen, trained for a few steps, measured, tuned; and refused: so few steps prove nothing."""
    hub = tmp_path / "hub"
    shutil.copytree(demo, hub)
    back, _ = returned(hub / "batch-1" / "annotations.xml", known.__getitem__, seed=1, wrong=0)
    run(f"hub labels import {back} --batch 1 --annotator ann", hub)
    run("hub batch new --random --size 10", hub)  # of batch 1 it is chance whether anything is for the test
    run("hub batch export 2 --format cvat --out batch-2", hub)
    drawn, _ = returned(hub / "batch-2" / "annotations.xml", known_of(hub, 2).__getitem__, seed=2, wrong=0)
    run(f"hub labels import {drawn} --batch 2 --annotator ann", hub)
    with Store.open(hub / "hub.db", create=False) as store:
        spot = store.batch(1).weak_spot_id
    order = f"hub train --weakspot {spot} --input {SMALL} --steps 2 --batch 4 --out candidate --json"
    trained = json.loads(run(order, hub, timeout_s=300))
    assert trained["training"]["steps"] == 2
    assert trained["training"]["input"] == SMALL
    version = trained["dataset"]
    frozen = json.loads(run(f"hub dataset show {version} --json", hub))
    assert {"person", "self"} <= frozen["by"].keys()
    assert version in run("hub dataset list", hub)
    run(f"hub dataset sheet {version} --out sheet.png", hub)
    assert cv2.imread(str(hub / "sheet.png")) is not None

    starter = ROOT / "models" / "starter"
    against = f"candidate --against {starter} --dataset {version} --against-input {SMALL}"
    run(f"hub evaluate {against} --out report", hub)
    assert (hub / "report" / "evaluation.json").is_file()
    assert len(list((hub / "report").glob("*.png"))) >= 3
    run(f"hub sweep {against} --sizes 128x96 --keep 0.01 --out sweep", hub)
    assert cv2.imread(str(hub / "sweep" / "sweep.png")) is not None
    run("edge model check candidate", hub)
    tuned = json.loads(run("edge tune candidate --seconds 2 --json", hub))
    assert tuned["picked"]
    refused = run(f"hub gate {against} --weakspot {spot}", hub, expect=1)
    assert f"better on weak spot {spot}" in refused
    with Store.open(hub / "hub.db", create=False) as store:
        assert store.spots.one(spot).state == "annotated", "nothing moves"
    run("hub check", hub)


def names_of(demo: Path) -> dict[str, str]:
    """The name of each image of the batch by its event id."""
    with Store.open(demo / "hub.db", create=False) as store:
        view = batch_view(store, 1)
    return dict(zip((member.event_id for member in view.members), image_names(view), strict=True))


def test_the_machine_labels_nothing_without_a_certificate(demo: Path) -> None:
    """The demo has no random batch: it is refused until one is drawn and answered."""
    run("hub autolabel certify --pool 5", demo, expect=1)
    run("hub autolabel apply", demo, expect=1)
    assert "batch 2: 10 images" in run("hub batch new --random --size 10", demo)
    run("hub batch export 2 --format cvat --out batch-2", demo)
    exported = json.loads((demo / "batch-2" / "batch.json").read_text())
    assert all("-test-" in one["name"] for one in exported["images"]), "for measuring, never to be trained on"
