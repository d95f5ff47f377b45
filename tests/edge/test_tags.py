"""Every tag: a made picture that has it, and one just outside. The laws of edge.tags. The words agree with TAGS.md."""

import itertools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.detector.blur
import edge.detector.light
import edge.tags
from edge.contract.samples import Light
from edge.contract.tags import DEVICE_TAGS
from edge.detector.blur import Spreads
from edge.detector.light import is_grayscale, measure_light
from edge.miners import suspect
from edge.tags import object_tags

SIZES = {"tiny", "small", "medium", "big"}
ACROSS = {"left", "middle", "right"}
DOWN = {"top", "centre", "bottom"}
WORDS = re.findall(r"^\| `([a-z_]+)` \|", (Path(edge.tags.__file__).parent / "TAGS.md").read_text(), re.MULTILINE)
MINED = tuple(dict.fromkeys(re.findall(r'tag: Final = "(\w+)"', Path(suspect.__file__).read_text())))
PLAIN = Light(120.0, 40.0, 2.0, 100.0)
WIDTH, HEIGHT = 768, 576
REGION = (300.0, 200.0, 360.0, 300.0)


def colours(width=WIDTH, height=HEIGHT):
    rng = np.random.default_rng(1)
    return cv2.resize(rng.integers(0, 256, (12, 16, 3)).astype(np.uint8), (width, height))


COLOURS = colours()


def tags_of(region=REGION, *, image=COLOURS, light=PLAIN, input_scale=0.4, others=()):
    return object_tags(image, region, light=light, input_scale=input_scale, others=others)


def grey(image):
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


@pytest.mark.parametrize(
    ("region", "has", "has_not"),
    [
        ((300, 200, 319, 300), "tiny", "small"),  # 7.6 model pixels
        ((300, 200, 320, 300), "small", "tiny"),  # 8
        ((300, 200, 339, 300), "small", "medium"),  # 15.6
        ((300, 200, 340, 300), "medium", "small"),  # 16
        ((300, 200, 379, 300), "medium", "big"),  # 31.6
        ((300, 200, 380, 300), "big", "medium"),  # 32
        ((300, 200, 400, 219), "tiny", "big"),  # the shorter side is the height
        ((2.4, 200, 60, 300), "border", ""),  # within one model pixel, 2.5 of the frame
        ((2.6, 200, 60, 300), "", "border"),
        ((300, 2.4, 360, 100), "border", ""),  # of every side
        ((700, 200, 765.6, 300), "border", ""),
        ((300, 500, 360, 573.6), "border", ""),
        ((300, 500, 765.4, 573.4), "", "border"),
        ((300, 200, 400, 250), "wide", "tall"),  # 2 : 1
        ((300, 200, 399, 250), "", "wide"),
        ((300, 200, 350, 350), "tall", "wide"),  # 1 : 3
        ((300, 200, 350, 349), "", "tall"),
        ((0, 200, 511, 300), "left", "middle"),  # the centre is at 255.5 of 768
        ((0, 200, 512, 300), "middle", "left"),
        ((257, 200, 766, 300), "middle", "right"),
        ((258, 200, 766, 300), "right", "middle"),
        ((300, 0, 350, 383), "top", "centre"),  # of 576
        ((300, 0, 350, 384), "centre", "top"),
        ((300, 193, 350, 574), "centre", "bottom"),
        ((300, 194, 350, 574), "bottom", "centre"),
    ],
)
def test_where_and_how_large(region, has, has_not):
    tags = tags_of(region)
    assert not has or has in tags
    assert has_not not in tags


@pytest.mark.parametrize(
    ("light", "expected"),
    [
        (Light(49.9, 40, 0, 0), {"dark"}),
        (Light(50.0, 40, 0, 0), set()),
        (Light(205.1, 40, 0, 0), {"bright"}),
        (Light(205.0, 40, 0, 0), set()),
        (Light(120, 11.9, 0, 0), {"flat"}),
        (Light(120, 12.0, 0, 0), set()),
        (Light(49.9, 11.9, 0, 0), {"dark"}),  # little light leaves little contrast: one word for it
        (Light(120, 40, 8.6, 0), {"noisy"}),
        (Light(120, 40, 8.5, 0), set()),
    ],
)
def test_light_is_told_by_its_thresholds(light, expected):
    assert {"dark", "bright", "flat", "noisy"} & set(tags_of(light=light)) == expected


def picture(mean, spread, noise):
    """A chessboard of cells of 20 pixels around a mean, with noise."""
    rows, columns = np.indices((HEIGHT, WIDTH)) // 20
    board = mean + np.where((rows + columns) % 2, spread, -spread)
    return np.clip(board + np.random.default_rng(3).normal(0, noise, board.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("gray", "expected"),
    [
        (picture(120, 40, 0), set()),
        (picture(40, 20, 0), {"dark"}),
        (picture(225, 20, 0), {"bright"}),
        (picture(120, 8, 0), {"flat"}),
        (picture(120, 40, 5), set()),  # a little noise
        (picture(120, 40, 12), {"noisy"}),
        (picture(30, 20, 12), {"dark", "noisy"}),
        (picture(12, 3, 20), {"dark", "noisy"}),  # half of the noise is clipped; what is left is contrast
    ],
)
def test_light_is_measured_on_pictures(gray, expected):
    image = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    region = (280.0, 180.0, 400.0, 340.0)
    tags = tags_of(region, image=image, light=measure_light(gray, region))
    assert {"dark", "bright", "flat", "noisy"} & set(tags) == expected


def tinted(image, *, by):
    return np.clip(grey(image) * np.array(by), 0, 255).astype(np.uint8)


def coded(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (COLOURS, False),
        ((COLOURS * 0.1).astype(np.uint8), False),  # dark, but of colours
        (coded((COLOURS * 0.1).astype(np.uint8)), False),
        (np.clip(COLOURS * 0.3 + grey(COLOURS) * 0.7, 0, 255).astype(np.uint8), False),  # pale
        (grey(COLOURS), True),
        (coded(grey(COLOURS)), True),
        ((grey(COLOURS) * 0.1).astype(np.uint8), True),
        (tinted(COLOURS, by=(1.08, 1.0, 0.94)), True),  # a white balance that is a little off
        (coded(tinted(COLOURS, by=(1.08, 1.0, 0.94))), True),
        (tinted(COLOURS, by=(0.5, 0.9, 1.1)), False),  # street light
        (np.zeros((HEIGHT, WIDTH, 3), np.uint8), True),
        (np.full((HEIGHT, WIDTH, 3), 255, np.uint8), True),
        (np.full((2, 2, 3), 99, np.uint8), True),  # smaller than the cells
    ],
)
def test_grayscale(image, expected):
    assert is_grayscale(image) is expected
    assert ("grayscale" in tags_of(image=image)) is expected


def test_grey_noise_is_no_colour():
    noise = np.random.default_rng(2).normal(0, 20, (HEIGHT, WIDTH, 1))
    assert is_grayscale(np.clip(grey(COLOURS) + noise, 0, 255).astype(np.uint8))


def beside(number, *, apart):
    """Boxes of the region's size, every `apart` pixels to the right."""
    x1, y1, x2, y2 = REGION
    return [(x1 + n * apart, y1, x2 + n * apart, y2) for n in range(1, number + 1)]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], set()),
        (beside(2, apart=45), set()),
        (beside(3, apart=45), {"crowded"}),  # 135 pixels away, of 150 allowed
        (beside(3, apart=51), set()),  # the third is 153 away
        ([REGION, *beside(2, apart=45)], set()),  # its own box
        ([(302.0, 203.0, 361.0, 299.0), *beside(2, apart=45)], set()),  # its own, placed a little otherwise
        ([(300.0, 270.0, 360.0, 330.0)], {"occluded"}),  # covers 30 %, and ends lower
        ([(300.0, 276.0, 360.0, 330.0)], set()),  # 24 %
        ([(300.0, 180.0, 360.0, 230.0)], set()),  # 30 %, but behind
        ([(300.0, 270.0, 360.0, 300.0)], set()),  # a bag: ends where the object does
        ([(290.0, 280.0, 330.0, 320.0), (330.0, 280.0, 370.0, 320.0)], set()),  # two that cover little each
        ([(200.0, 150.0, 500.0, 500.0)], {"occluded"}),  # wholly behind a large one
    ],
)
def test_the_company_of_other_boxes(others, expected):
    assert {"crowded", "occluded"} & set(tags_of(others=others)) == expected


@pytest.mark.parametrize(
    ("spreads", "expected"),
    [
        ((1.5, 1.5, 1.5, 1.5), ("defocus",)),
        ((1.5, 1.5, 1.5, 1.4), ()),  # one direction is sharp
        ((1.5, None, 1.5, 1.5), ()),  # and here none knows
        ((2.0, 1.5, 1.2, 1.5), ("motion_blur", "motion_horizontal")),
        ((1.9, 1.2, 1.0, 1.2), ()),  # too little
        ((2.0, 1.5, 1.21, 1.5), ()),  # not across it alone, and not everywhere
        ((1.0, 2.5, 1.0, 0.0), ("motion_blur", "motion_diagonal")),
        ((0.0, 1.0, 2.5, 1.0), ("motion_blur", "motion_vertical")),
        ((1.0, 0.0, 1.0, 2.5), ("motion_blur", "motion_diagonal")),
        ((2.5, 1.0, None, 1.0), ()),  # what is across it has no edges
        ((4.0, 3.0, 2.0, 3.0), ("motion_blur", "motion_horizontal")),  # out of focus as well: the motion is told
        ((None, None, None, None), ()),
    ],
)
def test_blur_is_told_by_its_thresholds(spreads, expected):
    assert edge.tags.told_of_blur(Spreads(*spreads)) == expected


def test_the_whole_frame_has_no_place():
    whole = (0.0, 0.0, float(WIDTH), float(HEIGHT))
    assert tags_of(whole, others=[(300.0, 500.0, 400.0, 576.0)] * 9) == ("big",)
    assert "border" in tags_of((0.0, 0.0, float(WIDTH), HEIGHT - 9.0))


boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), *(st.floats(-50, 800),) * 2, *(st.floats(0.5, 500),) * 2)
lights = st.builds(Light, *(st.floats(0, 255),) * 3, st.just(0.0))


@given(boxes, lights, st.floats(0.05, 4), st.lists(boxes, max_size=6))
@settings(max_examples=200, deadline=None)
def test_laws(region, light, input_scale, others):
    tags = tags_of(region, light=light, input_scale=input_scale, others=others)
    assert len(SIZES & set(tags)) == 1  # law 1
    is_whole = not ACROSS & set(tags)
    if is_whole:
        assert max(region[:2]) < max(2.0, 1 / input_scale)
    assert len(ACROSS & set(tags)) == len(DOWN & set(tags)) == (0 if is_whole else 1)  # law 2
    directions = [tag for tag in tags if tag.startswith("motion_") and tag != "motion_blur"]
    assert len(directions) == tags.count("motion_blur")  # law 3
    assert not ("defocus" in tags and directions)
    assert sorted(tags, key=DEVICE_TAGS.index) == list(tags)  # law 4
    assert len(set(tags)) == len(tags)


def given_by_the_code():
    """Every tag that some input gives."""
    lights = [Light(b, c, n, 0.0) for b, c, n in itertools.product((9, 120, 250), (5, 40), (0, 20))]
    found = {tag for light in lights for tag in edge.tags._light_tags(light)}
    found |= {edge.tags._size_tag((0, 0, side, side), 1.0) for side in (1, 8, 16, 32)}
    found |= {
        tag for at in itertools.permutations((3.0, 1.0, 0.0, 1.0)) for tag in edge.tags.told_of_blur(Spreads(*at))
    }
    found |= set(edge.tags.told_of_blur(Spreads(2, 2, 2, 2)))
    found |= set(edge.tags._company_tags(REGION, [*beside(3, apart=40), (300, 260, 360, 340)]))
    for x, y, w, h in itertools.product((0, 300, 600), (0, 250, 500), (9, 60), (9, 60)):
        found |= set(edge.tags._shape_tags((x, y, x + w, y + h), (WIDTH, HEIGHT), 2.0))
        found |= set(edge.tags._position_tags((x, y, x + w, y + h), (WIDTH, HEIGHT)))
    return found | set(tags_of(image=grey(COLOURS))) | set(MINED)


def test_the_document_the_contract_and_the_code_know_the_same_tags():
    assert tuple(WORDS) == DEVICE_TAGS
    assert given_by_the_code() == set(DEVICE_TAGS)
    assert len(set(DEVICE_TAGS)) == len(DEVICE_TAGS)


@pytest.mark.parametrize(
    ("tag", "figures"),
    [
        ("tiny", [edge.tags.TINY_PX]),
        ("small", [edge.tags.TINY_PX, edge.tags.SMALL_PX]),
        ("medium", [edge.tags.SMALL_PX, edge.tags.MEDIUM_PX]),
        ("big", [edge.tags.MEDIUM_PX]),
        ("dark", [edge.tags.DARK]),
        ("bright", [edge.tags.BRIGHT]),
        ("flat", [edge.tags.FLAT]),
        ("noisy", [edge.tags.NOISY]),
        ("grayscale", [edge.detector.light.GRAYSCALE_CHROMA, edge.detector.light.GRAYSCALE_TINT]),
        ("defocus", [edge.tags.DEFOCUS_PX, edge.detector.blur.MIN_SIDE_PX]),
        ("motion_blur", [edge.tags.MOTION_PX, edge.tags.MOTION_RATIO]),
        ("crowded", [edge.tags.CROWDED, edge.tags.CROWDED_REACH]),
        ("occluded", [100 * edge.tags.OCCLUDED_SHARE, edge.tags.SAME_IOU]),
        ("border", [edge.tags.BORDER_PX]),
        ("wide", [edge.tags.WIDE]),
        ("tall", [edge.tags.TALL]),
    ],
)
def test_the_document_has_the_thresholds(tag, figures):
    text = (Path(edge.tags.__file__).parent / "TAGS.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"| `{tag}` |"))
    numbers = {float(number) for number in re.findall(r"(?<![\w.])\d*\.?\d+", line)}
    assert set(map(float, figures)) <= numbers
