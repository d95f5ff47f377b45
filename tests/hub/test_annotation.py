import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from hub.annotation import AnnotatedImage, Annotation, AnnotationSet, is_drawable, named, row_order

coordinates = st.integers(0, 60)


@st.composite
def boxes(draw):
    x, y = draw(coordinates), draw(coordinates)
    return Annotation((x, y, x + draw(st.integers(3, 40)), y + draw(st.integers(3, 40))), draw(st.sampled_from("ab")))


def at(x, y, *, width=10.0, height=10.0):
    """A box by its centre."""
    return Annotation((x - width / 2, y - height / 2, x + width / 2, y + height / 2), "person")


def test_coordinates_and_scores_are_rounded_once():
    box = Annotation((1.004, -0.001, 9.999, 10.0049), "person", 0.123456)
    assert box.xyxy == (1.0, 0.0, 10.0, 10.0)
    assert str(box.xyxy[1]) == "0.0"  # no negative zero, which would be written as one
    assert box.score == 0.1235
    assert Annotation(box.xyxy, "person", box.score) == box


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (((1, 2, float("nan"), 4), "person"), "not four finite numbers"),
        (((1, 2, float("inf"), 4), "person"), "not four finite numbers"),
        (((1, 2, 3), "person"), "not four finite numbers"),
        (((10, 10, 12.99, 20), "person"), "person at (10, 10, 12.99, 20) is 2.99 x 10 px, the least is 3 x 3"),
        (((10, 10, 5, 20), "person"), "is -5 x 10 px"),
        (((0, 0, 9, 9), ""), "label ''"),
        (((0, 0, 9, 9), " person"), "label ' person'"),
        (((0, 0, 9, 9), "per\nson"), "label 'per\\nson'"),
        (((0, 0, 9, 9), "p" * 65), "1 to 64 printable"),
        (((0, 0, 9, 9), "person", 1.01), "has the score 1.01, expected 0 to 1"),
        (((0, 0, 9, 9), "person", float("nan")), "has the score nan"),
        (((0, 0, 9, 9), "person", 0.5, "A person"), "has the origin 'A person'"),
    ],
)
def test_a_box_that_no_format_could_carry_is_refused(arguments, says):
    with pytest.raises(UnusableError) as error:
        Annotation(*arguments)
    assert says in str(error.value)


def test_errors_name_the_image_and_the_box():
    inside, outside = at(20, 20), at(60, 20)
    with pytest.raises(
        UnusableError, match=r"image a\.jpg, box 2: person at \(55, 15, 65, 25\) lies outside the image"
    ):
        AnnotatedImage("a.jpg", 64, 48, (inside, outside))
    with pytest.raises(UnusableError, match=r"image a\.jpg, box 1: person at .* has a label that is not listed"):
        AnnotationSet(("dog",), (AnnotatedImage("a.jpg", 64, 48, (inside,)),))


@pytest.mark.parametrize(
    "name", ["a.b.jpg", "a b.jpg", "-a.jpg", "a.JPG", "a.png", "x/a.jpg", ".jpg", "ä.jpg", "a.jpg\n"]
)
def test_a_name_that_tools_cannot_match_is_refused(name):
    with pytest.raises(UnusableError, match="the name is not"):
        AnnotatedImage(name, 64, 48)


@pytest.mark.parametrize("size", [(0, 48), (64, -1), (65536, 48)])
def test_a_size_that_no_jpeg_has_is_refused(size):
    with pytest.raises(UnusableError, match=r"image a\.jpg: .* is not a size"):
        AnnotatedImage("a.jpg", *size)


def test_names_and_labels_are_unique():
    with pytest.raises(UnusableError, match=r"image a\.jpg occurs twice"):
        AnnotationSet((), (AnnotatedImage("a.jpg", 64, 48), AnnotatedImage("A.jpg", 64, 48)))
    with pytest.raises(UnusableError, match="label 'dog' is listed twice"):
        AnnotationSet(("dog", "dog"), ())


def test_named_puts_places_before_the_message():
    with pytest.raises(UnusableError, match=r"^file: line 3: broken$"), named("file"), named("line 3"):
        raise UnusableError("broken")  # noqa: EM101


def test_rows_go_from_top_to_bottom_and_each_from_right_to_left():
    top, bottom = [at(50, 12), at(30, 10), at(10, 13)], [at(60, 32), at(35, 30), at(5, 31)]
    mixed = [bottom[1], top[2], bottom[0], top[0], bottom[2], top[1]]
    assert row_order(mixed) == (*top, *bottom)


def test_a_box_belongs_to_a_row_only_when_both_centres_lie_within_each_other():
    near = at(40, 50, height=80)  # a person close by, as high as the three rows of persons far away
    far = [at(80, 20), at(60, 50), at(20, 80)]
    assert row_order([near, *far]) == (far[0], far[1], near, far[2])


def test_boxes_one_above_the_other_stand_in_two_rows():
    upper, lower = at(20, 10), at(40, 16)
    assert row_order([lower, upper]) == (upper, lower)  # each centre lies 1 px outside the other's height


def test_no_boxes_are_no_rows():
    assert row_order([]) == ()


@settings(deadline=None)
@given(st.lists(boxes(), max_size=12), st.randoms())
def test_row_order_keeps_every_box_and_does_not_depend_on_the_input(listed, chance: random.Random):
    ordered = row_order(listed)
    assert sorted(map(str, ordered)) == sorted(map(str, listed))
    shuffled = listed.copy()
    chance.shuffle(shuffled)
    assert row_order(shuffled) == ordered
    assert row_order(ordered) == ordered


@pytest.mark.parametrize(
    ("xyxy", "drawable"),
    [
        ((10.0, 10.0, 13.0, 13.0), True),
        ((10.0, 10.0, 12.99, 20.0), False),
        ((0.1, 0.1, 3.1, 3.1), True),  # 3.1 - 0.1 is a hair under 3 before it is rounded
        (np.array([764.59503, 44.03, 767.5949, 54.78], np.float32).tolist(), False),  # rounded in float32 it was 3 wide
    ],
)
def test_what_is_drawable_is_what_an_annotation_takes(xyxy, drawable):
    assert is_drawable(xyxy) is drawable
    if drawable:
        Annotation(tuple(xyxy), "car")
    else:
        with pytest.raises(UnusableError, match="the least is"):
            Annotation(tuple(xyxy), "car")
