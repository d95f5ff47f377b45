"""The device's MQTT v5 connection. It owns the client; it decides nothing about messages.

Laws:

1. One thread drives it: every call, and so every callback, happens in the thread that calls `open` and `step`.
2. No callback raises or waits: it notes what happened, and the caller takes the notes after `step`.
3. Nothing that the server would refuse is sent: its Maximum Packet Size and Receive Maximum are kept here (paho keeps
   neither, and one oversize message would end every connection from then on).
4. What is under way when the connection ends is forgotten here: the spool, not the client's memory, is the queue.
5. A message is acknowledged to the broker after the caller has settled it, and only on the connection it came by.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.config import MqttConfig
from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.samples import MAX_HEADER_BYTES

MAX_IN_FLIGHT: Final = 20
MAX_IN_FLIGHT_BYTES: Final = 1_000_000
MAX_RECEIVED_BYTES: Final = 262_144
CONNECT_S: Final = 10.0
NOBODY: Final = "No matching subscribers"
_HEAD_BYTES: Final = 512  # topic, properties and fixed header of a publish
MIN_PACKET_BYTES: Final = MAX_HEADER_BYTES + 2048  # one event, or one part with some of its frame
_UNLIMITED: Final = 268_435_455

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """What the broker delivered. `retained`: it was published before this side subscribed."""

    topic: str
    payload: bytes
    mid: int
    qos: int
    connection: int
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The broker's answer (PUBACK) to one publish. `refusal` is None when it took the message and had takers for it."""

    mid: int
    refusal: str | None


class Link:
    """One connection at a time to the broker of `config`. Does not connect before `open`.

    A message whose packet is over `receive_bytes` is not delivered.

    Raises `UnusableError` when a certificate or the password cannot be read.
    """

    def __init__(
        self,
        config: MqttConfig,
        *,
        client_id: str,
        topics: Iterable[str],
        receive_bytes: int = MAX_RECEIVED_BYTES,
    ) -> None:
        self.max_payload_bytes = _UNLIMITED
        self._config = config
        self._topics = tuple(topics)
        self._connection = 0
        self._ready = False
        self._lost: str | None = "not opened"
        self._max_in_flight = MAX_IN_FLIGHT
        self._in_flight: dict[int, int] = {}
        self._confirmed: list[Confirmed] = []
        self._messages: list[Message] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, manual_ack=True
        )
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        self._secure()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = config.session_expiry_s
        properties.ReceiveMaximum = MAX_IN_FLIGHT
        properties.MaximumPacketSize = receive_bytes
        self._client.connect_async(
            config.host, config.port_number, config.keepalive_s, clean_start=False, properties=properties
        )

    def _secure(self) -> None:
        config = self._config
        try:
            if config.ca is not None:
                cert, key = (None if path is None else str(path) for path in (config.cert, config.key))
                self._client.tls_set(str(_readable(config.ca)), certfile=cert, keyfile=key)
            if config.username is not None:
                password = None
                if config.password_file is not None:
                    password = _readable(config.password_file).read_text(encoding="utf-8").split("\n", 1)[0]
                self._client.username_pw_set(config.username, password)
        except (OSError, ValueError) as error:
            msg = f"cannot use the certificates or the password of [mqtt]: {error}"
            raise UnusableError(msg) from error

    def open(self, *, will: tuple[str, bytes] | None = None, give_up: Callable[[], bool] = lambda: False) -> None:
        """Connect and subscribe. Raises `UnreachableError`.

        Args:
            will: a topic and the payload that the broker retains there if this connection ends without `close`.
            give_up: asked while the broker is waited for.
        """
        host, port = self._config.host, self._config.port_number
        self._client.will_clear()
        if will is not None:
            self._client.will_set(*will, qos=1, retain=True)
        self._forget()
        self._lost = None
        try:
            self._client.reconnect()
        except OSError as error:
            msg = f"the broker {host}:{port} does not answer: {error}"
            raise UnreachableError(msg) from error
        deadline = time.monotonic() + CONNECT_S
        while not self._ready:
            if time.monotonic() > deadline or give_up():
                self.close()
                msg = f"the broker {host}:{port} did not accept the connection within {CONNECT_S:.0f} s"
                raise UnreachableError(msg)
            self.step(0.1)

    def step(self, timeout_s: float) -> None:
        """Send and receive for at most about `timeout_s`. Raises `UnreachableError` when the connection is lost."""
        status = self._client.loop(timeout_s)
        if status != paho.MQTT_ERR_SUCCESS or self._lost is not None:
            self._ready = False
            cause = self._lost or paho.error_string(status)
            msg = f"the connection to the broker {self._config.host}:{self._config.port_number} is lost: {cause}"
            raise UnreachableError(msg)

    def close(self) -> None:
        """Disconnect with a word to the broker: it will not send the will."""
        self._ready = False
        self._client.disconnect()

    @property
    def in_flight(self) -> int:
        """Messages of QoS 1 that the broker has not confirmed."""
        return len(self._in_flight)

    def has_room(self, share: float = 1.0) -> bool:
        """Whether one more message of QoS 1 may be sent now, if its kind may take this share of the room."""
        waiting_bytes = sum(self._in_flight.values())
        return self.in_flight < share * self._max_in_flight and waiting_bytes < share * MAX_IN_FLIGHT_BYTES

    def is_behind(self) -> bool:
        """Whether the network has not yet taken what was handed to it: no time for messages that may be lost."""
        return self._client.want_write()

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, correlation: bytes | None = None
    ) -> int:
        """Hand one message to the network; return the number by which `confirmed` will speak of it.

        Raises `UnusableError` for a payload over `max_payload_bytes`, `UnreachableError` without a connection.
        """
        if len(payload) > self.max_payload_bytes:
            msg = f"a payload of {len(payload)} bytes, the broker takes {self.max_payload_bytes}"
            raise UnusableError(msg)
        properties = None
        if correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        sent = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        if sent.rc != paho.MQTT_ERR_SUCCESS:
            msg = f"a message could not be handed to the network: {paho.error_string(sent.rc)}"
            raise UnreachableError(msg)
        if qos > 0:
            self._in_flight[sent.mid] = len(payload)
        return sent.mid

    def confirmed(self) -> list[Confirmed]:
        """Take the broker's answers since the last call."""
        taken, self._confirmed = self._confirmed, []
        return taken

    def messages(self) -> list[Message]:
        """Take what was delivered since the last call; give each to `settle` when its content is safe."""
        taken, self._messages = self._messages, []
        return taken

    def settle(self, message: Message) -> None:
        """Tell the broker that it need not deliver this message again."""
        if message.qos and message.connection == self._connection and self._ready:
            self._client.ack(message.mid, message.qos)

    def _forget(self) -> None:
        self._connection += 1
        self._ready = False
        self._in_flight.clear()
        self._confirmed.clear()
        self._messages.clear()
        self._client.drop_out_messages()

    # Callbacks of the client, inside `step`, `publish` and `close`.

    def _on_connect(self, _client: paho.Client, _user: Any, _flags: Any, reason: ReasonCode, more: Any) -> None:
        if reason.is_failure:
            self._lost = f"the broker refuses this device: {reason}"
            return
        packet = getattr(more, "MaximumPacketSize", None) or _UNLIMITED
        if packet < MIN_PACKET_BYTES:  # a property of this connection: nothing is dropped for it
            self._lost = f"the broker takes packets of {packet} bytes, this needs {MIN_PACKET_BYTES}"
            return
        self.max_payload_bytes = packet - _HEAD_BYTES
        self._max_in_flight = min(MAX_IN_FLIGHT, getattr(more, "ReceiveMaximum", None) or MAX_IN_FLIGHT)
        if self._topics:
            self._client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in self._topics])
        else:
            self._ready = True

    def _on_subscribe(self, _client: paho.Client, _user: Any, _mid: int, reasons: list[ReasonCode], _more: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self._lost = f"the broker refuses the subscription to {' and '.join(self._topics)}: {refused[0]}"
        else:
            self._ready = True

    def _on_disconnect(self, _client: paho.Client, _user: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        self._ready = False
        if self._lost is None:
            self._lost = str(reason)

    def _on_publish(self, _client: paho.Client, _user: Any, mid: int, reason: ReasonCode, _more: Any) -> None:
        if self._in_flight.pop(mid, None) is not None:
            self._confirmed.append(Confirmed(mid, None if reason.value == 0 else str(reason)))

    def _on_message(self, _client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._messages.append(
            Message(topic, bytes(message.payload), message.mid, message.qos, self._connection, message.retain)
        )


def _readable(path: Path) -> Path:
    if not path.is_file():
        msg = f"there is no file {path}"
        raise UnusableError(msg)
    return path
