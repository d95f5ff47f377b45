"""A repository over HTTP: what is served, what is not, and clients that stop nobody."""

import http.client
import os
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from edge.contract.errors import UnreachableError
from edge.updating.fetching import Fetcher
from hub.repository import refresh
from hub.repository_http import MOST_CLIENTS, RepositoryServer, open_inside, read_range
from tests.hub.signed import made_repository, small_model

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def served(tmp_path):
    """A repository with a release, over HTTP on a free port."""
    made = made_repository(tmp_path / "r", small_model(tmp_path / "model"))
    with RepositoryServer(made.folder, host="127.0.0.1", port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield made, server.server_port
        server.shutdown()
        thread.join(10)


def ask(port, path, *, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_a_client_over_http(served, tmp_path):
    made, port = served
    cache = tmp_path / "http"
    cache.mkdir()
    base = f"http://127.0.0.1:{port}"
    updater = Updater(str(cache), f"{base}/metadata/", str(cache), f"{base}/targets/", bootstrap=made.root)
    info = updater.get_targetinfo("yard/000001.tar")
    assert Path(updater.download_target(info)).stat().st_size == info.length


RANGES = [
    # what is asked for of 10 bytes, and the bytes that come; None: all
    ("bytes=0-", range(10)),
    ("bytes=3-", range(3, 10)),
    ("bytes=9-", range(9, 10)),
    ("bytes=10-", range(0)),  # nothing is there
    ("bytes=2-4", range(2, 5)),
    ("bytes=2-99", range(2, 10)),
    ("bytes=-3", range(7, 10)),
    ("bytes=-99", range(10)),
    ("bytes=-0", range(10, 10)),
    ("bytes=4-2", None),  # turned round: not a range
    ("bytes=-", None),
    ("bytes=0-1,4-5", None),  # several parts: all is as good an answer
    ("lines=1-2", None),
    ("bytes=x-", None),
    (f"bytes={'9' * 40}-", None),
]


@pytest.mark.parametrize(("header", "expected"), RANGES)
def test_ranges(header, expected):
    assert read_range(header, 10) == expected


def test_ranges_over_http(served):
    made, port = served
    path = next((made.folder / "targets" / "yard").iterdir())
    content = path.read_bytes()
    url = f"/targets/yard/{path.name}"
    answer, body = ask(port, url, Range="bytes=100-")
    assert (answer.status, body) == (206, content[100:])
    assert answer.headers["Content-Range"] == f"bytes 100-{len(content) - 1}/{len(content)}"
    answer, body = ask(port, url, Range=f"bytes={len(content)}-")
    assert (answer.status, answer.headers["Content-Range"], body) == (416, f"bytes */{len(content)}", b"")
    answer, body = ask(port, url, method="HEAD")
    assert (answer.status, int(answer.headers["Content-Length"]), body) == (200, len(content), b"")
    assert ask(port, url, method="PUT")[0].status == 501
    assert ask(port, url, method="DELETE")[0].status == 501
    assert path.read_bytes() == content


OUTSIDE = [
    "/",
    "/metadata",  # no folder is listed
    "/metadata/",
    "/targets/yard",
    "/secret",  # beside the two folders
    "/metadata/../secret",
    "/metadata/%2e%2e/secret",
    "/metadata/..%2fsecret",
    "//metadata/timestamp.json",
    "/metadata//timestamp.json",
    "/.lock",
    "/metadata/.hidden",
    "/metadata/link",  # leads out of the two folders
    "/metadata/pipe",  # would never end
    "/metadata/%00",
    "/metadata/" + "x" * 300,
    "metadata/timestamp.json",
]


def test_nothing_else_is_served(served):
    made, port = served
    metadata = made.folder / "metadata"
    (made.folder / "secret").write_text("secret")
    (metadata / ".hidden").write_text("secret")
    (metadata / "link").symlink_to(made.folder / "secret")
    os.mkfifo(metadata / "pipe")
    for path in OUTSIDE:
        if path.startswith("/") and path[1:2] != "/":  # http.server makes one slash of two
            assert ask(port, path)[0].status == 404, path
        assert open_inside(made.folder, path) is None, path
    assert ask(port, "/metadata/timestamp.json?x=1")[0].status == 200


def test_a_client_that_goes_away_or_stays_silent_stops_nobody(served):
    _, port = served
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    silent[0].sendall(b"GET /metadata/timestamp.json HTTP/1.1\r\n")
    silent[1].sendall(b"\x00\xff" * 1000)
    silent[2].close()
    assert ask(port, "/metadata/timestamp.json")[0].status == 200
    for one in silent:
        one.close()
    assert ask(port, "/metadata/timestamp.json")[0].status == 200


def test_a_port_that_is_taken_is_said(served):
    made, port = served
    with pytest.raises(UnreachableError, match=f"cannot serve on 127.0.0.1:{port}"):
        RepositoryServer(made.folder, host="127.0.0.1", port=port)


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def say(client, path="/metadata/timestamp.json", more=""):
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())


def hear(client):
    """Read one answer whole; return its status and its body."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.status, answer.read()


SILENT = [
    # what a client says that then says nothing more
    b"",
    b"GET /metadata/timestamp.json HTTP/1.1\r\nHost: x\r\nX-Slow: ",  # never ends its request
    b"GET /metadata/timestamp.json HTTP/1.1\r\nHost: x\r\n\r\n",  # keeps its connection, as devices do
]


@pytest.mark.parametrize("said", SILENT)
def test_more_silent_clients_than_places_stop_nobody(served, tmp_path, said):
    made, port = served
    silent = []
    for _ in range(MOST_CLIENTS + 40):
        silent.append(connect(port))
        silent[-1].sendall(said)
    assert ask(port, "/metadata/timestamp.json")[0].status == 200
    fetcher = Fetcher(tmp_path, f"http://127.0.0.1:{port}", made.root)
    assert fetcher.fetch("yard/000001.tar").stat().st_size > 0
    for one in silent:
        one.close()


def test_a_client_that_is_being_served_is_not_hung_up_on(served, tmp_path):
    made, port = served
    content = os.urandom(8 << 20)  # more than lies between the two
    (made.folder / "targets" / "yard" / "large.tar").write_bytes(content)
    slow = connect(port)
    say(slow, "/targets/yard/large.tar")
    assert slow.recv(4) == b"HTTP"
    silent = [connect(port) for _ in range(MOST_CLIENTS + 20)]
    assert ask(port, "/metadata/timestamp.json")[0].status == 200
    received = bytearray()
    while content[-100:] not in received[-200:]:
        chunk = slow.recv(1 << 20)
        assert chunk, "hung up in the middle of a file"
        received += chunk
    assert received.endswith(content)
    for one in (slow, *silent):
        one.close()


def test_a_connection_is_kept_for_the_next_request(served):
    made, port = served
    content = (made.folder / "metadata" / "timestamp.json").read_bytes()
    with connect(port) as client:
        for more, expected in (
            ("", (200, content)),
            ("Range: bytes=5-9\r\n", (206, content[5:10])),
            ("", (200, content)),
        ):
            say(client, more=more)
            assert hear(client) == expected


def test_a_file_that_is_replaced_while_it_is_sent_comes_whole(served):
    """A refresh renames a new file over the one that is being read: who has begun gets the old one."""
    made, port = served
    place = made.folder / "metadata" / "timestamp.json"
    refresh(made.folder, made.ring, now=NOW)
    old = place.read_bytes() + b" " * (8 << 20)
    place.write_bytes(old)
    with connect(port) as client:
        say(client)
        assert client.recv(4, socket.MSG_PEEK) == b"HTTP"
        new = place.with_name("new")
        new.write_bytes(b"{}")
        new.replace(place)
        assert hear(client) == (200, old)
        say(client)
        assert hear(client) == (200, b"{}")


def test_a_file_that_is_cut_while_it_is_sent_ends_the_connection(served):
    """What was promised cannot come: the client must hear that, not take the next answer for the rest."""
    made, port = served
    large = made.folder / "targets" / "yard" / "large.tar"
    large.write_bytes(os.urandom(8 << 20))
    with connect(port) as client:
        say(client, "/targets/yard/large.tar")
        assert client.recv(4, socket.MSG_PEEK) == b"HTTP"
        os.truncate(large, 1 << 20)
        say(client)
        with pytest.raises(http.client.IncompleteRead):
            hear(client)
