"""A device as the hub sees it: an MQTT v5 client that keeps sending a sample until the hub's own ack names it."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.contract.samples import FrameHeader, encode_frame
from edge.contract.status import Ack, Want, decode
from edge.contract.topics import Kind, topic
from tests.brokers import DEADLINE_S, wait_until
from tests.hub.made import jpeg, state_payload


class Device:
    """One simulated device. Its frames are `jpeg(number)`, the number read back from the event id."""

    def __init__(self, port: int, name: str = "box", *, answers: bool = True, part_bytes: int = 300) -> None:
        self.name = name
        self.acked: set[str] = set()
        self.frames_acked: set[str] = set()
        self.refused: dict[str, str] = {}
        self.wants: list[tuple[str, ...]] = []
        self.answers = answers
        self.sent = 0
        self._part_bytes = part_bytes
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"sim-{name}", protocol=paho.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.max_inflight_messages_set(200)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port, clean_start=True)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._subscribed.wait(DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, kind: Kind, payload: bytes, *, event_id: str | None = None, where: str | None = None) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        if event_id is not None:
            properties.CorrelationData = event_id.encode()
        place = where or topic("lab", self.name, kind)
        self.sent += 1
        self._client.publish(place, payload, qos=1, retain=kind is Kind.STATE, properties=properties)

    def come_online(self, boot_id: str) -> None:
        self.send(Kind.STATE, state_payload(boot_id=boot_id))

    def _on_connect(self, client, _user, _flags, _reason, _more) -> None:
        client.subscribe([(topic("lab", self.name, kind), 1) for kind in (Kind.ACK, Kind.WANT)])

    def _on_message(self, _client, _user, message) -> None:
        if message.topic.endswith("/ack"):
            ack = decode(message.payload, Ack)
            self.acked |= set(ack.findings)
            self.frames_acked |= set(ack.frames)
            self.refused |= ack.refused
            return
        want = decode(message.payload, Want)
        self.wants.append(want.event_ids)
        for event_id in want.event_ids if self.answers else ():
            self.send_frame(event_id)

    def send_frame(self, event_id: str, picture: bytes | None = None) -> None:
        whole = jpeg(int(event_id, 16)) if picture is None else picture
        sha256 = hashlib.sha256(whole).hexdigest()
        for at in range(0, len(whole), self._part_bytes):
            header = FrameHeader(event_id=event_id, size=len(whole), sha256=sha256, offset=at)
            self.send(Kind.FRAME, encode_frame(header, whole[at : at + self._part_bytes]), event_id=event_id)


class Hub:
    """A real `hub serve` process."""

    def __init__(self, folder: Path, port: int, *, wants: str = "", mqtt: str = "") -> None:
        self.database = folder / "hub.db"
        self._config = folder / "hub.toml"
        self._config.write_text(
            f'database = "hub.db"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n{mqtt}\n[wants]\n{wants}\n'
        )
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._drain: threading.Thread | None = None

    def start(self) -> Self:
        """Start it; returns when it is subscribed."""
        seen = len(self.log)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hub", "serve", "--config", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._drain = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._drain.start()
        wait_until(
            lambda: any("ingesting" in line for line in self.log[seen:]) or self._process.poll() is not None,
            what="hub serve is ready",
        )
        assert self._process.poll() is None, "".join(self.log)
        return self

    def _read_log(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        self.log.extend(process.stderr)
        process.stderr.close()

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        os.kill(self._process.pid, number)
        status = self._process.wait(DEADLINE_S)
        assert self._drain is not None
        self._drain.join(DEADLINE_S)
        self._process = None
        return status

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()


def send_until_acked(device: Device, payloads: dict[str, bytes], *, deadline_s: float = DEADLINE_S) -> None:
    """Send events, and every second again what is not acknowledged, as a spool does, until all are."""
    again = threading.Event()
    for _ in range(int(deadline_s)):
        for event_id in set(payloads) - device.acked:
            device.send(Kind.EVENT, payloads[event_id], event_id=event_id)
        for _ in range(50):
            if set(payloads) <= device.acked:
                return
            again.wait(0.02)
    pytest.fail(f"{len(set(payloads) - device.acked)} events were never acknowledged")
