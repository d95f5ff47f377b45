"""Room taken beforehand: what is kept in it stands, whatever a cut leaves of a later write."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.slot_spare import HALF_BYTES, keep, kept_over, take_room
from tests.edge.test_slots import fill, small_disk  # noqa: F401

FILE = b'{"active": 12}'


@pytest.fixture
def spare(tmp_path: Path) -> Path:
    take_room(tmp_path / "spare")
    return tmp_path / "spare"


def test_what_is_kept_stands_for_the_file_it_was_written_over(spare: Path) -> None:
    assert kept_over(spare, FILE) is None
    keep(spare, b"first", over=FILE)
    assert kept_over(spare, FILE) == b"first"
    keep(spare, b"second\n, of two lines", over=FILE)
    assert kept_over(spare, FILE) == b"second\n, of two lines"
    assert kept_over(spare, FILE + b" ") is None, "the file was written since"
    keep(spare, b"", over=FILE + b" ")
    assert kept_over(spare, FILE + b" ") == b""
    assert kept_over(spare.with_name("gone"), FILE) is None
    assert spare.stat().st_size == 2 * HALF_BYTES


@given(before=st.binary(max_size=300), after=st.binary(max_size=300), cut=st.integers(0, 600), noise=st.binary())
def test_a_write_that_is_cut_leaves_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes, cut: int, noise: bytes
) -> None:
    """Of the second write the first `cut` bytes reach the disk, and behind them whatever was or comes there."""
    path = tmp_path_factory.getbasetemp() / "cut"
    path.unlink(missing_ok=True)
    take_room(path)
    keep(path, before, over=FILE)
    old = path.read_bytes()
    keep(path, after, over=FILE)
    new = path.read_bytes()
    half = HALF_BYTES  # the first went into the first half
    noise = noise[: HALF_BYTES - cut]
    path.write_bytes(new[: half + cut] + noise + old[half + cut + len(noise) :])
    assert kept_over(path, FILE) in {before, after}
    if cut == 0 and not noise:
        assert kept_over(path, FILE) == before


@pytest.mark.parametrize(
    "content", [b"", b"\n" * 10, os.urandom(2 * HALF_BYTES), b"1 x y z\n", b"1 5 \xff \xff\nstate"]
)
def test_nonsense_keeps_nothing_and_may_be_written_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spare"
    path.write_bytes(content)
    assert kept_over(path, FILE) is None
    take_room(path)
    keep(path, b"state", over=FILE)
    assert kept_over(path, FILE) == b"state"


def test_it_needs_no_room_on_a_full_disk(small_disk) -> None:  # noqa: F811
    path = small_disk("size=2m") / "spare"
    take_room(path)
    fill(path.parent)
    with pytest.raises(OSError, match="No space left"):
        (path.parent / "other").write_bytes(b"state")
    for n in range(3):
        keep(path, b"state %d" % n, over=FILE)
    assert kept_over(path, FILE) == b"state 2"


def test_what_has_no_room_is_refused_and_leaves_what_was(spare: Path) -> None:
    keep(spare, b"state", over=FILE)
    with pytest.raises(OSError, match="too large"):
        keep(spare, bytes(HALF_BYTES), over=FILE)
    with pytest.raises(OSError, match="No such file"):
        keep(spare.with_name("gone"), b"state", over=FILE)
    assert kept_over(spare, FILE) == b"state"
