"""Letterbox: the tensor is what the card asks for, and boxes find the exact way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.card import InputSpec
from edge.detector.letterbox import Letterbox, place, tensor_shape

sides = st.integers(1, 4000)
input_sides = st.integers(1, 40).map(lambda n: 32 * n)
letterboxes = st.sampled_from(["top_left", "center", "stretch"])
fractions = st.floats(0, 1, width=32)


@given(
    frame=st.tuples(sides, sides),
    size=st.tuples(input_sides, input_sides),
    letterbox=letterboxes,
    corners=st.lists(st.tuples(fractions, fractions, fractions, fractions), max_size=5),
)
def test_boxes_go_there_and_back(frame, size, letterbox, corners):
    spec = InputSpec(width=size[0], height=size[1], letterbox=letterbox)
    placement = place(spec, frame_size=frame, input_size=size)
    boxes = np.array(corners, np.float32).reshape(-1, 4) * np.array(frame * 2, np.float32)
    there = placement.to_input(boxes)
    # inside the frame's part of the input, and back within a thousandth of the frame's side
    assert (there >= -1e-3).all()
    assert (there <= np.array(size * 2) + 1e-2).all()
    assert np.allclose(placement.to_frame(there), boxes, atol=1e-3 * max(1, *frame) / 10 + 1e-3)


@given(frame=st.tuples(sides, sides), size=st.tuples(input_sides, input_sides), letterbox=letterboxes)
def test_the_frame_lies_inside_the_input(frame, size, letterbox):
    placement = place(InputSpec(width=1, height=1, letterbox=letterbox), frame_size=frame, input_size=size)
    assert placement.width >= 1
    assert placement.height >= 1
    assert placement.left >= 0
    assert placement.top >= 0
    assert placement.left + placement.width <= size[0]
    assert placement.top + placement.height <= size[1]
    # one side is filled
    assert placement.width == size[0] or placement.height == size[1]


PLACES = [
    # a wide frame in a square: bars below
    ("top_left", (1920, 1080), (320, 320), (320, 180, 0, 0)),
    # the same, bars above and below
    ("center", (1920, 1080), (320, 320), (320, 180, 0, 70)),
    # an odd number of grey rows: the smaller half is above
    ("center", (100, 67), (96, 96), (96, 64, 0, 16)),
    # no bars, the ratio is given up
    ("stretch", (1920, 1080), (320, 320), (320, 320, 0, 0)),
    # a tall frame: bars at the right
    ("top_left", (300, 600), (320, 320), (160, 320, 0, 0)),
    # a small frame is enlarged
    ("top_left", (16, 9), (320, 192), (320, 180, 0, 0)),
    # a sliver keeps at least one pixel
    ("top_left", (10000, 3), (320, 320), (320, 1, 0, 0)),
]


@pytest.mark.parametrize(("letterbox", "frame", "size", "expected"), PLACES)
def test_place(letterbox, frame, size, expected):
    placement = place(InputSpec(width=1, height=1, letterbox=letterbox), frame_size=frame, input_size=size)
    assert (placement.width, placement.height, placement.left, placement.top) == expected


def test_boxes_are_clipped_to_the_frame():
    placement = place(InputSpec(width=320, height=320), frame_size=(640, 360), input_size=(320, 320))
    outside = np.array([[-50, -50, 400, 400], [10, 200, 20, 300]], np.float32)
    assert placement.to_frame(outside).tolist() == [[0, 0, 640, 360], [20, 360, 40, 360]]


TENSORS = [
    # as the starter has it: RGB as it is
    ({}, [30, 20, 10], 114),
    # YOLOX: BGR as it is
    ({"color": "bgr"}, [10, 20, 30], 114),
    # Ultralytics: RGB over 255
    ({"std": (255, 255, 255)}, [30 / 255, 20 / 255, 10 / 255], 114 / 255),
    # mean and deviation in the order of the colours
    ({"mean": (30, 0, 10), "std": (1, 2, 4), "pad_value": 10}, [0, 10, 0], (-20, 5, 0)),
    # channels last
    ({"layout": "nhwc"}, [30, 20, 10], 114),
]


@pytest.mark.parametrize(("spec", "pixel", "pad"), TENSORS)
def test_tensor(spec, pixel, pad):
    spec = InputSpec(width=64, height=64, **spec)
    image = np.full((16, 32, 3), (10, 20, 30), np.uint8)
    tensor, _ = Letterbox(spec, input_size=(64, 64))(image)
    assert tensor.dtype == np.float32
    assert tensor.shape == tensor_shape(spec, (64, 64))
    planes = tensor[0] if spec.layout == "nchw" else tensor[0].transpose(2, 0, 1)
    assert np.allclose(planes[:, :32], np.array(pixel).reshape(3, 1, 1), atol=1e-5)
    assert np.allclose(planes[:, 32:], np.broadcast_to(np.reshape(pad, (-1, 1, 1)), (3, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("letterbox", ["top_left", "center", "stretch"])
def test_a_frame_of_another_size_leaves_nothing_behind(letterbox):
    spec = InputSpec(width=64, height=64, letterbox=letterbox)
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, shape, np.uint8) for shape in ((48, 64, 3), (100, 30, 3), (48, 64, 3), (5, 200, 3))]
    reused = Letterbox(spec, input_size=(64, 64))
    for frame in frames:
        tensor, _ = reused(frame)
        fresh, _ = Letterbox(spec, input_size=(64, 64))(frame)
        assert np.array_equal(tensor, fresh)


def test_a_crop_of_a_frame_gives_what_its_copy_gives():
    frame = np.random.default_rng(2).integers(0, 256, (120, 160, 3), np.uint8)
    letterbox = Letterbox(InputSpec(width=64, height=64), input_size=(64, 64))
    crop = frame[20:90, 31:111]
    from_view = letterbox(crop)[0].copy()
    assert np.array_equal(from_view, letterbox(crop.copy())[0])
