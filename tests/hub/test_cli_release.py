"""`hub keys`, `hub release` and `hub repository`, as a user runs them, with tuf's own client on the other side."""

import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from edge.updating.fetching import Fetcher
from hub.cli import main
from hub.keys import open_ring, read_keys
from hub.repository import refresh, renew
from tests.hub.signed import small_model


@pytest.fixture
def hub(monkeypatch, tmp_path, capsys):
    """Run `hub` in an empty folder, with no terminal; return exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hub", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code or 0
        captured = capsys.readouterr()
        assert all(len(line) <= 80 or ".pem" in line or line[0] == "{" for line in captured.out.splitlines())
        return status, captured.out, captured.err

    return run


@pytest.fixture
def tried(hub, tmp_path):
    """A repository with development keys and a release, made by commands."""
    assert hub("keys", "init", "--development")[0] == 0
    small_model(tmp_path / "model")
    assert hub("release", "create", "model", "--ungated", "to try it")[0] == 0
    return hub


def test_from_nothing_to_a_device(tried, tmp_path):
    hub = tried
    status, out, err = hub("release", "list")
    assert (status, err) == (0, "")
    assert "yard/1" in out
    assert "NONE" in out
    status, out, _ = hub("release", "show")
    assert "gate        NONE: to try it" in out
    assert "back to     the model that the device came with" in out
    told = json.loads(hub("release", "show", "yard/1", "--json")[1])
    assert (told["signed"]["number"], told["published"]) == (1, True)
    assert hub("repository", "refresh")[0] == 0
    assert hub("repository", "bundle", "out.tar")[0] == 0
    (tmp_path / "stick").mkdir()
    subprocess.run(["tar", "xf", "../out.tar"], cwd=tmp_path / "stick", check=True)
    (tmp_path / "cache").mkdir()
    with serving(tmp_path / "stick") as url:
        root = (tmp_path / "repository" / "metadata" / "root.json").read_bytes()
        cache = str(tmp_path / "cache")
        updater = Updater(cache, f"{url}/metadata/", cache, f"{url}/targets/", bootstrap=root)
        info = updater.get_targetinfo(told["target"])
        assert Path(updater.download_target(info)).stat().st_size == told["length"]


@contextmanager
def serving(folder):
    """Run `hub repository serve` in a process of its own, until SIGTERM; its exit status must be 0."""
    command = [sys.executable, "-m", "hub", "repository", "serve", "-r", ".", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = next((line for line in process.stdout if line.startswith("http://")), "")
            assert "--host 0.0.0.0 for devices" in line
            yield line.split()[0]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_development_keys_are_marked_wherever_they_sign(tried):
    commands = [
        ("keys", "list"),
        ("release", "list"),
        ("release", "show"),
        ("release", "create", "model", "--ungated", "again"),
        ("repository", "refresh"),
        ("repository", "bundle", "out.tar"),
        ("keys", "renew"),
    ]
    for command in commands:
        status, out, _ = tried(*command)
        assert status == 0
        assert out.startswith("*** DEVELOPMENT KEYS ***"), command
    assert json.loads(tried("release", "list", "--json")[1])["development"] is True


def test_promote_replaces_them(tried, tmp_path):
    (tmp_path / "secret").write_text("a long passphrase\nnot this line\n")
    status, out, err = tried("keys", "promote", "--to", "real", "--new-passphrase-file", "secret")
    assert (status, err) == (0, "")
    assert "DEVELOPMENT" not in out
    assert "Take real/offline off this machine" in out
    (tmp_path / "hub.toml").write_text('[repository]\nkeys = "real"\n')
    told = json.loads(tried("keys", "list", "--json")[1])
    assert (told["development"], told["root"]) == (False, 3)
    assert {row["role"]: row["passphrase"] for row in told["keys"]} == {
        "root": True,
        "targets": True,
        "snapshot": False,
        "timestamp": False,
    }
    assert tried("repository", "refresh")[0] == 0  # online keys need no passphrase
    small_model(tmp_path / "model", release="yard-2", content="2")
    status, _, err = tried("release", "create", "model", "--ungated", "x")
    assert (status, err.count("\n")) == (2, 1)
    assert "a passphrase is needed for targets: run it in a terminal, or give --passphrase-file" in err
    status, out, _ = tried("release", "create", "model", "--ungated", "x", "--passphrase-file", "secret")
    assert (status, out.splitlines()[0]) == (0, "yard/2 (yard-2) is signed, 0.0 MB")
    (tmp_path / "secret").write_text("another\n")
    small_model(tmp_path / "model", release="yard-3", content="3")
    status, _, err = tried("release", "create", "model", "--ungated", "x", "--passphrase-file", "secret")
    assert (status, "this is not the passphrase of real/offline/targets.pem" in err) == (2, True)
    cache = tmp_path / "cache"
    cache.mkdir()
    trusted = (tmp_path / "repository" / "metadata" / "1.root.json").read_bytes()  # of a device of the trial
    with serving(tmp_path / "repository") as url:
        updater = Updater(str(cache), f"{url}/metadata/", str(cache), f"{url}/targets/", bootstrap=trusted)
        assert updater.get_targetinfo("yard/000002.tar") is not None
        with urllib.request.urlopen(f"{url}/metadata/root.json", timeout=10) as answer:
            assert b"x-weakspot-development" not in answer.read()


LOST = [
    # which old keys are lost, and whether new ones take their place
    (("offline/targets", "online/snapshot", "online/timestamp", "offline/root-1"), True),
    (("offline/root-1", "offline/root-2"), False),
]


@pytest.mark.parametrize(("lost", "done"), LOST)
def test_lost_keys_are_replaced_by_two_root_keys(tried, tmp_path, lost, done):
    root = (tmp_path / "repository" / "metadata" / "1.root.json").read_bytes()
    before = {path: path.read_bytes() for path in (tmp_path / "repository").rglob("*") if path.is_file()}
    for name in lost:
        (tmp_path / "keys" / f"{name}.pem").unlink()
    status, out, err = tried("keys", "promote", "--to", "real", "--no-passphrase")
    if not done:
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "to sign root, " in err
        assert "is needed: not in keys/offline" in err
        assert {path: path.read_bytes() for path in (tmp_path / "repository").rglob("*") if path.is_file()} == before
        return
    assert (status, err) == (0, "")
    assert tried("keys", "promote", "--to", "real", "--no-passphrase", "-k", "real")[0] == 0  # said twice
    assert tried("repository", "refresh", "-k", "real")[0] == 0
    fetcher = Fetcher(tmp_path / "device", (tmp_path / "repository").as_uri(), root)
    assert fetcher.fetch("yard/000001.tar").stat().st_size > 0
    status, _, err = tried("repository", "refresh")  # a cron job that still has the folder of the old keys
    assert (status, err.count("\n")) == (2, 1)
    assert "to sign snapshot, the key" in err


def test_a_key_that_others_may_read_is_not_used(tried, tmp_path):
    key = tmp_path / "keys" / "online" / "timestamp.pem"
    key.chmod(0o644)
    status, out, err = tried("repository", "refresh")
    assert (status, out) == (2, "")
    assert err == (
        "hub: keys/online/timestamp.pem has no passphrase and others may read it;"
        " run: chmod 600 keys/online/timestamp.pem\n"
    )
    key.chmod(0o600)
    assert tried("repository", "refresh")[0] == 0


def test_what_cron_is_told(tried, tmp_path):
    """What has ended is signed anew without a word; what cron cannot sign itself is said, each time, on stderr."""
    place = tmp_path / "repository"
    files = read_keys([tmp_path / "keys"])
    ring = open_ring(files, ask=lambda _: b"")
    now = datetime.now(UTC)
    refresh(place, ring, now=now - timedelta(days=9))
    status, _, err = tried("release", "list")
    assert (status, err.count("has ended: no device takes anything now; run: hub repository refresh")) == (0, 2)
    assert tried("repository", "refresh")[::2] == (0, "")
    refresh(place, ring, now=now + timedelta(days=30))
    status, _, err = tried("repository", "refresh")
    assert (status, err) == (
        0,
        f"hub: snapshot, timestamp signed 29 days ahead of this machine's clock, {now:%Y-%m-%d}: is it right?\n",
    )
    assert tried("repository", "refresh")[::2] == (0, "")
    renew(place, ring, now=now - timedelta(days=720))
    status, _, err = tried("repository", "refresh")
    assert (status, err.splitlines()) == (
        0,
        [
            "hub: root ends in 9 days; run: hub keys renew",
            "hub: targets has ended: no device takes anything now; run: hub keys renew",
        ],
    )
    assert tried("keys", "renew")[::2] == (0, "")
    assert tried("repository", "refresh")[::2] == (0, "")


def test_init_goes_on_where_it_stopped(hub, tmp_path):
    assert hub("keys", "init", "--development")[0] == 0
    subprocess.run(["rm", "-r", "repository"], cwd=tmp_path, check=True)
    before = (tmp_path / "keys" / "offline" / "root-1.pem").read_bytes()
    assert hub("keys", "init", "--development")[0] == 0
    assert (tmp_path / "keys" / "offline" / "root-1.pem").read_bytes() == before
    assert hub("repository", "refresh")[0] == 0


def test_keys_that_are_elsewhere_are_said(tried, tmp_path):
    subprocess.run(["mv", "keys/offline", "stick"], cwd=tmp_path, check=True)
    status, out, _ = tried("keys", "list")
    assert (status, out.count("not here")) == (0, 4)
    assert tried("keys", "list", "-k", "keys", "-k", "stick")[1].count("not here") == 0
    assert tried("repository", "refresh")[0] == 0
    small_model(tmp_path / "model", release="yard-2", content="2")
    status, _, err = tried("release", "create", "model", "--ungated", "x")
    assert (status, "to sign targets, the key" in err) == (2, True), err
    status, out, _ = tried("release", "create", "model", "--ungated", "x", "-k", "stick")
    assert (status, "not published: copy repository" in out) == (0, True)
    assert "* signed, not published yet" in tried("release", "list")[1]
    assert "2 releases" in tried("repository", "refresh")[1]
    assert "not published" not in tried("release", "list")[1]


REFUSED = [
    # in an empty folder: what is asked for, and what is said
    (["keys", "init"], "new keys need a passphrase: run it in a terminal, or give --passphrase-file"),
    (["keys", "init", "--development", "--passphrase-file", "x"], "are two ways: give one"),
    (["keys", "init", "--passphrase-file", "gone"], "cannot read gone: No such file or directory"),
    (["keys", "init", "--passphrase-file", "empty"], "empty holds no passphrase"),
    (["keys", "init", "--development", "-k", "a", "-k", "b"], "name one folder for the new keys"),
    (["keys", "list"], "there is no repository in repository; `hub keys init` makes one"),
    (["keys", "promote", "--to", "x", "--no-passphrase"], "there is no repository in"),
    (["keys", "renew"], "the folder of keys keys is not there; `hub keys init` makes one"),
    (["release", "create", "model"], "there is no repository in"),
    (["release", "list", "-r", "gone"], "there is no repository in gone"),
    (["release", "show", "1"], "there is no repository in"),
    (["repository", "refresh"], "the folder of keys keys is not there"),
    (["repository", "serve"], "there is no repository in"),
    (["repository", "bundle", "out.tar"], "there is no repository in"),
]


def test_what_cannot_be_done_is_one_line(hub, tmp_path):
    (tmp_path / "empty").write_text("\n")
    for arguments, message in REFUSED:
        status, out, err = hub(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), arguments
        assert message in err, arguments
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_no_gate_no_release(tried):
    subprocess.run(["sh", "-c", "echo >> model/model.json"], check=True)
    status, _, err = tried("release", "create", "model")
    assert status == 2
    assert "no gate has judged it; `hub gate` judges it, --ungated" in err


def test_development_keys_do_not_become_real_ones_by_init(hub):
    assert hub("keys", "init", "--development")[0] == 0
    status, _, err = hub("keys", "init", "--no-passphrase", "-r", "other")
    assert (status, err) == (2, "hub: keys holds development keys; --keys names another folder\n")
    status, _, err = hub("keys", "promote", "--to", "keys", "--no-passphrase")
    assert (status, err) == (2, "hub: keys holds development keys; --to names a folder for real ones\n")
