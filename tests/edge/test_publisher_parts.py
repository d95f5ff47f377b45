"""The publisher's rules one by one, without a broker."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.config import MqttConfig
from edge.contract.status import Ack, Want, encode
from edge.contract.topics import Kind, topic
from edge.link import Message
from edge.publisher import GONE, Identity, Publisher
from edge.session import Sent
from edge.spool import SampleState, Spool, SpoolError

IDENTITY = Identity(site="yard", device="gate", boot_id="boot-1", model="starter-1", version="0.1")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with contextlib.closing(Spool(tmp_path / "spool.db", limit_bytes=10**9, reserve_bytes=100_000)) as opened:
        yield opened


@pytest.fixture
def unstarted(spool) -> Publisher:
    """A publisher whose parts are called one by one; its link connects to nothing."""
    return Publisher(MqttConfig(), spool=spool, identity=IDENTITY, upload_all=False, clock=lambda: 100.0)


def from_hub(kind: Kind, content: Ack | Want) -> Message:
    return Message(topic("yard", "gate", kind), encode(content), 1, 1, 0)


def test_a_message_that_could_not_be_followed_is_not_settled(unstarted, spool, monkeypatch) -> None:
    settled: list[Message] = []
    monkeypatch.setattr(unstarted._link, "settle", settled.append)
    message = from_hub(Kind.ACK, Ack(findings=("a" * 32,)))
    with monkeypatch.context() as broken:
        broken.setattr(spool, "ack_findings", raising(SpoolError("the disk")))
        unstarted._obey(message)
    assert (settled, unstarted.faults) == ([], {"spool_error": 1})
    unstarted._obey(message)
    assert settled == [message]


def raising(error: Exception) -> Callable[..., None]:
    def act(*_: object, **__: object) -> None:
        raise error

    return act


def test_an_ack_that_does_not_come_shrinks_the_window(unstarted) -> None:
    unstarted._session.sent["a"] = Sent("a", SampleState.NEW, deadline_s=99.0)
    unstarted._session.sent["b"] = Sent("b", SampleState.NEW, deadline_s=101.0)
    unstarted._session.window = 20
    unstarted._expire()
    assert list(unstarted._session.sent) == ["b"]
    assert (unstarted._session.window, unstarted.faults) == (1, {"ack_timeout": 1})


def test_what_is_gone_is_remembered_once_and_not_without_end(unstarted) -> None:
    for _ in range(2):
        unstarted._obey(from_hub(Kind.WANT, Want(event_ids=("0" * 32, "0" * 31 + "1"))))
    assert len(unstarted._gone) == 2
    unstarted._obey(from_hub(Kind.WANT, Want(event_ids=tuple(f"{i:032x}" for i in range(GONE + 7)))))
    assert len(unstarted._gone) == GONE
    assert unstarted.faults == {"gone_overflow": 7}
