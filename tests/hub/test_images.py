"""A picture is judged by its markers: nothing here decodes, however large the picture says it is."""

import hashlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import UntrustedError, UnusableError, WeakspotError
from hub.images import MAX_PIXELS, jpeg_size, require_jpeg
from tests.hub.made import HEIGHT, WIDTH, jpeg


def png_bomb() -> bytes:
    """A PNG of about 100 KB that would decode to 2.7 GB."""
    side = 30000

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x" * 100_000) + chunk(b"IEND", b"")


def with_size(picture: bytes, *, width: int, height: int) -> bytes:
    """The same JPEG whose frame header claims another size."""
    at = picture.index(b"\xff\xc0") + 5
    return picture[:at] + struct.pack(">HH", height, width) + picture[at + 4 :]


def with_marker(picture: bytes, marker: int) -> bytes:
    at = picture.index(b"\xff\xc0")
    return picture[:at] + bytes([0xFF, marker]) + picture[at + 2 :]


def segments(count: int) -> bytes:
    """A JPEG with that many empty comments before its frame header."""
    picture = jpeg()
    return picture[:2] + b"\xff\xfe\x00\x02" * count + picture[2:]


@pytest.mark.parametrize(
    ("flags", "channels"),
    [
        ([], 3),  # what a device sends
        ([], 1),  # an infrared camera
        ([cv2.IMWRITE_JPEG_PROGRESSIVE, 1], 3),  # SOF2
        ([cv2.IMWRITE_JPEG_RST_INTERVAL, 2], 3),  # restart markers
        ([cv2.IMWRITE_JPEG_OPTIMIZE, 1], 3),  # other Huffman tables
    ],
)
def test_the_size_is_that_of_the_picture(flags, channels):
    image = np.zeros((37, 53, channels), np.uint8)
    encoded = cv2.imencode(".jpg", image, flags)[1].tobytes()
    assert jpeg_size(encoded) == (53, 37)


def test_fill_bytes_and_comments_are_passed_over():
    picture = segments(10)
    assert jpeg_size(picture[:2] + b"\xff" * 9 + picture[2:]) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (b"", "not a JPEG"),
        (b"\xff\xd8\xff", "no end"),  # only its start
        (b"\xff\xd8\xff\xd9", "no usable frame header"),  # start and end
        (png_bomb(), "not a JPEG"),  # 5.2 GB in a decoder
        (jpeg()[:-2], "no end"),  # cut off in transfer
        (jpeg()[:-40], "no end"),
        (with_size(jpeg(), width=65000, height=65000), "65000x65000 pixels"),  # a JPEG bomb
        (with_size(jpeg(), width=4001, height=4000), "the limit is"),  # just over
        (with_size(jpeg(), width=0, height=48), "0x48"),  # no pixels
        (with_marker(jpeg(), 0xC3), "no usable frame header"),  # lossless
        (with_marker(jpeg(), 0xC9), "no usable frame header"),  # arithmetic coding
        (with_marker(jpeg(), 0xDA), "no usable frame header"),  # the scan before the frame
        (segments(300), "no usable frame header"),  # a loop of millions of segments would cost seconds
        (b"\xff\xd8\xff\xc0\x00\x02\xff\xd9", "not 8-bit"),  # an empty frame header
        (b"\xff\xd8\xff\xe0\x00\x00\xff\xd9", "no usable frame header"),  # a segment of no length would not advance
        (b"\xff\xd8\xff\xe0\xff\xff\xff\xd9", "no usable frame header"),  # a segment that ends behind the file
        (b"GIF89a" + jpeg()[6:], "not a JPEG"),
    ],
)
def test_what_is_no_usable_jpeg_is_refused(picture, message):
    with pytest.raises(UnusableError, match=message):
        jpeg_size(picture)


def test_the_limit_itself_is_allowed():
    assert jpeg_size(with_size(jpeg(), width=4000, height=MAX_PIXELS // 4000)) == (4000, 4000)


@given(st.binary(max_size=400), st.integers(2, 300))
def test_any_bytes_are_judged_without_a_crash(noise, cut):
    """Law: nothing but our own errors, whatever the bytes; also behind a believable beginning."""
    for picture in (noise, jpeg()[:cut] + noise + b"\xff\xd9"):
        try:
            width, height = jpeg_size(picture)
        except WeakspotError:
            continue
        assert 0 < width * height <= MAX_PIXELS


def test_a_picture_is_held_against_its_finding():
    picture = jpeg(1)
    sha256 = hashlib.sha256(picture).digest()
    require_jpeg(picture, width=WIDTH, height=HEIGHT, sha256=sha256)
    with pytest.raises(UntrustedError, match="the finding says 65x48"):
        require_jpeg(picture, width=65, height=HEIGHT, sha256=sha256)
    with pytest.raises(UntrustedError, match="SHA-256"):
        require_jpeg(picture, width=WIDTH, height=HEIGHT, sha256=bytes(32))
