"""The way of a release to a device: whole, cut anywhere, over a slow line, from a folder, without room."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.contract.errors import UnreachableError, UnusableError
from edge.updating.fetching import Fetcher
from edge.updating.transport import GRACE_S, LEAST_BYTES_S, Transport, require_pace
from tests.edge.updating.lying import NOW_S, LyingServer, MadeRepository, signed_release, write_files

CONTENT = os.urandom(200_003)


@pytest.fixture
def made() -> MadeRepository:
    repository = MadeRepository()
    repository.add_release(12, CONTENT)
    repository.publish()
    return repository


@pytest.fixture
def server(made: MadeRepository) -> Iterator[LyingServer]:
    with LyingServer(made.files) as serving:
        yield serving


def open_fetcher(folder: Path, url: str, made: MadeRepository) -> Fetcher:
    return Fetcher(folder, url, made.trusted, clock=lambda: NOW_S)


def test_a_release_is_told_and_fetched(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    fetcher = open_fetcher(tmp_path, server.url, made)
    fetcher.refresh()
    offered = fetcher.release("street/000012.tar")
    assert offered.signed == signed_release(12)
    assert offered.archive_bytes == len(CONTENT)
    told: list[tuple[int, int]] = []
    room: list[int] = []
    path = fetcher.fetch("street/000012.tar", require_room=room.append, on_bytes=lambda *one: told.append(one))
    assert path.read_bytes() == CONTENT
    assert path.parent == tmp_path / "downloads"
    assert room == [len(CONTENT)]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)
    asked = len(server.asked)
    assert fetcher.fetch("street/000012.tar") == path
    assert len(server.asked) == asked, "what is here and verified is not asked for again"
    fetcher.clear()
    assert list((tmp_path / "downloads").iterdir()) == []


def test_without_a_refresh_the_first_question_refreshes(
    tmp_path: Path, made: MadeRepository, server: LyingServer
) -> None:
    assert open_fetcher(tmp_path, server.url + "/", made).release("street/000012.tar").signed.number == 12


def test_without_the_extra_one_line_says_so(tmp_path: Path) -> None:
    """The module is imported by every daemon; only a `Fetcher` needs tuf."""
    code = (
        "import sys; sys.modules['tuf'] = None\n"
        "from pathlib import Path\nfrom edge.updating.fetching import Fetcher\n"
        "from edge.contract.errors import UnusableError\n"
        "try:\n    Fetcher(Path('x'), 'http://h', b'')\nexcept UnusableError as error:\n    print(error)\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == 'updates need tuf: pip install "weakspot[ota]"\n'


def test_a_folder_is_a_repository_too(tmp_path: Path, made: MadeRepository) -> None:
    """What `hub repository bundle` writes onto a stick; a space in its name is no trouble."""
    url = write_files(made.files, tmp_path / "a stick")
    fetcher = open_fetcher(tmp_path / "models", url, made)
    assert fetcher.fetch("street/000012.tar").read_bytes() == CONTENT
    (tmp_path / "a stick" / "metadata" / "timestamp.json").unlink()
    with pytest.raises(UnreachableError, match=r"timestamp\.json cannot be read: No such file"):
        fetcher.refresh()


def test_only_the_newest_archive_is_kept(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    made.add_release(13, CONTENT[::-1])
    made.publish()
    fetcher = open_fetcher(tmp_path, server.url, made)
    fetcher.fetch("street/000012.tar")
    newest = fetcher.fetch("street/000013.tar")
    assert list((tmp_path / "downloads").iterdir()) == [newest]


CUTS = [
    0,  # after the head
    1,
    65535,  # about the size of a piece
    65536,
    65537,
    131072,
    len(CONTENT) - 1,
]


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_download_goes_on_where_it_was_cut(
    tmp_path: Path, made: MadeRepository, server: LyingServer, cut: int
) -> None:
    place = made.place("street/000012.tar")
    server.cut_at[place] = cut
    with pytest.raises(UnreachableError):
        open_fetcher(tmp_path, server.url, made).fetch("street/000012.tar")
    assert [path.stat().st_size for path in (tmp_path / "downloads").iterdir()] == [cut]
    assert next((tmp_path / "downloads").iterdir()).suffix == ".part", "a part never has the final name"
    del server.cut_at[place]
    room: list[int] = []
    again = open_fetcher(tmp_path, server.url, made)  # as after a restart
    assert again.fetch("street/000012.tar", require_room=room.append).read_bytes() == CONTENT
    assert (place, cut) in server.asked
    assert room == [len(CONTENT) - cut]
    assert server.sent[place] == len(CONTENT), "no byte comes twice"


@pytest.mark.parametrize("path", ["metadata/timestamp.json", "metadata/2.snapshot.json", "metadata/2.targets.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_metadata_that_is_cut_is_unreachable_and_not_kept(
    tmp_path: Path, made: MadeRepository, server: LyingServer, path: str, share: float
) -> None:
    server.cut_at[path] = int(len(made.files[path]) * share)
    fetcher = open_fetcher(tmp_path, server.url, made)
    with pytest.raises(UnreachableError):
        fetcher.refresh()
    assert not (tmp_path / "tuf" / f"{path.split('.')[-2].rpartition('/')[2]}.json").exists()
    server.cut_at.clear()
    fetcher.refresh()


def test_a_download_that_is_called_off_goes_on_later(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    def stop(here: int, _: int) -> None:
        if here >= 100_000:
            raise Stopped

    fetcher = open_fetcher(tmp_path, server.url, made)
    with pytest.raises(Stopped):
        fetcher.fetch("street/000012.tar", on_bytes=stop)
    part = next((tmp_path / "downloads").iterdir())
    assert 100_000 <= part.stat().st_size < len(CONTENT)
    assert CONTENT.startswith(part.read_bytes())
    assert fetcher.fetch("street/000012.tar").read_bytes() == CONTENT


def leave_part(folder: Path, fetcher: Fetcher, content: bytes) -> None:
    """Leave a part as an earlier download would have."""
    path = fetcher.fetch("street/000012.tar")
    path.unlink()
    path.with_name(path.name + ".part").write_bytes(content)
    assert path.parent == folder / "downloads"


@pytest.mark.parametrize(
    "part",
    [
        bytes(1000),  # a disk that lost power gives back zeros
        CONTENT[:1000] + bytes(len(CONTENT) - 1000),  # as long as the whole
        CONTENT + b"x",  # longer than the whole
        CONTENT,  # whole, and the power went before it was renamed
    ],
)
def test_a_part_that_is_spoilt_is_begun_anew(
    tmp_path: Path, made: MadeRepository, server: LyingServer, part: bytes
) -> None:
    fetcher = open_fetcher(tmp_path, server.url, made)
    leave_part(tmp_path, fetcher, part)
    assert fetcher.fetch("street/000012.tar").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    fetcher = open_fetcher(tmp_path, server.url, made)
    leave_part(tmp_path, fetcher, CONTENT[:5000])
    server.ranges = False
    assert fetcher.fetch("street/000012.tar").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_server_in_trouble_is_unreachable(
    tmp_path: Path, made: MadeRepository, server: LyingServer, status: int
) -> None:
    fetcher = open_fetcher(tmp_path, server.url, made)
    for path in ("metadata/timestamp.json", made.place("street/000012.tar")):
        server.answers = {path: status}
        with pytest.raises(UnreachableError, match=f"answers with status {status}"):
            fetcher.fetch("street/000012.tar")
    server.answers.clear()
    assert fetcher.fetch("street/000012.tar").read_bytes() == CONTENT


def test_nobody_at_home_is_unreachable(tmp_path: Path, made: MadeRepository) -> None:
    with LyingServer({}) as gone:
        url = gone.url
    with pytest.raises(UnreachableError, match=r"does not answer: .*refused"):
        open_fetcher(tmp_path, url, made).refresh()


def test_a_slow_line_is_enough(tmp_path: Path) -> None:
    """1 KB/s, metadata and all."""
    made = MadeRepository()
    made.add_release(1, CONTENT[:1500])
    made.publish()
    with LyingServer(made.files) as server:
        server.bytes_s = 1000
        fetched = open_fetcher(tmp_path, server.url, made).fetch("street/000001.tar")
    assert fetched.read_bytes() == CONTENT[:1500]


def test_a_silent_server_is_left(made: MadeRepository, server: LyingServer) -> None:
    server.silent.add("metadata/timestamp.json")
    with (
        pytest.raises(UnreachableError, match=r"broke off: .*timed out"),
        Transport(gap_s=0.2).open(f"{server.url}/metadata/timestamp.json") as opened,
    ):
        assert b"".join(opened.chunks) == made.files["metadata/timestamp.json"]


@pytest.mark.parametrize(
    ("received", "spent_s", "fine"),
    [
        (0, GRACE_S, True),  # the beginning may take its time
        (0, GRACE_S + 1, False),
        (int(LEAST_BYTES_S * 600), 600, True),
        (int(LEAST_BYTES_S * 600) - 1, 600, False),  # a byte every now and then holds the device up for weeks
        (1000 * 12_000, 12_000, True),  # 12 MB at 1 KB/s
    ],
)
def test_a_trickle_is_no_download(received: int, spent_s: float, fine: bool) -> None:
    if fine:
        require_pace(received, spent_s)
    else:
        with pytest.raises(UnreachableError, match="less than 100 bytes a second"):
            require_pace(received, spent_s)


def test_without_room_nothing_is_written(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    def no_room(wanted: int) -> None:
        msg = f"no room for {wanted} bytes"
        raise UnusableError(msg)

    fetcher = open_fetcher(tmp_path, server.url, made)
    with pytest.raises(UnusableError, match=f"no room for {len(CONTENT)} bytes"):
        fetcher.fetch("street/000012.tar", require_room=no_room)
    assert sum(path.stat().st_size for path in (tmp_path / "downloads").iterdir()) == 0
    assert server.sent.get(made.place("street/000012.tar"), 0) == 0


def test_a_full_disk_gets_its_room_back(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        fetcher = open_fetcher(disk, server.url, made)
        fetcher.refresh()
        with pytest.raises(UnusableError, match="No space left on device"):
            fetcher.fetch("street/000012.tar")
        assert list((disk / "downloads").iterdir()) == []
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        made.publish()
        with pytest.raises(UnusableError, match="No space left on device"):
            fetcher.refresh()
        filler.unlink()
        fetcher.refresh()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
