"""The way to a CVAT server and into it: against a stand-in that speaks CVAT's REST shape over real HTTP."""

import json
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

import hub.cli
from edge.contract.errors import UnreachableError, UnusableError
from hub.config import EXAMPLE, CvatConfig, HubConfig, parse_config
from hub.store import Store
from tests.hub.cvat_desk import config_of, draw, only, pull, push, write_config
from tests.hub.labelled import made_batch
from tests.simulators.cvat import PASSWORD, USER, StandInCvat


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


@pytest.fixture
def server():
    with StandInCvat() as standing:
        yield standing


@pytest.fixture
def config(server, tmp_path) -> HubConfig:
    return config_of(server, tmp_path)


# The way in


def test_a_password_logs_in_and_out(store, server, tmp_path) -> None:
    made_batch(store, 2)
    (tmp_path / "password").write_text(PASSWORD)
    config = config_of(server, tmp_path, token_file=None, username=USER, password_file=tmp_path / "password")
    assert push(store, config).made
    assert server.asked[-1] == ("POST", "/api/auth/logout")


@pytest.mark.parametrize("way", ["token", "password"])
def test_a_wrong_secret_is_said_and_not_shown(store, server, tmp_path, way) -> None:
    made_batch(store, 2)
    (tmp_path / "wrong").write_text("not-the-secret\n")
    changes = (
        {"token_file": tmp_path / "wrong"}
        if way == "token"
        else {"token_file": None, "username": USER, "password_file": tmp_path / "wrong"}
    )
    with pytest.raises(UnusableError, match="logging in failed: ") as caught:
        push(store, config_of(server, tmp_path, **changes))
    said = str(caught.value)
    assert "not-the-secret" not in said
    assert ("is not accepted" if way == "token" else "Unable to log in") in said


def test_the_organization_is_told_and_must_exist(store, server, tmp_path) -> None:
    made_batch(store, 2)
    push(store, config_of(server, tmp_path, organization="yard"))
    assert server.organizations == {"yard"}
    with pytest.raises(UnusableError, match="garden organization does not exist"):
        push(store, config_of(server, tmp_path, organization="garden"))


def test_nobody_of_that_name(store, server, config) -> None:
    made_batch(store, 2)
    with pytest.raises(UnusableError, match="has no user 'bo' that this account can see"):  # bob is another
        push(store, config, assignee="bo")
    assert server.tasks == {}


def test_a_server_of_another_version_is_noted(store, tmp_path) -> None:
    made_batch(store, 2)
    with StandInCvat(version="2.31.4") as old:
        (note,) = push(store, config_of(old, tmp_path)).notes
    assert "the server is CVAT 2.31.4" in note
    assert 'pip install "cvat-sdk==2.31.*"' in note


def test_a_gateway_that_fails_once_is_asked_again(store, server, config) -> None:
    made_batch(store, 2)
    server.faults = [("GET", "/data/meta", 502)]
    assert push(store, config).made
    assert server.count("GET", "/data/meta") == 2


def test_a_server_that_is_not_there(store, tmp_path) -> None:
    made_batch(store, 2)
    with StandInCvat() as gone:
        config = config_of(gone, tmp_path)
    with pytest.raises(UnreachableError, match=r"asking for its version failed: it cannot be reached: .*refused"):
        push(store, config)


def test_what_is_no_cvat_server_is_said(store, server, config) -> None:
    made_batch(store, 2)
    server.faults = [("GET", "/api/server/about", "nonsense")]
    with pytest.raises(UnusableError, match=r"its answer is not understood .*; is this a CVAT server\?"):
        push(store, config)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_certificate_is_checked(store, tmp_path) -> None:
    made_batch(store, 2)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=cvat"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with StandInCvat(tls=context) as server:
        with pytest.raises(
            UnreachableError, match=r"its certificate is not trusted .*`ca` in .cvat. names its authority"
        ):
            push(store, config_of(server, tmp_path))
        assert push(store, config_of(server, tmp_path, ca=cert)).made
        with pytest.raises(UnusableError, match=r"cannot use .*gone.pem of .cvat.: No such file"):
            push(store, config_of(server, tmp_path, ca=tmp_path / "gone.pem"))


def test_no_token_reaches_another_host(store, server, config) -> None:
    """A redirect is followed without it, and addresses in answers are taken from the host that is configured."""
    made_batch(store, 2)
    with StandInCvat() as other:
        server.url = other.url  # what the server believes that it is called
        push(store, config, assignee="bob")
        task = only(server)
        task.finish()
        assert pull(store, config).answers
        assert other.asked == []
        server.faults = [("GET", "/api/users/self", other.url)]
        with pytest.raises(UnusableError, match="logging in failed: the token or the password is not accepted"):
            pull(store, config)
        assert other.asked == [("GET", "/api/users/self")]


# What must be installed and configured


def test_without_the_sdk_one_line_says_what_to_install(store, server, config, monkeypatch) -> None:
    made_batch(store, 2)
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    with pytest.raises(UnusableError, match=r'cvat_sdk is not installed; run: pip install "weakspot\[cvat\]"'):
        push(store, config)
    assert server.asked == []


def test_without_a_server_it_is_said_where_to_name_one(store) -> None:
    made_batch(store, 2)
    with pytest.raises(UnusableError, match=r"no CVAT server is named: set `url` and `token_file` in \[cvat\]"):
        push(store, HubConfig())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url = 'cvat.example.org'", "`cvat.url`: "),  # would it be with TLS?
        ("url = 'https://me:secret@cvat.example.org'", "`cvat.url`: "),  # a secret has its own file
        ("url = 'https://cvat.example.org'", "`cvat.url` needs `cvat.token_file`"),
        ("username = 'ann'", "`cvat.username` and `cvat.password_file` are given together"),
        ("token_file = 't'\nusername = 'ann'\npassword_file = 'p'", "two ways to log in"),
        ("token = 't'", "unknown key `cvat.token`; did you mean `token_file`?"),
        ("timeout_s = 0", "`cvat.timeout_s`: "),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(text, message) -> None:
    with pytest.raises(UnusableError) as caught:
        parse_config(f"[cvat]\n{text}", folder=Path("/etc"))
    assert message in str(caught.value)


def test_the_example_of_the_configuration_names_every_key() -> None:
    section = EXAMPLE.partition("[cvat]")[2].partition("\n\n")[0]
    assert [name for name in CvatConfig.__struct_fields__ if name not in section] == []


# As it is typed


@pytest.fixture
def run(tmp_path, server, monkeypatch, capsys):
    """Run `hub cvat ...`; return its status, what it printed, and what it said of errors."""

    def command(*words: str) -> tuple[int, str, str]:
        write_config(tmp_path, server)
        monkeypatch.setattr(sys, "argv", ["hub", "cvat", *words, "--config", str(tmp_path / "hub.toml")])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


def test_the_commands(run, store, server) -> None:
    made_batch(store, 2)
    status, printed, said = run("push", "1", "--assignee", "bob")
    task = only(server)
    assert (status, said) == (0, "")
    assert printed.splitlines() == [
        "batch 1: 2 images (1 of the test share), 2 boxes proposed",
        f"task {task.id}: {server.url}/tasks/{task.id}",
        "when its jobs are completed: hub cvat pull 1",
    ]
    assert "stands there already; --again makes another task" in run("push", "1")[1]
    assert json.loads(run("push", "1", "--json")[1])["task_id"] == task.id
    status, printed, _ = run("pull", "1")
    assert status == 1
    assert f"not completed: {server.url}/tasks/{task.id}: job {task.jobs[0].id} is new" in printed
    task.finish()
    status, printed, _ = run("pull", "1", "--minutes", "5")
    assert status == 0
    assert "batch 1, cvat: 2 images, 2 boxes by bob (set 1)" in printed
    assert printed.endswith("next: hub labels show 1, hub labels audit 1\n")
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert json.loads(run("pull", "1", "--json")[1])["answers"] == [
        {"task_id": task.id, "annotator": "bob", "imported": None}
    ]
    assert f"task {task.id}, bob: nothing has changed since the last pull" in run("pull", "1")[1]
    draw(task, (0, "person", (4.0, 4.0, 70.0, 14.0)))
    status, printed, said = run("pull", "1")
    assert (status, printed) == (2, "")
    assert "nothing is imported, 1 fault" in said
    server.faults = [("GET", "/api/users/self", 401)]
    status, printed, said = run("pull", "1")
    assert (status, printed, said.count("\n")) == (2, "", 1)
    assert said.startswith(f"hub: {server.url}: logging in failed: ")
