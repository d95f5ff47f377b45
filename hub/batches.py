"""Batches: about 50 images for an annotator, chosen once and frozen.

Laws:

1. A frozen batch does not change: its members, why each was chosen, its title, the release that failed, its test share.
2. A group gives one image to one batch, ever, and so does a frame: nobody annotates the same event or picture twice.
3. Every image of a batch was opened before it was frozen: none is unreadable, black, or without a region to look at.
4. No image that may be trained on shows the moment of a test image: see hub.testshare. Random batches are for measuring
   alone.
5. A batch for a weak spot has findings of that weak spot and `control` frames, and nothing else.

What is chosen is hub.selection's to say, what a finding is like hub.candidates'.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edge.contract.errors import UnusableError, WeakspotError
from edge.contract.samples import Finding, Reason
from hub.batch_titles import by_count, subject, title_of
from hub.batch_view import BatchView
from hub.candidates import ObjectOfFrame, camera_of, kind_of, pools, require_useful, traits_of
from hub.likeness import codes, describe
from hub.selection import PREFILTER, Kind, Pick, Shares, select, weights
from hub.store import BatchMember, BatchRow, Candidate, FindingRow, FrameState, Store
from hub.tags import Tagger, TagsConfig
from hub.testshare import is_beside_test
from hub.thinning import thin
from hub.viewing import view_of
from hub.weakspots import NEXT, SpotState, WeakSpot, belongs, sources, step_of, weak_spot

DEFAULT_SIZE: Final = 50
DEFAULT_HARD: Final = 0.6
DEFAULT_CONTROL: Final = 0.1
EARLIER: Final = 2000  # images of earlier batches that count as covered, the newest
CONTROL_LOOKED_AT: Final = 2000  # control frames, the newest, whose boxes are looked at for a weak spot's objects
HELD_MS: Final = 3 * 24 * 60 * 60 * 1000  # of frames on devices, the findings that are counted

_WAY_OF_A_FRAME: Final = (FrameState.PRESENT, FrameState.WANTED, FrameState.HELD)


class NothingToChooseError(UnusableError):
    """No batch can be made now; the message says what is missing and what to do about it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A frozen batch.

    Attributes:
        row: its number, time, size, title and model.
        members: by rank.
        notes: what whoever asked for it should know: one sentence each. Empty for a batch that was read back.
    """

    row: BatchRow
    members: tuple[BatchMember, ...]
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> int:
        """Its number."""
        return self.row.id

    @property
    def size(self) -> int:
        """How many images it has: those that it was frozen with, without those that were forgotten."""
        return self.row.size - self.row.forgotten

    @property
    def title(self) -> str:
        """The weak point in plain words."""
        return self.row.title


@dataclass(frozen=True, slots=True)
class _Choice:
    """What was chosen, with the finding of each, and what was refused on the way: event id and reason."""

    picks: list[Pick]
    rows: list[Candidate]
    refused: list[tuple[str, str]]


def new_batch(
    store: Store,
    *,
    size: int = DEFAULT_SIZE,
    hard: float = DEFAULT_HARD,
    control: float = DEFAULT_CONTROL,
    weak_spot_id: int | None = None,
    tagger: Tagger | None = None,
    now_ms: int | None = None,
) -> Batch:
    """Choose up to `size` images of the groups that have a frame here and are in no batch, and freeze them.

    Args:
        store: the database.
        size: how many images are asked for.
        hard: the share of images on which the detector was wrong, 0..1.
        control: the share of frames drawn at random, 0..1; with `hard` at most 1.
        weak_spot_id: choose only what is of this weak spot, and take it to `batched` in the same transaction.
        tagger: tells the tags that the weak spot is made of; None where no user's tags and no time zone are set.
        now_ms: UTC milliseconds; None: now.

    Raises:
        NothingToChooseError: when there is no candidate.
        UnusableError: when an argument is out of its range, there is no such weak spot or it cannot get a batch now,
            or another process took the same images meanwhile.
    """
    shares = _require_sense(size, hard=hard, control=control)
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    tagger = tagger or Tagger(TagsConfig())
    spot = None if weak_spot_id is None else _spot_for_a_batch(store, weak_spot_id)
    candidates = [row for row in store.candidates() if not _is_beside_test(row)]
    if spot is not None:
        candidates = _of_spot(store, spot, candidates, tagger=tagger, control=shares.of(size)[Kind.CONTROL])
    choice = _choose(store, candidates, size=size, shares=shares)
    if all(row.reason is Reason.CONTROL for row in choice.rows) and not (choice.rows and control == 1):
        raise NothingToChooseError(_nothing(store, spot, choice, tagger=tagger, now_ms=now_ms))
    batch_id = store.freeze_batch(
        _members(store, choice),
        now_ms=now_ms,
        title=spot.name if spot else title_of(choice.rows),
        weak_spot_id=weak_spot_id,
        step=step_of(SpotState.BATCHED, spot.rate, now_ms=now_ms) if spot else None,
        from_states=sources(SpotState.BATCHED),
        model=", ".join(model for model, _ in sorted(Counter(row.model for row in choice.rows).items(), key=by_count)),
    )
    made = read_batch(store, batch_id)
    notes = _notes(store, choice, spot, size=size, shares=shares, tagger=tagger, now_ms=now_ms)
    return replace(made, notes=(*notes, _test_note(made)))


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


def batch_view(
    store: Store, batch_id: int, *, labels: tuple[str, ...] = (), label_pass: str = "", honeypots: int = 0
) -> BatchView:
    """Return a frozen batch with its findings, frames and known answers, as an export and an import need it.

    Args:
        store: the database.
        batch_id: its number.
        labels: those asked for, in their fixed order; without any, those that its boxes propose.
        label_pass: the one label that is asked for; empty for all at once.
        honeypots: how many images with known answers are to be mixed in where none are yet; those that are, stay.

    Raises:
        UnusableError: when there is no such batch or pass, or a frame is not here.
    """
    batch = read_batch(store, batch_id)
    return view_of(store, batch.row, batch.members, labels=labels, label_pass=label_pass, honeypots=honeypots)


def batch_rows(store: Store, batch: Batch) -> list[FindingRow]:
    """Return the findings of a batch's members, by rank."""
    return [store.finding(member.event_id) for member in batch.members]


def _is_beside_test(row: Candidate) -> bool:
    return is_beside_test(site=row.site, device=row.device, camera=row.camera, captured_at_ms=row.captured_at_ms)


def _require_sense(size: int, *, hard: float, control: float) -> Shares:
    if size < 1:
        msg = f"a batch of {size} images: the size must be at least 1"
        raise UnusableError(msg)
    if not (0 <= hard <= 1 and 0 <= control <= 1 and hard + control <= 1 + 1e-9):
        msg = f"shares of {hard:g} hard and {control:g} control: each must be 0 to 1, and both together at most 1"
        raise UnusableError(msg)
    return Shares(hard, control)


def _spot_for_a_batch(store: Store, spot_id: int) -> WeakSpot:
    spot = weak_spot(store, spot_id)
    if SpotState.BATCHED not in NEXT[spot.state]:
        msg = f"weak spot {spot.id} is `{spot.state}`: it gets a batch when it is open, batched, not fixed or regressed"
        raise UnusableError(msg)
    return spot


def _of_spot(
    store: Store, spot: WeakSpot, candidates: Sequence[Candidate], *, tagger: Tagger, control: int
) -> list[Candidate]:
    """Return what is of the weak spot, and control frames: those with an object of it, others only where they lack."""
    own = [row for row in candidates if row.reason is not Reason.CONTROL and belongs(spot, row, tagger)]
    frames = [row for row in candidates if row.reason is Reason.CONTROL]
    newest = sorted(frames, key=lambda row: row.captured_at_ms, reverse=True)[:CONTROL_LOOKED_AT]
    telling = {row.event_id for row in newest if _shows(store, spot, row, tagger=tagger)}
    first = [row._replace(severity=1.0) for row in frames if row.event_id in telling]
    others = [row._replace(severity=0.0) for row in frames if row.event_id not in telling]
    return [*own, *first, *(others if len(first) < control else [])]


def _shows(store: Store, spot: WeakSpot, frame: Candidate, *, tagger: Tagger) -> bool:
    """Whether a control frame has an object of the weak spot, by what was measured on its objects."""
    finding = _finding(store, frame)
    return finding is not None and any(
        belongs(spot, ObjectOfFrame(frame, label=box.label, xyxy=box.xyxy, tags=box.tags), tagger)
        for box in finding.boxes
        if box.tags
    )


def _finding(store: Store, row: Candidate) -> Finding | None:
    """Return the whole finding, None where its header is damaged."""
    try:
        return store.finding(row.event_id).finding()
    except UnusableError:
        return None


def _choose(store: Store, candidates: list[Candidate], *, size: int, shares: Shares) -> _Choice:
    """Thin out what is too much, describe the rest with the light that only headers have, and choose."""
    limit = max(PREFILTER, size + size // 10)  # some may share a picture
    thinned = None
    if len(candidates) > limit:
        severity = np.array([row.severity for row in candidates])
        thinned = thin(
            describe(traits_of(candidates)),
            weights(severity),
            severity,
            place=codes([(*camera_of(row), kind_of(row.reason)) for row in candidates]),
            limit=limit,
        )
        candidates = [candidates[number] for number in thinned.kept]
    earlier = store.batched(EARLIER)
    rows = (*candidates, *earlier)
    findings = [_finding(store, row) for row in rows]
    lights = [None if finding is None else finding.light for finding in findings]
    pool, before = pools(candidates, earlier, describe(traits_of(rows, lights)))
    refused: list[tuple[str, str]] = []

    def accept(number: int) -> bool:
        event_id, finding = candidates[number].event_id, findings[number]
        try:
            if finding is None:
                store.finding(event_id).finding()  # raises what is wrong with it
            else:
                require_useful(finding, store.frame(event_id))
        except WeakspotError as error:
            refused.append((event_id, str(error)))
            return False
        return True

    picks = select(pool, size, shares=shares, earlier=before, thinned=thinned, accept=accept)
    return _Choice(picks, [candidates[pick.candidate] for pick in picks], refused)


def _members(store: Store, choice: _Choice) -> list[BatchMember]:
    sizes = store.group_sizes(row.group_id for row in choice.rows)
    members = []
    for pick, row in zip(choice.picks, choice.rows, strict=True):
        seen = f"seen {times} times; " if (times := sizes.get(row.group_id, 1)) > 1 else ""
        severity = "" if row.reason is Reason.CONTROL else f", severity {row.severity:.2f}"
        why = f"{subject(row.reason, row.label)}{severity}; {seen}{pick.why}"
        members.append(BatchMember(event_id=row.event_id, group_id=row.group_id, why=why, gain=round(pick.gain, 4)))
    return members


def _notes(
    store: Store,
    choice: _Choice,
    spot: WeakSpot | None,
    *,
    size: int,
    shares: Shares,
    tagger: Tagger,
    now_ms: int,
) -> list[str]:
    """Return what differs from what was asked for, why, and what to do."""
    notes = []
    got = Counter(kind_of(row.reason) for row in choice.rows)
    if len(choice.rows) < size:
        of = f" of {_called(spot)}" if spot else ""
        notes.append(f"asked for {size}: there is no other picture here of an event{of} that is in no batch yet")
    short = [
        f"{got[kind]} of {count} {kind.name.lower()}"
        for kind, count in zip(Kind, shares.of(size), strict=True)
        if got[kind] < count
    ]
    if short:
        rest = ": the others fill the batch" if len(choice.rows) == size else ""
        notes.append(f"too few for the shares asked for: {', '.join(short)}{rest}")
    if len(choice.rows) < size and spot:
        notes.append(_on_its_way(store, spot, tagger=tagger, now_ms=now_ms))
    if choice.refused:
        notes.append(_refused_note(choice))
    return notes


def _refused_note(choice: _Choice) -> str:
    event_id, why = choice.refused[0]
    count = len(choice.refused)
    return f"{count} frame{'s' * (count != 1)} passed over that nobody can annotate, such as {event_id[-8:]}: {why}"


def _test_note(batch: Batch) -> str:
    count = sum(member.test for member in batch.members)
    if not count:
        return "test share: none of these images; what a training brings cannot be measured on this batch alone"
    return f"test share: {count} of the {batch.size} images, to be annotated and never trained on"


def _called(spot: WeakSpot) -> str:
    return f"weak spot {spot.id} ({spot.name})"


def _on_its_way(store: Store, spot: WeakSpot, *, tagger: Tagger, now_ms: int) -> str:
    """Return how many more frames of a weak spot there will be, and what to do."""
    wanted = sum(belongs(spot, row, tagger) for row in store.on_the_way() if row.reason is not Reason.CONTROL)
    held = sum(
        belongs(spot, row, tagger)
        for row in store.held_frames(received_since_ms=now_ms - HELD_MS)
        if row.reason != Reason.CONTROL
    )
    advice = (
        "let `hub serve` and the devices run, then make another batch" if wanted + held else "wait for new findings"
    )
    return f"of {_called(spot)}, {wanted} frames are asked for, {held} more are held by devices: {advice}"


def _nothing(store: Store, spot: WeakSpot | None, choice: _Choice, *, tagger: Tagger, now_ms: int) -> str:
    """Return one sentence of what is here and one of what to do."""
    refused = f"; {_refused_note(choice)}" if choice.refused else ""
    if spot is not None:
        return f"nothing of it to make a batch of: {_on_its_way(store, spot, tagger=tagger, now_ms=now_ms)}{refused}"
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
        f" {wanted} asked for, {status.batched_images} already in batches (control frames alone make no batch, and"
        f" black ones do not count); {advice}{refused}"
    )
