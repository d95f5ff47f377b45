"""How often a good release is refused, and how soon a bad one is caught.

On real recordings: the bundled clip, and others where they are. Each pair of models looks at the same frames, 5 a
second, with the daemon's own pipelines, in one process; windows of 500 judged frames begin anew every 100 frames, and a
recording that is shorter is repeated (its second turn is no new evidence, and says so). Good pairs: the starter model
against itself in bf16 and in ONNX Runtime, and candidates that were really fine-tuned, where a folder of them is named
in WEAKSPOT_CANDIDATES. Bad ones: the starter model, spoiled. Times are left out there: the machine does other work.

By simulation: counts of objects that are counted once in ten seconds, from 500 frames of cameras that differ widely.
What a good release adds is drawn anew for each object and model, which is more than two good models really differ: an
upper bound of false alarms. A verdict is asked for after every 10 frames, as the daemon does.
"""

import collections
import itertools
import math
import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import msgspec

from edge.config import MiningConfig
from edge.contract.errors import UnusableError
from edge.contract.judgement import NOTHING, Figures, add, judge, side
from edge.detector.detector import Detector, open_detector
from edge.frame import Frame
from edge.updating.pairing import Pair
from tests.benchmarks.bench_missed import DATA
from tests.edge.detector.golden_models import CLIP
from tests.edge.updating import broken_models as broken

ENOUGH = 500
FIRST_LOOK = 200
EVERY = 10
FPS = 5.0
MOST_FRAMES = 600
CAMERAS = 4000
BAD_CAMERAS = 400
SIZE = (192, 192)


def frames_of(video: Path) -> Iterator[Frame]:
    """Yield the recording at 5 frames a second, from the start again at its end."""
    capture = cv2.VideoCapture(str(video))
    step = max(1, round(capture.get(cv2.CAP_PROP_FPS) / FPS))
    images = []
    for index in itertools.count():
        read, image = capture.read()
        if not read:
            break
        if index % step == 0:
            images.append(image)
    for index in range(MOST_FRAMES):
        now_s = index / FPS
        yield Frame(images[index % len(images)], "camera", index, 1_700_000_000_000 + round(now_s * 1e3), now_s)


def figures_of(video: Path, old: Detector, new: Detector) -> list[Figures]:
    """Return what each frame adds."""
    pair = Pair(
        old=old,
        new=new,
        score_threshold=None,
        mining=MiningConfig(),
        blur="none",
        zones={"camera": ()},
        new_serves=False,
        turn=lambda _: None,
    )
    return [pair.look(frame)[0] for frame in frames_of(video)]


def same_times(figures: Figures) -> Figures:
    return msgspec.structs.replace(figures, new=msgspec.structs.replace(figures.new, spent=figures.old.spent))


def verdict_of(parts: list[Figures]) -> tuple[str, str, int]:
    """Return outcome, reason and the number of frames, judged after every `EVERY` frames."""
    total = NOTHING
    for index, part in enumerate(parts, 1):
        total = add(total, part)
        if index % EVERY == 0:
            verdict = judge(total, enough=ENOUGH)
            if verdict.outcome != "insufficient" or index >= ENOUGH:
                return verdict.outcome, verdict.reason, index
    return "insufficient", "", len(parts)


def good_pairs() -> Iterator[tuple[str, Detector, Detector]]:
    try:
        half = open_detector(input_size=SIZE, precision="bf16", runtime="openvino")
        yield "bf16", open_detector(input_size=SIZE), half
    except UnusableError as error:
        print(f"bf16: left out, {error}")
    yield "another runtime", open_detector(input_size=SIZE), open_detector(input_size=SIZE, runtime="onnxruntime")
    for folder in filter(None, os.environ.get("WEAKSPOT_CANDIDATES", "").split(":")):
        new = open_detector(Path(folder))
        yield f"fine-tuned {new.card.release}", open_detector(input_size=new.input_size), new


BAD = {
    "blind": broken.times(0.0),
    "NaN": broken.not_a_number,
    "detects everything": broken.sees_everything,
    "scores x .45": broken.times(0.45),
    "scores x .7": broken.times(0.7),
    "scores x .85": broken.times(0.85),
}


def on_recordings(videos: list[Path]) -> None:
    print("Real recordings, 5 frames a second (windows of 500 frames; the frame of the verdict at the median)")
    print(f"{'recording':<36} {'pair':<32} {'windows':>7} {'pass':>5} {'fail':>5} {'else':>5} {'frame':>6}  reason")
    with TemporaryDirectory() as folder:
        bad = {name: broken.spoiled(Path(folder) / str(i), spoil) for i, (name, spoil) in enumerate(BAD.items())}
        for video in videos:
            pairs = [*good_pairs()]
            old = open_detector(input_size=SIZE)
            pairs += [(name, old, open_detector(path, input_size=SIZE)) for name, path in bad.items()]
            for name, before, after in pairs:
                parts = [same_times(one) for one in figures_of(video, before, after)]
                starts = range(0, len(parts) - ENOUGH + 1, 100)
                found = [verdict_of(parts[start : start + ENOUGH]) for start in starts]
                outcomes = collections.Counter(outcome for outcome, _, _ in found)
                reasons = collections.Counter(reason.split(":")[0] for _, reason, _ in found if reason)
                at = sorted(frames for _, _, frames in found)[len(found) // 2]
                why = reasons.most_common(1)[0][0] if reasons else ""
                print(
                    f"{video.name:<36} {name:<32} {len(found):>7} {outcomes['pass']:>5} {outcomes['fail']:>5}"
                    f" {outcomes['insufficient']:>5} {at:>6}  {why}",
                    flush=True,
                )


class Worse(msgspec.Struct, frozen=True):
    """How a release differs: see `camera`."""

    logit: float = 0.0
    clutter: float = 1.0
    misses: float = 1.0
    suspects: float = 1.0
    slower: float = 1.0


KINDS = {
    "good": Worse(),
    "blind": Worse(logit=-20.0),
    "detects everything": Worse(logit=3.0, clutter=4.0, suspects=4.0),
    "1.5 x slower": Worse(slower=1.5),
    "1.3 x slower": Worse(slower=1.3),
    "half lost": Worse(logit=-1.5, misses=3.0),
    "a quarter lost": Worse(logit=-0.7, misses=1.8),
}


def camera(rng: random.Random, worse: Worse) -> Iterator[Figures]:
    """Yield what every 10 frames add: 2 seconds of a camera with some objects that stay and some that come."""
    staying = [rng.gauss(0.3, 1.2) for _ in range(rng.randint(1, 8))]
    coming_a_step = rng.uniform(0.05, 1.5)
    clutter = rng.randint(2, 20)
    missed, suspect = rng.uniform(0.05, 0.4), rng.uniform(0.02, 0.2)
    base_ms, spread = rng.uniform(5, 80), rng.uniform(0.02, 0.3)
    biases = [rng.gauss(0.0, 0.4) for _ in staying]  # how the two differ on one object, as long as it stays
    for step in range(ENOUGH // EVERY):
        sides = []
        coming = [rng.gauss(0.3, 1.2) for _ in range(_poisson(rng, coming_a_step))]
        busy = [math.exp(rng.gauss(0, spread)) * (3.0 if rng.random() < 0.03 else 1.0) for _ in range(EVERY)]
        for is_new in (False, True):
            logits = [*coming]
            if step % 5 == 0:  # each that stays counts once in ten seconds
                logits += [one + is_new * bias for one, bias in zip(staying, biases, strict=True)]
            logits = [one + rng.gauss(0.0, 0.3) + is_new * worse.logit for one in logits]
            weak = clutter / 5 * (worse.clutter if is_new else 1.0)
            logits += [rng.gauss(-2.3, 0.4) + is_new * worse.logit for _ in range(_poisson(rng, weak))]
            scores = [1 / (1 + math.exp(-one)) for one in logits]
            ms = [base_ms * one * (worse.slower if is_new else 1.0) * math.exp(rng.gauss(0, spread)) for one in busy]
            sides.append(
                side(
                    scores=scores,
                    threshold=0.3,
                    spent_ms=ms,
                    missed=_poisson(rng, missed * (worse.misses if is_new else 1.0)),
                    suspect=_poisson(rng, suspect * (worse.suspects if is_new else 1.0)),
                )
            )
        yield Figures(frames=EVERY, old=sides[0], new=sides[1])


def by_simulation() -> None:
    print("\nSimulated cameras, 500 frames each, verdicts asked for every 10 frames")
    print(
        f"{'release':<22} {'cameras':>8} {'refused':>8} {'after 50':>9} {'after 200':>9} {'median frame':>12}  reasons"
    )
    for name, worse in KINDS.items():
        rng = random.Random(7)
        count = CAMERAS if name == "good" else BAD_CAMERAS
        at: list[int] = []
        reasons: collections.Counter[str] = collections.Counter()
        for _ in range(count):
            total = NOTHING
            for part in camera(rng, worse):
                total = add(total, part)
                verdict = judge(total, enough=ENOUGH)
                if verdict.outcome == "fail":
                    at.append(total.frames)
                    reasons[" ".join(verdict.reason.split(":")[0].split()[:3])] += 1
                    break
        early = [sum(one <= frames for one in at) / count for frames in (50, FIRST_LOOK)]
        median = str(sorted(at)[len(at) // 2]) if at else "-"
        told = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common(4))
        print(
            f"{name:<22} {count:>8} {len(at) / count:>8.2%} {early[0]:>9.1%} {early[1]:>9.1%} {median:>12}  {told}",
            flush=True,
        )


def _poisson(rng: random.Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def main() -> None:
    by_simulation()
    print()
    others = ("vtest.avi", "car-detection.mp4", "one-by-one-person-detection.mp4")
    on_recordings([CLIP, *(DATA / name for name in others if (DATA / name).is_file())])


if __name__ == "__main__":
    main()
