"""A disk of some pages, to be filled: a tmpfs of its own. Needs root; a test without it is skipped by name."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = 4096


class SmallDisk:
    """A mounted disk; `leave` fills it but for some pages."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self._filler = mount / "filler"

    def leave(self, pages: int) -> None:
        """Fill the disk so that so many pages are free."""
        self.free()
        room = os.statvfs(self.mount).f_bavail - pages
        assert room >= 0, "the disk is too small for the test"
        with self._filler.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, max(1, room * PAGE))
        assert os.statvfs(self.mount).f_bavail <= pages

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(mount: Path, *, size: str) -> Iterator[SmallDisk]:
    """Mount a disk at a folder that is made; `size` as in mount(8)."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small disk")
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=10k", "tmpfs", mount]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"cannot mount here: {made.stderr.decode().strip()}")
    try:
        yield SmallDisk(mount)
    finally:
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
