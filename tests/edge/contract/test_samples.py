"""The wire: what goes in comes out, and nothing else gets in."""

import contextlib
import json
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import WeakspotError
from edge.contract.samples import (
    MAGIC,
    MAX_BOXES,
    MAX_HEADER_BYTES,
    Box,
    Finding,
    FrameHeader,
    Light,
    Reason,
    WitnessKind,
    decode_event,
    decode_frame,
    encode_event,
    encode_frame,
    is_event_id,
    plain_text,
)
from tests.edge.contract.strategies import findings

EXAMPLE = Finding(
    event_id="0" * 32,
    site="home",
    device="pi-1",
    camera="door",
    sequence=7,
    captured_at_ms=1_700_000_000_000,
    reason=Reason.MISSED,
    severity=0.8,
    region=(10.0, 20.0, 30.0, 60.0),
    label="person",
    boxes=(Box((10.0, 20.0, 30.0, 60.0), "person", 0.8, WitnessKind.GAP),),
    witnesses=(),
    tags=("dark",),
    width=640,
    height=480,
    crop_hash="a" * 64,
    frame_hash="b" * 64,
    features=b"\x01\xff",
    light=Light(brightness=80.0, contrast=20.0, noise=2.0, sharpness=100.0),
    model="starter-1",
    frame_bytes=4,
    frame_sha256="c" * 64,
)


def payload(header: bytes, body: bytes = b"") -> bytes:
    return MAGIC + struct.pack(">I", len(header)) + header + body


def changed(**fields: object) -> bytes:
    """The example's header with some fields replaced, as raw JSON."""
    raw = json.loads(msgspec.json.encode(EXAMPLE))
    raw.update(fields)
    return payload(json.dumps(raw).encode())


def without_schema() -> bytes:
    raw = json.loads(msgspec.json.encode(EXAMPLE))
    del raw["schema"]
    return payload(json.dumps(raw).encode())


@given(findings(), st.booleans())
def test_what_goes_in_comes_out(finding: Finding, with_frame: bool) -> None:
    jpeg = b"x" * finding.frame_bytes if with_frame else b""
    assert decode_event(encode_event(finding, jpeg)) == (finding, jpeg)


@given(findings())
def test_an_ordinary_finding_is_small(finding: Finding) -> None:
    assert len(encode_event(finding)) < MAX_HEADER_BYTES


@given(st.binary(max_size=300))
def test_a_decoder_raises_our_errors_only(noise: bytes) -> None:
    for decode in (decode_event, decode_frame):
        for bytes_ in (noise, payload(noise), MAGIC + noise):
            with pytest.raises(WeakspotError):
                decode(bytes_)


@given(findings(), st.data())
def test_a_damaged_payload_is_read_or_refused_never_worse(finding: Finding, data: st.DataObject) -> None:
    good = bytearray(encode_event(finding))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WeakspotError):
        decode_event(bytes(good))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"", "too short"),
        (b"JUNK\0\0\0\x02{}", "magic"),  # not ours
        (MAGIC + struct.pack(">I", 10_000_000) + b"{}", "limit"),  # a header that claims 10 MB
        (MAGIC + struct.pack(">I", 100) + b"{}", "ends inside"),  # cut off
        (payload(b"{}"), "schema"),
        (payload(b"[" * 5000), "not valid"),  # nested until the stack ends
        (payload(b'{"schema": 1, "event_id": "\xff\xfe"}'), "not valid"),  # not UTF-8
        (changed(schema=2), "speaks 1"),  # from the future
        (changed(event_id="../../etc/passwd"), "matching regex"),
        (changed(event_id="0" * 32 + "\n"), "matching regex"),  # a pattern must hold to the very end
        (changed(site="a/b"), "matching regex"),  # would be two topic levels
        (changed(reason="because"), "Invalid enum"),
        (changed(severity=1.5), "<= 1.0"),
        (changed(severity=float("nan")), "not valid"),  # NaN is no JSON
        (changed(region=[0, 0, 1e999, 5]), "not"),  # infinity by overflow
        (changed(region=[30, 20, 10, 60]), "in order"),  # corners swapped
        (changed(region=[700, 20, 710, 60]), "outside"),  # beside the frame
        (changed(boxes=[{"xyxy": [1, 1, 2, 2], "label": "x", "score": 0.5}] * (MAX_BOXES + 1)), "length"),
        (changed(width=100_000), "<= 16384"),
        (changed(frame_bytes=10**9), "<="),
        (changed(sequence=2**53), "<="),  # no JSON reader keeps it, and 2**63 no database
        (changed(captured_at_ms=10**30), "<="),
        (without_schema(), "schema"),
    ],
)
def test_a_bad_event_says_why(bad: bytes, says: str) -> None:
    with pytest.raises(WeakspotError, match=says):
        decode_event(bad)


@pytest.mark.parametrize("text", ["", "traffic light", "<&>", "Ünï 🚶", "歩行者", "'"])
def test_what_a_person_can_read_is_a_text(text: str) -> None:
    assert decode_event(changed(label=text, tags=[text], model=text))[0].label == text
    assert plain_text(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("person ", "person"),
        (" person", "person"),
        (" ", ""),
        ("person\n", "person"),
        ("traffic\u00a0light", "traffic light"),  # no other space
        ("\x1b[31mperson", "[31mperson"),  # would colour the terminal
        ("a\x00b", "a b"),
        ("a\x85\u2028b", "a b"),  # ends a line
        ("\u202enosrep", "nosrep"),  # turns the text around
        ("per\u200bson", "per son"),  # cannot be seen
        ("x" * 65, "x" * 64),
        ("x" * 63 + " x", "x" * 63),
    ],
)
def test_a_text_that_could_not_be_shown_is_refused(text: str, plain: str) -> None:
    for fields in ({"label": text}, {"tags": [text]}, {"model": text}, {"boxes": [box(text)]}):
        with pytest.raises(WeakspotError, match=r"regex|length"):
            decode_event(changed(**fields))
    assert plain_text(text) == plain


def box(label: str) -> dict[str, object]:
    return {"xyxy": [1, 1, 2, 2], "label": label, "score": 0.5}


@given(st.text(max_size=100))
def test_plain_text_makes_a_text(text: str) -> None:
    plain = plain_text(text)
    assert decode_event(changed(label=plain))[0].label == plain == plain_text(plain)


def test_a_frame_that_does_not_match_its_header_is_untrusted() -> None:
    with pytest.raises(WeakspotError, match="header says 4"):
        decode_event(encode_event(EXAMPLE, b"12345"))


def test_a_header_over_its_limit_is_not_sent() -> None:
    huge = msgspec.structs.replace(EXAMPLE, features=bytes(MAX_HEADER_BYTES))
    with pytest.raises(WeakspotError, match="limit"):
        encode_event(huge)


@given(st.integers(0, 1000), st.binary(min_size=1, max_size=50))
def test_frame_parts_round_trip(offset: int, part: bytes) -> None:
    header = FrameHeader(event_id="1" * 32, size=offset + len(part), sha256="d" * 64, offset=offset)
    assert decode_frame(encode_frame(header, part)) == (header, part)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (FrameHeader(event_id="1" * 32, size=10, sha256="d" * 64, offset=8), b"abc"),  # runs over the end
        (FrameHeader(event_id="1" * 32, size=10, sha256="d" * 64), b""),  # nothing, and not said to be gone
    ],
)
def test_a_part_that_does_not_fit_is_refused(header: FrameHeader, part: bytes) -> None:
    with pytest.raises(WeakspotError, match="does not fit"):
        decode_frame(encode_frame(header, part))


def test_gone_needs_no_part() -> None:
    header = FrameHeader(event_id="1" * 32, size=0, sha256="", gone="evicted")
    assert decode_frame(encode_frame(header)) == (header, b"")


def test_event_ids() -> None:
    assert is_event_id("0123456789abcdef" * 2)
    assert not is_event_id("0123456789ABCDEF" * 2)
    assert not is_event_id("0" * 31)
