"""The hub's MQTT v5 connection. It owns the client; it decides nothing about messages.

Laws:

1. A message is acknowledged to the broker (PUBACK) only through `take`, and only on the connection it came by: numbers
   of an older connection mean other messages now, and what they meant is delivered again.
2. No callback raises: an exception there would end the client's thread. If that thread ends all the same, or the
   broker does not let the hub hear what it lives on, `on_failure` is called: a link never fails in silence.
3. The network's thread never waits for the disk: it judges a message and hands it over.

Events, frames and heartbeats come by shared subscriptions, so that several processes divide them. Each kind has a share
name of its own: rumqttd 0.20 (the `iotcore` wheel) loses messages, and dies, when one name stands for two filters.
State and report are retained, and shared subscriptions do not deliver retained messages: every process hears them all.
So it does the orders that the broker keeps for the devices: only so it learns of those that its database has lost.
"""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.contract.errors import UnusableError
from edge.contract.status import Ack, Want, encode
from edge.contract.topics import Kind, subscription, topic
from hub.arrivals import Arrival
from hub.config import MqttConfig
from hub.ingest import Ticket, judge
from hub.store_policies import policy_topic

MAX_RECONNECT_S: Final = 60
MAX_UNSENT: Final = 10_000
SHARED: Final = (Kind.EVENT, Kind.FRAME, Kind.HEARTBEAT)
RETAINED: Final = (Kind.STATE, Kind.ASSIGN, Kind.REPORT)  # in this order: a report is of what was ordered
log = logging.getLogger(__name__)


class _Client(paho.Client):
    """The client; the end of its network thread is told to `on_end`, which the client itself would not tell anyone."""

    on_end: Callable[[Exception | None], None]

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:  # noqa: FBT001, FBT002
        """Run as the client's thread does."""
        failure: Exception | None = None
        try:
            return super().loop_forever(timeout, retry_first_connection)
        except Exception as error:  # noqa: BLE001  # it is the thread's last frame
            failure = error
            return MQTTErrorCode.MQTT_ERR_UNKNOWN
        finally:
            self.on_end(failure)


class Link:
    """One connection, kept up until `stop`."""

    def __init__(
        self,
        config: MqttConfig,
        *,
        client_id: str,
        hand_over: Callable[[Arrival, Ticket], bool],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`hand_over` takes every message, in the network's thread; False means that it was lost (QoS 0 only).

        `on_failure` is called, in the network's thread, after the log says why this connection cannot work.

        Raises `UnusableError` when a certificate or the password cannot be read. Does not connect yet.
        """
        self._config = config
        self._hand_over = hand_over
        self._on_failure = on_failure
        self._stopping = False
        self._lock = threading.Lock()
        self._connection = 0
        self._connected = False
        self._attempts = 0
        self._unsent = 0
        self._refusals: set[str] = set()
        self._flushed = threading.Condition()
        self.ready = threading.Event()
        self._client = _Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, manual_ack=True)
        self._client.max_queued_messages_set(MAX_UNSENT)
        self._secure()
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_end = self._on_end

    def _secure(self) -> None:
        config = self._config
        for path in (config.ca, config.cert, config.key, config.password_file):
            _require_readable(path)
        try:
            if config.ca is not None:
                cert, key = (str(path) if path is not None else None for path in (config.cert, config.key))
                self._client.tls_set(str(config.ca), certfile=cert, keyfile=key)
            if config.username is not None:
                password = None
                if config.password_file is not None:
                    password = config.password_file.read_text(encoding="utf-8").split("\n", 1)[0]
                self._client.username_pw_set(config.username, password)
        except (OSError, ValueError) as error:
            msg = f"cannot use the certificates or the password of [mqtt]: {error}"
            raise UnusableError(msg) from error

    def start(self) -> None:
        """Connect, and again whenever the connection is lost. `ready` is set while the subscriptions stand.

        Raises `UnusableError` when that cannot even be tried.
        """
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._config.session_expiry_s
        properties.ReceiveMaximum = self._config.receive_maximum
        properties.MaximumPacketSize = self._config.max_packet_bytes
        self._back_off()
        try:
            self._client.connect_async(
                self._config.host,
                self._config.port_number,
                self._config.keepalive_s,
                clean_start=False,
                properties=properties,
            )
            self._client.loop_start()
        except (OSError, ValueError, RuntimeError) as error:
            msg = f"cannot start the connection to the broker {self._config.host}:{self._config.port_number}: {error}"
            raise UnusableError(msg) from error

    def pause(self) -> None:
        """Take no more messages; what is under way still arrives."""
        if self._connected:
            self._client.unsubscribe(self._shared())

    def stop(self, *, flush_s: float = 3.0) -> None:
        """Send what is left, for so long, and close the session: the broker keeps nothing for this process."""
        self._stopping = True
        with self._flushed:
            self._flushed.wait_for(lambda: self._unsent <= 0 or not self._connected, flush_s)
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        self._client.disconnect(properties=properties)
        self._client.loop_stop()

    def _shared(self) -> list[str]:
        return [subscription(kind, group=f"{self._config.group}-{kind}") for kind in SHARED]

    # The way back. For the committer's and the curator's thread.

    def answer(self, site: str, device: str, ack: Ack) -> None:
        """Send the hub's ack. If it is lost the device sends again, and is answered again."""
        self._publish(topic(site, device, Kind.ACK), encode(ack))

    def want(self, site: str, device: str, want: Want) -> None:
        """Ask a device for frames. If it is lost the curator asks again."""
        self._publish(topic(site, device, Kind.WANT), encode(want))

    def policy(self, site: str, device: str, payload: bytes) -> bool:
        """Publish a policy, retained; a site's own with an empty `device`. False: there is no connection."""
        return self._publish(policy_topic(site, device), payload, retain=True)

    def order(self, site: str, device: str, payload: bytes) -> bool:
        """Publish what a device is to run, retained. False: there is no connection."""
        return self._publish(topic(site, device, Kind.ASSIGN), payload, retain=True)

    @property
    def connection(self) -> int | None:
        """The number of the connection that stands, None while there is none."""
        with self._lock:
            return self._connection if self._connected else None

    def take(self, tickets: Sequence[Ticket]) -> None:
        """Acknowledge to the broker, those of this connection only."""
        # Under the lock no reconnect can come between the look and the ack: _on_disconnect takes it first.
        with self._lock:
            for ticket in tickets:
                if ticket.qos and self._connected and ticket.connection == self._connection:
                    self._client.ack(ticket.mid, ticket.qos)

    def _publish(self, where: str, payload: bytes, *, retain: bool = False) -> bool:
        """Return False when the message cannot go out now."""
        if not self._connected:
            return False
        with self._flushed:
            self._unsent += 1
        sent = self._client.publish(where, payload, qos=1, retain=retain)
        if sent.rc == paho.MQTT_ERR_QUEUE_SIZE:
            log.warning("%s: not sent, %d messages wait for the broker", where, MAX_UNSENT)
            self._note_sent()
            return False
        return True

    # Callbacks of the client, in the network's thread.

    def _on_connect(self, _client: paho.Client, _user: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        if reason.is_failure:
            log.error("the broker refuses the hub: %s", reason)
            return
        with self._lock:
            self._connection += 1
            self._connected = True
        self._attempts = 0
        options = SubscribeOptions(qos=1)
        filters = [*self._shared(), *(subscription(kind) for kind in RETAINED)]
        self._client.subscribe([(one, options) for one in filters])
        log.info("connected to %s:%s", self._config.host, self._config.port_number)

    def _on_subscribe(self, _client: paho.Client, _user: Any, _mid: int, reasons: list[ReasonCode], _more: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            log.error("the broker refuses a subscription (%s): the hub cannot work with it", ", ".join(refused))
            self._on_failure()
        else:
            self.ready.set()
            log.info("ingesting as group %s", self._config.group)

    def _on_end(self, error: Exception | None) -> None:
        with self._lock:
            self._connected = False
        if not self._stopping:
            where = f"{self._config.host}:{self._config.port_number}"
            log.error("the connection to the broker %s has ended for good: %s", where, error or "no cause was given")
            self._on_failure()

    def _on_connect_fail(self, _client: paho.Client, _user: Any) -> None:
        log.warning("the broker %s:%s does not answer, trying again", self._config.host, self._config.port_number)
        self._back_off()

    def _on_disconnect(self, _client: paho.Client, _user: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        with self._lock:
            self._connected = False
        self.ready.clear()
        with self._flushed:
            self._flushed.notify_all()
        if reason.is_failure:
            log.warning("the connection is lost (%s), trying again", reason)
        self._back_off()

    def _on_publish(self, _client: paho.Client, _user: Any, _mid: int, reason: ReasonCode, _more: Any) -> None:
        if reason.is_failure and str(reason) not in self._refusals:
            self._refusals.add(str(reason))
            log.error("the broker refuses what the hub sends: %s; may it write ack, want, policy and assign?", reason)
        self._note_sent()

    def _note_sent(self) -> None:
        with self._flushed:
            self._unsent -= 1
            self._flushed.notify_all()

    def _on_message(self, _client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        try:
            correlation = getattr(message.properties, "CorrelationData", None)
            arrival = judge(_topic_of(message), bytes(message.payload), correlation)
            ticket = Ticket(self._connection, message.mid, message.qos)
            if not self._hand_over(arrival, ticket):
                log.warning("%s: lost, it was sent with QoS 0 and the hub is behind", arrival.topic)
        except Exception:
            log.exception("a message was dropped: a fault of the hub's")

    def _back_off(self) -> None:
        """Spread the reconnects of a whole fleet of processes; whole seconds are what the client takes."""
        ceiling = min(MAX_RECONNECT_S, 2**self._attempts)
        self._attempts = min(self._attempts + 1, 10)
        delay_s = random.randint(1, max(1, ceiling))  # noqa: S311  # not a secret
        self._client.reconnect_delay_set(min_delay=delay_s, max_delay=delay_s)


def _require_readable(path: Path | None) -> None:
    try:
        if path is not None:
            path.open("rb").close()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error


def _topic_of(message: paho.MQTTMessage) -> str:
    with suppress(UnicodeDecodeError):
        return message.topic
    return "not UTF-8"
