"""The pictures of rounds, IoU and the most confident: what is drawn equals what was given; each makes a PNG."""

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex

from hub.annotation import Annotation
from hub.label_plots import (
    MACHINE,
    PERSON,
    SHOWN,
    Example,
    Iteration,
    confident_picture,
    iou_picture,
    iterations_picture,
)
from hub.plots import save
from tests.hub.made import jpeg


def iteration(person, machine, *, price=0.26, machine_price=0.08):
    return Iteration(
        images_person=person,
        images_machine=machine,
        boxes_person=4 * person,
        boxes_machine=3 * machine,
        cost_person=person * price,
        cost_machine=machine * machine_price,
        cost_all_person=(person + machine) * price,
    )


PUBLISHED = [iteration(*counts) for counts in ((10, 0), (190, 0), (120, 80), (98, 102), (90, 110), (100, 100))]


def example(name, by, confidence, **more):
    boxes = {"person": (Annotation((4.0, 4.0, 20.0, 20.0), "person"),), "machine": ()}
    return Example(name=name, by=by, confidence=confidence, **{"iou": None, "jpeg": jpeg(1), **boxes, **more})


def heights(axis, colour) -> list[float]:
    return [bar.get_height() for bar in axis.patches if to_hex(bar.get_facecolor()) == colour]


def titles(figure) -> list[str]:
    return [axis.get_title(loc="left") for axis in figure.axes]


def test_rounds_are_stacked_and_the_cost_stands_against_people_alone():
    figure = iterations_picture(PUBLISHED, currency="USD")
    images, boxes, cost = figure.axes
    assert heights(images, PERSON) == [10, 190, 120, 98, 90, 100]
    assert heights(images, MACHINE) == [0, 0, 80, 102, 110, 100]
    assert heights(boxes, MACHINE) == [0, 0, 240, 306, 330, 300]
    assert sum(heights(cost, PERSON)) + sum(heights(cost, MACHINE)) == pytest.approx(189.44)
    lines = [line.get_segments()[0][0][1] for line in cost.collections]
    assert lines == pytest.approx([one.cost_all_person for one in PUBLISHED])
    assert titles(figure) == [
        "images: 608 by people, 392 by the machine",
        "boxes: 2,432 by people, 1,176 by the machine",
        "cost: 189.44 USD; people alone: 260.00 USD (27 % less)",
    ]


def test_no_amount_lies_on_a_title():
    figure = iterations_picture(PUBLISHED)
    figure.draw_without_rendering()
    for axis in figure.axes:
        inside = axis.get_window_extent()
        assert all(text.get_window_extent().y1 <= inside.y1 for text in axis.texts)


def test_rounds_without_a_price_have_no_cost():
    figure = iterations_picture([iteration(3, 4, price=0.0, machine_price=0.0)])
    assert len(figure.axes) == 2


def test_iou_are_shares_of_each_with_the_count_of_bad_ones():
    figure = iou_picture([0.92, 0.97, 0.55, 0.71], [0.3, 1.0])
    human, machine = figure.axes
    assert [bar.get_height() for bar in human.patches if bar.get_height()] == [0.25] * 4
    assert [bar.get_height() for bar in machine.patches if bar.get_height()] == [0.5] * 2
    assert titles(figure) == [
        "human labels: 4 images, mean IoU 0.79, 25.0 % under 0.6",
        "auto labels: 2 images, mean IoU 0.65, 50.0 % under 0.6",
    ]


def test_one_kind_of_labels_alone_says_that_there_are_none_of_the_other():
    assert titles(iou_picture([], [0.8]))[0] == "human labels: none"


def test_the_five_most_confident_of_each_with_the_boxes_of_both():
    machine = Annotation((5.0, 5.0, 21.0, 21.0), "person", 0.9, "machine")
    given = [example(f"{n}.jpg", "machine", n / 10, machine=(machine,), iou=0.8) for n in range(8)]
    given += [example("p.jpg", "person", 0.4)]
    figure = confident_picture(given)
    shown = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in shown] == [
        "confidence 0.40\np.jpg",
        *(f"confidence {n / 10:.2f}, IoU 0.80\n{n}.jpg" for n in range(7, 7 - SHOWN, -1)),
    ]
    drawn = [to_hex(patch.get_edgecolor()) for patch in shown[1].patches]
    assert [colour for colour in drawn if colour != "#ffffff"] == [PERSON, MACHINE]


def test_a_broken_picture_says_so():
    figure = confident_picture([example("a.jpg", "person", 0.5, jpeg=b"nothing")])
    assert "JPEG" in figure.axes[0].texts[0].get_text()


def test_nothing_to_draw_is_none():
    assert iterations_picture([]) is None
    assert iou_picture([], []) is None
    assert confident_picture([]) is None


@pytest.mark.parametrize(
    ("picture", "width"),
    [
        (lambda: iterations_picture([iteration(0, 0)]), 1080),
        (lambda: iterations_picture([iteration(n, n) for n in range(60)], currency="$"), 1080),
        (lambda: iou_picture([1.0], []), 1080),
        (lambda: confident_picture([example("$x$ " * 30, "machine", 1.0)]), 1440),
    ],
    ids=["an empty round", "many rounds", "one value", "a long name"],
)
def test_odd_values_make_a_png(tmp_path, picture, width):
    save(picture(), tmp_path / "one.png")
    seen = cv2.imread(str(tmp_path / "one.png"))
    assert seen.shape[1] == width
    assert np.unique(seen.reshape(-1, 3), axis=0).shape[0] > 10
