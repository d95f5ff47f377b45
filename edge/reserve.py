"""A file that holds disk space, given up when the disk is full so that the spool can clear itself.

SQLite in WAL mode needs free space even to delete. A full disk would therefore be full for ever.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Reserve:
    """`size_bytes` of real disk space beside the spool. Owns its file, nothing else."""

    path: Path
    size_bytes: int

    @property
    def held(self) -> bool:
        """Whether the whole space is set aside."""
        try:
            return self.path.stat().st_size >= self.size_bytes
        except OSError:
            return False

    def hold(self) -> bool:
        """Set the space aside. Returns False, and takes nothing, where the disk has no room for it."""
        if self.held:
            return True
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, self.size_bytes)
            finally:
                os.close(fd)
        except OSError:
            self.release()
            return False
        return True

    def regain(self) -> None:
        """Set the space aside again where the disk has room for twice as much, and is there at all."""
        with contextlib.suppress(OSError):
            if self.free_bytes() > 2 * self.size_bytes:
                self.hold()

    def release(self) -> None:
        """Give the space back to the disk, where it takes that."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def free_bytes(self) -> int:
        """Return what the disk has left for this user, the reserve not included. Raises `OSError`."""
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize
