"""An update that ends at each of its file operations: by SIGKILL, and by a power cut of a real ext4 (needs root).

Inside the download, inside the unpacking, between any two files, before and after each rename and each flush. The
next start serves the old model, goes on, and ends confirmed; no half of a release is ever opened.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.slot_state import faults
from edge.slots import SlotStore, broken_slots
from tests.edge.test_slots import names
from tests.edge.test_spool_crash import Disk, disk  # noqa: F401
from tests.edge.updating.dying_device import real_arrival
from tests.edge.updating.stand_ins import Device, device_config, order_of
from tests.hub.signed import MadeRepository, made_repository, small_model

ROOT = Path(__file__).resolve().parents[3]
EVERY = 4  # kills one in so many; without power it ends at each

Die = Callable[..., str | list[str]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> MadeRepository:
    """One release whose file is written in several pieces."""
    folder = tmp_path_factory.mktemp("releases")
    model = small_model(folder / "starter-2", name="starter", release="starter-2", content="weights" * 400_000)
    (model / "NOTICE").write_bytes(b"a file that no card names\n" * 100)
    assert (model / "starter.onnx").stat().st_size > 2 << 20
    return made_repository(folder / "repository", model)


@pytest.fixture
def die(tmp_path: Path, repository: MadeRepository) -> Iterator[Die]:
    """Let a device die at an operation, and return what that was; all operations where none is named."""
    command = [sys.executable, "-m", "tests.edge.updating.dying_device"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as server:

        def run(data_dir: Path, *, at: int | None, mount: Path | None = None) -> str | list[str]:
            asked = {
                "folder": str(tmp_path),
                "data_dir": str(data_dir),
                "url": f"file://{repository.folder}",
                "root": repository.root.hex(),
                "at": at,
                "mount": str(mount or ""),
            }
            server.stdin.write(json.dumps(asked) + "\n")
            server.stdin.flush()
            answer = server.stdout.readline()
            assert answer.strip(), "it died of something else"
            assert server.stdout.readline() == "\n"
            return json.loads(answer)

        yield run
        server.stdin.close()


def worth_dying_at(done: list[str]) -> list[int]:
    """Return each operation but for the repeated writes to one file, of which the first, second and last are taken."""
    chosen = []
    for n, what in enumerate(done):
        alike = [k for k, other in enumerate(done) if other == what] if what.startswith("write") else [n]
        if n in {*alike[:2], alike[-1]}:
            chosen.append(n)
    return chosen


def goes_on(tmp_path: Path, repository: MadeRepository, data_dir: Path, at: str) -> None:
    """Start again on what was left, and see it through."""
    folder = data_dir / "models"
    assert list(broken_slots(folder, "starter")) == [], at
    config = device_config(tmp_path, data_dir=data_dir, url=f"file://{repository.folder}", root=repository.root)
    with real_arrival(tmp_path) as opened:
        again = Device(config)
        assert faults(again.store.slots) == [], at
        work = again.store.slots.work
        proved = work is not None and work.phase in {"trial", "confirmed"}
        assert again.detection.serving.number == again.store.slots.active == int(proved), at
        again.order(order_of(1))
        last = again.run()
        assert (last.phase, last.serving) == ("confirmed", "starter-2"), at
        assert again.detection.serving.number == 1, at
    assert set(opened) <= {folder / "000001"}, at
    assert names(folder) == {"slots.json", "000001", "tuf", "downloads"}, at
    assert list((folder / "downloads").iterdir()) == [], at
    assert list(broken_slots(folder, "starter")) == [], at
    assert SlotStore(folder, "starter").slots.active == 1, at


def test_killed_at_a_file_operation_it_goes_on(tmp_path: Path, die: Die, repository: MadeRepository) -> None:
    done = die(tmp_path / "whole", at=None)
    assert isinstance(done, list)
    assert sum("write to" in what and "tar.part" in what for what in done) > 30, "it comes in pieces"
    assert sum(what == "write to starter.onnx" for what in done) >= 3, "it is unpacked in pieces"
    chosen = worth_dying_at(done)
    for n in chosen[random.randrange(EVERY) :: EVERY]:
        data_dir = tmp_path / f"data-{n}"
        at = f"operation {n}: {die(data_dir, at=n)}"
        goes_on(tmp_path, repository, data_dir, at)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_power_at_any_file_operation_it_goes_on(
    tmp_path: Path,
    die: Die,
    repository: MadeRepository,
    disk: Disk,  # noqa: F811
) -> None:
    done = die(disk.mount / "whole", at=None)
    assert isinstance(done, list)
    for n in worth_dying_at(done):
        data_dir = disk.mount / "data"
        data_dir.mkdir()
        at = f"operation {n}: {die(data_dir, at=n, mount=disk.mount)}"
        disk.power_on()
        data_dir.mkdir(exist_ok=True)
        goes_on(tmp_path, repository, data_dir, at)
        for path in sorted(data_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        data_dir.rmdir()
