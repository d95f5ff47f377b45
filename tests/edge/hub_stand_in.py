"""The least hub there can be: it takes events and frames from a real broker and answers as the protocol says."""

import hashlib
import threading
from collections import Counter
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.rollout import Assignment, RolloutReport
from edge.contract.samples import Finding, FrameHeader, decode_event, decode_frame
from edge.contract.status import Ack, Heartbeat, State, Want, decode, encode
from edge.contract.topics import Kind, parse_topic, topic
from tests.brokers import DEADLINE_S


class HubStandIn:
    """Counts what arrives. With `answering` False it takes everything and says nothing."""

    def __init__(self, port: int, *, answering: bool = True, client_id: str = "hub-stand-in") -> None:
        self.answering = answering
        self.events: Counter[str] = Counter()
        self.findings: dict[str, Finding] = {}
        self.frames: dict[str, bytes] = {}
        self.gone: list[str] = []
        self.states: list[State] = []
        self.heartbeats: list[Heartbeat] = []
        self.detections: list[bytes] = []
        self.reports: list[RolloutReport] = []
        self.correlations: list[bytes] = []
        self.parts = 0
        self.refuse: set[str] = set()
        self.refused_frames: set[str] = set()
        self._parts: dict[str, dict[int, bytes]] = {}
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(DEADLINE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def want(self, *event_ids: str) -> None:
        self._answer(Kind.WANT, encode(Want(event_ids=event_ids)))

    def ack(self, *event_ids: str) -> None:
        self._answer(Kind.ACK, encode(Ack(findings=event_ids)))

    def assign(self, assignment: Assignment) -> None:
        self._client.publish(topic("yard", "gate", Kind.ASSIGN), encode(assignment), qos=1, retain=True)

    def say(self, kind: Kind, payload: bytes) -> None:
        self._answer(kind, payload)

    def _answer(self, kind: Kind, payload: bytes) -> None:
        self._client.publish(topic("yard", "gate", kind), payload, qos=1)

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        kinds = (Kind.EVENT, Kind.FRAME, Kind.STATE, Kind.HEARTBEAT, Kind.DETECTIONS, Kind.REPORT)
        client.subscribe([(topic("yard", "gate", kind), 1) for kind in kinds])

    def _on_message(self, _client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        kind = parse_topic(message.topic).kind
        if kind is Kind.STATE:
            self.states.append(decode(message.payload, State))
        elif kind is Kind.HEARTBEAT:
            self.heartbeats.append(decode(message.payload, Heartbeat))
        elif kind is Kind.REPORT:
            self.reports += [decode(message.payload, RolloutReport)] if message.payload else []
        elif kind is Kind.DETECTIONS:
            self.detections.append(message.payload)
        elif kind is Kind.EVENT:
            self.correlations.append(message.properties.CorrelationData)
            self._take_event(*decode_event(message.payload))
        else:
            self.parts += 1
            self._take_part(*decode_frame(message.payload))

    def _take_event(self, finding: Finding, jpeg: bytes) -> None:
        self.events[finding.event_id] += 1
        self.findings[finding.event_id] = finding
        if jpeg:
            self.frames[finding.event_id] = jpeg
        if not self.answering:
            return
        if finding.event_id in self.refuse:
            self._answer(Kind.ACK, encode(Ack(refused={finding.event_id: "because"})))
        else:
            frames = (finding.event_id,) if jpeg else ()
            self._answer(Kind.ACK, encode(Ack(findings=(finding.event_id,), frames=frames)))

    def _take_part(self, header: FrameHeader, part: bytes) -> None:
        if header.gone is not None:
            self.gone.append(header.event_id)
            return
        parts = self._parts.setdefault(header.event_id, {})
        parts[header.offset] = part
        whole = b"".join(parts[offset] for offset in sorted(parts))
        if len(whole) == header.size and hashlib.sha256(whole).hexdigest() == header.sha256:
            self.frames[header.event_id] = whole
            if self.answering:
                self._answer(Kind.ACK, encode(Ack(frames=(header.event_id,))))
