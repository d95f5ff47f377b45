"""Simulated devices before a real hub: over MQTT v5, as a fleet is. For rehearsing a rollout, and for measuring it.

Real: the connections with their last wills, the retained states, orders and reports, the heartbeats. Simulated: what a
device does in between, see hub.simulated. No frames are sent, and the signed repository is not read.

A few threads drive all connections, each its own share of the devices: no value is shared but for the counts.

Laws:

1. A device says its state, and its newest report again, at every connect.
2. A device that is away has no connection: the broker publishes its last will, and orders wait for it.
"""

import itertools
import logging
import math
import random
import resource
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge.contract.errors import UnusableError
from edge.contract.rollout import PHASES, Assignment, RolloutReport
from edge.contract.settings import BrokerSettings
from edge.contract.status import decode, encode
from edge.contract.topics import Kind, topic
from hub.scenery import Fault
from hub.simulated import FACTORY, Place, SimulatedDevice

HEARTBEAT_S: Final = 30.0
DEVICES_A_THREAD: Final = 150
MOST_THREADS: Final = 8
STEP_S: Final = 0.5
MAX_RECONNECT_S: Final = 30.0
FAREWELL_S: Final = 5.0
CONNECTS_A_TURN: Final = 10
_log = logging.getLogger(__name__)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet now.

    Attributes:
        devices, connected: how many there are, and how many the broker has accepted and subscribed.
        phases: of the newest assignment; "" where none came.
        serving: by the name of the release.
        ever_confirmed: of each release, how many devices confirmed it at any time.
        reasons: why releases were rolled back.
        refused: what the broker or the hub said no to.
    """

    devices: int
    connected: int
    phases: dict[str, int]
    serving: dict[str, int]
    ever_confirmed: dict[str, int]
    reasons: dict[str, int]
    refused: dict[str, int]


class _Seat:
    """One device's connection. All of it happens in the thread of its `_Crew`."""

    def __init__(self, device: SimulatedDevice, settings: BrokerSettings, *, away_s: float) -> None:
        """`away_s`: 0, or the period in whose second half the device is away."""
        self.device = device
        self.connected = False
        self.connect_from_s = 0.0
        self.refused: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.confirmed: set[str] = set()
        self._away_s = away_s
        self._shift_s = random.uniform(0, away_s)  # noqa: S311  # not a secret
        self._attempts = 0
        self._beat_from_s = 0.0
        place = device.place
        self._topics = {kind: topic(place.site, place.device, kind) for kind in Kind}
        name = f"weakspot:{place.site}:{place.device}"
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        _secure(self.client, settings)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_disconnect = self._on_disconnect
        self.client.on_message = self._on_message
        self.client.on_publish = self._on_publish
        self.client.connect_async(settings.host, settings.port_number, settings.keepalive_s)

    def connect(self, now_s: float) -> None:
        """Try it once. Raises nothing: a broker that does not answer is counted, and tried again later."""
        self._attempts += 1
        pause_s = min(MAX_RECONNECT_S, 2.0**self._attempts) * random.uniform(0.5, 1.0)  # noqa: S311  # not a secret
        self.connect_from_s = now_s + pause_s
        self.client.will_set(self._topics[Kind.STATE], self._state(online=False), qos=1, retain=True)
        try:
            self.client.reconnect()
        except OSError as error:
            self.refused[f"the broker does not answer: {error}"] += 1

    def turn(self, now_s: float) -> None:
        """Let the device do what is due."""
        self.client.loop_misc()
        self._say(self.device.step(_now_ms()))
        if self.connected and self.is_away(now_s):
            self.client.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
        elif self.connected and now_s >= self._beat_from_s:
            self._beat_from_s = now_s + HEARTBEAT_S
            self._publish(Kind.HEARTBEAT, encode(self.device.heartbeat(_now_ms())), qos=0)

    def is_away(self, now_s: float) -> bool:
        """Whether it has no connection now."""
        return self._away_s > 0 and (now_s + self._shift_s) % self._away_s > self._away_s / 2

    def leave(self) -> None:
        """Say that it goes, and disconnect."""
        if self.connected:
            self._publish(Kind.STATE, self._state(online=False))
            self.client.disconnect()

    def _state(self, *, online: bool) -> bytes:
        return encode(self.device.state(_now_ms(), online=online))

    def _say(self, reports: Sequence[RolloutReport]) -> None:
        for report in reports:
            if report.phase == "confirmed":
                self.confirmed.add(report.release)
            elif report.phase == "rolled_back":
                self.reasons[report.reason] += 1
            if self.connected:
                self._publish(Kind.REPORT, encode(report))
        if reports and self.connected:  # its state names what serves now
            self._publish(Kind.STATE, self._state(online=True))

    def _publish(self, kind: Kind, payload: bytes, *, qos: int = 1) -> None:
        self.client.publish(self._topics[kind], payload, qos=qos, retain=kind is not Kind.HEARTBEAT)

    # Callbacks of the client.

    def _on_connect(self, client: paho.Client, _user: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        if reason.is_failure:
            self.refused[f"the broker refuses the connection: {reason}"] += 1
        else:
            client.subscribe(self._topics[Kind.ASSIGN], qos=1)

    def _on_subscribe(self, _client: paho.Client, _user: Any, _mid: int, reasons: list[ReasonCode], _more: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                self.refused[f"the broker refuses the subscription: {reason}"] += 1
                return
        self._attempts, self.connected = 0, True
        self._beat_from_s = time.monotonic() + random.uniform(0, HEARTBEAT_S)  # noqa: S311  # not a secret
        self._publish(Kind.STATE, self._state(online=True))
        if self.device.last is not None:
            self._publish(Kind.REPORT, encode(self.device.last))

    def _on_disconnect(self, _client: paho.Client, _user: Any, _flags: Any, _reason: ReasonCode, _more: Any) -> None:
        self.connected = False

    def _on_message(self, _client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        if not message.payload:  # the retained order was taken away
            return
        try:
            self._say(self.device.assign(decode(bytes(message.payload), Assignment), now_ms=_now_ms()))
        except UnusableError as error:
            self.refused[str(error)] += 1

    def _on_publish(self, _client: paho.Client, _user: Any, _mid: int, reason: ReasonCode, _more: Any) -> None:
        if reason.is_failure:
            self.refused[f"the broker refuses a message: {reason}"] += 1


class _Crew:
    """The devices of one thread, and its loop."""

    def __init__(self, seats: Sequence[_Seat], *, stop: threading.Event) -> None:
        self.failure: Exception | None = None
        self._seats = seats
        self._stop = stop
        self._selector = selectors.DefaultSelector()
        self.thread = threading.Thread(target=self._guarded, name="simulated devices", daemon=True)
        for seat in seats:
            seat.client.on_socket_open = self._watch(seat)
            seat.client.on_socket_close = lambda _client, _user, sock: self._forget(sock)
            seat.client.on_socket_register_write = self._watch(seat, selectors.EVENT_WRITE)
            seat.client.on_socket_unregister_write = self._watch(seat)

    def _watch(self, seat: _Seat, more: int = 0) -> Callable[[paho.Client, Any, Any], None]:
        def watch(_client: paho.Client, _user: Any, sock: Any) -> None:
            self._forget(sock)
            self._selector.register(sock, selectors.EVENT_READ | more, seat)

        return watch

    def _forget(self, sock: Any) -> None:
        with suppress(KeyError, ValueError):  # it was not watched
            self._selector.unregister(sock)

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - it is the thread's last frame, and `standing` raises it
            _log.exception("simulated devices failed")
            self.failure = error
            self._stop.set()
        finally:
            self._selector.close()

    def _run(self) -> None:
        turn_from_s = 0.0
        while not self._stop.is_set():
            self._connect()
            self._exchange(0.05)
            if (now_s := time.monotonic()) >= turn_from_s:
                turn_from_s = now_s + STEP_S
                for seat in self._seats:
                    seat.turn(now_s)
        for seat in self._seats:
            seat.leave()
        until_s = time.monotonic() + FAREWELL_S
        while time.monotonic() < until_s and any(seat.client.socket() is not None for seat in self._seats):
            self._exchange(0.05)

    def _connect(self) -> None:
        now_s = time.monotonic()
        due = (
            seat
            for seat in self._seats
            if seat.client.socket() is None and seat.connect_from_s <= now_s and not seat.is_away(now_s)
        )
        for seat in itertools.islice(due, CONNECTS_A_TURN):
            seat.connect(now_s)

    def _exchange(self, timeout_s: float) -> None:
        if not self._selector.get_map():
            self._stop.wait(timeout_s)
            return
        for key, events in self._selector.select(timeout_s):
            client = key.data.client
            if events & selectors.EVENT_WRITE:
                client.loop_write()
            if events & selectors.EVENT_READ:
                client.loop_read()
                while (sock := client.socket()) is not None and _pending(sock):
                    client.loop_read()


class Fleet:
    """All devices, connected between `__enter__` and `__exit__`."""

    def __init__(
        self, devices: Sequence[SimulatedDevice], settings: BrokerSettings, *, away: float = 0.0, away_s: float = 120.0
    ) -> None:
        """Make the connections; none is opened yet.

        Args:
            devices: no two of one name.
            settings: the broker; it must let this side write as every device.
            away: the share of devices that are away for half of every `away_s`, 0..1.
            away_s: see `away`.

        Raises `UnusableError` when a certificate, the password or the number of open files does not allow it.
        """
        _allow_files(len(devices) + 100)
        often = len(devices) * away
        self._seats = [
            _Seat(device, settings, away_s=away_s if number < often else 0.0) for number, device in enumerate(devices)
        ]
        self._stop = threading.Event()
        count = min(MOST_THREADS, max(1, math.ceil(len(devices) / DEVICES_A_THREAD)))
        self._crews = [_Crew(self._seats[first::count], stop=self._stop) for first in range(count)]

    def __enter__(self) -> Self:
        for crew in self._crews:
            crew.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for crew in self._crews:
            crew.thread.join()

    def standing(self) -> Standing:
        """Return how the fleet stands. Raises what ended one of its threads."""
        for crew in self._crews:
            if crew.failure is not None:
                raise crew.failure
        seats = self._seats
        return Standing(
            devices=len(seats),
            connected=sum(seat.connected for seat in seats),
            phases=dict(Counter(seat.device.phase or "" for seat in seats)),
            serving=dict(Counter(seat.device.serving for seat in seats)),
            ever_confirmed=dict(Counter(release for seat in seats for release in tuple(seat.confirmed))),
            reasons=dict(sum((seat.reasons for seat in seats), Counter())),
            refused=dict(sum((seat.refused for seat in seats), Counter())),
        )


def make_devices(places: Sequence[Place], *, faults: Mapping[int, Fault], seed: int) -> list[SimulatedDevice]:
    """Return a device for each place, at its beginning. `faults`: by the number of a release."""
    now_ms = _now_ms()
    return [
        SimulatedDevice(place, faults=faults, seed=seed * 1_000_003 + number, begun_ms=now_ms)
        for number, place in enumerate(places)
    ]


def standing_lines(standing: Standing) -> list[str]:
    """Return how a fleet stands, at most 80 characters a line but for what others said."""
    lines = [f"devices    {standing.connected} of {standing.devices} connected"]
    order = {phase: number for number, phase in enumerate(PHASES)}
    phases = sorted((order[phase], count) for phase, count in standing.phases.items() if phase in order)
    lines += [f"{'phases' if not n else '':10} {PHASES[at]} {count}" for n, (at, count) in enumerate(phases)]
    serving = sorted(standing.serving.items())
    lines += [
        f"{'serving' if not n else '':10} {release} on {count}, confirmed on {standing.ever_confirmed.get(release, 0)}"
        if release != FACTORY
        else f"{'serving' if not n else '':10} {release} on {count}"
        for n, (release, count) in enumerate(serving)
    ]
    for release, count in sorted(standing.ever_confirmed.items()):
        if release not in standing.serving:
            lines.append(f"{'':10} {release} on 0, was confirmed on {count}")
    for name, counts in (("went back", standing.reasons), ("refused", standing.refused)):
        most = Counter(counts).most_common(5)
        lines += [f"{name if not n else '':10} {count} x {reason}" for n, (reason, count) in enumerate(most)]
    return lines


def _secure(client: paho.Client, settings: BrokerSettings) -> None:
    try:
        if settings.ca is not None:
            cert, key = (None if path is None else str(path) for path in (settings.cert, settings.key))
            client.tls_set(str(settings.ca), certfile=cert, keyfile=key)
        if settings.username is not None:
            password = None
            if settings.password_file is not None:
                password = settings.password_file.read_text(encoding="utf-8").split("\n", 1)[0]
            client.username_pw_set(settings.username, password)
    except (OSError, ValueError) as error:
        msg = f"cannot use the certificates or the password of the broker: {error}"
        raise UnusableError(msg) from error


def _allow_files(count: int) -> None:
    """Let this process hold so many connections, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        msg = f"{count} open files are needed, the system allows {hard}: fewer devices, or a higher `ulimit -n`"
        raise UnusableError(msg)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _pending(sock: Any) -> int:
    """Return the bytes that TLS has read already: the system does not tell of them."""
    waits = getattr(sock, "pending", None)
    return int(waits()) if waits is not None else 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
