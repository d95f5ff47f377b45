"""What a device has seen survives a power cut. Needs root: cuts the power of a disk of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from edge.contract.errors import UnusableError
from edge.updating.fetching import Fetcher
from tests.edge.test_spool_crash import Disk
from tests.edge.updating.lying import NOW_S, MadeRepository, write_files


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def states(tmp_path: Path) -> tuple[bytes, str, str]:
    """The trusted root, and two states of a repository: as it was, and as it is."""
    made = MadeRepository()
    made.add_release(1, b"one")
    made.publish()
    before = write_files(made.files, tmp_path / "before")
    made.publish()
    return made.trusted, before, write_files(made.files, tmp_path / "now")


def test_a_power_cut_does_not_make_an_older_state_acceptable(disk: Disk, states: tuple[bytes, str, str]) -> None:
    root, before, now = states
    models = disk.mount / "models"
    fetcher = Fetcher(models, now, root, clock=lambda: NOW_S)
    path = fetcher.fetch("street/000001.tar")
    disk.cut_power()
    disk.power_on()
    with pytest.raises(UnusableError, match="must be >= 3"):
        Fetcher(models, before, root, clock=lambda: NOW_S).refresh()
    assert path.read_bytes() == b"one", "what was handed out is on the disk"
    assert (models / "tuf" / "newest-time").read_text() == f"{int(NOW_S)}\n"
    Fetcher(models, now, root, clock=lambda: NOW_S).refresh()


def test_without_the_syncing_it_would(disk: Disk, states: tuple[bytes, str, str]) -> None:
    """The control: tuf as it comes forgets what it had accepted, and an older state is taken."""
    root, before, now = states
    models = disk.mount / "models"
    (models / "tuf").mkdir(parents=True)
    Fetcher(disk.mount / "other", now, root, clock=lambda: NOW_S).refresh()  # the folder itself is on the disk
    plain = Updater(str(models / "tuf"), "unused", bootstrap=root)
    for role in ("timestamp", "snapshot", "targets"):
        plain._persist_metadata(role, (disk.mount / "other" / "tuf" / f"{role}.json").read_bytes())
    disk.cut_power()
    disk.power_on()
    Fetcher(models, before, root, clock=lambda: NOW_S).refresh()
