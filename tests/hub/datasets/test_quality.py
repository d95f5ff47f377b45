"""The quality of a JPEG from its tables: those that OpenCV writes, and what is none."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.datasets.quality import jpeg_quality

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def encoded(quality, *flags):
    return cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_QUALITY, quality, *flags])[1].tobytes()


@pytest.mark.parametrize("quality", range(3, 101))
def test_the_quality_that_was_written_is_told(quality):
    assert jpeg_quality(encoded(quality)) == quality


def test_it_is_told_of_other_layouts():
    assert jpeg_quality(encoded(62, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)) == 62
    assert jpeg_quality(encoded(62, cv2.IMWRITE_JPEG_OPTIMIZE, 1)) == 62
    grey = cv2.imencode(".jpg", PICTURE[:, :, 0], [cv2.IMWRITE_JPEG_QUALITY, 71])[1].tobytes()
    assert jpeg_quality(grey) == 71


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\xff\xd8",  # nothing after the start
        b"\x89PNG\r\n\x1a\n",  # another format
        encoded(80)[:40],  # cut before its table ends
        encoded(80).replace(b"\xff\xdb", b"\xff\xe5"),  # no table at all
        encoded(80).replace(b"\xff\xdb\x00C\x00", b"\xff\xdb\x00C\x10"),  # 16-bit values
    ],
)
def test_what_has_no_usual_table_has_no_quality(broken):
    assert jpeg_quality(broken) is None


def test_tables_of_another_shape_are_not_taken_for_a_quality():
    content = bytearray(encoded(50))
    at = content.index(b"\xff\xdb") + 5
    content[at : at + 64] = bytes([1] * 32 + [255] * 32)
    assert jpeg_quality(bytes(content)) is None


@given(st.binary(max_size=300))
def test_no_bytes_break_it(content):
    assert jpeg_quality(b"\xff\xd8\xff" + content) in (None, *range(1, 101))
