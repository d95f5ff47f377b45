"""A fleet of many devices before one hub, faster than real time: what is asked for, and what it is worth.

Real: the messages and `hub.ingest.judge`, the store, the curator with its near-duplicates, its naming and its wants.
Simulated: the devices, which are values in this process, and the clock; there is no broker between.
A device keeps its frames in a spool that drops the oldest, answers wants with the frame in parts or with `gone`, and
some are offline for good or for hours.

Findings come from known modes, a long tail of them: what a mode shows has tags, a label, a place, a size and a
direction in the features; a camera adds its scene. Some modes are of a planted weak spot: a pair of tags that is missed
far more often than found. A frame is a JPEG of a few kilobytes, a tenth of what a camera's has.
"""

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge.contract.samples import Box, Finding, FrameHeader, Light, Reason, WitnessKind, encode_event, encode_frame
from edge.contract.status import CameraHealth, Heartbeat, SpoolHealth, State, Want, encode
from edge.contract.topics import Kind, topic
from hub.config import WantsConfig
from hub.curator import Curator
from hub.dedupe import DuplicateIndex
from hub.ingest import judge
from hub.store import Store
from hub.tags import Tagger, TagsConfig
from tests.hub.made import jpeg

START_MS: Final = 1_700_000_000_000
HOUR_MS: Final = 3_600_000
TICK_MS: Final = 10 * 60 * 1000
WIDTH, HEIGHT = 64, 48
SITE: Final = "sim"
PLANTED: Final = (("dark", "tiny"), ("motion_blur", "small"), ("border", "noisy"))
_OTHERS: Final = ("bright", "medium", "big", "crowded", "occluded", "flat", "gray", "left", "right", "sharp")
_FEATURES: Final = 48
_PART_BYTES: Final = 4000
_FRAME: Final = jpeg(0)


@dataclass(frozen=True)
class Plan:
    """How large the simulation is. `ticks` are ten minutes each; weak spots are named after `named_at` of them."""

    devices: int = 200
    events_per_device: int = 80
    modes_per_spot: int = 12
    other_modes: int = 60
    planted: tuple[tuple[str, str], ...] = PLANTED
    share_of_a_spot: float = 0.12
    controls_per_device: int = 6
    ticks: int = 72
    named_at: int = 36
    offline: float = 0.05
    away: float = 0.1
    gone: float = 0.1
    spool_bytes: int = 2_000_000
    seed: int = 0


@dataclass(frozen=True)
class Mode:
    """One kind of miss. `spot`: the planted weak spot it is of, or None."""

    number: int
    spot: int | None
    tags: tuple[str, ...]
    label: str
    place: tuple[float, float]
    side: float
    direction: np.ndarray
    severity: float


@dataclass
class Sent:
    """A finding with its frame and its mode (None for `control`), and when it is captured."""

    finding: Finding
    frame: bytes
    mode: Mode | None
    tick: int


@dataclass
class Device:
    """A device with a bounded spool. It is not heard in `silent` ticks."""

    name: str
    silent: range
    spool_bytes: int
    spool: dict[str, bytes] = field(default_factory=dict)
    late: deque[Sent] = field(default_factory=deque)
    bytes_up: int = 0

    def keep(self, sent: Sent) -> None:
        self.spool[sent.finding.event_id] = sent.frame
        while sum(map(len, self.spool.values())) > self.spool_bytes:
            del self.spool[next(iter(self.spool))]

    def answer(self, event_id: str, *, lost: bool) -> list[bytes]:
        frame = None if lost else self.spool.pop(event_id, None)
        if frame is None:
            return [encode_frame(FrameHeader(event_id=event_id, size=0, sha256="", gone="evicted"))]
        self.bytes_up += len(frame)
        sha256 = hashlib.sha256(frame).hexdigest()
        return [
            encode_frame(
                FrameHeader(event_id=event_id, size=len(frame), sha256=sha256, offset=at), frame[at : at + _PART_BYTES]
            )
            for at in range(0, len(frame), _PART_BYTES)
        ]


class Fleet:
    """The devices, and the line on which the curator asks them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        rng = np.random.default_rng(plan.seed)
        self.sent = list(findings(plan))
        self.mode_of = {one.finding.event_id: one.mode for one in self.sent}
        self._lost = rng.random(len(self.sent)) < plan.gone
        self._by_id = {one.finding.event_id: number for number, one in enumerate(self.sent)}
        self.devices: dict[str, Device] = {}
        for number in range(plan.devices):
            name, chance, at = f"d{number}", rng.random(), int(rng.integers(1, plan.ticks))
            silent = range(0)
            if chance < plan.offline:
                silent = range(at, plan.ticks)  # for good: after some time it is heard no more
            elif chance < plan.offline + plan.away:
                silent = range(at, at + plan.ticks // 4)
            self.devices[name] = Device(name, silent, plan.spool_bytes)
        self._wants: deque[tuple[Device, str]] = deque()
        self.asked: list[str] = []

    @property
    def bytes_of_all(self) -> int:
        """The bytes of every finding's frame."""
        return sum(len(one.frame) for one in self.sent)

    @property
    def bytes_up(self) -> int:
        """The bytes of the frames that were sent."""
        return sum(device.bytes_up for device in self.devices.values())

    def want(self, site: str, device: str, want: Want) -> None:
        """Take what the curator asks for; it is answered in a later tick."""
        assert site == SITE
        self.asked += want.event_ids
        self._wants += ((self.devices[device], event_id) for event_id in want.event_ids)

    def messages(self, tick: int, *, inline: bool = False) -> Iterator[tuple[str, Kind, bytes]]:
        """Yield what the devices send in a tick: device, kind, payload."""
        for device in self.devices.values():
            if tick in device.silent:
                continue
            if tick == 0 or tick - 1 in device.silent:
                yield device.name, Kind.STATE, encode(_state(device.name, tick, online=True))
            yield device.name, Kind.HEARTBEAT, encode(_heartbeat(tick))
            while device.late:
                yield self._event(device, device.late.popleft(), inline=inline)
        for device in self.devices.values():
            if tick in device.silent and tick - 1 not in device.silent:
                yield device.name, Kind.STATE, encode(_state(device.name, tick, online=False))  # the last will
        for one in self._of_tick(tick):
            device = self.devices[one.finding.device]
            if tick in device.silent:
                device.late.append(one)
            else:
                yield self._event(device, one, inline=inline)
        for _ in range(len(self._wants)):
            device, event_id = self._wants.popleft()
            if tick not in device.silent:  # the want of a silent device is lost: the hub asks again
                for payload in device.answer(event_id, lost=bool(self._lost[self._by_id[event_id]])):
                    yield device.name, Kind.FRAME, payload

    def _event(self, device: Device, one: Sent, *, inline: bool) -> tuple[str, Kind, bytes]:
        device.keep(one)
        return device.name, Kind.EVENT, encode_event(one.finding, one.frame if inline else b"")

    def _of_tick(self, tick: int) -> Sequence[Sent]:
        if not hasattr(self, "_ticks"):
            self._ticks: dict[int, list[Sent]] = {}
            for one in self.sent:
                self._ticks.setdefault(one.tick, []).append(one)
        return self._ticks.get(tick, [])


class Play:
    """One hub before a fleet, tick by tick."""

    def __init__(self, fleet: Fleet, store: Store, wants: WantsConfig, *, inline: bool = False) -> None:
        """`inline`: every finding comes with its frame."""
        self.store = store
        self.now_ms = START_MS
        self._fleet = fleet
        self._inline = inline
        self._curator = Curator(
            store, make_index=DuplicateIndex, line=fleet, wants=wants, tagger=Tagger(TagsConfig()), pace_s=0.0
        )
        self._curator._name_from_s = math.inf

    def tick(self, times: int = 1) -> None:
        """Let the devices send, take it in, group it, and ask."""
        for _ in range(times):
            tick = (self.now_ms - START_MS) // TICK_MS
            arrivals = [
                judge(topic(SITE, name, kind), payload, None)
                for name, kind, payload in self._fleet.messages(tick, inline=self._inline)
            ]
            for start in range(0, len(arrivals), 500):
                self.store.commit(arrivals[start : start + 500], now_ms=self.now_ms)
            more = True
            while more:
                self._curator._ask_from_s = 0.0  # this clock runs faster than the one that paces the curator
                more = self._curator.step(self.now_ms).more
            self.now_ms += TICK_MS

    def name(self) -> None:
        """Let the hub name its weak spots in the next tick, and not again."""
        self._curator._name_from_s = 0.0
        self._curator._name_pace_s = math.inf


def findings(plan: Plan) -> Iterator[Sent]:
    """Yield the findings of all devices in order of time."""
    rng = np.random.default_rng(plan.seed)
    spots = [_modes(rng, plan.modes_per_spot, spot, tags) for spot, tags in enumerate(plan.planted)]
    others = _modes(rng, plan.other_modes, None, ())
    number, made = 0, []
    for device in range(plan.devices):
        scene = _direction(rng)
        favourites = [rng.permutation(len(kind))[: max(3, len(kind) * 2 // 3)] for kind in (*spots, others)]
        for _ in range(plan.events_per_device):
            spot = _draw_spot(rng, plan)
            kind = spots[spot] if spot is not None else others
            of_camera = favourites[spot if spot is not None else len(spots)]
            mode = kind[int(of_camera[_zipf(rng, len(of_camera))])]
            at_ms = int(rng.integers(0, plan.ticks * TICK_MS - 60_000))
            for one in _event(rng, number, f"d{device}", mode, scene, at_ms):
                made.append(one)
                number += 1
        for _ in range(plan.controls_per_device):
            at_ms = int(rng.integers(0, plan.ticks * TICK_MS - 60_000))
            boxes = _objects(rng, plan, [*spots, others], favourites)
            made.append(_control(rng, number, f"d{device}", scene, at_ms, boxes))
            number += 1
    yield from sorted(made, key=lambda one: one.finding.captured_at_ms)


def _draw_spot(rng, plan: Plan) -> int | None:
    drawn = int(rng.random() / plan.share_of_a_spot)
    return drawn if drawn < len(plan.planted) else None


def _modes(rng, count: int, spot: int | None, tags: tuple[str, ...]) -> list[Mode]:
    return [
        Mode(
            number=number if spot is None else 1000 * (spot + 1) + number,
            spot=spot,
            tags=(*tags, *rng.choice(_OTHERS, 2, replace=False).tolist()),
            label=str(rng.choice(["person", "car", "bicycle"], p=[0.6, 0.3, 0.1])),
            place=tuple(rng.uniform(0.2, 0.8, 2).tolist()),
            side=float(rng.uniform(4, 14)),
            direction=_direction(rng),
            severity=float(rng.uniform(0.3, 0.8)),
        )
        for number in range(count)
    ]


def _event(rng, number: int, device: str, mode: Mode, scene: np.ndarray, at_ms: int) -> Iterator[Sent]:
    """One event: one finding, or some near-duplicates within seconds."""
    crop = rng.integers(0, 2, 256)
    look = scene + 0.8 * mode.direction + 0.3 * _direction(rng)
    x, y = (float(v) for v in np.clip(np.array(mode.place) + rng.normal(0, 0.03, 2), 0.15, 0.85))
    for again in range(int(rng.choice([1, 2, 4], p=[0.6, 0.25, 0.15]))):
        flipped = np.where(rng.random(256) < 0.02, 1 - crop, crop) if again else crop
        half = mode.side / 2
        region = (x * WIDTH - half, y * HEIGHT - half, x * WIDTH + half, y * HEIGHT + half)
        yield _sent(
            rng,
            number + again,
            device,
            at_ms + 700 * again,
            look + 0.03 * _direction(rng),
            mode=mode,
            reason=Reason.MISSED if rng.random() < 0.75 else Reason.LOW_CONFIDENCE,
            severity=float(np.clip(rng.normal(mode.severity, 0.1), 0, 1)),
            region=region,
            label=mode.label,
            boxes=(Box(region, mode.label, 0.3),),
            tags=mode.tags,
            track=f"t{number}",
            crop_hash=np.packbits(flipped).tobytes().hex(),
        )


def _objects(rng, plan: Plan, kinds: Sequence[Sequence[Mode]], favourites: Sequence[np.ndarray]) -> tuple[Box, ...]:
    """What a frame drawn at random shows: few of a weak spot, and of those nearly half are overlooked."""
    boxes = []
    for _ in range(int(rng.integers(3, 9))):
        weak = rng.random() < 0.03 * len(plan.planted)
        kind = int(rng.integers(len(plan.planted))) if weak else len(plan.planted)
        mode = kinds[kind][int(favourites[kind][_zipf(rng, len(favourites[kind]))])]
        overlooked = rng.random() < (0.45 if weak else 0.1)
        witness = WitnessKind.ZOOM if overlooked else None
        boxes.append(Box((10.0, 10.0, 20.0, 30.0), mode.label, 0.6, witness=witness, tags=mode.tags))
    return tuple(boxes)


def _control(rng, number: int, device: str, scene: np.ndarray, at_ms: int, boxes: tuple[Box, ...]) -> Sent:
    return _sent(
        rng,
        number,
        device,
        at_ms,
        scene + 0.3 * _direction(rng),
        mode=None,
        reason=Reason.CONTROL,
        severity=0.0,
        region=(0.0, 0.0, float(WIDTH), float(HEIGHT)),
        label="",
        boxes=boxes,
        tags=(),
        track="",
        looked_twice=True,
        crop_hash=rng.bytes(32).hex(),
    )


def _sent(rng, number: int, device: str, at_ms: int, look: np.ndarray, *, mode: Mode | None, **changes) -> Sent:
    frame = _frame(number, int(np.clip(rng.lognormal(8.5, 0.4), 2000, 20_000)))
    features = np.rint(127 * look / np.linalg.norm(look)).astype(np.int8)
    finding = Finding(
        event_id=f"{number:032x}",
        site=SITE,
        device=device,
        camera="cam",
        sequence=number,
        captured_at_ms=START_MS + at_ms,
        witnesses=(),
        width=WIDTH,
        height=HEIGHT,
        frame_hash=rng.bytes(32).hex(),
        features=features.tobytes(),
        light=Light(80.0, 20.0, 2.0, 5.0),
        model="starter-1",
        frame_bytes=len(frame),
        frame_sha256=hashlib.sha256(frame).hexdigest(),
        **changes,
    )
    return Sent(finding, frame, mode, at_ms // TICK_MS)


def _frame(number: int, size: int) -> bytes:
    """A JPEG of about `size` bytes, another one for every number: a comment stands before the picture."""
    comment = (b"%032d" % number).ljust(size - len(_FRAME), b".")
    return _FRAME[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + _FRAME[2:]


def _direction(rng) -> np.ndarray:
    vector = rng.normal(size=_FEATURES)
    return vector / np.linalg.norm(vector)


def _zipf(rng, count: int) -> int:
    weights = 1 / np.arange(1, count + 1)
    return int(rng.choice(count, p=weights / weights.sum()))


def _state(device: str, tick: int, *, online: bool) -> State:
    return State(
        boot_id=f"{device}-1", online=online, at_ms=START_MS + tick * TICK_MS, model="starter-1", version="0.1.0"
    )


def _heartbeat(tick: int) -> Heartbeat:
    camera = CameraHealth(name="cam", state="running", frames=100, fps=5.0, restarts=0, frame_age_s=0.2, detect_ms=20.0)
    return Heartbeat(
        boot_id="1",
        at_ms=START_MS + tick * TICK_MS,
        uptime_s=5.0,
        model="starter-1",
        cameras=(camera,),
        spool=SpoolHealth(samples=3, unsent=0, bytes=1000, limit_bytes=10000),
        findings={},
        dropped={},
        bytes_up=0,
    )
