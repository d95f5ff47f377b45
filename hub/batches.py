"""Batches: about 50 images for an annotator, chosen once and frozen.

Laws:

1. A frozen batch does not change: its members, why each was chosen, its title and the release that failed.
2. A group gives one image to one batch, ever, and so does a frame: nobody annotates the same event or picture twice.
3. Black frames and `control` findings are no candidates.

What is chosen is hub.selection's to say; this module knows what a finding is like, and says it in words.
"""

import dataclasses
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.samples import Finding, Reason
from hub.export import CONTACT_SHEET, README, BatchView, ExportReport, Member
from hub.selection import PREFILTER, Trait, describe, kept_of, log_fraction, select
from hub.store import BatchMember, BatchRow, Store
from hub.store_rows import FindingRow, FrameState

DEFAULT_SIZE: Final = 50
MOSTLY: Final = 0.5
MAX_NAMED_CAMERAS: Final = 3

_SIZE_PX: Final = (4.0, 1024.0)
_MAX_CONTRAST: Final = 80.0
_NOISE: Final = (0.5, 32.0)
_SHARPNESS: Final = (1.0, 10_000.0)
_KINDS: Final = {
    Reason.MISSED: "missed {}",
    Reason.LOW_CONFIDENCE: "unsure {}",
    Reason.SUSPECT: "suspected false {}",
    Reason.CONTROL: "random {}",
}
_TAG_WORDS: Final = {"border": "cut by the border", "flat": "low in contrast"}
_WAY_OF_A_FRAME: Final = (FrameState.PRESENT, FrameState.WANTED, FrameState.HELD)


class NothingToChooseError(UnusableError):
    """No batch can be made now; the message says what is missing and what to do about it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A frozen batch.

    Attributes:
        row: its number, time, size, title and model.
        members: by rank.
        asked: how many images were asked for; None for a batch that was read back.
    """

    row: BatchRow
    members: tuple[BatchMember, ...]
    asked: int | None = None

    @property
    def id(self) -> int:
        """Its number."""
        return self.row.id

    @property
    def size(self) -> int:
        """How many images it has."""
        return self.row.size

    @property
    def title(self) -> str:
        """The weak point in plain words."""
        return self.row.title


def new_batch(store: Store, *, size: int = DEFAULT_SIZE, now_ms: int | None = None) -> Batch:
    """Choose up to `size` images of the groups that have a frame here and are in no batch, and freeze them.

    Raises:
        NothingToChooseError: when there is no candidate.
        UnusableError: when `size` is not positive, or another process took the same images meanwhile.
    """
    if size < 1:
        msg = f"a batch of {size} images: the size must be at least 1"
        raise UnusableError(msg)
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    candidates = store.candidates()
    if not candidates:
        raise NothingToChooseError(_what_is_missing(store, now_ms=now_ms))
    limit = max(PREFILTER, size + size // 10)  # some may share a picture
    severities, cameras = [row.severity for row in candidates], [_camera(row) for row in candidates]
    rows = [candidates[number] for number in kept_of(severities, cameras, limit)]
    findings = [row.finding() for row in rows]
    picks = select(
        describe([_trait(finding) for finding in findings]),
        [row.severity for row in rows],
        [_camera(row) for row in rows],
        [row.group_id for row in rows],
        size,
        frame=_pictures(findings),
        prefilter=limit,
    )
    chosen = [findings[pick.candidate] for pick in picks]
    sizes = store.group_sizes(group for row in rows if (group := row.group_id) is not None)
    members = []
    for pick in picks:
        row = rows[pick.candidate]
        group_id = row.group_id or 0
        seen = f"seen {times} times; " if (times := sizes.get(group_id, 1)) > 1 else ""
        why = f"{_subject(row.reason, row.label)}, severity {row.severity:.2f}; {seen}{pick.why}"
        members.append(BatchMember(event_id=row.event_id, group_id=group_id, why=why, gain=round(pick.gain, 4)))
    models = sorted(Counter(finding.model for finding in chosen).items(), key=_by_count)
    batch_id = store.freeze_batch(
        members, now_ms=now_ms, title=title_of(chosen), model=", ".join(model for model, _ in models)
    )
    return Batch(store.batch(batch_id), tuple(members), asked=size)


def read_batch(store: Store, batch_id: int) -> Batch:
    """Return a frozen batch. Raises `UnusableError`, naming those there are, when it does not exist."""
    known = store.batches()
    for row in known:
        if row.id == batch_id:
            return Batch(row, tuple(store.batch_members(batch_id)))
    there_are = ", ".join(str(row.id) for row in known[-20:])
    more = "..., " if len(known) > 20 else ""
    msg = f"there is no batch {batch_id}; " + (f"known are {more}{there_are}" if known else "`hub batch new` makes one")
    raise UnusableError(msg)


def batch_view(store: Store, batch_id: int) -> BatchView:
    """Return a frozen batch with its findings and frames, as an export needs it. Raises `UnusableError`."""
    batch = read_batch(store, batch_id)
    members = tuple(_member(store, member) for member in batch.members)
    return BatchView(id=batch.id, title=batch.title, model=batch.row.model, members=members)


def batch_rows(store: Store, batch: Batch) -> list[FindingRow]:
    """Return the findings of a batch's members, by rank."""
    return [store.finding(member.event_id) for member in batch.members]


def title_of(findings: Sequence[Finding]) -> str:
    """Name the most common weak point in plain words, as "missed person, mostly small and dark, cameras a and b".

    First the commonest reason and label: "mostly" when it is more than half of the findings, "and others" when it is
    less. Then the tags that at least half of all the findings have, "all" when every finding has each of them. Then the
    cameras, by device where a name is used twice.
    """
    kinds = Counter(_subject(finding.reason, finding.label) for finding in findings)
    kind, count = min(kinds.items(), key=_by_count)
    if count < len(findings):
        kind = f"mostly {kind}" if count > MOSTLY * len(findings) else f"{kind} and others"
    words = [kind]
    tags = Counter(tag for finding in findings for tag in set(finding.tags))
    common = [tag for tag, times in sorted(tags.items(), key=_by_count) if times >= MOSTLY * len(findings)][:3]
    if common:
        share = "all" if all(tags[tag] == len(findings) for tag in common) else "mostly"
        words.append(f"{share} {_listed([_TAG_WORDS.get(tag, _printable(tag.replace('_', ' '))) for tag in common])}")
    cameras = _camera_names(findings)
    named = f"cameras {_listed(cameras)}" if len(cameras) > 1 else f"camera {cameras[0]}"
    words.append(named if len(cameras) <= MAX_NAMED_CAMERAS else f"{len(cameras)} cameras")
    return ", ".join(words)


def list_lines(batches: Sequence[BatchRow]) -> list[str]:
    """Return `hub batch list` as lines of at most 80 characters, oldest first."""
    if not batches:
        return ["no batch yet: `hub batch new` makes one"]
    lines = [f"{'id':>4}  {'made (UTC)':16}  {'images':>6}  weak point"]
    lines += [f"{row.id:>4}  {_utc(row.created_at_ms)}  {row.size:>6}  {_cut(row.title, 47)}" for row in batches]
    return lines


def show_lines(batch: Batch, rows: Sequence[FindingRow]) -> list[str]:
    """Return `hub batch show` as lines of at most 80 characters. `rows` are the findings of the members, by rank."""
    lines = [
        *_wrapped(f"batch {batch.id}: {batch.title}"),
        f"{batch.size} images, made {_utc(batch.row.created_at_ms)} UTC",
        *_wrapped(f"model that failed: {batch.row.model}"),
        "",
        f"{'rank':>4}  {'event':8}  {'camera':14}  {'gain':>6}  why",
    ]
    for rank, (member, row) in enumerate(zip(batch.members, rows, strict=True), start=1):
        first, *rest = _wrapped(member.why, width=38)
        lines.append(f"{rank:>4}  {row.event_id[:8]}  {_cut(row.camera, 14):14}  {member.gain:>6.2f}  {first}")
        lines += [" " * 42 + line for line in rest]
    return lines


def made_lines(batch: Batch) -> list[str]:
    """Return what `hub batch new` prints: what was made, why it is smaller than asked, and what comes next."""
    lines = _wrapped(f"batch {batch.id}: {batch.size} images, {batch.title}")
    if batch.asked is not None and batch.size < batch.asked:
        lines += _wrapped(
            f"asked for {batch.asked}: there is no other picture here of an event that is in no batch yet"
        )
    return [*lines, f"next: hub batch export {batch.id} --format cvat --out batch-{batch.id}"]


def exported_lines(report: ExportReport) -> list[str]:
    """Return what `hub batch export` prints: what was written, what was left out, and where to look."""
    boxes = ", ".join(f"{count} {origin}" for origin, count in sorted(report.boxes.items(), key=_by_count)) or "none"
    lines = [f"{report.images} images in {report.out}", f"boxes to start from: {boxes}"]
    lines += [f"boxes not written: {count} {why}" for why, count in sorted(report.dropped.items(), key=_by_count)]
    lines += [f"left out: {event_id}: {why}" for event_id, why in report.left_out]
    return [*lines, f"next: {README} says how to open it, {CONTACT_SHEET} shows the images on one page"]


def batch_as_json(store: Store, batch: Batch) -> str:
    """Return a batch as one JSON object: its row, and `members` by rank with what was suspected in each."""
    members = [
        {
            "rank": rank,
            "event_id": row.event_id,
            "group_id": member.group_id,
            "site": row.site,
            "device": row.device,
            "camera": row.camera,
            "captured_at_ms": row.captured_at_ms,
            "reason": row.reason,
            "label": row.label,
            "severity": row.severity,
            "gain": member.gain,
            "why": member.why,
        }
        for rank, (member, row) in enumerate(zip(batch.members, batch_rows(store, batch), strict=True), start=1)
    ]
    return msgspec.json.encode({**dataclasses.asdict(batch.row), "members": members}).decode()


def _trait(finding: Finding) -> Trait:
    x1, y1, x2, y2 = finding.region
    light = finding.light
    sides = sorted((x2 - x1, y2 - y1))
    return Trait(
        features=np.frombuffer(finding.features, np.int8),
        space=finding.model,
        place=((x1 + x2) / 2 / finding.width, (y1 + y2) / 2 / finding.height),
        size=(log_fraction(sides[0], *_SIZE_PX), log_fraction(sides[1], *_SIZE_PX)),
        light=(
            light.brightness / 255,
            light.contrast / _MAX_CONTRAST,
            log_fraction(light.noise, *_NOISE),
            log_fraction(light.sharpness, *_SHARPNESS),
        ),
        label=finding.label,
        reason=finding.reason.value,
    )


def _member(store: Store, member: BatchMember) -> Member:
    row = store.finding(member.event_id)
    return Member(
        event_id=row.event_id,
        site=row.site,
        device=row.device,
        camera=row.camera,
        captured_at_ms=row.captured_at_ms,
        reason=row.reason.value,
        severity=row.severity,
        why=member.why,
        region=row.region,
        label=row.label,
        boxes=row.finding().boxes,
        jpeg=store.frame(row.event_id),
        width=row.width,
        height=row.height,
    )


def _what_is_missing(store: Store, *, now_ms: int) -> str:
    """Return one sentence of what is here and one of what to do."""
    status = store.status(now_ms=now_ms)
    present, wanted, held = (status.frames.get(state, 0) for state in _WAY_OF_A_FRAME)
    if not status.findings:
        advice = "run `hub serve` and a device: `edge run` with this hub's broker"
    elif status.ungrouped or wanted or held:
        advice = "let `hub serve` and the devices run until the frames are here"
    else:
        advice = "wait for new findings"
    return (
        f"nothing to make a batch of: {sum(status.findings.values())} findings, {present} frames here,"
        f" {wanted} asked for, {status.batched_images} already in batches (control and black frames do not count);"
        f" {advice}"
    )


def _camera(row: FindingRow) -> tuple[str, str, str]:
    return row.site, row.device, row.camera


def _pictures(findings: Sequence[Finding]) -> list[int]:
    """Number the pictures: findings share one when a camera captured them at one time, or their frames' bytes agree."""
    known: dict[tuple[object, ...], int] = {}
    numbers = []
    for number, finding in enumerate(findings):
        moment = finding.site, finding.device, finding.camera, finding.captured_at_ms
        frame = finding.site, finding.device, finding.frame_sha256
        numbers.append(known.get(moment, known.get(frame, number)))
        known.setdefault(moment, numbers[-1])
        known.setdefault(frame, numbers[-1])
    return numbers


def _camera_names(findings: Iterable[Finding]) -> list[str]:
    """Return the cameras by name; with their device, or their site too, where a name is used twice."""
    cameras = {(finding.site, finding.device, finding.camera) for finding in findings}
    names = Counter(camera for _, _, camera in cameras)
    devices = Counter((device, camera) for _, device, camera in cameras)

    def name(site: str, device: str, camera: str) -> str:
        if names[camera] == 1:
            return camera
        return f"{device}/{camera}" if devices[device, camera] == 1 else f"{site}/{device}/{camera}"

    return sorted(name(*camera) for camera in cameras)


def _subject(reason: Reason, label: str) -> str:
    return _KINDS[reason].format(_printable(label) or "object")


def _printable(text: str) -> str:
    """Return what a device has sent as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _wrapped(text: str, *, width: int = 80) -> list[str]:
    return textwrap.wrap(text, width) or [""]
