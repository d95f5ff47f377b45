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
from edge.contract.jpeg import MAX_PIXELS, MAX_SCANS, jpeg_size
from hub.images import require_jpeg
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


def before_the_frame(picture: bytes, marker: int, body: bytes | None = None) -> bytes:
    """The same JPEG with one more marker, alone or with a body, in front of everything else."""
    more = bytes([0xFF, marker])
    if body is not None:
        more += struct.pack(">H", len(body) + 2) + body
    return picture[:2] + more + picture[2:]


def hidden_frame(marker: int) -> bytes:
    """A JPEG bomb: a decoder steps over `marker` alone; who reads a length there lands on the small frame header."""
    small = jpeg()
    at = small.index(b"\xff\xc0")
    frame = small[at : at + 2 + int.from_bytes(small[at + 2 : at + 4], "big")]
    bomb = with_size(small, width=30000, height=30000)
    start = 0xFFC0  # the length that the bomb's own frame header spells when it is taken for one
    comment = b"\xff\xfe" + struct.pack(">H", 0xFFF0) + bytes(0xFFEE)
    rest = bomb[:2] + bytes([0xFF, marker]) + bomb[at : at + len(frame)] + comment
    behind = 4 + start
    return rest[:behind] + frame + rest[behind + len(frame) :] + bomb[2:at] + bomb[at + len(frame) :]


def second_frame() -> bytes:
    """A JPEG with a large frame header behind its small one."""
    small = jpeg()
    at = small.index(b"\xff\xc0")
    frame = small[at : at + 2 + int.from_bytes(small[at + 2 : at + 4], "big")]
    large = with_size(small, width=30000, height=30000)[at : at + len(frame)]
    return small[: at + len(frame)] + large + small[at + len(frame) :]


def scans(count: int, *, progressive: bool) -> bytes:
    """A JPEG of so many scans, all but the first empty: ten bytes make a decoder go through all its pixels again."""
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if progressive else []
    picture = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8), flags)[1].tobytes()
    more = count - picture.count(b"\xff\xda")
    if not progressive:
        at = picture.index(b"\xff\xda")
        picture = picture[:at] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + picture[-2:]
    return picture[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * more + b"\xff\xd9"


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
        (with_size(jpeg(), width=16385, height=48), "a side may have 16384"),  # more than a finding can say
        (with_size(jpeg(), width=0, height=48), "0x48"),  # no pixels
        (with_marker(jpeg(), 0xC3), "no usable frame header"),  # lossless
        (with_marker(jpeg(), 0xC9), "no usable frame header"),  # arithmetic coding
        (with_marker(jpeg(), 0xDA), "no usable frame header"),  # the scan before the frame
        (segments(300), "no usable frame header"),  # a loop of millions of segments would cost seconds
        (b"\xff\xd8\xff\xc0\x00\x02\xff\xd9", "not 8-bit"),  # an empty frame header
        (b"\xff\xd8\xff\xe0\x00\x00\xff\xd9", "no usable frame header"),  # a segment of no length would not advance
        (b"\xff\xd8\xff\xe0\xff\xff\xff\xd9", "no usable frame header"),  # a segment that ends behind the file
        (b"GIF89a" + jpeg()[6:], "not a JPEG"),
        (hidden_frame(0x01), "no usable frame header"),  # TEM: a marker without a length
        *[(hidden_frame(marker), "no usable frame header") for marker in range(0xD0, 0xD8)],  # RST0 to RST7
        *[(before_the_frame(jpeg(), marker), "no usable frame header") for marker in (0x01, 0xD0, 0xD7, 0xD8)],
        *[(before_the_frame(jpeg(), marker, b"12"), "no usable") for marker in (0x02, 0xC8, 0xCC, 0xDC, 0xDE, 0xF0)],
        (second_frame(), "no usable scan"),
        (scans(MAX_SCANS + 1, progressive=True), "21 scans"),  # an hour in a decoder, at 16 MP and 800 000 scans
        (scans(MAX_SCANS + 1, progressive=False), "21 scans"),  # the same, one colour a scan
        (jpeg()[: jpeg().index(b"\xff\xda")] + b"\xff\xd9", "no usable scan"),  # only headers
    ],
)
def test_what_is_no_usable_jpeg_is_refused(picture, message):
    with pytest.raises(UnusableError, match=message):
        jpeg_size(picture)


def test_the_limit_itself_is_allowed():
    assert jpeg_size(with_size(jpeg(), width=4000, height=MAX_PIXELS // 4000)) == (4000, 4000)


@pytest.mark.parametrize("progressive", [True, False])
def test_a_few_scans_are_allowed(progressive):
    assert jpeg_size(scans(MAX_SCANS, progressive=progressive)) == (64, 48)


@pytest.mark.parametrize("marker", [0xC4, 0xDB, 0xDD, 0xFE, 0xE0, 0xE1, 0xEF])
def test_what_stands_before_a_frame_is_allowed(marker):
    assert jpeg_size(before_the_frame(jpeg(), marker, b"any")) == (WIDTH, HEIGHT)


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
