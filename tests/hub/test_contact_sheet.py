import cv2
import numpy as np
import pytest

from edge.contract.errors import UnusableError
from edge.detector.pictures import decode_jpeg
from hub.contact_sheet import Tile, contact_sheet

GREEN = (0, 160, 0)


def jpeg_of(width, height, colour=GREEN):
    return cv2.imencode(".jpg", np.full((height, width, 3), colour, np.uint8))[1].tobytes()


def tile(jpeg, region=(10, 10, 40, 40), **changes):
    return Tile(jpeg=jpeg, region=region, reason="missed", caption=("01 | yard", "missed 0.50", "why"), **changes)


def picture(tiles, **options):
    image = cv2.imdecode(
        np.frombuffer(contact_sheet(tiles, title="Batch 1: dark", **options), np.uint8), cv2.IMREAD_COLOR
    )
    assert image is not None
    return image


def share(image, colour, tolerance=12):
    return float((np.abs(image.astype(int) - colour).max(axis=-1) <= tolerance).mean())


def with_stated_size(width, height):
    """A JPEG whose header states another size than its picture has."""
    jpeg = jpeg_of(64, 48)
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2) + width.to_bytes(2) + jpeg[at + 4 :]


@pytest.mark.parametrize("count", [0, 1, 5, 6, 50])
def test_every_tile_has_its_place(count):
    sheet = picture([tile(jpeg_of(64, 48))] * count)
    rows = -(-count // 5)
    assert sheet.shape[0] == picture([]).shape[0] + rows * 247
    tiles = share(sheet, GREEN) * sheet.shape[0] * sheet.shape[1]
    assert tiles == pytest.approx(count * (240 * 180 + 180 * 180), rel=0.05)


@pytest.mark.parametrize(
    ("region", "size"),
    [
        ((0, 0, 1, 1), (64, 48)),  # a corner
        ((0, 0, 64, 48), (64, 48)),  # the whole frame: no enlargement
        ((-20, -20, 500, 500), (64, 48)),  # over every border
        ((30, 20, 30, 20), (64, 48)),  # nothing
        ((600, 5, 640, 8), (640, 9)),  # a flat frame
        ((2, 300, 7, 320), (9, 640)),  # a narrow one
        ((0, 0, 1, 1), (1, 1)),  # one pixel
    ],
)
def test_odd_regions_and_frames_are_drawn(region, size):
    assert picture([tile(jpeg_of(*size), region)]).shape[2] == 3


@pytest.mark.parametrize(
    "jpeg",
    [
        b"",
        b"\xff\xd8",
        b"no picture",
        cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes(),
        jpeg_of(64, 48)[:200],  # cut inside the header
        with_stated_size(60000, 60000),  # a bomb
        with_stated_size(65500, 200),  # within the limit, and a lie
    ],
)
def test_a_broken_jpeg_is_a_grey_tile_with_text(jpeg):
    sheet = picture([tile(jpeg), tile(jpeg_of(64, 48))])
    assert 0.1 < share(sheet, GREEN) < 0.5
    assert share(sheet, (96, 96, 96)) > 0.1


def test_a_picture_too_large_is_refused_before_decoding():
    with pytest.raises(UnusableError, match="60000x60000 pixels, the limit is 16000000"):
        decode_jpeg(with_stated_size(60000, 60000))


def test_a_problem_is_shown_instead_of_the_frame():
    assert share(picture([tile(jpeg_of(64, 48), problem="left out: of another size")]), GREEN) == 0


def test_any_text_can_be_drawn():
    odd = tile(jpeg_of(64, 48), problem="ä \n 中 " + "x" * 500)
    assert picture([Tile(odd.jpeg, odd.region, "new reason", ("", "w" * 500, "\x00"), (), odd.problem)]).any()


def test_the_sheet_is_the_same_every_time():
    tiles = [tile(jpeg_of(64, 48), boxes=(((5, 5, 20, 20), "detector"), ((8, 8, 30, 30), "gap")))] * 3
    assert contact_sheet(tiles, title="t") == contact_sheet(tiles, title="t")
