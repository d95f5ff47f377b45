"""A device that dies at a chosen file operation of an update: by SIGKILL, or with the power of its disk.

`python -m tests.edge.updating.dying_device` reads a JSON object a line, runs each in a process of its own, and answers
with a line: what that process was about to do when it died, or all that it did. Fetching, verifying and unpacking are
the real ones; cameras, the broker and models stand in. Nothing in the product knows of it: the interpreter's own
profile hook sees each call that changes the disk.
"""

import fcntl
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from edge.config import EdgeConfig
from edge.contract.card import read_card
from edge.unpacking import require_files
from edge.updating import updater
from tests.edge.test_spool_crash import FS_IOC_SHUTDOWN, NO_LOG_FLUSH
from tests.edge.updating.stand_ins import Device, Repository, device_config, order_of, standing_in

POSIX = {"fsync", "rename", "replace", "mkdir", "unlink", "rmdir"}


class Tripwire:
    """Counts what changes the disk, and ends the process before operation `at`; None never."""

    def __init__(self, at: int | None, mount: str) -> None:
        self.at, self.mount = at, mount
        self.done: list[str] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event != "c_call":
            return
        owner = getattr(arg, "__self__", None)
        if isinstance(owner, io.FileIO | io.BufferedWriter) and arg.__name__ == "write":
            what = f"write to {Path(str(owner.name)).name}"
        elif getattr(owner, "__name__", "") == "posix" and arg.__name__ in POSIX:
            what = f"{arg.__name__} in {Path(frame.f_code.co_filename).name}"
        else:
            return
        if len(self.done) == self.at:
            sys.setprofile(None)
            self.die(what)
        self.done.append(what)

    def die(self, what: str) -> None:
        os.write(1, json.dumps(what).encode() + b"\n")
        if self.mount:
            fd = os.open(self.mount, os.O_RDONLY)
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, NO_LOG_FLUSH)
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def real_arrival(folder: Path) -> Iterator[list[Path]]:
    """Stand in for all but what brings a release in. Yields the models that were opened; each was whole then."""
    opened: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        open_fetcher = updater.open_fetcher
        with standing_in(patch, Repository(folder)):
            patch.setattr(updater, "open_fetcher", open_fetcher)
            open_slot = updater.open_slot

            def open_whole(config: EdgeConfig, path: Path | None) -> object:
                if path is not None:
                    require_files(path, read_card(path / "model.json"), {})
                    opened.append(path)
                return open_slot(config, path)

            patch.setattr(updater, "open_slot", open_whole)
            yield opened


def run(asked: dict[str, Any]) -> None:
    """Follow an order to its end, or die on the way."""
    folder = Path(asked["folder"])
    root = bytes.fromhex(asked["root"])
    config = device_config(folder, data_dir=Path(asked["data_dir"]), url=asked["url"], root=root)
    with real_arrival(folder):
        device = Device(config)
        device.order(order_of(1))
        wire = Tripwire(asked["at"], asked["mount"])
        sys.setprofile(wire)
        last = device.run()
        sys.setprofile(None)
    assert last.phase == "confirmed", last
    os.write(1, json.dumps(wire.done).encode() + b"\n")


def main() -> None:
    """Serve until the input ends. This process has one thread, so that it may fork."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with redirect_stdout(sys.stderr):
                run(json.loads(line))
            os._exit(0)
        os.waitpid(child, 0)
        os.write(1, b"\n")


if __name__ == "__main__":
    main()
