"""A disk that fills up at any step of a command: one line, exit status 2, and a repository that devices accept."""

import io
import shutil
import sys

import pytest

from edge.updating.fetching import Fetcher
from hub.cli import main
from hub.release import releases
from hub.repository import read_repository
from tests.hub.signed import small_model
from tests.hub.small_disks import small_disk

MOST_PAGES = 60


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", size="2m") as made:
        yield made


@pytest.fixture
def hub(monkeypatch, disk, capsys):
    """Run `hub` in a folder on the small disk; return exit status, stdout and stderr."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def run(place, *words):
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["hub", *map(str, words)])
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def device_sees(place, cache, root):
    """Be a device: refresh, and say which releases of the line are signed."""
    fetcher = Fetcher(cache, (place / "repository").as_uri(), root)
    fetcher.refresh()
    found = fetcher._trusted._updater._trusted_set.targets.targets
    for name in found:
        fetcher.fetch(name)
    return sorted(found)


def kept(folder):
    """Return every file that a device may be sent, with the size of it."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


COMMANDS = [
    # what is run, and the releases that devices see when it is done
    (("release", "create", "../../next", "--ungated", "a test"), 2),
    (("repository", "refresh"), 1),
    (("keys", "promote", "--to", "real", "--no-passphrase"), 1),
    (("keys", "renew"), 1),
    (("repository", "bundle", "out.tar"), 1),
]


@pytest.mark.parametrize(
    ("words", "count"), COMMANDS, ids=lambda one: " ".join(one[:2]) if isinstance(one, tuple) else ""
)
def test_a_disk_that_is_full_at_any_step(hub, disk, tmp_path, words, count):
    start = tmp_path / "start"
    start.mkdir()
    small_model(tmp_path / "model")
    small_model(tmp_path / "next", release="yard-2", content="2")
    assert hub(start, "keys", "init", "--development")[0] == 0
    assert hub(start, "release", "create", "../model", "--ungated", "to try it")[0] == 0
    root = (start / "repository" / "metadata" / "root.json").read_bytes()
    device_sees(start, tmp_path / "cache", root)
    for pages in range(MOST_PAGES):
        place = disk.mount / "place"
        shutil.rmtree(place, ignore_errors=True)
        disk.free()
        shutil.copytree(start, place)
        disk.leave(pages)
        status, out, err = hub(place, *words)
        if status == 0:
            assert pages, "no step was reached where the disk was full"
            break
        assert (status, out, err.count("\n")) == (2, "", 1), (pages, out, err)
        assert "No space left on device" in err, (pages, err)
        cache, new = tmp_path / f"cache-{pages}", tmp_path / f"new-{pages}"
        shutil.copytree(tmp_path / "cache", cache)
        for one in (cache, new):
            assert len(device_sees(place, one, root)) <= count
        seen = {target.target for target in releases(read_repository(place / "repository"))}
        assert len(list((place / "repository" / "targets").glob("*/*.tar"))) == len(seen), (
            "a file of no release is left"
        )
        disk.free()
        status, out, err = hub(place, *words)
        assert status == 0, (pages, err)
        if words[0] == "keys" and words[1] == "promote":
            assert "DEVELOPMENT" not in out
        for one in (cache, new):
            assert len(device_sees(place, one, root)) == count
        assert not [path for path in place.rglob(".*") if path.name != ".lock"], "something half written is left"
    else:
        pytest.fail("it never came to its end")
