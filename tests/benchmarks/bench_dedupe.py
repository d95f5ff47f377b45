"""Near-duplicates on real footage: precision, recall and false merges of the rule of hub.dedupe; the time of a look-up.

Three street sources come from the annotated first half of `../shared/data/vtest.avi`, every third frame. *Boxes*: the
annotated people, shifted at random as a detector's boxes are, without tracks. *Tracker at W x H*: what the device's own
tracker links there, with its lost and swapped names; whom a box shows is said by the annotation (IoU >= .4). A box that
lies on two people (the second with IoU >= .3) shows both and is left out. *Mined*: the findings of the device.

Two more clips have no annotations: a room that single people cross, and cars from above. There an event at a place ends
when no box of any score from .1 up has touched the place (IoU >= .1) for half a second: what comes then is another one.
Pairs between which nothing of that kind happened are one event within 1.5 seconds, and else nothing is said of them.

One event: one person, at most 1.5 s apart, one place (IoU >= .5). Two events: two people (or passages), one place, any
two times. False merges are the share of the pairs of two events. The thresholds were chosen on the street alone.

    python -m tests.benchmarks.bench_dedupe
"""

import os
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from edge.config import MiningConfig
from edge.contract.samples import Reason
from edge.detector.detections import box_iou
from edge.detector.detector import open_detector
from edge.fingerprint import fingerprint
from edge.pipeline import Pipeline
from edge.replay import read_frames
from edge.tracks import Link
from hub.curator import as_leader
from hub.dedupe import OTHER_LABEL_BITS, SAME_PLACE_IOU, DuplicateIndex, allowed_bits, joinable_since_ms
from hub.hashing import distance_matrix, pack
from hub.store_rows import FindingRow, FrameState
from tests.benchmarks.bench_missed import read_people

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
VIDEO, ANNOTATIONS = FOLDER / "vtest.avi", FOLDER / "vtest_annotations_first_half.csv"
LAST_FRAME, STEP_FRAMES, FPS = 396, 3, 10.0
SAME_EVENT_S, EMPTY_S = 1.5, 0.5
SHOWN_IOU, SHARED_IOU = 0.4, 0.3
DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class Source:
    """Findings of one camera in order, and of each two whether they are one event or two.

    `who` `[n]`: the person shown, where annotated. `parted` `[n, n]`: the place was empty between them.
    """

    rows: list[FindingRow]
    fps: float
    who: np.ndarray | None = None
    parted: np.ndarray | None = None


@dataclass(frozen=True)
class Pairs:
    """Every two findings at one place, as arrays over pairs."""

    same: np.ndarray
    different: np.ndarray
    gap_s: np.ndarray
    iou: np.ndarray
    crop_bits: np.ndarray
    same_track: np.ndarray
    other_track: np.ndarray
    together: np.ndarray
    label_flips: np.ndarray
    a: np.ndarray
    b: np.ndarray


def main() -> None:
    """Print every figure."""
    if VIDEO.is_file() and ANNOTATIONS.is_file():
        print_sources()
        print_standing()
    else:
        print(f"dedupe on real footage: SKIPPED, {VIDEO.name} and its annotations are not here")
    for cameras, days in ((200, 30), (50, 30), (50, 2)):
        print_speed(cameras=cameras, days=days)


def print_sources() -> None:
    """Print the rules on all sources, as pairs and as a stream into the index."""
    settings = ((256, 192, 0.4), (320, 256, 0.3))
    tracked = {f"street, tracker at {w}x{h}": follow(VIDEO, (w, h), at) for w, h, at in settings}
    sources = {f"street, boxes off by {off:.0%}": annotated(off) for off in (0.03, 0.05)}
    sources |= {name: seen for name, (seen, _) in tracked.items()}
    sources |= {f"{name}, mined": mined for name, (_, mined) in tracked.items()}
    for name, clip, labels in (
        ("room (check)", "one-by-one-person-detection.mp4", {"person"}),
        ("cars (check)", "car-detection.mp4", {"car", "truck", "bus"}),
    ):
        if (FOLDER / clip).is_file():
            sources[f"{name}, tracker at 256x160"] = follow(FOLDER / clip, (256, 160), 0.4, labels=labels)[0]
    for name, source in sources.items():
        print_pairs(name, source)


def print_pairs(name: str, source: Source) -> None:
    """Print precision, recall and false merges over pairs, for the rule and for others; then what the index groups."""
    made = pairs(source)
    print(
        f"\n{name}: {len(source.rows)} findings, pairs: {made.same.sum()} of one event, {made.different.sum()} of two"
    )
    print(f"  {'rule':44s} precision  recall  false merges")
    rules = {
        "hub.dedupe": lambda: rule(made),
        "hub.dedupe, tracks not told": lambda: rule(made, tracks=False),
        "crop <= 60": lambda: made.crop_bits <= 60,
        "crop <= 72": lambda: made.crop_bits <= 72,
        "crop <= 72, at most 2 s apart": lambda: (made.crop_bits <= 72) & (made.gap_s <= 2),
        "same track, at most 2 s apart": lambda: made.same_track & (made.gap_s <= 2),
    }
    if not (made.same_track | made.other_track).any():
        del rules["hub.dedupe, tracks not told"], rules["same track, at most 2 s apart"]
    for title, joined in rules.items():
        print_line(title, made, joined())
    for title, rows in (
        ("in one group of the index", source.rows),
        ("in one group, tracks not told", [replace(row, track="") for row in source.rows]),
    ):
        groups = group_all(rows)
        print_line(f"{title} ({len(set(groups.tolist()))} groups)", made, groups[made.a] == groups[made.b])


def print_line(title: str, made: Pairs, joined: np.ndarray) -> None:
    right, wrong = int((joined & made.same).sum()), int((joined & made.different).sum())
    figures = f"{share(right, right + wrong):>9s} {share(right, int(made.same.sum())):>7s}"
    print(f"  {title:44s} {figures} {share(wrong, int(made.different.sum()), digits=4):>13s}")


def share(part: int, whole: int, *, digits: int = 3) -> str:
    return f"{part / whole:.{digits}f}" if whole else "-"


def rule(made: Pairs, *, tracks: bool = True) -> np.ndarray:
    """Return which pairs hub.dedupe takes for one event; with `tracks`, it knows when each was alive."""
    none = np.zeros_like(made.same)
    same, other = (made.same_track, made.other_track) if tracks else (none, none)
    allowed = allowed_bits(made.gap_s, made.iou, same_track=same, other_track=other)
    joined = made.crop_bits <= np.where(made.label_flips, np.minimum(allowed, OTHER_LABEL_BITS), allowed)
    return joined & ~(made.together if tracks else none)


def group_all(rows: list[FindingRow]) -> np.ndarray:
    """Feed the index as the hub does; return the group of each finding."""
    index, groups = DuplicateIndex(), []
    for number, row in enumerate(rows, start=1):
        joined = index.match(row)
        if joined is None:
            index.add_leader(as_leader(row, number))
        groups.append(number if joined is None else joined.group_id)
    return np.array(groups)


def pairs(source: Source) -> Pairs:
    """Return every two findings at one place with what is known of them."""
    rows = source.rows
    regions = np.array([row.region for row in rows], np.float32).reshape(-1, 4)
    iou = box_iou(regions, regions)
    a, b = np.nonzero(np.triu(iou >= SAME_PLACE_IOU, 1))
    at_ms = np.array([row.captured_at_ms for row in rows])
    gap_s = np.abs(at_ms[a] - at_ms[b]) / 1000.0
    track = np.array([row.track for row in rows])
    crops = pack([row.crop_hash for row in rows])
    known = (track[a] != "") & (track[b] != "")
    label = np.array([row.label for row in rows])
    other = known & (track[a] != track[b]) & (label[a] == label[b])
    alive = {name: (at_ms[track == name].min(), at_ms[track == name].max()) for name in set(track.tolist())}
    spans = np.array([alive[name] for name in track.tolist()]).reshape(-1, 2)
    together = other & (spans[a, 0] <= spans[b, 1]) & (spans[b, 0] <= spans[a, 1])
    if source.who is not None:
        one, two = source.who[a] == source.who[b], source.who[a] != source.who[b]
    else:
        two = source.parted[a, b]
        one = ~two
    return Pairs(
        same=one & (gap_s > 0) & (gap_s <= SAME_EVENT_S),
        different=two & (gap_s > 0),
        gap_s=gap_s,
        iou=iou[a, b].astype(np.float64),
        crop_bits=distance_matrix(crops, crops)[a, b],
        same_track=known & (track[a] == track[b]),
        other_track=other,
        together=together,
        label_flips=(label[a] != label[b]) & (label[a] != "") & (label[b] != ""),
        a=a,
        b=b,
    )


@cache
def street() -> tuple[dict[int, np.ndarray], dict[int, dict[int, np.ndarray]]]:
    """Return every third frame of the first half, and the people of each frame, both by frame number from 0."""
    frames = {
        frame.sequence: frame.image
        for frame, _ in read_frames(VIDEO)
        if frame.sequence <= LAST_FRAME and frame.sequence % STEP_FRAMES == 0
    }
    return frames, read_people(ANNOTATIONS)


def annotated(jitter: float) -> Source:
    """Return the annotated people, the edges of their boxes off by `jitter` of their sides (one sigma)."""
    frames, people = street()
    rng = np.random.default_rng(0)
    rows, who = [], []
    for number, image in frames.items():
        for person, box in people.get(number, {}).items():
            row = finding(image, shaken(box, jitter, rng), at_ms=round(number / FPS * 1000))
            if shown(number, row.region) == person:
                rows.append(row)
                who.append(person)
    return Source(rows, FPS, who=np.array(who))


def shown(number: int, region: tuple[float, ...]) -> int | None:
    """Return the annotated person whom a region shows; None where nobody is, or two are."""
    here = street()[1].get(number, {})
    if not here:
        return None
    iou = box_iou(np.array([region], np.float32), np.array(list(here.values()), np.float32))[0]
    best = int(iou.argmax())
    alone = np.delete(iou, best).max(initial=0.0) < SHARED_IOU
    return list(here)[best] if iou[best] >= SHOWN_IOU and alone else None


def follow(
    video: Path, size: tuple[int, int], threshold: float, *, labels: frozenset[str] | set[str] = frozenset({"person"})
) -> tuple[Source, Source]:
    """Run the device's pipeline over a clip; return what its tracker follows, and what it mines."""
    detector = open_detector(input_size=size)
    pipeline = Pipeline(detector=detector, score_threshold=threshold, mining=MiningConfig(), seed=0)
    seen: list[tuple[int, FindingRow]] = []
    found: list[tuple[int, FindingRow]] = []
    boxes: list[np.ndarray] = []
    fps, on_street = 0.0, video == VIDEO

    def take(mined: list) -> None:
        for one in mined:
            label = "" if one.class_id is None else detector.labels[one.class_id]
            track = "" if one.track_id is None else str(one.track_id)
            row = finding(one.at.frame.image, np.array(one.region), at_ms=one.at.frame.captured_at_ms)
            if one.reason is not Reason.CONTROL:
                found.append((one.at.frame.sequence, replace(row, track=track, label=label, reason=one.reason)))

    for frame, _ in read_frames(video):
        if on_street and frame.sequence > LAST_FRAME:
            break
        step = pipeline.step(frame)
        take(step.mined)
        fps = frame.sequence / frame.time_s if frame.sequence else 0.0
        detections = step.inference.detections
        boxes.append(detections.xyxy[detections.score >= 0.1])
        for track in pipeline._tracker.tracks if frame.sequence % STEP_FRAMES == 0 else ():
            label = detector.labels[track.class_id]
            if track.link is not Link.NONE and label in labels:
                row = finding(frame.image, np.array(track.box), at_ms=frame.captured_at_ms)
                seen.append((frame.sequence, replace(row, track=str(track.id), label=label)))
    take(pipeline.finish())
    found.sort(key=lambda pair: pair[0])
    if on_street:
        return labelled(seen), labelled(found)
    return parted(seen, boxes, fps), parted(found, boxes, fps)


def labelled(found: list[tuple[int, FindingRow]]) -> Source:
    """Keep what shows one annotated person."""
    known = [(row, who) for number, row in found if (who := shown(number, row.region)) is not None]
    return Source([row for row, _ in known], FPS, who=np.array([who for _, who in known]))


def parted(found: list[tuple[int, FindingRow]], boxes: list[np.ndarray], fps: float) -> Source:
    """Tell by the empty time between them which findings at one place are two events."""
    number = np.array([number for number, _ in found])
    between = np.zeros((len(found), len(found)), np.bool_)
    for i, (_, row) in enumerate(found):
        region = np.array([row.region], np.float32)
        empty = np.array([box_iou(region, here).max(initial=0.0) < 0.1 for here in boxes])
        run = np.zeros(len(empty), np.int64)
        for frame in range(len(empty)):
            run[frame] = run[frame - 1] + 1 if empty[frame] else 0
        ends = np.cumsum(run == round(EMPTY_S * fps))  # how often the place was left up to each frame
        between[i] = ends[number] != ends[number[i]]
    return Source([row for _, row in found], fps, parted=between | between.T)


def shaken(box: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    return box + rng.normal(0, jitter, 4) * np.tile(box[2:] - box[:2], 2)


def finding(image: np.ndarray, box: np.ndarray, *, at_ms: int) -> FindingRow:
    """Return what a device would have sent of this box."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box.tolist()
    x1, y1 = min(max(x1, 0.0), width - 1.0), min(max(y1, 0.0), height - 1.0)
    region = (x1, y1, min(max(x2, x1 + 1.0), float(width)), min(max(y2, y1 + 1.0), float(height)))
    print_ = fingerprint(image, region)
    return FindingRow(
        event_id="0" * 32,
        site="street",
        device="pole",
        camera="north",
        reason=Reason.MISSED,
        severity=0.5,
        label="person",
        captured_at_ms=at_ms,
        region=region,
        width=width,
        height=height,
        track="",
        tags="",
        crop_hash=bytes.fromhex(print_.crop_hash),
        frame_hash=bytes.fromhex(print_.frame_hash),
        features=np.zeros(0, np.int8),
        model="bench",
        frame_state=FrameState.HELD,
        group_id=None,
        header=b"",
    )


def print_standing() -> None:
    """Print how many groups a still object makes in ten minutes, and how many passers-by join it.

    Twenty textured places of the street stand for it, a finding every 30 s, each from another frame in which nobody
    annotated is within its context, with noise of 3 grey levels and up to 20 % more or less light. Passers-by are the
    annotated people who overlap the place by half or more, each once every 3 frames, with tracks of their own.
    """
    print("\nten minutes at one spot, 20 places of 20 findings: groups of the standing object (1 is right); joined by")
    print("passers-by, of how many findings")
    print(f"  {'boxes off by':12s} {'its track':24s} median   mean  worst  one event  passers-by")
    for jitter in (0.02, 0.03, 0.05):
        for title, every in (("one", 1000), ("a new name every 2 min", 4), ("not told", 0)):
            made = [stand(box, jitter, every) for box in still_places()]
            groups = np.array([one for one, _, _ in made])
            joined, passing = (sum(one[i] for one in made) for i in (1, 2))
            print(
                f"  {jitter:12.0%} {title:24s} {np.median(groups):6.0f} {groups.mean():6.2f} {groups.max():6d}"
                f" {(groups == 1).mean():10.0%} {joined:5d} of {passing}"
            )


@cache
def still_places() -> list[np.ndarray]:
    frames, _ = street()
    rng, places = np.random.default_rng(2), []
    while len(places) < 20:
        width = rng.uniform(20, 60)
        x, y = rng.uniform((5, 5), (700, 400))
        box = np.array([x, y, x + width, y + width * rng.uniform(0.8, 2.4)])
        x1, y1, x2, y2 = box.astype(int)
        if frames[0][y1:y2, x1:x2].std() >= 20 and len(clear_frames(box)) >= 20:
            places.append(box)
    return places


def clear_frames(box: np.ndarray) -> list[int]:
    """Return the frames in which nobody annotated touches the box with its context."""
    frames, people = street()
    half = box[2:] - box[:2]
    middle = (box[:2] + box[2:]) / 2
    around = np.array([np.concatenate([middle - half, middle + half])], np.float32)
    return [
        number
        for number in frames
        if box_iou(around, np.array(list(people.get(number, {}).values()), np.float32).reshape(-1, 4)).max(initial=0.0)
        == 0
    ]


def stand(box: np.ndarray, jitter: float, every: int) -> tuple[int, int, int]:
    """Return the groups of the standing object, the passers-by that joined one of them, and all passers-by."""
    frames, people = street()
    rng = np.random.default_rng(int(box.sum()))
    rows: list[tuple[FindingRow, bool]] = []
    for i, number in enumerate(rng.choice(clear_frames(box), 20, replace=False).tolist()):
        light = frames[number].astype(np.float32) * rng.uniform(0.8, 1.2) + rng.normal(0, 3, frames[number].shape)
        image = np.clip(light, 0, 255).astype(np.uint8)
        row = finding(image, shaken(box, jitter, rng), at_ms=i * 30_000)
        rows.append((replace(row, track=f"still-{i // every}" if every else ""), True))
    for number, image in frames.items():
        for person, place in people.get(number, {}).items():
            passing = shaken(place, jitter, rng)
            if box_iou(np.array([box], np.float32), np.array([passing], np.float32))[0, 0] >= SAME_PLACE_IOU:
                row = finding(image, passing, at_ms=number * 1500)
                rows.append((replace(row, track=f"passing-{person}" if every else ""), False))
    rows.sort(key=lambda pair: pair[0].captured_at_ms)
    groups = group_all([row for row, _ in rows])
    still = np.array([one for _, one in rows])
    own = set(groups[still].tolist())
    return len(own), sum(group in own for group in groups[~still].tolist()), int((~still).sum())


def print_speed(*, cameras: int, days: int, leaders: int = 1_000_000, features: int = 120) -> None:
    """Print memory and times of an index with so many leaders, evenly over the days.

    Places are those of the annotated street where it is here, a little off, so that they crowd in lanes as they do.
    """
    rng = np.random.default_rng(3)
    row = finding(np.zeros((64, 64, 3), np.uint8), np.array([1.0, 1.0, 9.0, 9.0]), at_ms=0)
    if ANNOTATIONS.is_file():
        places = np.array([box for people in read_people(ANNOTATIONS).values() for box in people.values()])
    else:
        places = np.array([[x, y, x + 30.0, y + 75.0] for x in range(0, 700, 10) for y in range(0, 500, 10)])
    corners = places[rng.integers(0, len(places), leaders)]
    corners = np.clip(corners + rng.normal(0, 0.03, (leaders, 4)) * np.tile(corners[:, 2:] - corners[:, :2], 2), 0, 768)
    hashes = rng.integers(0, 256, (leaders, 64), np.uint8)
    pooled = rng.integers(-20, 20, (1000, features)).astype(np.int8)

    def numbered(i: int) -> FindingRow:
        return replace(
            row,
            camera=f"camera-{i % cameras}",
            captured_at_ms=i * days * DAY_MS // leaders,
            region=tuple(corners[i].tolist()),
            width=768,
            height=576,
            track=f"{i % cameras}-{i // cameras // 2}",
            crop_hash=hashes[i, :32].tobytes(),
            frame_hash=hashes[i, 32:].tobytes(),
            features=pooled[i % 1000],
        )

    index, filling_s, before = DuplicateIndex(), 0.0, resident_bytes()
    for i in range(leaders):
        leader = as_leader(numbered(i), i + 1)
        started = time.perf_counter()
        index.add_leader(leader)
        filling_s += time.perf_counter() - started
    each = (resident_bytes() - before) / leaders
    now_ms = days * DAY_MS
    joinable = sum(1 for i in range(leaders) if i * days * DAY_MS // leaders >= joinable_since_ms(now_ms))
    print(f"\nlook-up among {leaders} leaders of {cameras} cameras in {days} days, {len(pooled[0])} features each")
    print(
        f"  {each:.0f} bytes a leader, filled in {filling_s:.1f} s; a start at the end loads {joinable} of them,"
        f" {filling_s * joinable / leaders:.1f} s"
    )
    newest = rng.integers(leaders - leaders // days, leaders, 500)
    known = [numbered(i) for i in newest]
    unknown = [replace(row, crop_hash=rng.bytes(32), frame_hash=rng.bytes(32), track="new") for row in known]
    for title, rows in (("known", known), ("new", unknown)):
        took = []
        for one in rows:
            started = time.perf_counter()
            index.match(one)
            took.append((time.perf_counter() - started) * 1e3)
        print(f"  {title:5s} finding p50 {np.median(took):.2f} ms, p99 {np.percentile(took, 99):.2f} ms")


def resident_bytes() -> int:
    """Return the memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
