"""What is heard from Frigate's broker: one thread that connects, hands over, and connects anew.

It waits for the broker and nothing else: what is not taken is counted. MQTT version 5, like everything here.
"""

import logging
import queue
import random
import threading
import time
from collections import Counter
from typing import Final, NamedTuple

from edge.config import EdgeConfig, FrigateConfig, MqttConfig
from edge.contract.errors import UnusableError, WeakspotError
from edge.contract.settings import BrokerSettings
from edge.link import Link

MAX_PICTURE_BYTES: Final = 1_000_000
WAITING: Final = 32
_PACKET_BYTES: Final = MAX_PICTURE_BYTES + 1024  # the picture with its topic
_TURN_S: Final = 0.25
_SETTLED_S: Final = 30.0

_log = logging.getLogger(__name__)


class Heard(NamedTuple):
    """A message of Frigate, its topic without the prefix, and when it came (monotonic)."""

    topic: str
    payload: bytes
    retained: bool
    at_s: float


def open_frigate_link(config: EdgeConfig, frigate: FrigateConfig) -> Link:
    """Return the link to Frigate's broker, not yet open. Raises `UnusableError`."""
    settings = {name: getattr(frigate, name) for name in BrokerSettings.__struct_fields__}
    wanted = ["events", "available", "stats", *([] if frigate.url else ["+/+/snapshot"])]
    try:
        return Link(
            MqttConfig(**settings, session_expiry_s=0),
            client_id=f"weakspot:{config.site}:{config.device}:frigate",
            topics=[f"{frigate.topic_prefix}/{name}" for name in wanted],
            receive_bytes=_PACKET_BYTES,
        )
    except UnusableError as error:
        raise UnusableError(str(error).replace("[mqtt]", "[frigate]")) from error


class FrigateListener:
    """The thread. `start` once, `stop` once.

    Attributes:
        inbox: what was heard; at most `WAITING` messages.
        reachable: whether there is a connection.
        faults: what went wrong, by kind.
        lost: messages for which `inbox` had no room.

    Raises `UnusableError` when a certificate or the password cannot be read.
    """

    def __init__(self, config: EdgeConfig, frigate: FrigateConfig) -> None:
        self.inbox: queue.Queue[Heard | None] = queue.Queue(WAITING)
        self.reachable = False
        self.faults: Counter[str] = Counter()
        self.lost = 0
        self._frigate = frigate
        self._link = open_frigate_link(config, frigate)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """Begin to connect and to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; None is the last thing in `inbox`."""
        self._stopping.set()
        self._thread.join()
        self.inbox.put(None)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        attempts = 0
        while not self._stopping.is_set():
            begun_s = time.monotonic()
            try:
                self._serve()
            except WeakspotError as error:
                _log.warning("Frigate: %s", error)
                self.faults["frigate_disconnected"] += 1
            except Exception:  # noqa: BLE001 - the loop counts and goes on
                _log.exception("Frigate could not be listened to; it connects anew")
                self.faults["listener_error"] += 1
            self.reachable = False
            self._link.close()
            attempts = 0 if time.monotonic() - begun_s >= _SETTLED_S else attempts + 1
            wait_s = min(60.0, 0.5 * 2.0 ** min(attempts, 8)) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
            self._stopping.wait(wait_s)

    def _serve(self) -> None:
        """Listen on one connection until it is lost or this is stopped."""
        self._link.open(give_up=self._stopping.is_set)
        self.reachable = True
        _log.info("listening to Frigate at %s:%s", self._frigate.host, self._frigate.port_number)
        while not self._stopping.is_set():
            self._link.step(_TURN_S)
            for message in self._link.messages():
                topic = message.topic.removeprefix(f"{self._frigate.topic_prefix}/")
                try:
                    self.inbox.put_nowait(Heard(topic, message.payload, message.retained, time.monotonic()))
                except queue.Full:
                    self.lost += 1
                self._link.settle(message)
