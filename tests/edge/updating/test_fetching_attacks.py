"""A server, or whoever stands between, that lies: the classic attacks on an update.

After every one of them an honest server is believed again, and what was seen before is not forgotten.
"""

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnreachableError, UnusableError
from edge.updating.fetching import Fetcher
from edge.updating.time_floor import ExpiredError
from tests.edge.updating.lying import NOW_S, ROLES, LyingServer, MadeRepository, expiry, write_files

CONTENT = os.urandom(70_000)
TARGET = "street/000012.tar"


@pytest.fixture
def made() -> MadeRepository:
    repository = MadeRepository()
    repository.add_release(12, CONTENT)
    repository.publish()  # 2: a device has seen 2 of each before the lie begins
    return repository


@pytest.fixture
def server(made: MadeRepository) -> Iterator[LyingServer]:
    with LyingServer(dict(made.files)) as serving:
        yield serving


Lie = Callable[[MadeRepository, LyingServer], None]


def alter(path: str) -> Lie:
    """Change one letter of what is signed."""

    def lie(made: MadeRepository, server: LyingServer) -> None:
        publish(made, server)
        server.files[path] = server.files[path].replace(b'"version":3', b'"version":4')

    return lie


def publish(made: MadeRepository, server: LyingServer, *roles: str) -> None:
    made.publish(*roles)
    server.files.update(made.files)


def unsigned(made: MadeRepository, server: LyingServer) -> None:
    publish(made, server)
    told = json.loads(server.files["metadata/timestamp.json"])
    server.files["metadata/timestamp.json"] = json.dumps({**told, "signatures": []}).encode()


def other_keys(made: MadeRepository, server: LyingServer) -> None:
    stranger = MadeRepository("stranger ")
    stranger.publish()
    stranger.publish()
    server.files.update({path: one for path, one in stranger.files.items() if "root" not in path})


def one_key_many_names(made: MadeRepository, server: LyingServer) -> None:
    """A root signed twice by the same key: under its own id, and under another."""
    made.root.version = 2
    content = json.loads(made.sign("root", made.root, signers=made.signers["root"][:1]))
    other = {**content["signatures"][0], "keyid": made.signers["root"][1].public_key.keyid}
    server.files["metadata/2.root.json"] = json.dumps(
        {**content, "signatures": [*content["signatures"], other]}
    ).encode()


def root_of_one(made: MadeRepository, server: LyingServer) -> None:
    made.root.version = 2
    server.files["metadata/2.root.json"] = made.sign("root", made.root, signers=made.signers["root"][:1])


def root_of_new_keys(made: MadeRepository, server: LyingServer) -> None:
    """A root that hands itself over to keys that the old ones never named."""
    stranger = MadeRepository("stranger ")
    stranger.root.version = 2
    server.files["metadata/2.root.json"] = stranger.sign("root", stranger.root)


def root_that_skips(made: MadeRepository, server: LyingServer) -> None:
    made.root.version = 3
    server.files["metadata/2.root.json"] = made.sign("root", made.root)


def root_of_online_keys(made: MadeRepository, server: LyingServer) -> None:
    made.root.version = 2
    server.files["metadata/2.root.json"] = made.sign(
        "root", made.root, signers=[*made.signers["timestamp"], *made.signers["snapshot"]]
    )


def older_timestamp(made: MadeRepository, server: LyingServer) -> None:
    made.timestamp.version = 0
    publish(made, server, "timestamp")


def older_snapshot(made: MadeRepository, server: LyingServer) -> None:
    """The online keys are stolen, too: a new timestamp names an old snapshot."""
    made.snapshot.version = 0
    publish(made, server, "snapshot", "timestamp")


def older_targets(made: MadeRepository, server: LyingServer) -> None:
    """The online keys are stolen, too: a new snapshot names the targets of before."""
    made.snapshot.meta["targets.json"].version = 1
    publish(made, server, "snapshot", "timestamp")


def forgotten_targets(made: MadeRepository, server: LyingServer) -> None:
    del made.snapshot.meta["targets.json"]
    publish(made, server, "snapshot", "timestamp")


def mixed_snapshot(made: MadeRepository, server: LyingServer) -> None:
    """Each file is truly signed, but they never belonged together."""
    old = server.files["metadata/2.snapshot.json"]
    publish(made, server)
    server.files["metadata/3.snapshot.json"] = old


def mixed_targets(made: MadeRepository, server: LyingServer) -> None:
    old = server.files["metadata/2.targets.json"]
    publish(made, server)
    server.files["metadata/3.targets.json"] = old


def another_role(made: MadeRepository, server: LyingServer) -> None:
    server.files["metadata/timestamp.json"] = server.files["metadata/2.snapshot.json"]


def empty(path: str) -> Lie:
    def lie(made: MadeRepository, server: LyingServer) -> None:
        publish(made, server)
        server.files[path] = b""

    return lie


def endless(path: str) -> Lie:
    def lie(made: MadeRepository, server: LyingServer) -> None:
        publish(made, server)
        server.endless.add(path)

    return lie


def expired(role: str) -> Lie:
    """It was true, a day ago."""

    def lie(made: MadeRepository, server: LyingServer) -> None:
        getattr(made, role).expires = expiry("root") - timedelta(days=366)
        if role == "root":
            made.root.version = 2
            made.put_root()
        publish(made, server)
        getattr(made, role).expires = expiry(role)

    return lie


LIES = [
    ("altered timestamp", alter("metadata/timestamp.json"), "not signed as it must be"),
    ("altered snapshot", alter("metadata/3.snapshot.json"), "not signed as it must be"),
    ("altered targets", alter("metadata/3.targets.json"), "not signed as it must be"),
    ("no signature", unsigned, "signed by 0/1 keys"),
    ("another repository's keys", other_keys, "signed by 0/1 keys"),
    ("a root of one key of two", root_of_one, "signed by 1/2 keys"),
    ("a root of one key under two names", one_key_many_names, "signed by 1/2 keys"),
    ("a root of new keys only", root_of_new_keys, "signed by 0/2 keys"),
    ("a root of online keys", root_of_online_keys, "signed by 0/2 keys"),
    ("a root that skips a version", root_that_skips, "Expected root version 2"),
    ("rollback of timestamp", older_timestamp, "must be >= 2"),
    ("rollback of snapshot", older_snapshot, "must be >= 2"),
    ("rollback of targets", older_targets, "Expected targets.json version 1, got 2"),
    ("targets taken out", forgotten_targets, "missing info for 'targets.json'"),
    ("mix of snapshots", mixed_snapshot, "not signed as it must be"),
    ("mix of targets", mixed_targets, "not signed as it must be|Expected targets"),
    ("a snapshot for a timestamp", another_role, "not signed as it must be"),
    ("empty timestamp", empty("metadata/timestamp.json"), "not signed as it must be"),
    ("empty snapshot", empty("metadata/3.snapshot.json"), "not signed as it must be"),
    ("empty targets", empty("metadata/3.targets.json"), "not signed as it must be"),
    ("empty root", empty("metadata/2.root.json"), "not signed as it must be"),
    ("endless timestamp", endless("metadata/timestamp.json"), "over 16384 bytes of timestamp.json"),
    ("endless snapshot", endless("metadata/3.snapshot.json"), "over [0-9]+ bytes of 3.snapshot.json"),
    ("freeze: expired timestamp", expired("timestamp"), "timestamp.json is expired"),
    ("freeze: expired snapshot", expired("snapshot"), "snapshot.json is expired"),
    ("freeze: expired targets", expired("targets"), "targets is expired"),
    ("freeze: expired root", expired("root"), "root.json is expired"),
]


@pytest.mark.parametrize(("lie", "says"), [one[1:] for one in LIES], ids=[one[0] for one in LIES])
def test_a_lie_is_refused_and_the_truth_is_believed_again(
    tmp_path: Path, made: MadeRepository, server: LyingServer, lie: Lie, says: str
) -> None:
    fetcher = Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S)
    fetcher.refresh()
    lie(made, server)
    with pytest.raises(UnusableError, match=says) as refused:
        fetcher.refresh()
    assert isinstance(refused.value, ExpiredError) == ("expired" in says)
    assert "\n" not in str(refused.value)
    with pytest.raises(UnusableError):  # what the last refresh did not bear out is not handed out either
        fetcher.fetch(TARGET)
    truth = MadeRepository()
    truth.add_release(12, CONTENT)
    for role in ROLES:
        getattr(truth, role).version = 5
    truth.publish()
    for truth.root.version in (2, 3):
        truth.put_root()
    server.files, server.endless = {**truth.files}, set()
    again = Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S)
    assert again.fetch(TARGET).read_bytes() == CONTENT


def test_what_was_seen_is_remembered_over_a_restart(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    old = dict(server.files)
    publish(made, server)
    Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S).refresh()
    server.files = old
    with pytest.raises(UnusableError, match="must be >= 3"):
        Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S).refresh()


def test_rotated_keys_are_followed_and_the_old_ones_are_dead(
    tmp_path: Path, made: MadeRepository, server: LyingServer
) -> None:
    """A stolen online key is replaced by two root keys; what the thief signs from then on is nothing."""
    fetcher = Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S)
    fetcher.refresh()
    thief = made.signers["timestamp"]
    made.signers["timestamp"] = MadeRepository("new ").signers["timestamp"]
    made.root.revoke_key(thief[0].public_key.keyid, "timestamp")
    made.root.add_key(made.signers["timestamp"][0].public_key, "timestamp")
    made.root.version = 2
    made.put_root(signers=made.signers["root"][1:])
    publish(made, server)
    fetcher.refresh()
    made.signers["timestamp"] = thief
    publish(made, server)
    with pytest.raises(UnusableError, match="signed by 0/1 keys"):
        fetcher.refresh()


def bytes_for(path: str, content: bytes) -> Lie:
    def lie(made: MadeRepository, server: LyingServer) -> None:
        server.files[made.place(TARGET) if path == TARGET else path] = content

    return lie


ARCHIVE_LIES = [
    ("a byte changed", bytes_for(TARGET, CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])), "not the file that was signed"),
    ("a byte more", bytes_for(TARGET, CONTENT + b"x"), "longer than the 70000 bytes"),
    ("another file of that length", bytes_for(TARGET, CONTENT[::-1]), "not the file that was signed"),
    ("it never ends", lambda made, server: server.endless.add(made.place(TARGET)), "longer than the 70000 bytes"),
]


@pytest.mark.parametrize(("lie", "says"), [one[1:] for one in ARCHIVE_LIES], ids=[one[0] for one in ARCHIVE_LIES])
@pytest.mark.parametrize("begun", [0, 1000])
def test_a_false_archive_is_refused_and_not_kept(
    tmp_path: Path, made: MadeRepository, server: LyingServer, lie: Lie, says: str, begun: int
) -> None:
    fetcher = Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S)
    if begun:
        part = fetcher.fetch(TARGET)
        part.rename(part.with_name(part.name + ".part")).write_bytes(CONTENT[:begun])
    lie(made, server)
    most = 0

    def watch(here: int, _: int) -> None:
        nonlocal most
        most = max(most, here)

    with pytest.raises(UnusableError, match=says):
        fetcher.fetch(TARGET, on_bytes=watch)
    assert most <= len(CONTENT)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_short_archive_never_becomes_a_release(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    server.files[made.place(TARGET)] = CONTENT[:-1]
    fetcher = Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S)
    for _ in range(2):
        with pytest.raises((UnreachableError, UnusableError)):
            fetcher.fetch(TARGET)
    assert not list((tmp_path / "downloads").glob("*.tar"))


SIGNED_AMISS: list[tuple[str, Callable[[MadeRepository], object], str]] = [
    ("unknown", lambda made: made.targets.targets.clear(), "no release 'street/000012.tar' is signed"),
    # the engineer's own mistake: 13 is signed under the name of 12
    ("another number", lambda made: made.add_release(13, CONTENT, as_number=12), "signed as street 13"),
    ("no release", lambda made: made.targets.targets[TARGET].unrecognized_fields.clear(), "is no release"),
    (
        "a later schema",
        lambda made: made.targets.targets[TARGET].unrecognized_fields["custom"]["weakspot"].update(schema=9),
        "schema 9",
    ),
    ("too large", lambda made: setattr(made.targets.targets[TARGET], "length", 3 << 30), "larger than 2147483648"),
    ("no sha256", lambda made: setattr(made.targets.targets[TARGET], "hashes", {"sha512": "0" * 128}), "sha256"),
]


@pytest.mark.parametrize(("amiss", "says"), [one[1:] for one in SIGNED_AMISS], ids=[one[0] for one in SIGNED_AMISS])
def test_what_is_signed_but_is_not_the_release_is_refused(
    tmp_path: Path, made: MadeRepository, server: LyingServer, amiss: Callable[[MadeRepository], object], says: str
) -> None:
    amiss(made)
    publish(made, server)
    with pytest.raises(UnusableError, match=says):
        Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S).fetch(TARGET)


@pytest.mark.parametrize("root", [b"", b"{}", b"no json", MadeRepository("stranger ").trusted], ids=range(4))
def test_a_device_given_another_root_trusts_nothing(
    tmp_path: Path, made: MadeRepository, server: LyingServer, root: bytes
) -> None:
    fetcher = Fetcher(tmp_path, server.url, root, clock=lambda: NOW_S)
    with pytest.raises(UnusableError):
        fetcher.refresh()


def test_the_cache_is_not_what_is_trusted(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    """Whoever writes the cache cannot bring in keys of their own, and a spoilt cache is fetched again."""
    stranger = MadeRepository("stranger ")
    (tmp_path / "tuf" / "root_history").mkdir(parents=True)
    for name, path in (("timestamp", "timestamp"), ("snapshot", "1.snapshot"), ("targets", "1.targets")):
        (tmp_path / "tuf" / f"{name}.json").write_bytes(stranger.files[f"metadata/{path}.json"])
    (tmp_path / "tuf" / "root.json").write_bytes(stranger.trusted)
    (tmp_path / "tuf" / "root_history" / "1.root.json").write_bytes(stranger.trusted)
    (tmp_path / "tuf" / "root_history" / "2.root.json").write_bytes(b"\x00" * 100)
    (tmp_path / "tuf" / "newest-time").write_bytes(b"\xff\x00")
    (tmp_path / "tuf" / ".timestamp.json.77.part").write_bytes(b"")
    fetcher = Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S)
    assert fetcher.fetch(TARGET).read_bytes() == CONTENT
    assert not list((tmp_path / "tuf").rglob("*.part")), "what a power cut left is swept up"


@settings(max_examples=15, deadline=None)
@given(
    path=st.sampled_from(["timestamp.json", "2.snapshot.json", "2.targets.json", "2.root.json"]),
    content=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda some: (
            st.lists(some, max_size=3)
            | st.dictionaries(st.sampled_from(["signed", "signatures", "_type", "version", "keyid"]), some, max_size=4)
        ),
        max_leaves=8,
    ).map(lambda one: json.dumps(one).encode()),
)
def test_nonsense_is_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, path: str, content: bytes) -> None:
    repository = tmp_path_factory.mktemp("nonsense")
    url = write_files({**HONEST.files, f"metadata/{path}": content}, repository / "served")
    with pytest.raises(UnusableError):
        Fetcher(repository / "models", url, HONEST.trusted, clock=lambda: NOW_S).refresh()


HONEST = MadeRepository()
HONEST.publish()
