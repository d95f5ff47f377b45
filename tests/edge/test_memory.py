"""The memory of what was reported, on a real disk: whole, of one model, never in the way of a start."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.contract.errors import UnusableError
from edge.memory import EVERY_S, Memory, open_memory
from edge.places import KnownPlaces

BOX = (100.0, 50.0, 140.0, 130.0)
NOW_MS = 1_800_000_000_000


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make_memory(
    folder: Path, *, model: str = "street-1", camera: str = "front", clock: Callable[[], float] = time.monotonic
):
    places = KnownPlaces(quiet_s=3600.0)
    return Memory(folder, model=model, cameras={camera: {"still": places}}, clock=clock), places


def write_one(folder: Path) -> None:
    memory, places = make_memory(folder)
    places.remember(BOX, 2, now_ms=NOW_MS)
    memory.save()


@pytest.mark.parametrize(
    ("model", "camera", "known"),
    [
        ("street-1", "front", True),
        ("street-2", "front", False),  # another release: its class 2 may be another thing
        ("street-1", "yard", False),  # another camera
    ],
)
def test_what_was_saved_is_known_after_a_restart(tmp_path: Path, model: str, camera: str, known: bool) -> None:
    write_one(tmp_path)
    memory, places = make_memory(tmp_path, model=model, camera=camera)
    memory.load()
    assert places.is_known(BOX, 2, now_ms=NOW_MS) is known


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    memory, places = make_memory(tmp_path)
    memory.load()
    assert len(places) == 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    "breaks",
    [
        lambda path: path.write_bytes(b""),  # what a power cut leaves where nobody syncs
        cut,
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"schema":1', b'"schema":2')),
        lambda path: path.write_bytes(path.read_bytes().replace(b"140.0", b"-40.0")),  # no box
        lambda path: path.write_bytes(path.read_bytes().replace(b"at_ms", b"at_os")),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_broken_file_is_an_error_and_leaves_nothing_known(tmp_path: Path, breaks: Callable[[Path], object]) -> None:
    write_one(tmp_path)
    breaks(tmp_path / "memory.json")
    memory, places = make_memory(tmp_path)
    with pytest.raises(UnusableError, match=r"memory\.json"):
        memory.load()
    assert len(places) == 0


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_bytes(b"broken")
    write_one(tmp_path)
    memory, places = make_memory(tmp_path)
    memory.load()
    assert places.is_known(BOX, 2, now_ms=NOW_MS)
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]


def test_it_is_written_when_it_changed_and_not_with_every_heartbeat(tmp_path: Path) -> None:
    def inode() -> int:
        return (tmp_path / "memory.json").stat().st_ino

    clock = Clock()
    memory, places = make_memory(tmp_path, clock=clock)
    memory.save_if_due()
    first = inode()
    places.remember(BOX, 2, now_ms=NOW_MS)
    clock.now_s += EVERY_S / 2
    memory.save_if_due()
    assert inode() == first, "not yet"
    os.link(tmp_path / "memory.json", tmp_path / "held")  # so that its inode is not given out again
    clock.now_s += EVERY_S / 2
    memory.save_if_due()
    second = inode()
    assert second != first
    memory.save()
    assert inode() == second, "nothing changed"


def test_a_folder_that_cannot_be_written_is_asked_again_later(tmp_path: Path) -> None:
    clock = Clock()
    memory, places = make_memory(tmp_path / "gone", clock=clock)
    places.remember(BOX, 2, now_ms=NOW_MS)
    with pytest.raises(OSError, match="gone"):
        memory.save_if_due()
    memory.save_if_due()  # not yet
    (tmp_path / "gone").mkdir()
    clock.now_s += EVERY_S
    memory.save_if_due()
    assert (tmp_path / "gone" / "memory.json").is_file()


def test_a_start_tells_of_a_broken_file_and_goes_on(tmp_path: Path, caplog) -> None:
    (tmp_path / "memory.json").write_bytes(b"broken")
    places = KnownPlaces(quiet_s=3600.0)
    with caplog.at_level(logging.WARNING, logger="edge.memory"):
        memory = open_memory(tmp_path, model="street-1", cameras={"front": {"still": places}})
    assert "memory.json cannot be used" in caplog.text
    places.remember(BOX, 2, now_ms=NOW_MS)
    memory.save()
    again = KnownPlaces(quiet_s=3600.0)
    open_memory(tmp_path, model="street-1", cameras={"front": {"still": again}})
    assert again.dump() == places.dump()
