"""Near-duplicates on real footage: precision and recall of the rules of hub.dedupe, and the time of a look-up.

Pairs come from the annotated first half of a street video (`../shared/data/vtest.avi`), 3 frames apart; the boxes are
shifted at random as a detector's are. Same event: one track, at most 1.5 s apart, IoU >= .5. Different events: two
tracks, the same place (IoU >= .5), at any two times. What the numbers do not know: this is one camera and ten people.

    python -m tests.benchmarks.bench_dedupe
"""

import csv
import itertools
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from edge.contract.samples import Reason
from edge.detector.detections import box_iou
from edge.fingerprint import fingerprint
from hub.dedupe import SAME_FRAME_BITS, SAME_PLACE_IOU, DuplicateIndex, allowed_bits
from hub.hashing import distance_matrix, distances, pack
from hub.store_rows import FindingRow, FrameState

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
VIDEO, ANNOTATIONS = FOLDER / "vtest.avi", FOLDER / "vtest_annotations_first_half.csv"
STEP_FRAMES, FPS = 3, 10.0
SAME_EVENT_S = 1.5


@dataclass(frozen=True)
class Sighting:
    """One person in one frame."""

    frame: int
    track: int
    box: np.ndarray


def main() -> None:
    """Print every figure."""
    if VIDEO.is_file() and ANNOTATIONS.is_file():
        frames = read_frames()
        sightings = read_sightings()
        for jitter in (0.0, 0.03, 0.05):
            print_pairs(frames, sightings, jitter=jitter)
        print_stream(frames, sightings)
        print_standing(frames)
    else:
        print(f"dedupe on real footage: SKIPPED, {VIDEO.name} and its annotations are not here")
    print_speed()


def read_sightings() -> list[Sighting]:
    """Interpolate the annotated tracks; every third frame, counted from 1."""
    tracks: defaultdict[int, dict[int, np.ndarray]] = defaultdict(dict)
    with ANNOTATIONS.open(newline="") as file:
        for row in csv.DictReader(file):
            x, y, w, h = (float(row[key]) for key in ("x", "y", "w", "h"))
            tracks[int(row["track"])][int(row["frame"])] = np.array([x, y, x + w, y + h])
    sightings = []
    for track, known in tracks.items():
        numbers = sorted(known)
        for a, b in itertools.pairwise(numbers):
            for frame in range(a, b if b - a <= 12 else a + 1):
                if frame % STEP_FRAMES == 1:
                    sightings.append(Sighting(frame, track, known[a] + (known[b] - known[a]) * (frame - a) / (b - a)))
    return sorted(sightings, key=lambda s: (s.frame, s.track))


def read_frames() -> dict[int, np.ndarray]:
    """Return the frames of the first half that are used."""
    capture = cv2.VideoCapture(str(VIDEO))
    frames = {}
    for number in range(1, 398):
        done, image = capture.read()
        if done and number % STEP_FRAMES == 1:
            frames[number] = image
    return frames


def finding(image: np.ndarray, box: np.ndarray, *, number: int, at_ms: int, jitter: float, rng) -> FindingRow:
    """Return what a device would have sent of this box, its edges off by `jitter` of its sides (one sigma)."""
    height, width = image.shape[:2]
    sides = np.tile(box[2:] - box[:2], 2)
    x1, y1, x2, y2 = (box + rng.normal(0, jitter, 4) * sides).tolist()
    region = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    print_ = fingerprint(image, region)
    return FindingRow(
        event_id=f"{number:032x}",
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


@dataclass(frozen=True)
class Pairs:
    """Every two sightings at one place or of one event, as arrays over pairs."""

    same: np.ndarray
    different: np.ndarray
    gap_s: np.ndarray
    crop_bits: np.ndarray
    frame_bits: np.ndarray


def pairs(frames: dict[int, np.ndarray], sightings: list[Sighting], *, jitter: float) -> Pairs:
    """Return the labelled pairs of the annotated tracks."""
    rng = np.random.default_rng(0)
    rows = [
        finding(frames[s.frame], s.box, number=i, at_ms=s.frame * 100, jitter=jitter, rng=rng)
        for i, s in enumerate(sightings)
    ]
    regions = np.array([row.region for row in rows], np.float32)
    a, b = np.nonzero(np.triu(box_iou(regions, regions) >= SAME_PLACE_IOU, 1))
    number = np.array([s.frame for s in sightings])
    track = np.array([s.track for s in sightings])
    gap_s = np.abs(number[a] - number[b]) / FPS
    crops, whole = (pack([getattr(row, name) for row in rows]) for name in ("crop_hash", "frame_hash"))
    return Pairs(
        same=(track[a] == track[b]) & (gap_s <= SAME_EVENT_S),
        different=(track[a] != track[b]) & (gap_s > 0),
        gap_s=gap_s,
        crop_bits=distance_matrix(crops, crops)[a, b],
        frame_bits=distance_matrix(whole, whole)[a, b],
    )


def print_pairs(frames: dict[int, np.ndarray], sightings: list[Sighting], *, jitter: float) -> None:
    """Print precision and recall over pairs, for the rule and for plain thresholds."""
    made = pairs(frames, sightings, jitter=jitter)
    same, different, crop_bits = made.same, made.different, made.crop_bits
    print(f"\npairs, boxes off by {jitter:.0%} of their sides: {same.sum()} of one event, {different.sum()} of two")
    print("  rule                                            precision  recall  two events merged")
    rules = {
        "hub.dedupe (IoU, crop, time)": crop_bits <= allowed_bits(made.gap_s),
        **{f"IoU and crop <= {bits}": crop_bits <= bits for bits in (40, 56, 72, 80)},
        **{
            f"IoU and crop <= {bits}, at most 2 s apart": (crop_bits <= bits) & (made.gap_s <= 2)
            for bits in (56, 64, 72, 80)
        },
        f"whole frame <= {SAME_FRAME_BITS}": made.frame_bits <= SAME_FRAME_BITS,
        "whole frame <= 60": made.frame_bits <= 60,
    }
    for name, joined in rules.items():
        right, wrong = int((joined & same).sum()), int((joined & different).sum())
        print(
            f"  {name:47s} {right / max(1, right + wrong):9.3f} {right / max(1, int(same.sum())):7.3f}"
            f" {wrong / max(1, int(different.sum())):18.4f}"
        )


def print_stream(frames: dict[int, np.ndarray], sightings: list[Sighting]) -> None:
    """Feed the index as the hub does, and count right and wrong joins."""
    print("\nstream into the index, boxes off by 3 %")
    print("  a finding a track every   findings  groups  right joins  wrong joins")
    for every in (1, 2, 4, 10):
        rng = np.random.default_rng(1)
        index, tracks, right, wrong = DuplicateIndex(), {}, 0, 0
        chosen = [s for s in sightings if (s.frame // STEP_FRAMES + s.track) % every == 0]
        for i, sighting in enumerate(chosen):
            at_ms = sighting.frame * 100
            row = finding(frames[sighting.frame], sighting.box, number=i, at_ms=at_ms, jitter=0.03, rng=rng)
            group = index.match(row)
            if group is None:
                index.add_leader(replace(row, group_id=i + 1))
                tracks[i + 1] = sighting.track
            elif tracks[group] == sighting.track:
                right += 1
            else:
                wrong += 1
        seconds = every * STEP_FRAMES / FPS
        print(f"  {seconds:23.1f} s {len(chosen):9d} {len(index):7d} {right:12d} {wrong:12d}")


def print_standing(frames: dict[int, np.ndarray]) -> None:
    """Take textured fixed places for people who stand for ten minutes, and count the groups they make.

    People walk in front of some of these places, which is a group of its own and right.
    """
    numbers = sorted(frames)
    print("\nten minutes at one spot (20 fixed places, 20 findings each): groups a place, 1 is right")
    for jitter in (0.02, 0.03, 0.05):
        rng = np.random.default_rng(2)
        groups = []
        while len(groups) < 20:
            width = rng.uniform(20, 60)
            x, y = rng.uniform((5, 5), (700, 150))
            box = np.array([x, y, x + width, y + width * rng.uniform(0.8, 2.4)])
            x1, y1, x2, y2 = box.astype(int)
            if frames[1][y1:y2, x1:x2].std() < 20:
                continue
            index = DuplicateIndex()
            for i, number in enumerate(rng.choice(numbers, 20)):
                row = finding(frames[number], box, number=i, at_ms=i * 30_000, jitter=jitter, rng=rng)
                if index.match(row) is None:
                    index.add_leader(replace(row, group_id=i + 1))
            groups.append(len(index))
        print(
            f"  boxes off by {jitter:.0%}: median {np.median(groups):.0f},"
            f" mean {np.mean(groups):.1f}, worst {max(groups)}"
        )


def print_speed(leaders: int = 100_000, cameras: int = 50) -> None:
    """Print the time of one look-up among many leaders."""
    rng = np.random.default_rng(3)
    index = DuplicateIndex()
    crops = rng.integers(0, 256, (leaders, 32), np.uint8)
    wholes = rng.integers(0, 256, (leaders, 32), np.uint8)
    corners = rng.uniform(0, 600, (leaders, 2))
    empty = np.zeros((64, 64, 3), np.uint8)
    base = finding(empty, np.array([1.0, 1.0, 9.0, 9.0]), number=0, at_ms=0, jitter=0.0, rng=rng)

    def row(i: int) -> FindingRow:
        x, y = corners[i].tolist()
        return replace(
            base,
            camera=f"camera-{i % cameras}",
            captured_at_ms=i * 800,  # 100,000 in 22 hours: nothing is out of the window
            region=(x, y, x + 30.0, y + 60.0),
            width=768,
            height=576,
            crop_hash=crops[i].tobytes(),
            frame_hash=wholes[i].tobytes(),
            group_id=i + 1,
        )

    started = time.perf_counter()
    for i in range(leaders):
        index.add_leader(row(i))
    filled_s = time.perf_counter() - started
    queries = [row(i) for i in rng.integers(0, leaders, 200)]
    took = []
    for query in queries:
        started = time.perf_counter()
        index.match(query)
        took.append((time.perf_counter() - started) * 1e3)
    unknown = [replace(query, crop_hash=rng.bytes(32)) for query in queries]
    missed = []
    for query in unknown:
        started = time.perf_counter()
        index.match(query)
        missed.append((time.perf_counter() - started) * 1e3)
    packed = pack([crop.tobytes() for crop in crops])
    started = time.perf_counter()
    for _ in range(20):
        distances(packed, packed[0])
    scan_ms = (time.perf_counter() - started) / 20 * 1e3
    print(f"\nlook-up among {leaders} leaders of {cameras} cameras (filled in {filled_s:.1f} s)")
    print(f"  known finding p50 {np.median(took):.2f} ms, p99 {np.percentile(took, 99):.2f} ms")
    print(f"  new finding   p50 {np.median(missed):.2f} ms, p99 {np.percentile(missed, 99):.2f} ms")
    print(f"  one pass of 256-bit distances over all: {scan_ms:.2f} ms")


if __name__ == "__main__":
    main()
