"""Orders down, reports up: what the publisher does with assignments, reports and another release, on a real broker."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge.config import MqttConfig
from edge.contract.rollout import Assignment, RolloutReport
from edge.contract.status import decode, encode
from edge.contract.topics import Kind
from edge.publisher import Identity, Publisher
from edge.spool import Spool
from tests.brokers import Broker, broker, wait_until  # noqa: F401
from tests.edge.hub_stand_in import HubStandIn

pytestmark = pytest.mark.broker

IDENTITY = Identity(
    site="yard", device="gate", boot_id="boot-1", model="starter-1", version="0.1", labels=("outdoor", "gate")
)
ORDER = Assignment(
    rollout="r1", action="install", model="starter", release="starter-2", number=1, target="starter/000001.tar", at_ms=1
)


def report(sequence: int, phase: str) -> RolloutReport:
    return RolloutReport(
        rollout="r1",
        model="starter",
        release="starter-2",
        number=1,
        sequence=sequence,
        boot_id="boot-1",
        phase=phase,
        serving="starter-1",
        at_ms=1,
    )


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    """Start a publisher; `orders` takes the assignments that reach it."""
    with ExitStack() as stack:
        spool = stack.enter_context(
            contextlib.closing(Spool(tmp_path / "spool.db", limit_bytes=10**9, reserve_bytes=100_000))
        )

        def start(port: int, orders: list[Assignment]) -> Publisher:
            publisher = Publisher(
                MqttConfig(host="127.0.0.1", port=port, keepalive_s=5), spool=spool, identity=IDENTITY, upload_all=False
            )
            publisher.on_assign = lambda payload: orders.append(decode(payload, Assignment))
            stack.callback(lambda: publisher.alive and publisher.stop(grace_s=0.0))
            return publisher

        yield start


@pytest.fixture
def hub(broker: Broker) -> Iterator[HubStandIn]:  # noqa: F811
    stand_in = HubStandIn(broker.port)
    yield stand_in
    stand_in.close()


def test_the_newest_report_and_state_are_said_and_said_again(broker: Broker, hub: HubStandIn, publish) -> None:  # noqa: F811
    """A broker that forgot everything is told both again, and no report that is older."""
    publisher = publish(broker.port, [])
    publisher.offer_report(encode(report(1, "assigned")))
    publisher.start()
    wait_until(lambda: [one.sequence for one in hub.reports] == [1])
    assert hub.states[0].labels == ("outdoor", "gate")
    publisher.offer_report(encode(report(2, "trial")))
    publisher.serve_as("starter-2")
    wait_until(lambda: [one.sequence for one in hub.reports] == [1, 2])
    wait_until(lambda: hub.states[-1].model == "starter-2")
    assert [state.model for state in hub.states] == ["starter-1", "starter-2"]
    broker.kill()
    broker.start()
    wait_until(lambda: hub.states[-1].online and len(hub.reports) > 2, what="both are said again")
    assert hub.reports[-1] == report(2, "trial")
    assert {one.sequence for one in hub.reports[2:]} == {2}
    publisher.stop(grace_s=0.0)
    wait_until(lambda: not hub.states[-1].online)
    assert hub.states[-1].model == "starter-2"


def test_reports_are_retained_for_a_hub_that_comes_later(broker: Broker, publish) -> None:  # noqa: F811
    publisher = publish(broker.port, [])
    publisher.offer_report(encode(report(3, "shadow")))
    publisher.start()
    wait_until(lambda: publisher.connected)
    with contextlib.closing(HubStandIn(broker.port, client_id="late")) as late:
        wait_until(lambda: late.reports, what="the retained report")
        assert late.reports == [report(3, "shadow")]


def test_an_order_reaches_a_device_that_was_away_and_nonsense_is_counted(
    broker: Broker,  # noqa: F811
    hub: HubStandIn,
    publish,
) -> None:
    hub.assign(ORDER)
    orders: list[Assignment] = []
    publisher = publish(broker.port, orders)
    publisher.start()
    wait_until(lambda: orders == [ORDER], what="the retained order")
    hub.say(Kind.ASSIGN, b"\xff\x00 nonsense")
    wait_until(lambda: publisher.faults["bad_message"] == 1)
    hub.assign(ORDER)
    wait_until(lambda: len(orders) == 2, what="what comes after is heard")


def retained(broker: Broker) -> list[RolloutReport]:  # noqa: F811
    """Return what a hub that comes now hears of the device: all that comes before a message that it sends itself."""
    with contextlib.closing(HubStandIn(broker.port, client_id="late")) as late:
        late.say(Kind.DETECTIONS, b"mark")
        wait_until(lambda: late.detections, what="its own message")
        return list(late.reports)


def test_a_report_is_taken_back_by_a_later_start(broker: Broker, publish) -> None:  # noqa: F811
    """It was withdrawn while the device was away: what a start before this one has left would say `trial` for ever."""
    before = publish(broker.port, [])
    before.offer_report(encode(report(3, "trial")))
    before.start()
    wait_until(lambda: retained(broker) == [report(3, "trial")], what="it is retained")
    before.stop(grace_s=1.0)
    now = publish(broker.port, [])
    now.start()
    wait_until(lambda: now.connected)
    assert retained(broker) == [report(3, "trial")], "who has nothing to say takes nothing back"
    now.offer_report(b"")
    wait_until(lambda: retained(broker) == [], what="it is gone")
