"""How well 50 images are chosen: on made findings of known kinds, out of 100,000, and on findings of a real recording.

The made findings have modes of very different frequency (a long tail) and 5 % outliers with high severity, as junk has.
*Coverage* is the share of the modes that have an image among the 50, *junk* the share of outliers among them. Beside
hub.selection: at random, the most severe, and k-center (the farthest from all chosen before), all small and plain.

In the large pool the modes' tail is so long that the rarest have about 20 of the 100,000.

The same findings in a database, with reasons, cameras and times drawn at random, give what a person gets from `hub
batch new`: 30 of 50 hard, 15 easy, 5 `control`. What was tuned was tuned on other seeds.

On the recording: findings that the device's pipeline mines from the annotated half of a street video; a person is
shown when the region of a chosen finding lies on it. Hub.dedupe has no part in it. What the numbers do not know: this
is one camera and forty seconds, and the near-duplicate cut (`NEAR_MS`, `NEAR_LIKENESS`) was chosen on it.

    python -m tests.benchmarks.bench_selection
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge.config import MiningConfig
from edge.contract.samples import Finding, Reason, encode_event
from edge.contract.topics import Kind as Topic
from edge.detector.detections import box_iou
from edge.detector.detector import open_detector
from edge.finding import seal
from edge.frame import Frame
from edge.pipeline import Pipeline
from hub.batches import new_batch
from hub.selection import PREFILTER, Kind, Pool, Shares, select, weights
from hub.store import GroupAssignment, Store
from hub.thinning import thin
from tests.benchmarks.bench_missed import DATA, read_people
from tests.hub.made import arrival, finding, jpeg

SIZE, MODES, JUNK, DIMENSIONS = 50, 50, 0.05, 64
SEEDS = range(1000, 1010)
STORED_SEEDS = {1000: range(2000, 2005), 100_000: range(2000, 2003)}
START_MS = 1_767_225_600_000
ALL_HARD = Shares(1.0, 0.0)


def long_tail(seed: int, *, n: int, slope: float = 1.3, modes: int = MODES) -> tuple[np.ndarray, ...]:
    """Return vectors `[n, d]` of length 1, severities and modes `[n]`, -1 for junk."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, modes + 1) ** slope
    outliers = int(n * JUNK)
    drawn = rng.choice(modes, n - outliers - modes, p=frequency / frequency.sum())
    mode = np.concatenate([np.arange(modes), drawn, np.full(outliers, -1)])
    centre = rng.normal(size=(modes, DIMENSIONS)).astype(np.float32)
    vectors = rng.normal(size=(n, DIMENSIONS)).astype(np.float32)
    vectors[mode >= 0] = centre[mode[mode >= 0]] + 0.5 * vectors[mode >= 0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    severity = np.where(mode >= 0, rng.uniform(0.3, 0.9, modes)[mode], 0.75) + rng.normal(0, 0.15, n)
    order = rng.permutation(n)
    return vectors[order], np.clip(severity, 0, 1)[order], mode[order]


def pool_of(vectors: np.ndarray, severity: np.ndarray) -> Pool:
    """Return a pool in which nothing but vectors and severity matters."""
    n = len(vectors)
    return Pool(
        vectors=vectors,
        severity=severity,
        camera=[0] * n,
        group=range(n),
        frame=range(n),
        at_ms=range(0, n * 60_000, 60_000),
        kind=[Kind.HARD] * n,
        looks=np.zeros((n, 0), np.float32),
    )


def ours(vectors: np.ndarray, severity: np.ndarray, _rng: object) -> list[int]:
    """Choose as hub.batches does."""
    if len(vectors) <= PREFILTER:
        return [pick.candidate for pick in select(pool_of(vectors, severity), SIZE, shares=ALL_HARD)]
    place = np.zeros(len(vectors), np.int64)
    thinned = thin(vectors, weights(severity), severity, place=place, limit=PREFILTER)
    pool = pool_of(vectors[thinned.kept], severity[thinned.kept])
    return [int(thinned.kept[pick.candidate]) for pick in select(pool, SIZE, shares=ALL_HARD, thinned=thinned)]


def at_random(vectors: np.ndarray, _severity: np.ndarray, rng: np.random.Generator) -> list[int]:
    return rng.choice(len(vectors), SIZE, replace=False).tolist()


def most_severe(_vectors: np.ndarray, severity: np.ndarray, _rng: object) -> list[int]:
    return np.argsort(-severity)[:SIZE].tolist()


def k_center(vectors: np.ndarray, severity: np.ndarray, _rng: object) -> list[int]:
    """Farthest first (Gonzalez, 1985), from the most severe."""
    chosen = [int(severity.argmax())]
    nearest = vectors @ vectors[chosen[0]]
    while len(chosen) < SIZE:
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return chosen


def severe_prefilter(vectors: np.ndarray, severity: np.ndarray, rng: object) -> list[int]:
    """Choose as we do, of the most severe candidates alone."""
    kept = np.argsort(-severity)[:PREFILTER]
    return kept[ours(vectors[kept], severity[kept], rng)].tolist()


CHOOSERS: dict[str, Callable[..., list[int]]] = {
    "hub.selection": ours,
    "k-center": k_center,
    "most severe": most_severe,
    "random": at_random,
}


def print_made(title: str, choosers: dict[str, Callable[..., list[int]]], **made: float) -> None:
    print(title)
    print(f"  {'chosen by':28} {'coverage':>8} {'worst':>6} {'junk':>5}  s of CPU")
    cases = [long_tail(seed, **made) for seed in SEEDS]
    for name, choose in choosers.items():
        covered, junk, started = [], [], time.process_time()
        for seed, (vectors, severity, mode) in zip(SEEDS, cases, strict=True):
            found = mode[choose(vectors, severity, np.random.default_rng(seed))]
            covered.append(len(set(found[found >= 0].tolist())) / (mode.max() + 1))
            junk.append(float(np.mean(found < 0)))
        seconds = (time.process_time() - started) / len(cases)
        print(f"  {name:28} {np.mean(covered):8.2f} {min(covered):6.2f} {np.mean(junk):5.2f} {seconds:9.2f}")


def unique(picture: bytes, number: int) -> bytes:
    """Return the JPEG with a comment, so that no two are the same bytes."""
    return picture[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + picture[2:]


def fill(store: Store, *, n: int, seed: int) -> np.ndarray:
    """Put n findings of the long tail into the store, each with a frame and a group of its own; return their modes."""
    vectors, severity, mode = long_tail(seed, n=n, slope=1.9 if n > PREFILTER else 1.3)
    rng = np.random.default_rng(seed)
    reasons = rng.choice(["missed", "low_confidence", "control"], n, p=[0.6, 0.3, 0.1]).tolist()
    camera, at_ms = rng.integers(0, 50, n).tolist(), rng.integers(0, 7 * 86_400_000, n).tolist()
    features = np.clip(np.round(vectors * 127), -127, 127).astype(np.int8)
    plain = jpeg(1, noise=True)
    for start in range(0, n, 500):
        numbers = range(start, min(n, start + 500))
        payloads = []
        for number in numbers:
            picture = unique(plain, number)
            one = finding(
                number,
                picture=picture,
                reason=Reason(reasons[number]),
                severity=float(severity[number]),
                camera=f"camera-{camera[number]}",
                captured_at_ms=START_MS + at_ms[number],
                features=features[number].tobytes(),
            )
            payloads.append(encode_event(one, picture))
        store.commit([arrival(Topic.EVENT, payload) for payload in payloads], now_ms=START_MS)
        store.assign_groups([GroupAssignment(f"{number:032x}", number + 1, new=True) for number in numbers])
    return mode


def stored(n: int, seed: int) -> tuple[float, float, float, float]:
    """Return coverage, junk, CPU seconds and MB at most of `hub batch new` among n candidates, in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hub.db"
        with Store.open(path) as store:
            mode = fill(store, n=n, seed=seed)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "hub", "batch", "new", "-d", str(path)], check=True, stdout=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        with Store.open(path) as store:
            found = mode[[int(member.event_id, 16) for member in store.batch_members(1)]]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return len(set(found[found >= 0].tolist())) / MODES, float(np.mean(found < 0)), cpu, after.ru_maxrss / 1024


def print_stored() -> None:
    """Print what `hub batch new` chooses from a database, and what it takes."""
    print(f"\nhub batch new: {SIZE} of n candidates in a database, {MODES} modes, {JUNK:.0%} junk")
    print(f"  {'n':>7} {'seeds':>5} {'coverage':>8} {'worst':>6} {'junk':>5} {'worst':>6} {'s of CPU':>8} {'MB':>5}")
    for n, seeds in STORED_SEEDS.items():
        covered, junk, cpu, most = np.array([stored(n, seed) for seed in seeds]).T
        print(
            f"  {n:7,} {len(seeds):5} {covered.mean():8.2f} {covered.min():6.2f} {junk.mean():5.2f} {junk.max():6.2f}"
            f" {cpu.min():8.1f} {most.max():5.0f}"
        )


def mine(people: dict) -> list[tuple[Finding, bytes]]:
    """Return what a device finds in the annotated half of the recording."""
    detector = open_detector(input_size=(256, 192))
    mining = MiningConfig(control_per_hour=0)
    pipeline = Pipeline(detector=detector, score_threshold=0.4, mining=mining, seed=0)
    capture, mined = cv2.VideoCapture(str(DATA / "vtest.avi")), []
    for number in range(max(people) + 1):
        image = capture.read()[1]
        mined += pipeline.step(Frame(image, "north", number, START_MS + 100 * number, number / 10)).mined
    mined += pipeline.finish()
    return [seal(one, detector=detector, site="lab", device="box", jpeg_quality=80) for one in mined]


def shown(findings: list[Finding], people: dict) -> tuple[int, int, int]:
    """Return how many people the regions lie on, in how many four-second spans of theirs, and how many regions do."""
    on: list[tuple[int, int]] = []
    right = 0
    for one in findings:
        here = people.get(one.sequence, {})
        tracks = [
            track for track, box in here.items() if box_iou(np.float32([box]), np.float32([one.region]))[0, 0] >= 0.3
        ]
        right += bool(tracks)
        on += [(track, one.sequence // 40) for track in tracks]
    return len({track for track, _ in on}), len(set(on)), right


def print_real() -> None:
    """Print what the chosen show of the annotated people, and what as many at random do."""
    if not (DATA / "vtest.avi").is_file():
        print("\nReal findings: skipped, the annotated recording is not here")
        return
    people = read_people(DATA / "vtest_annotations_first_half.csv")
    sealed = mine(people)
    findings = [one for one, _ in sealed]
    everyone = shown(findings, people)
    print(f"\n{len(findings)} findings of vtest.avi: {everyone[0]} people in {everyone[1]} spans of 4 s")
    print("  (the cut that keeps near-duplicates apart was chosen on this recording: no independent figure)")
    print(f"  {'chosen':>6}  {'by':14} {'people':>6} {'spans':>6} {'on a person':>11}")
    for size in (10, 20, 50):
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "hub.db") as store:
            store.commit([arrival(Topic.EVENT, encode_event(*one)) for one in sealed], now_ms=START_MS)
            numbered = enumerate(findings, 1)
            store.assign_groups([GroupAssignment(one.event_id, number, new=True) for number, one in numbered])
            members = {member.event_id for member in new_batch(store, size=size, control=0, hard=0.75).members}
        ours_show = shown([one for one in findings if one.event_id in members], people)
        rng = np.random.default_rng(0)
        drawn = [
            shown([findings[i] for i in rng.choice(len(findings), len(members), replace=False)], people)
            for _ in range(200)
        ]
        rows = {"hub.selection": ours_show, "random": np.mean(drawn, axis=0)}
        for name, (who, spans, right) in rows.items():
            print(f"  {len(members):>6}  {name:14} {who:6.1f} {spans:6.1f} {right / len(members):11.2f}")


def main() -> None:
    """Print every figure."""
    print_made(f"{SIZE} of 1,000, {MODES} modes, {JUNK:.0%} junk, mean of {len(SEEDS)}", CHOOSERS, n=1000)
    rarest = [
        int(np.bincount(mode[mode >= 0]).min()) for _, _, mode in (long_tail(s, n=100_000, slope=1.9) for s in SEEDS)
    ]
    print_made(
        f"\n{SIZE} of 100,000, the rarest mode has {np.median(rarest):.0f} of them",
        {**CHOOSERS, "hub.selection, 2,000 severest": severe_prefilter},
        n=100_000,
        slope=1.9,
    )
    print_real()
    print_stored()


if __name__ == "__main__":
    main()
