"""The command for the public suite of The Update Framework, as the suite calls it."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.updating.conformance import main
from tests.edge.updating.lying import ROLES, LyingServer, MadeRepository, expiry


@pytest.fixture
def made() -> MadeRepository:
    """A repository of today, for this client goes by the clock."""
    repository = MadeRepository()
    for role in ("root", *ROLES):
        getattr(repository, role).expires = expiry(role, time.time())
    repository.put_root()
    repository.add_release(1, b"one")
    repository.publish()
    return repository


@pytest.fixture
def server(made: MadeRepository) -> Iterator[LyingServer]:
    with LyingServer(made.files) as serving:
        yield serving


class Suite:
    """Calls the client as the suite does."""

    def __init__(self, folder: Path, server: LyingServer, root: bytes) -> None:
        self.metadata, self.targets, self.server = folder / "metadata", folder / "targets", server
        self.metadata.mkdir()
        self.targets.mkdir()
        (folder / "initial_root.json").write_bytes(root)
        assert main(["--metadata-dir", str(self.metadata), "init", str(folder / "initial_root.json")]) == 0

    def refresh(self) -> int:
        return main(["--metadata-url", f"{self.server.url}/metadata/", "--metadata-dir", str(self.metadata), "refresh"])

    def download(self, *names: str) -> int:
        url = ["--metadata-url", f"{self.server.url}/metadata/", "--target-base-url", f"{self.server.url}/targets/"]
        folders = ["--metadata-dir", str(self.metadata), "--target-dir", str(self.targets)]
        return main([*url, *folders, *(word for name in names for word in ("--target-name", name)), "download"])

    def versions(self) -> dict[str, int]:
        found = {path.stem: json.loads(path.read_bytes()) for path in self.metadata.glob("*.json")}
        return {role: one["signed"]["version"] for role, one in found.items()}


def test_it_is_a_command(tmp_path: Path, made: MadeRepository) -> None:
    (tmp_path / "root.json").write_bytes(made.trusted)
    command = [sys.executable, "-m", "edge.updating.conformance", "--metadata-dir", str(tmp_path), "init"]
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([*command, str(tmp_path / "root.json")], cwd=root, check=False).returncode == 0
    told = subprocess.run([*command, str(tmp_path / "none")], cwd=root, check=False, capture_output=True, text=True)
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1


def test_the_requests_are_those_of_the_specification(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    suite = Suite(tmp_path, server, made.trusted)
    assert server.asked == [], "init asks nobody"
    assert suite.refresh() == 0
    names = ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"]
    assert [path for path, _ in server.asked] == [f"metadata/{name}" for name in names]
    assert suite.versions() == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}
    server.asked.clear()
    assert suite.refresh() == 0
    assert [path for path, _ in server.asked] == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_artifacts_are_fetched_once_and_replaced_under_one_name(
    tmp_path: Path, made: MadeRepository, server: LyingServer
) -> None:
    suite = Suite(tmp_path, server, made.trusted)
    assert suite.download("street/000001.tar") == 0
    (held,) = suite.targets.iterdir()
    assert held.read_bytes() == b"one"
    assert suite.download("street/000001.tar") == 0
    assert [path for path, _ in server.asked].count(made.place("street/000001.tar")) == 1
    made.add_release(1, b"another")
    made.publish()
    assert suite.download("street/000001.tar") == 0
    assert [path.read_bytes() for path in suite.targets.iterdir()] == [b"another"]
    assert held.exists()
    assert suite.download("street/000009.tar") == 1


def test_several_are_fetched_in_their_order_after_one_refresh_up_to_the_first_that_fails(
    tmp_path: Path, made: MadeRepository, server: LyingServer
) -> None:
    for number in (2, 3):
        made.add_release(number, b"%d" % number)
    made.publish()
    suite = Suite(tmp_path, server, made.trusted)
    assert suite.download("street/000003.tar", "street/000001.tar", "street/000009.tar", "street/000002.tar") == 1
    asked = [path for path, _ in server.asked]
    assert asked.count("metadata/timestamp.json") == 1
    assert [path for path in asked if path.startswith("targets/")] == [
        made.place("street/000003.tar"),
        made.place("street/000001.tar"),
    ]
    assert sorted(path.read_bytes() for path in suite.targets.iterdir()) == [b"3", b"one"]


def test_roots_are_followed_and_a_false_one_ends_it(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    suite = Suite(tmp_path, server, made.trusted)
    made.root.version = 2
    made.put_root()
    assert suite.refresh() == 0
    assert suite.versions()["root"] == 2
    made.root.version = 3
    made.put_root(signers=made.signers["root"][:1])
    assert suite.refresh() == 1
    assert suite.versions()["root"] == 2


def test_a_root_that_cannot_be_is_refused_before_anyone_is_asked(
    tmp_path: Path, made: MadeRepository, server: LyingServer
) -> None:
    suite = Suite(tmp_path, server, made.trusted.replace(b'"version":1', b'"version":7'))
    assert suite.refresh() == 1
    assert server.asked == []


def test_it_goes_by_the_clock_alone(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    made.timestamp.expires = datetime.fromtimestamp(time.time() - 60, UTC).replace(microsecond=0)
    made.publish()
    suite = Suite(tmp_path, server, made.trusted)
    assert suite.refresh() == 1
    assert not (suite.metadata / "newest-time").exists()
