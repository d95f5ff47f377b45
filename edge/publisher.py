"""Spool to hub and back, over MQTT v5.

Laws (the house's numbers):

2. A sample leaves the device only on the hub's own ack. A PUBACK ends nothing: it starts the time the hub is given.
4. What the broker or the hub refuses is counted by reason.

Of its own:

a. At most `WINDOW` findings and `FRAMES` frames wait for the hub's ack. A hub that does not answer in time is probed
   with one of each until it answers again; each sample's own retries back off, with jitter (edge.spool).
b. At most the link's room is in the client's memory; frames are read from the spool one at a time and sent in parts.
c. Nothing waits for this thread: puts go to the spool, heartbeats and detections into small places that overflow.

The order of one turn: what the broker confirmed, what the hub said, what has waited too long, what is due: findings
before frames, each with room of its own.
"""

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.config import MqttConfig
from edge.contract.errors import UnusableError, WeakspotError
from edge.contract.samples import FrameHeader, encode_frame
from edge.contract.status import Ack, State, Want, decode, encode
from edge.contract.topics import Kind, topic
from edge.home_assistant import Announcement
from edge.link import NOBODY, Link, Message
from edge.policy import policy_topics
from edge.session import Sent, Session, Transfer
from edge.spool import Leased, SampleState, Spool, SpoolError

INLINE_BYTES: Final = 120_000
PART_BYTES: Final = 65_536
WINDOW: Final = 32
FRAMES: Final = 8
GONE: Final = 10_000  # more than one message can ask for
PARTS_IN_FLIGHT: Final = 8
EVENTS_SHARE: Final = 0.6
SETTLED_S: Final = 30.0
REFUSED_S: Final = 5.0
_TURN_S: Final = 0.1
_HEADER_ROOM: Final = 512

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who publishes. `model`: the release that serves at the start; `labels`, `updates`: see `State`."""

    site: str
    device: str
    boot_id: str
    model: str
    version: str
    labels: tuple[str, ...] = ()
    updates: bool = False

    def state(self, model: str, *, online: bool) -> bytes:
        """Return what the device says of itself now."""
        return encode(
            State(
                boot_id=self.boot_id,
                online=online,
                at_ms=time.time_ns() // 1_000_000,
                model=model,
                version=self.version,
                labels=self.labels,
                updates=self.updates,
            )
        )


def open_link(config: MqttConfig, identity: Identity) -> Link:
    """Return the device's link, not yet open. Raises `UnusableError`.

    The client id has colons, which no name has: two devices never share one. Nothing is confirmed to the broker before
    `Link.settle`, so that opening a link and closing it again costs the device's session nothing.
    """
    return Link(
        config,
        client_id=f"weakspot:{identity.site}:{identity.device}",
        topics=[
            *(topic(identity.site, identity.device, kind) for kind in (Kind.ACK, Kind.WANT, Kind.ASSIGN)),
            *policy_topics(identity.site, identity.device),
        ],
    )


class Publisher:
    """The thread that empties the spool. `start` once, `stop` once.

    Attributes:
        faults: what went wrong on the way, by kind; not drops.
        bytes_up: payload bytes handed to the network since the start.
        connected: whether the broker has accepted this device.
        active_s: when a sample was last sent or spoken of by the hub, on the clock given.
        on_assign: takes the payload of an assignment, in this thread. Set it before `start`.

    `on_policy` takes the topic and the payload of a policy, in this thread; `announcement` is for Home Assistant.

    Raises `UnusableError` when the certificates or the password cannot be read.
    """

    def __init__(
        self,
        config: MqttConfig,
        *,
        spool: Spool,
        identity: Identity,
        upload_all: bool,
        on_policy: Callable[[str, bytes], None] = lambda *_: None,
        announcement: Announcement | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.faults: Counter[str] = Counter()
        self.bytes_up = 0
        self.connected = False
        self.active_s = clock()
        self.on_assign: Callable[[bytes], None] = lambda _: None
        self._config = config
        self._spool = spool
        self._identity = identity
        self._upload_all = upload_all
        self._on_policy = on_policy
        self._announcement = announcement or Announcement()
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._topics = {kind: topic(identity.site, identity.device, kind) for kind in Kind}
        self._link = open_link(config, identity)
        self._session = Session()
        self._gone: dict[str, None] = {}  # in order, each once
        self._model = identity.model
        self._report: bytes | None = None
        self._heartbeat: bytes | None = None
        self._detections: deque[bytes] = deque(maxlen=64)
        self._stopping = threading.Event()
        self._grace_s = 0.0
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin to connect and to send."""
        self._thread.start()

    def stop(self, *, grace_s: float) -> None:
        """Send what is due for at most `grace_s`, say that the device goes, disconnect and end the thread."""
        self._grace_s = grace_s
        self._stopping.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def offer_heartbeat(self, payload: bytes) -> None:
        """Send this at the next turn, QoS 0; it replaces one that was not sent yet."""
        self._heartbeat = payload

    def offer_report(self, payload: bytes) -> None:
        """Send this at the next turn and at every connect from then on, retained; it replaces the one before.

        Empty takes back what is retained of this device, said by this start or by one before.
        """
        self._report = payload

    def serve_as(self, model: str) -> None:
        """Tell the hub at the next turn that another release serves now."""
        self._model = model

    def offer_detections(self, payload: bytes) -> None:
        """Send this at the next turn, QoS 0; the oldest are lost when the network is slower."""
        self._detections.append(payload)

    def _run(self) -> None:
        attempts = 0
        while not self._stopping.is_set():
            begun_s = self._clock()
            try:
                self._serve()
            except WeakspotError as error:
                _log.warning("%s", error)
                self.faults["disconnected"] += 1
            except Exception:  # noqa: BLE001 - the loop counts and goes on
                _log.exception("the publisher failed; it connects anew")
                self.faults["publisher_error"] += 1
            self.connected = False
            self._link.close()
            attempts = 0 if self._clock() - begun_s >= SETTLED_S else attempts + 1
            self._stopping.wait(min(60.0, 0.5 * 2.0 ** min(attempts, 8)) * self._rng.uniform(0.5, 1.5))

    def _serve(self) -> None:
        """Serve one connection until it is lost or the publisher is stopped."""
        will = (self._topics[Kind.STATE], self._identity.state(self._model, online=False))
        self._link.open(will=will, give_up=self._stopping.is_set)
        self._spool.release_all()
        self._session = Session()
        self._announcement.restart()
        self._detections.clear()
        self._tell()
        self.connected = True
        _log.info("connected to the broker %s:%s", self._config.host, self._config.port_number)
        until_s = None
        while until_s is None or (self._clock() < until_s and not self._is_drained()):
            self._turn()
            if until_s is None and self._stopping.is_set():
                until_s = self._clock() + self._grace_s
        self._farewell()

    def _turn(self) -> None:
        self._link.step(_TURN_S)
        self._note_confirmed()
        for message in self._link.messages():
            self._obey(message)
        self._expire()
        self.bytes_up += self._announcement.send(self._link)
        self._tell()
        self._send_lossy()
        self._send_gone()
        self._send_events()
        self._send_parts()

    def _is_drained(self) -> bool:
        return not self._session.sent and not self._gone and self._spool.health().unsent == 0

    def _farewell(self) -> None:
        self._send_lossy()
        self._publish(Kind.STATE, self._identity.state(self._model, online=False), retain=True)
        deadline_s = self._clock() + 1.0
        while self._link.in_flight and self._clock() < deadline_s:
            self._link.step(_TURN_S)
        self._link.close()

    # What the broker and the hub say.

    def _note_confirmed(self) -> None:
        session = self._session
        for confirmed in self._link.confirmed():
            if self._announcement.settle(confirmed):
                continue
            sent = session.owners.pop(confirmed.mid, None)
            patience_s = self._config.ack_timeout_s
            if confirmed.refusal is not None:
                self._complain(confirmed.refusal)
                patience_s = min(patience_s, REFUSED_S)
            if sent is not None:
                sent.unconfirmed -= 1
                under_way = session.transfer is not None and session.transfer.event_id == sent.event_id
                if not sent.unconfirmed and not under_way:
                    sent.deadline_s = self._clock() + patience_s

    def _complain(self, refusal: str) -> None:
        """Count a publish that the broker did not pass on: no ack will come."""
        self.faults[refusal.lower().replace(" ", "_")] += 1
        self._session.window = 1
        if refusal not in self._session.complaints:
            self._session.complaints.add(refusal)
            hint = ": is the hub running?" if refusal == NOBODY else ""
            _log.warning("the broker did not pass a message on: %s%s", refusal, hint)

    def _obey(self, message: Message) -> None:
        try:
            if message.topic == self._topics[Kind.ACK]:
                self._take_ack(decode(message.payload, Ack))
            elif message.topic == self._topics[Kind.WANT]:
                self._take_want(decode(message.payload, Want))
            elif message.topic == self._topics[Kind.ASSIGN]:
                self.on_assign(message.payload)
            else:
                self._on_policy(message.topic, message.payload)
        except UnusableError as error:
            _log.warning("a message of the hub is of no use: %s", error)
            self.faults["bad_message"] += 1
        except SpoolError as error:
            _log.warning("a message of the hub could not be followed: %s", error)
            self.faults["spool_error"] += 1
            return
        self.active_s = self._clock()
        self._link.settle(message)

    def _take_ack(self, ack: Ack) -> None:
        left = (
            [*self._spool.ack_frames(ack.frames), *self._spool.refuse(ack.refused)] if ack.frames or ack.refused else []
        )
        moved = self._spool.ack_findings(ack.findings) if ack.findings else []
        for event_id in (*moved, *left):
            self._session.end(event_id)
            self._session.window = min(WINDOW, self._session.window + 1)

    def _take_want(self, want: Want) -> None:
        for event_id in self._spool.want(want.event_ids):
            if event_id in self._gone or len(self._gone) < GONE:
                self._gone[event_id] = None
            else:
                self.faults["gone_overflow"] += 1
        for event_id in want.event_ids:
            sent = self._session.sent.get(event_id)
            if sent is not None and sent.state is not SampleState.WANTED:
                self._session.end(event_id)

    def _expire(self) -> None:
        now_s = self._clock()
        for event_id in self._session.late(now_s):
            self._spool.retry(event_id, now_s=now_s)
            self._session.end(event_id)
            self._session.window = 1
            self.faults["ack_timeout"] += 1

    # What goes out.

    def _tell(self) -> None:
        """Say what the hub is to know of this device at any time, where it has changed or the connection is new."""
        told, model, report = self._session.told, self._model, self._report
        if told.model != model and self._link.has_room():
            told.model = model
            self._publish(Kind.STATE, self._identity.state(self._model, online=True), retain=True)
        if report is not None and told.report != report and self._link.has_room():
            told.report = report
            self._publish(Kind.REPORT, report, retain=True)

    def _send_lossy(self) -> None:
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None:
            self._send_or_lose(Kind.HEARTBEAT, heartbeat)
        while self._detections and not self._link.is_behind():
            self._send_or_lose(Kind.DETECTIONS, self._detections.popleft())

    def _send_or_lose(self, kind: Kind, payload: bytes) -> None:
        if len(payload) <= self._link.max_payload_bytes:
            self._publish(kind, payload, qos=0)
        else:
            self.faults[f"{kind}_oversize"] += 1

    def _send_gone(self) -> None:
        while self._gone and self._link.has_room():
            event_id = next(iter(self._gone))
            header = FrameHeader(event_id=event_id, size=0, sha256="", gone="no longer on the device")
            self._publish(Kind.FRAME, encode_frame(header), event_id=event_id)
            del self._gone[event_id]

    def _send_events(self) -> None:
        session = self._session
        while self._link.has_room(EVENTS_SHARE) and len(session.sent) - len(session.frames()) < session.window:
            leased = self._spool.lease(SampleState.NEW, now_s=self._clock(), limit=1)
            if not leased:
                return
            self._send_event(leased[0])

    def _send_event(self, leased: Leased) -> None:
        payload = leased.event
        limit = min(INLINE_BYTES, self._link.max_payload_bytes)
        if self._upload_all and len(payload) + leased.frame_bytes <= limit:
            payload += self._spool.frame(leased.event_id) or b""
        self._session.sent[leased.event_id] = Sent(leased.event_id, SampleState.NEW)
        self._send_part_of(leased.event_id, Kind.EVENT, payload)

    def _send_parts(self) -> None:
        while self._link.has_room() and sum(s.unconfirmed for s in self._session.frames()) < PARTS_IN_FLIGHT:
            transfer = self._session.transfer or self._next_transfer()
            if transfer is None:
                return
            size = min(PART_BYTES, self._link.max_payload_bytes - _HEADER_ROOM)
            payload = transfer.next_part(size)
            self._session.transfer = None if transfer.is_over else transfer
            self._send_part_of(transfer.event_id, Kind.FRAME, payload)

    def _next_transfer(self) -> Transfer | None:
        if len(self._session.frames()) >= min(FRAMES, self._session.window):
            return None
        states = (SampleState.WANTED, SampleState.HELD) if self._upload_all else (SampleState.WANTED,)
        for state in states:
            for leased in self._spool.lease(state, now_s=self._clock(), limit=1):
                jpeg = self._spool.frame(leased.event_id)
                if jpeg is not None:
                    self._session.sent[leased.event_id] = Sent(leased.event_id, state)
                    return Transfer(leased.event_id, leased.frame_sha256, jpeg)
        return None

    def _send_part_of(self, event_id: str, kind: Kind, payload: bytes) -> None:
        sent = self._session.sent[event_id]
        sent.unconfirmed += 1
        self.active_s = self._clock()
        self._session.owners[self._publish(kind, payload, event_id=event_id)] = sent

    def _publish(
        self, kind: Kind, payload: bytes, *, qos: int = 1, retain: bool = False, event_id: str | None = None
    ) -> int:
        correlation = None if event_id is None else event_id.encode()
        mid = self._link.publish(self._topics[kind], payload, qos=qos, retain=retain, correlation=correlation)
        self.bytes_up += len(payload)
        return mid
