"""The signed repository, as tuf's own client sees it: also when its writer is killed at any place."""

import os
import signal
import sys
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from edge.contract.errors import UnusableError
from edge.contract.release import from_custom
from hub.bundle import bundle
from hub.keys import Ring
from hub.release import create_release
from hub.repository import (
    DEVELOPMENT,
    clock_faults,
    is_repository,
    make_repository,
    next_version,
    read_repository,
    refresh,
    renew,
    replace_keys,
    short_ends,
    writing,
)
from tests.hub.signed import add_release, made_keys, made_repository, small_model

NOW = datetime.now(UTC).replace(microsecond=0)


class FolderFetcher(FetcherInterface):
    """Reads the folder as it lies there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url):
        path = self.folder / url.removeprefix("folder:/")
        if not path.is_file():
            raise DownloadHTTPError(url, 404)
        yield path.read_bytes()


def look(repository: Path, cache: Path, root: bytes) -> dict[str, int]:
    """Be a device: refresh, fetch every release into its cache, and return the lengths by target."""
    cache.mkdir(exist_ok=True)
    updater = Updater(
        str(cache),
        "folder:/metadata/",
        str(cache),
        "folder:/targets/",
        fetcher=FolderFetcher(repository),
        bootstrap=root,
    )
    updater.refresh()
    names = updater._trusted_set.targets.targets
    got = {}
    for name in names:
        info = updater.get_targetinfo(name)
        release = from_custom(info.custom)
        assert name == f"{release.model}/{release.number:06d}.tar"
        path = updater.find_cached_target(info) or updater.download_target(info)
        got[name] = Path(path).stat().st_size
    return got


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three releases of one line."""
    folder = tmp_path_factory.mktemp("models")
    return [small_model(folder / f"model-{n}", release=f"yard-{n}", content=f"onnx {n}") for n in range(3)]


def test_what_was_made_is_what_a_client_gets(tmp_path, models):
    made = made_repository(tmp_path / "r", *models[:2])
    got = look(made.folder, tmp_path / "cache", made.root)
    assert sorted(got) == ["yard/000001.tar", "yard/000002.tar"]
    add_release(made, models[2])
    assert len(look(made.folder, tmp_path / "cache", made.root)) == 3
    found = read_repository(made.folder)
    assert found.targets.signed.version == found.published.signed.version
    assert not found.development
    assert not short_ends(found, now=NOW)


def test_a_repository_is_made_once(tmp_path):
    made = made_repository(tmp_path / "r")
    roles, ring = made_keys()
    with pytest.raises(UnusableError, match="is a repository already"):
        make_repository(made.folder, roles, ring, development=False, now=NOW)


def test_a_version_rises_and_is_never_below_the_time(tmp_path):
    """So a repository that was put back from an older copy goes on above what devices have seen."""
    made = made_repository(tmp_path / "r", now=NOW - timedelta(days=2))
    older = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    for hours in (30, 20, 1):
        refresh(made.folder, made.ring, now=NOW - timedelta(hours=hours))
    look(made.folder, tmp_path / "cache", made.root)
    for path in (made.folder / "metadata").iterdir():
        path.unlink()
    for path, content in older.items():
        path.write_bytes(content)
    with pytest.raises(RepositoryError):  # what devices are protected from: an older state
        look(made.folder, tmp_path / "cache", made.root)
    refresh(made.folder, made.ring, now=NOW)
    assert look(made.folder, tmp_path / "cache", made.root) == {}
    assert next_version(10**10, NOW) == 10**10 + 1  # a clock that was ahead is no reason to go back


def test_seven_days_without_refresh_end_it(tmp_path):
    made = made_repository(tmp_path / "r", now=NOW - timedelta(days=8))
    assert set(short_ends(read_repository(made.folder), now=NOW)) == {"snapshot", "timestamp"}
    with pytest.raises(RepositoryError, match="expired"):
        look(made.folder, tmp_path / "cache", made.root)
    refresh(made.folder, made.ring, now=NOW)
    look(made.folder, tmp_path / "cache", made.root)


def test_a_root_is_renewed_before_it_ends(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0], now=NOW - timedelta(days=700))
    refresh(made.folder, made.ring, now=NOW)
    assert set(short_ends(read_repository(made.folder), now=NOW)) == {"root", "targets"}
    renew(made.folder, made.ring, now=NOW)
    assert not short_ends(read_repository(made.folder), now=NOW)
    assert len(look(made.folder, tmp_path / "cache", made.root)) == 1
    assert read_repository(made.folder).root.signed.version == 2


def test_keys_are_replaced_and_devices_follow(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0], development=True)
    assert read_repository(made.folder).development
    assert Metadata.from_bytes(made.root).signed.unrecognized_fields == {DEVELOPMENT: True}
    look(made.folder, tmp_path / "cache", made.root)  # a device that has been here before
    roles, ring = made_keys("real ")
    replace_keys(made.folder, roles, made.ring | ring, now=NOW)
    found = read_repository(made.folder)
    assert not found.development
    assert set(found.root.signed.keys) == set(ring.openers)
    refresh(made.folder, ring, now=NOW)
    for cache in ("cache", "new"):
        assert len(look(made.folder, tmp_path / cache, made.root)) == 1
    with pytest.raises(UnusableError, match=r"to sign snapshot, the key \w+ is needed"):
        refresh(made.folder, made.ring, now=NOW)  # the old keys are worth nothing now


MISSING = [
    # old keys that are lost, and whether new ones can take their place
    ((), True),
    (("root-1",), True),  # two of three are enough
    (("root-3",), True),
    (("targets",), True),  # what root keys are for
    (("timestamp", "snapshot"), True),
    (("root-2", "targets", "timestamp", "snapshot"), True),
    (("root-1", "root-3"), False),
    (("root-1", "root-2", "root-3"), False),
]


@pytest.mark.parametrize(("without", "done"), MISSING)
def test_lost_keys_are_replaced_while_two_root_keys_are_left(tmp_path, models, without, done):
    made = made_repository(tmp_path / "r", models[0])
    look(made.folder, tmp_path / "cache", made.root)
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    ring = made_keys(without=without)[1]
    new_roles, new_ring = made_keys("real ")
    if done:
        replace_keys(made.folder, new_roles, ring | new_ring, now=NOW)
        root = read_repository(made.folder).root.signed
        assert set(root.keys) == set(new_ring.openers), "no old key counts any more"
        refresh(made.folder, new_ring, now=NOW)
    else:
        with pytest.raises(UnusableError, match="needed: not in memory"):
            replace_keys(made.folder, new_roles, ring | new_ring, now=NOW)
        assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before
    for cache in ("cache", "new"):
        assert len(look(made.folder, tmp_path / cache, made.root)) == 1


def test_keys_are_replaced_twice(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0])
    look(made.folder, tmp_path / "cache", made.root)
    ring = made.ring
    for prefix in ("second ", "third ", "third "):  # at last the same keys again: a command that is repeated
        roles, new = made_keys(prefix)
        replace_keys(made.folder, roles, ring | new, now=NOW)
        ring = new
    assert set(read_repository(made.folder).root.signed.keys) == set(ring.openers)
    for cache in ("cache", "new"):
        assert len(look(made.folder, tmp_path / cache, made.root)) == 1


def test_a_root_that_has_ended_is_renewed_with_two_of_its_keys(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0], now=NOW - timedelta(days=800))
    refresh(made.folder, made.ring, now=NOW)
    assert all(short_ends(read_repository(made.folder), now=NOW)[role] < 0 for role in ("root", "targets"))
    with pytest.raises(RepositoryError, match="expired"):
        look(made.folder, tmp_path / "cache", made.root)
    renew(made.folder, made_keys(without=("root-2",))[1], now=NOW)
    assert len(look(made.folder, tmp_path / "cache", made.root)) == 1
    with pytest.raises(UnusableError, match="to sign root"):
        renew(made.folder, made_keys(without=("root-2", "root-3"))[1], now=NOW)


@pytest.mark.parametrize("days", [365 * 10, 3])
def test_what_a_clock_that_was_ahead_has_signed_is_signed_over(tmp_path, models, days):
    made = made_repository(tmp_path / "r", models[0], now=NOW - timedelta(hours=2))
    refresh(made.folder, made.ring, now=NOW + timedelta(days=days))
    look(made.folder, tmp_path / "cache", made.root)
    assert set(clock_faults(read_repository(made.folder), now=NOW)) == {"snapshot", "timestamp"}
    refresh(made.folder, made.ring, now=NOW)
    found = read_repository(made.folder)
    assert not clock_faults(found, now=NOW)
    assert found.expiries["timestamp"] == NOW + timedelta(days=7)
    look(made.folder, tmp_path / "cache", made.root)


def test_a_clock_that_was_never_set_signs_nothing(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0])
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    then = datetime(1970, 1, 1, 0, 3, tzinfo=UTC)
    roles, ring = made_keys("real ")
    for work in (
        lambda: refresh(made.folder, made.ring, now=then),
        lambda: renew(made.folder, made.ring, now=then),
        lambda: replace_keys(made.folder, roles, made.ring | ring, now=then),
        lambda: add_release(made, models[1], now=then),
        lambda: make_repository(tmp_path / "new", roles, ring, development=False, now=then),
    ):
        with pytest.raises(UnusableError, match="the clock of this machine says 1970-01-01 00:03 UTC; set it"):
            work()
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before
    assert not is_repository(tmp_path / "new")


def test_a_bundle_holds_what_devices_need_and_no_more(tmp_path, models):
    """Not a year of snapshots, not what waits to be published, no key, no lock."""
    made = made_repository(tmp_path / "r", models[0], now=NOW - timedelta(days=3))
    for hours in (40, 20, 1):
        refresh(made.folder, made.ring, now=NOW - timedelta(hours=hours))
    roles, ring = made_keys("real ")
    replace_keys(made.folder, roles, made.ring | ring, now=NOW)
    offline = Ring({key: ring.openers[key] for key in (roles["targets"][0].keyid,)}, "a stick")
    waiting, _ = create_release(made.folder, offline, model_folder=models[1], now=NOW, ungated="a test")
    assert not waiting.published
    bundle(made.folder, tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "stick", filter="data")
    assert sorted(name.rpartition("/")[2].lstrip("0123456789.") for name in names if name.startswith("metadata")) == [
        *["root.json"] * 4,
        "snapshot.json",
        "targets.json",
        "timestamp.json",
    ]
    assert sum(name.startswith("targets/") for name in names) == 1
    assert len(read_repository(tmp_path / "stick").targets.signed.targets) == 1
    assert len(look(tmp_path / "stick", tmp_path / "cache", made.root)) == 1


DAMAGED = [
    ("timestamp.json", lambda content: b""),  # cut to nothing
    ("timestamp.json", lambda content: content[:-9]),  # cut
    ("timestamp.json", lambda content: content.replace(b'"version":', b'"version":1')),  # changed after it was signed
    ("*.snapshot.json", lambda content: content + b"\n"),  # the hash of timestamp tells
    ("*.targets.json", lambda content: content.replace(b"targets", b"target5")),
    ("1.root.json", lambda content: content.replace(b"20", b"21")),
]


@pytest.mark.parametrize(("name", "change"), DAMAGED)
def test_nothing_is_signed_over_what_is_damaged(tmp_path, name, change):
    made = made_repository(tmp_path / "r")
    path = max((made.folder / "metadata").glob(name))
    content = path.read_bytes()
    path.write_bytes(change(content))
    with pytest.raises(UnusableError, match=r"is damaged or not signed"):
        refresh(made.folder, made.ring, now=NOW)
    path.write_bytes(content)
    refresh(made.folder, made.ring, now=NOW)


def test_a_release_file_that_is_not_as_signed_stops_a_refresh(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0])
    path = next((made.folder / "targets" / "yard").iterdir())
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(UnusableError, match="is not the file that was signed"):
        refresh(made.folder, made.ring, now=NOW)
    path.unlink()
    with pytest.raises(UnusableError, match="is not there"):
        bundle(made.folder, tmp_path / "out.tar")
    assert list(tmp_path.glob("*.tar*")) == []


def test_one_writes_at_a_time(tmp_path):
    made = made_repository(tmp_path / "r")
    with writing(made.folder), pytest.raises(UnusableError, match="another command writes"):
        refresh(made.folder, made.ring, now=NOW)
    refresh(made.folder, made.ring, now=NOW)


def test_nobody_waits_while_a_passphrase_is_typed(tmp_path, models):
    """A terminal that was left with a question must not keep cron from refreshing."""
    made = made_repository(tmp_path / "r")
    asked = []

    def slow(key):
        def open_it():
            if key not in asked:
                asked.append(key)
                refresh(made.folder, made.ring, now=NOW)  # cron comes by
            return made.ring.openers[key]()

        return open_it

    roles, new = made_keys("real ")
    for work, count in (
        (lambda ring: create_release(made.folder, ring, model_folder=models[0], now=NOW, ungated="x"), 1),
        (lambda ring: renew(made.folder, ring, now=NOW), 3),
        (lambda ring: replace_keys(made.folder, roles, ring | new, now=NOW), 3),
    ):
        asked.clear()
        offline = [
            key for role in ("root", "targets") for key in read_repository(made.folder).root.signed.roles[role].keyids
        ]
        work(Ring({key: slow(key) if key in offline else one for key, one in made.ring.openers.items()}, "memory"))
        assert len(asked) == count


WRITES = {"os.rename", "os.remove", "os.mkdir"}


def killed_at(step: int, work) -> bool:
    """Do `work` in a child that kills itself before its write number `step`; return whether it came so far.

    A write is a file opened for writing, a rename, a removal or a new folder, as Python's audit events tell them.
    """
    child = os.fork()
    if child == 0:
        left = step

        def count(event, arguments):
            nonlocal left
            wrote = event in WRITES or (event == "open" and isinstance(arguments[1], str) and arguments[1] != "r")
            if wrote and "rb" not in arguments:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(count)
            work()
            status = 0
        finally:
            os._exit(status)
    ended = os.waitpid(child, 0)[1]
    assert ended in {0, signal.SIGKILL}
    return ended == signal.SIGKILL


def kill_everywhere(tmp_path, made, work, root, *, least: int) -> None:
    """Kill `work` before each of its writes, each time on the same repository; a client is content each time."""
    new_device = tmp_path / "start"
    look(made.folder, new_device, root)
    packed = tmp_path / "before.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(made.folder, "r")
        tar.add(new_device, "cache")
    for step in range(100):
        place = tmp_path / f"killed-{step}"
        with tarfile.open(packed) as tar:
            tar.extractall(place, filter="tar")
        if not killed_at(step, lambda place=place: work(place / "r")):
            assert step >= least
            return
        look(place / "r", place / "cache", root)  # a device that was here before
        look(place / "r", place / "fresh", root)  # one that was not
        work(place / "r")  # done again, it is done
        after = look(place / "r", place / "cache", root)
        assert not list((place / "r").rglob("*.part"))
        assert len(after) == made.releases
    pytest.fail("it never came to its end")


class Made:
    """A repository, and how many releases it holds when the work is done."""

    def __init__(self, made, releases):
        self.folder, self.releases = made.folder, releases


def test_killed_anywhere_in_a_release(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0])

    def work(folder):
        create_release(folder, made.ring, model_folder=models[1], now=NOW, ungated="a test")

    kill_everywhere(tmp_path, Made(made, 2), work, made.root, least=9)


def test_killed_anywhere_in_a_refresh(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0])

    def work(folder):
        refresh(folder, made.ring, now=NOW)

    kill_everywhere(tmp_path, Made(made, 1), work, made.root, least=5)


def test_killed_anywhere_while_keys_are_replaced(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0], development=True)
    roles, ring = made_keys("real ")

    def work(folder):
        if read_repository(folder).development:
            replace_keys(folder, roles, made.ring | ring, now=NOW)
        else:
            refresh(folder, ring, now=NOW)
        assert not read_repository(folder).development
        newest = read_repository(folder).root.signed.version
        metadata = folder / "metadata"
        assert (metadata / "root.json").read_bytes() == (metadata / f"{newest}.root.json").read_bytes()

    kill_everywhere(tmp_path, Made(made, 1), work, made.root, least=11)


def test_killed_anywhere_in_a_renewal(tmp_path, models):
    made = made_repository(tmp_path / "r", models[0])

    def work(folder):
        renew(folder, made.ring, now=NOW)

    kill_everywhere(tmp_path, Made(made, 1), work, made.root, least=9)


def test_killed_anywhere_in_a_bundle(tmp_path, models):
    """The bundle is whole or not there; the repository is as it was."""
    made = made_repository(tmp_path / "r", models[0])
    for step in range(100):
        place = tmp_path / str(step)
        place.mkdir()
        out = place / "out.tar"
        if not killed_at(step, lambda out=out: bundle(made.folder, out)):
            assert step >= 2
            return
        assert not out.exists()
        bundle(made.folder, out)
        assert [path.name for path in place.iterdir()] == ["out.tar"]
        refresh(made.folder, made.ring, now=NOW)
    pytest.fail("it never came to its end")


def test_killed_anywhere_while_it_is_made(tmp_path):
    roles, ring = made_keys()
    for step in range(100):
        folder = tmp_path / str(step)
        if not killed_at(step, lambda folder=folder: make_repository(folder, roles, ring, development=False, now=NOW)):
            assert step >= 6
            return
        if not is_repository(folder):
            make_repository(folder, roles, ring, development=False, now=NOW)
        refresh(folder, ring, now=NOW)
        assert (folder / "metadata" / "root.json").exists()
        look(folder, tmp_path / f"cache-{step}", (folder / "metadata" / "1.root.json").read_bytes())
    pytest.fail("it never came to its end")


def test_a_bundle_is_the_repository(tmp_path, models):
    made = made_repository(tmp_path / "r", *models)
    told = []
    length = bundle(made.folder, tmp_path / "out.tar", on_bytes=lambda done, total: told.append((done, total)))
    assert length == (tmp_path / "out.tar").stat().st_size
    assert told[-1][0] == told[-1][1]
    bundle(made.folder, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "out.tar").read_bytes()
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "stick", filter="data")
    assert names[-1] == "metadata/timestamp.json"
    assert [name.startswith("targets/") for name in names[:4]] == [True, True, True, False]
    assert len(look(tmp_path / "stick", tmp_path / "cache", made.root)) == 3
