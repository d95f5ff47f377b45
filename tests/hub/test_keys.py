"""Files of keys: whole or not there, readable by one, and holding what they say."""

import shutil
import stat

import pytest

from edge.contract.errors import UnusableError
from hub.keys import OFFLINE, ONLINE, make_keys, open_ring, read_keys, roles_of

SECRET = b"a long passphrase"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Keys with a passphrase, and without."""
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder / "locked", passphrase=SECRET, development=False)
    make_keys(folder / "plain", passphrase=b"", development=True)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "copy")


def never(name):
    pytest.fail(f"asked for {name}")


def test_a_folder_has_every_key_and_only_its_owner_reads_it(made):
    files = read_keys([made / "locked"])
    assert {one.name for one in files} == {*OFFLINE, *ONLINE}
    assert {one.name for one in files if one.encrypted} == set(OFFLINE)
    assert not any(one.development for one in files)
    assert stat.S_IMODE((made / "locked").stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.path.stat().st_mode) for one in files} == {0o600}
    assert {role: len(keys) for role, keys in roles_of(files).items()} == {
        "root": 3,
        "targets": 1,
        "snapshot": 1,
        "timestamp": 1,
    }
    assert all(one.development for one in read_keys([made / "plain"]))


def test_what_a_key_signs_its_public_key_verifies(made):
    for place in ("locked", "plain"):
        files = read_keys([made / place])
        ring = open_ring(files, ask=lambda _: SECRET)
        for keys in roles_of(files).values():
            for key in keys:
                (signer,) = ring.signers([key.keyid], enough=1)
                key.verify_signature(signer.sign(b"payload"), b"payload")


def test_a_passphrase_is_asked_for_once_and_only_when_needed(made):
    files = read_keys([made / "locked"])
    asked = []
    ring = open_ring(files, ask=lambda name: asked.append(name) or SECRET)
    by_name = {one.name: one.key for one in files}
    ring.signers([by_name["snapshot"], by_name["timestamp"]], enough=2)
    assert asked == []
    ring.signers([by_name["root-1"], by_name["root-2"], by_name["root-3"]], enough=2)
    ring.signers([by_name["targets"]], enough=1)
    assert asked == ["root-1"]
    assert ring.signers(["unknown"], enough=1) == []


def test_keys_are_never_overwritten(folder):
    before = {one.path: one.path.read_bytes() for one in read_keys([folder / "plain"])}
    with pytest.raises(UnusableError, match="never overwritten"):
        make_keys(folder / "plain", passphrase=b"", development=True)
    assert {path: path.read_bytes() for path in before} == before


def test_what_a_stop_left_over_is_replaced(tmp_path):
    (tmp_path / ".keys.part" / "offline").mkdir(parents=True)
    (tmp_path / ".keys.part" / "offline" / "root-1.pem").write_text("half")
    make_keys(tmp_path / "keys", passphrase=b"", development=True)
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def change(path, before, after):
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))


REFUSED = [
    # readable by others, without a passphrase
    ("plain/offline/targets.pem", lambda path: path.chmod(0o644), "others may read it; run: chmod 600"),
    ("plain/offline/targets.pem", lambda path: path.chmod(0o640), "its group may read it"),
    # the block is no key
    ("plain/offline/targets.pem", lambda path: change(path, b"\nM", b"\n!"), "holds no key that can be read"),
    ("plain/offline/targets.pem", lambda path: change(path, b"-----END", b""), "holds no key that can be read"),
    # its head tells of another key
    ("plain/offline/targets.pem", lambda path: change(path, b"public: ", b"public: 00"), "and holds another"),
    # cut: the head has no line of it
    ("plain/offline/targets.pem", lambda path: change(path, b"\nkey: ", b"\nkye: "), "has no line 'key'"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), REFUSED)
def test_a_file_that_is_not_what_it_says_is_refused(folder, name, spoil, message):
    spoil(folder / name)
    with pytest.raises(UnusableError, match=message):
        _open_all(folder / "plain")


def _open_all(place):
    files = read_keys([place])
    return open_ring(files, ask=never).signers([one.key for one in files], enough=9)


def test_a_locked_key_may_lie_where_others_read(folder):
    """A USB stick's file system knows no owners."""
    path = folder / "locked" / "offline" / "targets.pem"
    path.chmod(0o755)
    files = [one for one in read_keys([folder / "locked"]) if one.name == "targets"]
    assert open_ring(files, ask=lambda _: SECRET).signers([files[0].key], enough=1)


def test_a_wrong_passphrase_is_said(made):
    files = read_keys([made / "locked"])
    ring = open_ring(files, ask=lambda _: b"wrong")
    with pytest.raises(UnusableError, match=r"this is not the passphrase of .*targets\.pem"):
        ring.signers([one.key for one in files if one.name == "targets"], enough=1)
    for empty in (b"",):
        with pytest.raises(UnusableError, match="not the passphrase"):
            open_ring(files, ask=lambda _, empty=empty: empty).signers([files[0].key], enough=1)


def test_other_files_are_passed_over_and_missing_keys_named(folder):
    (folder / "plain" / "server.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (folder / "plain" / "bytes.pem").write_bytes(b"\xff\xfe")
    assert len(read_keys([folder / "plain"])) == 6
    (folder / "plain" / "offline" / "root-2.pem").unlink()
    with pytest.raises(UnusableError, match="the keys root-2 are missing"):
        roles_of(read_keys([folder / "plain"]))
    with pytest.raises(UnusableError, match=r"the folder of keys .* is not there"):
        read_keys([folder / "nowhere"])


def test_rings_are_put_together(made):
    one, other = (open_ring(read_keys([made / place]), ask=never) for place in ("locked", "plain"))
    both = one | other
    assert set(both.openers) == {*one.openers, *other.openers}
    assert str(made / "locked" / "offline") in both.where
    assert str(made / "plain" / "online") in both.where
