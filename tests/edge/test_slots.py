"""The models on a device's disk: hostile archives, a full disk, SIGKILL and a power cut, and the commands for them."""

import contextlib
import errno
import gzip
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from edge import slots as slots_module
from edge.by_hand import go_back
from edge.check import Outcome, _check_slots, check_device
from edge.cli import main
from edge.config import parse_config, read_config
from edge.contract.card import InputSpec, ModelCard
from edge.contract.errors import UnreachableError, UntrustedError, UnusableError
from edge.contract.release import SignedRelease
from edge.contract.rollout import Assignment
from edge.detector.opening import find_starter
from edge.health import hold_folder
from edge.opening import active_release, factory_line, open_configured
from edge.slot_state import Slots, revert, start
from edge.slot_work import accept, advance, assign, begin_trial, confirm, hold
from edge.slots import (
    SPARE_BYTES,
    ByHand,
    SlotStore,
    UnreadError,
    active_model,
    ask,
    broken_slots,
    models_folder,
    read_slots,
)
from tests.edge.releases import made_release, signed_of
from tests.edge.test_spool_crash import Disk

ROOT = Path(__file__).resolve().parents[2]
LINE = "street"
ONNX = b"\x08\x08" + bytes(70_000) + b"\x01"
GOLDEN = b'{"golden": 1}'

Files = dict[str, bytes]


def card_of(release: str, **changes) -> ModelCard:
    return ModelCard(
        **{
            "name": LINE,
            "release": release,
            "file": "street.onnx",
            "sha256": hashlib.sha256(ONNX).hexdigest(),
            "head": "yolox",
            "input": InputSpec(width=320, height=192),
            "labels": ("person",),
            "score_threshold": 0.4,
        }
        | changes
    )


def files_of(number: int, **changes) -> Files:
    card = msgspec.json.encode(card_of(f"street-{number}", **changes))
    return {"golden-1/golden.json": GOLDEN, "model.json": card, "street.onnx": ONNX}


def sign(number: int, files: Files, **changes) -> SignedRelease:
    given = {
        "model": LINE,
        "release": f"street-{number}",
        "number": number,
        "baseline": number - 1,
        "card_sha256": hashlib.sha256(files["model.json"]).hexdigest(),
        "input": "320x192",
        "score_threshold_permille": 400,
        "files": len(files),
        "unpacked_bytes": sum(map(len, files.values())),
    }
    return SignedRelease(**given | changes)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def pack(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], *, form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, BytesIO(content))
    return path


def packed(folder: Path, number: int, files: Files | None = None) -> tuple[Path, SignedRelease]:
    files = files_of(number) if files is None else files
    tar = pack(folder / f"{number:06d}.tar", [member(name, content) for name, content in sorted(files.items())])
    return tar, sign(number, files)


@pytest.fixture
def store(tmp_path: Path) -> SlotStore:
    return SlotStore(tmp_path / "models", LINE)


def take(store: SlotStore, tar: Path, signed: SignedRelease, *, to: str = "confirmed") -> Slots:
    """Go the way of an update, each state written, up to a phase."""
    order = Assignment(
        rollout=f"r{signed.number}",
        action="install",
        model=signed.model,
        release=signed.release,
        number=signed.number,
        target="t",
        at_ms=0,
    )
    store.write(assign(store.slots, order, now_ms=1))
    store.write(accept(store.slots, signed, now_ms=1))
    store.write(advance(store.slots, "verified", now_ms=1))
    store.stage(tar, signed)
    store.write(hold(store.slots, now_ms=1))
    if to != "staged":
        store.write(advance(store.slots, "golden", now_ms=1))
        store.write(advance(store.slots, "shadow", now_ms=1))
        store.write(begin_trial(store.slots, now_ms=1))
    if to == "confirmed":
        store.write(confirm(store.slots, now_ms=1))
        store.prune()
    return store.slots


def names(folder: Path) -> set[str]:
    """Return what lies in a folder, but for the room that is taken for a full disk."""
    return {path.name for path in folder.iterdir() if path.name != "slots.spare"}


# What is unpacked


def test_a_release_is_unpacked_as_it_was_packed(store: SlotStore, tmp_path: Path) -> None:
    tar, signed = packed(tmp_path, 12)
    folder = store.stage(tar, signed)
    assert folder == store.folder / "000012"
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == files_of(12)
    assert names(store.folder) == {"000012"}


def test_what_an_earlier_start_left_is_replaced(store: SlotStore, tmp_path: Path) -> None:
    tar, signed = packed(tmp_path, 12)
    for name in ("000012", "000012.part"):
        (store.folder / name / "golden-1").mkdir(parents=True)
        (store.folder / name / "left-over").write_bytes(b"x")
    assert names(store.stage(tar, signed)) == {"golden-1", "model.json", "street.onnx"}


def test_what_is_held_is_not_touched(store: SlotStore, tmp_path: Path) -> None:
    take(store, *packed(tmp_path, 12))
    inode = (store.path(12) / "street.onnx").stat().st_ino
    tar, signed = packed(tmp_path, 12)
    assert (store.stage(tar, signed) / "street.onnx").stat().st_ino == inode
    with pytest.raises(UntrustedError, match="with another card"):
        store.stage(tar, msgspec.structs.replace(signed, card_sha256="0" * 64))
    assert (store.path(12) / "street.onnx").stat().st_ino == inode


BASE = [member(name, content) for name, content in sorted(files_of(12).items())]
X = b"x" * 10


def with_more(*more: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> Callable[[Path], object]:
    """Pack the release with more in it, before and behind, and sign for that many files and bytes."""
    return lambda path: pack(path, [*more[:1], *BASE, *more[1:]], form=form)


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(pack(path, BASE).read_bytes()))


def sized(size: int) -> bytes:
    """Return an archive whose first file claims a size, in tar's binary numbers, and has no content."""
    info, _ = member("street.onnx")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("make", "more_files", "more_bytes", "text"),
    [
        # what is no plain file
        (with_more(member("link", kind=tarfile.SYMTYPE, linkname="/etc/passwd")), 1, 0, "no plain file"),
        (with_more(member("golden-1", kind=tarfile.SYMTYPE, linkname="/tmp")), 1, 0, "no plain file"),
        (with_more(member("link", kind=tarfile.LNKTYPE, linkname="../../slots.json")), 1, 0, "no plain file"),
        (with_more(member("folder", kind=tarfile.DIRTYPE)), 1, 0, "no plain file"),
        (with_more(member("pipe", kind=tarfile.FIFOTYPE)), 1, 0, "no plain file"),
        (with_more(member("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)), 1, 0, "no plain file"),
        (with_more(member("sparse", X, kind=tarfile.GNUTYPE_SPARSE)), 1, 10, "no plain file"),
        (with_more(member("n" * 300, X), form=tarfile.PAX_FORMAT), 1, 10, "no plain file"),  # an extended header
        (with_more(member("n" * 300, X), form=tarfile.GNU_FORMAT), 1, 10, "no plain"),  # a long name
        # where it would go
        (with_more(member("/etc/cron.d/x", X)), 1, 10, "no plain relative name"),
        (with_more(member("../slots.json", X)), 1, 10, "no plain relative name"),
        (with_more(member("golden-1/../../x", X)), 1, 10, "no plain relative name"),
        (with_more(member("./x", X)), 1, 10, "no plain relative name"),
        (with_more(member("a//x", X)), 1, 10, "no plain relative name"),
        (with_more(member("", X)), 1, 10, "no plain relative name"),
        (with_more(member(".hidden", X)), 1, 10, "no plain relative name"),
        (with_more(member("-rf", X)), 1, 10, "no plain relative name"),
        (with_more(member("a\\b", X)), 1, 10, "no plain relative name"),
        (with_more(member("a\nb", X)), 1, 10, "no plain relative name"),
        (with_more(member("a/b/c/d/e", X)), 1, 10, "no plain relative name"),
        (with_more(member("n" * 101 + "/x", X)), 1, 10, "no plain relative name"),  # a name of two fields
        (with_more(member("stra\u00dfe", X)), 1, 10, "not plain"),
        (with_more(member("model.json", X)), 1, 10, "twice"),
        (with_more(member("golden-1", X)), 1, 10, "twice"),  # a file where a folder is to be
        (with_more(member("y", X), member("model.json/x", X)), 2, 20, "twice"),  # a folder where a file is
        # how much
        (with_more(member("x", X)), 0, 10, "more than the 3 files"),
        (with_more(member("x", X)), 1, 9, "more than the 4 files"),
        (with_more(member("x", X)), 2, 10, "less than are signed"),
        (with_more(member("x", X)), 1, 11, "less than are signed"),
        (with_more(*(member(f"x{n}", X) for n in range(2000))), 1, 10**6, "more than the 4 files"),
        (lambda path: path.write_bytes(sized(1 << 60)), 0, 0, "more than"),  # a bomb that says so
        (lambda path: path.write_bytes(sized(60_000)), 0, 0, "ends within"),  # a bomb that has less than it says
        (lambda path: path.write_bytes(sized(-512)), 0, 0, "no plain file"),
        # no archive
        (lambda path: path.write_bytes(b""), 0, 0, "no archive"),
        (lambda path: path.write_bytes(os.urandom(5000)), 0, 0, "no archive"),
        (raw(gzip.compress), 0, 0, "no archive"),
        (raw(lambda tar: tar[:700]), 0, 0, "ends within|more than|no archive"),
        (raw(lambda tar: tar[: len(tar) // 2]), 0, 0, "ends within"),
        (raw(lambda tar: tar.rstrip(b"\0")[:-100]), 0, 0, "ends within|no archive"),
        (raw(lambda tar: tar.rstrip(b"\0") + b"\0" * 1024 + b"more"), 0, 0, "no archive"),
        (raw(lambda tar: tar[:148] + b"00000000" + tar[156:]), 0, 0, "no archive"),  # a wrong checksum
    ],
)
def test_a_hostile_archive_leaves_nothing(store, tmp_path, make, more_files, more_bytes, text) -> None:
    signed = sign(12, files_of(12))
    signed = msgspec.structs.replace(
        signed, files=signed.files + more_files, unpacked_bytes=signed.unpacked_bytes + more_bytes
    )
    tar = tmp_path / "hostile.tar"
    make(tar)
    before = names(tmp_path)
    with pytest.raises(UntrustedError, match=text):
        store.stage(tar, signed)
    assert names(store.folder) == set()
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("files", "change", "text"),
    [
        (files_of(12), {"card_sha256": "0" * 64}, "not the one that is signed"),  # another card
        (files_of(12), {"release": "street-13"}, "its card is that of street street-12"),  # of another release
        (files_of(12), {"model": "parking"}, "not of parking"),  # of another line
        (files_of(12, sha256="0" * 64), {}, "street.onnx is not the one"),  # another file than the card's
        (files_of(12, file="other.onnx"), {}, "'other.onnx', which is not there"),
        (files_of(12, file="../../secret"), {}, "which is not there"),  # a card that points out of its folder
        (files_of(12) | {"model.json": b"{}"}, {}, "is not valid"),
    ],
)
def test_what_is_not_the_signed_release_leaves_nothing(store, tmp_path, files, change, text) -> None:
    tar, signed = packed(tmp_path, 12, files)
    with pytest.raises((UntrustedError, UnusableError), match=text):
        store.stage(tar, msgspec.structs.replace(signed, **change))
    assert names(store.folder) == set()


# What is kept


def test_the_two_newest_are_kept_beside_the_factorys(store: SlotStore, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        take(store, *packed(tmp_path, number))
    assert names(store.folder) == {"slots.json", "000003", "000004"}
    assert (store.slots.active, store.slots.previous) == (4, 3)
    assert SlotStore(store.folder, LINE).slots == store.slots
    assert list(broken_slots(store.folder, LINE)) == []


def test_a_state_that_breaks_a_law_is_not_written(store: SlotStore) -> None:
    with pytest.raises(ValueError, match="not held"):
        store.write(msgspec.structs.replace(store.slots, active=7))
    assert store.slots.active == 0
    assert names(store.folder) == set()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema": 99, "model": "street"}',
        b'{"schema": 1, "model": "street", "active": 12}',  # active and not held
    ],
)
def test_an_unreadable_state_is_set_aside_and_the_factory_serves(store, tmp_path, content) -> None:
    take(store, *packed(tmp_path, 12))
    (store.folder / "slots.json").write_bytes(content)
    assert active_model(store.folder, LINE) is None
    after = SlotStore(store.folder, LINE)
    assert after.slots.active == 0
    aside = [path for path in store.folder.iterdir() if path.name.startswith("slots.json.broken-")]
    assert [path.read_bytes() for path in aside] == [content]
    take(after, *packed(tmp_path, 12))
    assert active_model(store.folder, LINE) == store.path(12)


def test_a_floor_outlives_a_death_while_the_state_is_set_aside(store, tmp_path, monkeypatch) -> None:
    """It goes on after the broken file was found, and before what remains of it is written."""
    take(store, *packed(tmp_path, 12))
    broken = json.loads((store.folder / "slots.json").read_bytes()) | {"starts": 99}
    (store.folder / "slots.json").write_text(json.dumps(broken))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SlotStore, "write", die)
        with pytest.raises(KeyboardInterrupt):
            SlotStore(store.folder, LINE)
    assert SlotStore(store.folder, LINE).slots.highest == 12


@contextlib.contextmanager
def no_files() -> Iterator[None]:
    """As many files are open as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def not_given(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk that is broken where a file lies."""
    read = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self == path:
            raise OSError(number, os.strerror(number), str(path))
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        yield


@contextlib.contextmanager
def replaced(path: Path, make: Callable[[Path], object]) -> Iterator[None]:
    kept = path.rename(path.with_name("kept"))
    make(path)
    try:
        yield
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
        kept.rename(path)


UNREAD = {
    "too many open files": lambda *_: no_files(),
    "a loop of links": lambda folder, _: replaced(folder / "slots.json", lambda path: path.symlink_to(path)),
    "a folder": lambda folder, _: replaced(folder / "slots.json", lambda path: path.mkdir()),
    "a bad block": lambda folder, patch: not_given(folder / "slots.json", errno.EIO, patch),
    "another's": lambda folder, patch: not_given(folder / "slots.json", errno.EACCES, patch),
    "no files left in the system": lambda folder, patch: not_given(folder / "slots.json", errno.ENFILE, patch),
    "a bad block in the spare room": lambda folder, patch: not_given(folder / "slots.spare", errno.EIO, patch),
}


@pytest.mark.parametrize("fault", UNREAD.values(), ids=UNREAD.keys())
def test_a_state_that_the_disk_does_not_give_is_not_taken_for_broken(store, tmp_path, monkeypatch, fault) -> None:
    """The factory's serves for this start. The releases and the floor against older ones are there for the next."""
    monkeypatch.setattr(slots_module, "READ_AGAIN_S", 0.0)
    take(store, *packed(tmp_path, 12))
    before = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    ask(store.folder, ByHand(to=0))
    with fault(store.folder, monkeypatch):
        closed = SlotStore(store.folder, LINE)
        assert closed.closed
        assert (closed.slots, active_model(store.folder, LINE)) == (Slots(model=LINE), None)
        assert (start(closed.slots, now_ms=1)[1], closed.prune(), closed.is_asked(), closed.asked()) == (
            0,
            (),
            False,
            None,
        )
        with pytest.raises(UnreadError, match=r"cannot read .*slots\."):
            closed.write(msgspec.structs.replace(closed.slots, sequence=1), at_once=True)
        with pytest.raises(UnreadError):
            read_slots(store.folder, LINE)
    after = SlotStore(store.folder, LINE)
    assert (after.closed, after.slots.active, after.slots.highest) == ("", 12, 12)
    assert after.asked() == ByHand(to=0)
    assert {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()} == before


def test_what_the_disk_gives_at_last_is_taken(store: SlotStore, tmp_path: Path, monkeypatch) -> None:
    """An I/O error of a moment costs nothing."""
    monkeypatch.setattr(slots_module, "READ_AGAIN_S", 0.0)
    take(store, *packed(tmp_path, 12))
    refusals = [OSError(errno.EIO, "Input/output error")] * (slots_module.READS - 1)
    read = slots_module.read_kept

    def refuse(path: Path, spare: Path):
        if refusals:
            raise refusals.pop()
        return read(path, spare)

    monkeypatch.setattr(slots_module, "read_kept", refuse)
    assert (SlotStore(store.folder, LINE).slots, refusals) == (store.slots, [])


def test_opening_repeats_what_was_unfinished(store: SlotStore, tmp_path: Path) -> None:
    for number in (1, 2):
        take(store, *packed(tmp_path, number))
    for name in ("000009", "000003.part", "tuf", "downloads"):
        (store.folder / name).mkdir()
    (store.folder / ".slots.json.99.part").write_bytes(b"{")
    shutil.rmtree(store.path(2))
    after = SlotStore(store.folder, LINE)
    assert names(store.folder) == {"slots.json", "000001", "tuf", "downloads"}
    assert (after.slots.active, after.slots.work.phase) == (1, "rolled_back")
    assert SlotStore(store.folder, LINE).slots == after.slots


def test_another_lines_model_in_the_configuration_begins_anew(store: SlotStore, tmp_path: Path) -> None:
    take(store, *packed(tmp_path, 12))
    assert active_model(store.folder, "parking") is None
    assert active_model(store.folder, LINE) == store.path(12), "to look changes nothing"
    other = SlotStore(store.folder, "parking")
    assert (other.slots.active, other.slots.others, names(store.folder)) == (0, {LINE: 12}, {"slots.json"})


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small disk")
    mount = tmp_path / "disk"
    mount.mkdir()

    def make(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", mount]
        made = subprocess.run(command, capture_output=True, check=False)
        if made.returncode != 0:
            pytest.skip(f"cannot mount here: {made.stderr.decode().strip()}")
        return mount

    yield make
    subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def fill_up(disk: Path) -> Path:
    """Fill a disk with small blocks that gives some of them late, to the last one."""
    for _ in range(4):
        filler = fill(disk)
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(256))
        os.sync()
    return filler


def test_a_full_disk_keeps_what_it_has(small_disk, tmp_path: Path) -> None:
    disk = small_disk(f"size={SPARE_BYTES + 500_000}")
    store = SlotStore(disk / "models", LINE)
    before = take(store, *packed(tmp_path, 1))
    filler = fill(disk)
    with pytest.raises(UnusableError, match=r"the disk has 0 MB free, 34 MB are needed"):
        store.stage(*packed(tmp_path, 2))
    order = Assignment(rollout="r2", action="install", model=LINE, release="r", number=2, target="t", at_ms=0)
    with pytest.raises(UnusableError, match="No space left"):
        store.write(assign(before, order, now_ms=1))
    assert store.slots == before == read_slots(store.folder, LINE)
    shutil.rmtree(store.path(1))
    assert SlotStore(store.folder, LINE).slots.active == 0, "what is gone is given up, written or not"
    filler.unlink()
    take(SlotStore(store.folder, LINE), *packed(tmp_path, 2))
    assert active_model(store.folder, LINE) == store.path(2)


def test_a_disk_that_fills_while_it_unpacks_keeps_nothing_of_it(small_disk, tmp_path: Path) -> None:
    """The bytes are free, and after four more files and folders no other can be made."""
    disk = small_disk("size=64m,nr_inodes=6")
    store = SlotStore(disk / "models", LINE)
    with pytest.raises(UnusableError, match="cannot unpack release 1: No space left"):
        store.stage(*packed(tmp_path, 1))
    assert names(store.folder) == set()


TAKER = """
import sys
from pathlib import Path
import msgspec
from edge.slots import SlotStore
from tests.edge.test_slots import files_of, packed, sign, take
folder, spool = Path(sys.argv[1]), Path(sys.argv[2])
store = SlotStore(folder, "street")
print("opened", flush=True)
while True:
    take(store, *packed(spool, store.slots.highest + 1))
    print(store.slots.highest, flush=True)
"""


@pytest.mark.timeout(300)
def test_whatever_a_sigkill_leaves_is_one_whole_model(tmp_path: Path) -> None:
    """A process takes one release after another and is killed at a random moment, again and again."""
    folder, random_ = tmp_path / "models", random.Random()
    highest = 0
    for _ in range(4):
        taker = subprocess.Popen(
            [sys.executable, "-c", TAKER, str(folder), str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert taker.stdout is not None
        said = [taker.stdout.readline() for _ in range(random_.randint(2, 6))]
        taker.send_signal(signal.SIGKILL)
        said += taker.stdout.read().split("\n")
        taker.stdout.close()
        taker.wait()
        assert list(broken_slots(folder, LINE)) == [], "beside the wreck, before anything is repaired"
        store = SlotStore(folder, LINE)
        confirmed = max([highest, *(int(line) for line in said if line.strip().isdecimal())])
        assert confirmed <= store.slots.highest <= confirmed + 1
        assert store.slots.active in {store.slots.highest, store.slots.highest + 1}
        held = {f"{slot.number:06d}" for slot in store.slots.held}
        assert names(folder) == {"slots.json", *held}
        assert list(broken_slots(folder, LINE)) == []
        highest = store.slots.highest
    assert highest >= 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.close()


def after_a_power_cut(disk: Disk, tmp_path: Path) -> list[str]:
    """Take releases, cut the power right after each was said to be taken, and return what is wrong then."""
    wrong = []
    for number in (1, 2, 3):
        store = SlotStore(disk.mount / "models", LINE)
        said = take(store, *packed(tmp_path, number), to="staged" if number == 3 else "confirmed")
        disk.cut_power()
        disk.power_on()
        try:
            if read_slots(disk.mount / "models", LINE) != said:
                wrong.append(f"the state of {number} is gone")
            wrong += broken_slots(disk.mount / "models", LINE)
        except UnusableError as error:
            wrong.append(str(error))
    return wrong


def test_what_is_said_to_be_taken_stands_after_a_power_cut(disk: Disk, tmp_path: Path) -> None:
    assert after_a_power_cut(disk, tmp_path) == []


def test_the_power_cut_is_real(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a disk that is not asked to flush loses it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    assert after_a_power_cut(disk, tmp_path) != []


# What a person sees and does


def write_config(folder: Path) -> Path:
    path = folder / "edge.toml"
    path.write_text(
        'site = "home"\ndevice = "pi"\ndata_dir = "data"\n[model]\ninput = "64x64"\nthreads = 1\n'
        '[mqtt]\nhost = "localhost"\nport = 1\n[[camera]]\nname = "door"\nsource = "gone.mp4"\n'
    )
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, SignedRelease]]:
    """Two releases of the starter's line that open."""
    folder = tmp_path_factory.mktemp("releases")
    made = []
    for number in (1, 2):
        model = made_release(folder / str(number), f"starter-{number}")
        files = {path.name: path.read_bytes() for path in model.iterdir()}
        tar = pack(folder / f"{number}.tar", [member(name, content) for name, content in sorted(files.items())])
        made.append((tar, signed_of(model, number, baseline=number - 1)))
    return made


@pytest.fixture
def device(tmp_path: Path, real) -> Path:
    """Return the edge.toml of a device that confirmed two releases."""
    config = read_config(write_config(tmp_path))
    store = SlotStore(models_folder(config.data_dir), factory_line(config))
    for tar, signed in real:
        take(store, tar, signed)
    return tmp_path / "edge.toml"


@pytest.fixture
def edge(monkeypatch, capsys):
    """Run `edge`; return exit status, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edge", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_the_active_release_is_what_opens(device: Path) -> None:
    config = read_config(device)
    store = SlotStore(models_folder(config.data_dir), factory_line(config))
    assert active_release(config) == store.path(2)
    assert open_configured(config, cached=False).card.release == "starter-2"
    shutil.rmtree(store.path(2))
    starter = json.loads((find_starter() / "model.json").read_bytes())["release"]
    assert open_configured(config, cached=False).card.release == starter, "a device always has a model"


def test_a_person_lists_and_goes_back(edge, device: Path) -> None:
    status, out, err = edge("model", "list", "--config", device)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "     2  starter-2                       active" in out
    assert "way back  1, starter-1" in out
    status, out, err = edge("model", "rollback", "--config", device, "--json")
    told = json.loads(out)
    assert (status, err, told["active"], told["phase"]) == (0, "", 1, "rolled_back")
    assert told["below"] == "it is the signed baseline of 2"
    assert edge("model", "rollback", "--config", device)[0] == 0
    status, out, err = edge("model", "rollback", "--config", device)
    assert (status, out) == (1, "")
    assert "there is no release to go back from" in err
    assert "below     2 was confirmed once" in edge("model", "list", "--config", device)[1]


def test_what_nothing_signed_allows_needs_a_word_more(edge, tmp_path: Path, real) -> None:
    config = read_config(write_config(tmp_path))
    tar, signed = real[1]
    take(SlotStore(models_folder(config.data_dir), factory_line(config)), tar, signed)  # 1 was never here
    status, out, err = edge("model", "rollback", "--config", tmp_path / "edge.toml")
    assert (status, out) == (1, "")
    assert "--factory goes back to the model of edge.toml" in err
    assert edge("model", "rollback", "--config", tmp_path / "edge.toml", "--factory")[0] == 0
    assert active_release(config) is None


def test_a_running_daemon_is_asked_and_waited_for(device: Path) -> None:
    config = read_config(device)
    folder, line = models_folder(config.data_dir), factory_line(config)
    done, held = threading.Event(), threading.Event()

    def serve() -> None:
        with hold_folder(config.data_dir):
            store = SlotStore(folder, line)
            held.set()
            while not done.is_set():
                by_hand = store.asked()
                if by_hand is not None:
                    store.write(revert(store.slots, to=by_hand.to, why="a person went back", now_ms=1))
                done.wait(0.01)

    daemon = threading.Thread(target=serve)
    daemon.start()
    try:
        assert held.wait(10)
        assert go_back(config, factory=False) == ""
        assert read_slots(folder, line).active == 1
        assert not list(folder.glob("by-hand-*"))
    finally:
        done.set()
        daemon.join()
    with hold_folder(config.data_dir), pytest.raises(UnreachableError, match="did not go back"):
        go_back(config, factory=False, within_s=0.1)


@pytest.mark.parametrize("running", [False, True])
def test_a_person_goes_back_on_a_full_disk(tmp_path: Path, disk: Disk, real, running: bool) -> None:
    """It is what a full disk must never forbid: the state has its room, and a request to a daemon needs none."""
    edge_toml = write_config(tmp_path)
    edge_toml.write_text(edge_toml.read_text().replace('"data"', f'"{disk.mount}/data"'))
    config = read_config(edge_toml)
    folder, line = models_folder(config.data_dir), factory_line(config)
    store = SlotStore(folder, line)
    take(store, *real[0])
    fill_up(disk.mount)
    if running:
        with hold_folder(config.data_dir):
            ask(folder, ByHand(to=0))
            assert store.asked() == ByHand(to=0)
        return
    assert go_back(config, factory=False) == ""
    assert b'"active": 1' in (folder / "slots.json").read_bytes(), "that took nothing"
    disk.cut_power()
    disk.power_on()
    assert read_slots(folder, line).active == 0
    (folder / "slots.spare").unlink()
    fill_up(disk.mount)
    with pytest.raises(UnusableError, match="the disk does not take it"):
        go_back(config, factory=False)


def test_a_word_that_cannot_be_read_is_no_word(store: SlotStore) -> None:
    ask(store.folder, ByHand(to=1))
    assert store.asked() == ByHand(to=1)
    assert store.asked() is None
    for name in ("by-hand-", "by-hand-x", "by-hand-12", "by-hand--00001"):
        (store.folder / name).touch()
    assert store.is_asked()
    assert store.asked() is None
    assert names(store.folder) == set()


def slots_verdict(config: Path) -> tuple[Outcome, str]:
    verdict = _check_slots(read_config(config))
    return verdict.outcome, verdict.text


def test_the_check_proves_the_laws_on_the_disk(device: Path) -> None:
    folder = read_config(device).data_dir / "models"
    good = "2, starter-2, is active; 2 releases held, each as it was signed"
    whole = {verdict.name: verdict for verdict in check_device(read_config(device), frame_s=0.1)}
    assert whole["slots"] == ("slots", Outcome.GOOD, good)
    assert whole["model"].text.startswith("starter-2 on ")
    state = (folder / "slots.json").read_bytes()
    for broken, text in [
        (state.replace(b'"active": 2', b'"active": 1').replace(b'"previous": 1', b'"previous": 0'), "nothing says why"),
        (state.replace(b'"active": 2', b'"active": 5'), "5 is not held"),
        (state.replace(b'"highest": 2', b'"highest": 1'), "2 is active above 1"),
        (state[:-3], "is not valid"),
    ]:
        assert broken != state
        (folder / "slots.json").write_bytes(broken)
        outcome, told = slots_verdict(device)
        assert (outcome, text in told) == (Outcome.BROKEN, True), told
        assert (folder / "slots.json").read_bytes() == broken, "it is looked at, not mended"
    (folder / "slots.json").write_bytes(state)
    card = folder / "000001" / "model.json"
    kept = card.read_bytes()
    for path, content, text in [
        (card, kept.replace(b"starter-1", b"starter-9"), "000001 has not the card that was signed"),
        (folder / "000002" / "starter.onnx", b"onnx", "starter.onnx is not the one that the card names"),
    ]:
        old = path.read_bytes()
        path.write_bytes(content)
        assert slots_verdict(device) == (Outcome.BROKEN, text if text.startswith("0") else f"000002: {text}")
        path.write_bytes(old)
    assert slots_verdict(device) == (Outcome.GOOD, good)


def test_a_device_without_releases(edge, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert slots_verdict(config) == (Outcome.GOOD, "the model of edge.toml is active; no release was ever taken")
    status, out, _ = edge("model", "list", "--config", config)
    assert (status, "active, factory" in out) == (0, True)
    assert edge("model", "rollback", "--config", config)[0] == 1
    assert not (tmp_path / "data" / "models").exists(), "to look makes nothing"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("model", "street"),  # a folder with a card
        ("model/street.onnx", "street"),  # the card's file
        ("model/other.onnx", "other"),  # a file that the card beside it does not name
        ("bare", "alone"),  # a folder with an ONNX file only
        ("bare/alone.onnx", "alone"),
    ],
)
def test_the_line_is_the_name_that_the_model_has(tmp_path: Path, path: str, line: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "model" / "model.json").write_bytes(msgspec.json.encode(card_of("street-1")))
    for name in ("model/street.onnx", "model/other.onnx", "bare/alone.onnx"):
        (tmp_path / name).write_bytes(ONNX)
    text = write_config(tmp_path).read_text().replace("[model]", f'[model]\npath = "{tmp_path / path}"')
    assert factory_line(parse_config(text, folder=tmp_path)) == line
