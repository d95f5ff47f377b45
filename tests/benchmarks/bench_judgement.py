"""How often one device refuses a good release, and how soon a bad one is caught.

By simulation (made_cameras.py): whole installs by the default plan: 200 frames in the shadow, 300 on trial, and the
bake up to 3,600, at 5 frames a second and then, while it bakes, at one. The rule is asked after every 10 frames, by the
early chance until a phase ends, as the daemon does. The new release has an opinion of its own about each object, which
is more than two good models really differ: an upper bound of false alarms.

On real recordings: those beside the bundled clip where they are (the clip is the beginning of one of them). All models
look at the same frames through the daemon's own pipelines; each frame is decoded and detected once a model. A window is
500 judged frames and begins every 25: windows overlap, so they are worth no more than the recordings and seconds that
are told. A recording that is shorter than a window goes on from its start. Good pairs: the starter against itself in
bf16, on ONNX Runtime and in 8 bits, and against candidates that were really fine-tuned, where folders of them, or of
the starter with its 8-bit variants, are named in WEAKSPOT_CANDIDATES. Bad ones: the starter, spoiled. Times are left
out there: the machine does other work.
"""

import collections
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import msgspec
import numpy as np

from edge.config import MiningConfig
from edge.contract.errors import UnusableError
from edge.contract.judgement import NOTHING, Figures, add, judge
from edge.contract.rollout import TrialPlan
from edge.detector.detector import Detector, Inference, open_detector
from edge.frame import Frame, Image
from edge.updating.pairing import Pair
from tests.benchmarks.bench_missed import DATA
from tests.benchmarks.made_cameras import EVERY, Camera, Worse
from tests.edge.detector.golden_models import CLIP
from tests.edge.updating import broken_models as broken

PLAN = TrialPlan()
BAKED = 3600
CAMERAS = 2000
BAD_CAMERAS = 100
KINDS = {
    "good": Worse(),
    "blind": Worse(logit=-20.0),
    "detects everything": Worse(logit=3.0, clutter=4.0, suspects=4.0),
    "1.5 x slower": Worse(slower=1.5),
    "1.3 x slower": Worse(slower=1.3),
    "half lost": Worse(logit=-1.5, misses=3.0),
    "a quarter lost": Worse(logit=-0.7, misses=1.8),
}

ENOUGH = 500
BETWEEN = 25
SIZE = (192, 192)
RATES = (10.0, 5.0)
VIDEOS = ("vtest.avi", "car-detection.mp4", "one-by-one-person-detection.mp4")
BAD = {
    "blind": broken.times(0.0),
    "NaN": broken.not_a_number,
    "detects everything": broken.sees_everything,
    "scores x .45": broken.times(0.45),
    "scores x .7": broken.times(0.7),
    "scores x .85": broken.times(0.85),
}


def outcome_of(told: Sequence[Figures], *, enough: int) -> tuple[str, int]:
    """Return why a phase fails, "" where it does not, and after how many frames; asked after each."""
    for figures in told:
        is_last = figures is told[-1]
        verdict = judge(figures, enough=enough if is_last else figures.frames + 1)
        if verdict.outcome == "fail":
            return verdict.reason, figures.frames
    return "", told[-1].frames


def by_simulation() -> None:
    fast, slow = np.full(PLAN.trial_frames // EVERY, EVERY / 5.0), np.full((BAKED - 300) // EVERY, float(EVERY))
    shadow = np.full(PLAN.shadow_frames // EVERY, EVERY / 5.0)
    print(f"Simulated installs: {PLAN.shadow_frames} frames in shadow, {PLAN.trial_frames} on trial, baked to {BAKED}")
    print(
        f"{'release':<20} {'cameras':>7} {'shadow':>7} {'500':>7} {'1000':>7} {'baked':>7} {'median frame':>12}"
        "  reasons; refused by then"
    )
    for name, worse in KINDS.items():
        count = CAMERAS if name == "good" else BAD_CAMERAS
        at: list[int] = []
        without = 0
        reasons: collections.Counter[str] = collections.Counter()
        for number in range(count):
            camera = Camera(np.random.default_rng((7, number)), worse)
            reason, frames = outcome_of(camera.look(shadow), enough=PLAN.shadow_frames)
            if not reason:
                told = camera.look(np.concatenate([fast, slow]))
                without += bool(outcome_of(told[: len(fast)], enough=PLAN.trial_frames)[0])
                reason, frames = outcome_of(told, enough=PLAN.trial_frames)
                frames += PLAN.shadow_frames
            if reason:
                at.append(frames)
                reasons[" ".join(reason.split(":")[0].split()[:3])] += 1
        shares = [sum(one <= frames for one in at) / count for frames in (PLAN.shadow_frames, 500, 1000, 10**6)]
        median = str(sorted(at)[len(at) // 2]) if at else "-"
        told_of = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common(4))
        print(
            f"{name:<20} {count:>7} " + " ".join(f"{share:>7.2%}" for share in shares) + f" {median:>12}  {told_of}",
            flush=True,
        )
        if name == "good":
            refused = shares[0] + without / count
            print(f"{'':<20} {'':>7} without a bake, judged once more at 500 frames: {refused:.2%}", flush=True)


# Real recordings


class Remembering:
    """A detector that looks at the same picture once."""

    def __init__(self, detector: Detector, images: Sequence[Image]) -> None:
        self._detector = detector
        self._kept = {id(image) for image in images}
        self._seen: dict[int, Inference] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)

    def detect(self, image: Image, *, score_threshold: float) -> Inference:
        if id(image) not in self._kept:  # a crop
            return self._detector.detect(image, score_threshold=score_threshold)
        if id(image) not in self._seen:
            self._seen[id(image)] = self._detector.detect(image, score_threshold=score_threshold)
        return self._seen[id(image)]


class Recording:
    """A recording in memory. Attributes: `name`, `fps`, `images`."""

    def __init__(self, path: Path) -> None:
        capture = cv2.VideoCapture(str(path))
        self.name, self.fps = path.name, capture.get(cv2.CAP_PROP_FPS)
        self.images = []
        while (read := capture.read())[0]:
            self.images.append(read[1])

    def frames(self, rate: float) -> Iterator[Frame]:
        """Yield it at about this rate; from the start again where it is shorter than a window."""
        step = max(1, round(self.fps / rate))
        chosen = self.images[::step]
        for index in range(max(len(chosen), ENOUGH)):
            now_s = index * step / self.fps
            yield Frame(chosen[index % len(chosen)], "camera", index, 1_700_000_000_000 + round(now_s * 1e3), now_s)


def sides_of(recording: Recording, rate: float, one: Any, other: Any) -> tuple[list[Figures], list[Figures]]:
    """Return what each of two models counts on each frame, as if it were the old one; what failed on one is nothing.

    What one counts does not depend on the other, so any two can be compared afterwards.
    """
    pair = Pair(
        old=one,
        new=other,
        score_threshold=None,
        mining=MiningConfig(),
        blur="none",
        zones={"camera": ()},
        new_serves=False,
        turn=lambda _: None,
    )
    seen = [pair.look(frame)[0] for frame in recording.frames(rate)]
    return [Figures(frames=each.frames, old=each.old) for each in seen], [
        Figures(frames=each.frames, old=each.new) for each in seen
    ]


def paired(old: list[Figures], new: list[Figures]) -> list[Figures]:
    """Return what a device would have counted of both, with the old one's times for both."""
    return [
        Figures(frames=a.frames, old=a.old, new=msgspec.structs.replace(b.old, spent=a.old.spent))
        for a, b in zip(old, new, strict=True)
    ]


def verdict_of(parts: Sequence[Figures]) -> tuple[str, str, int]:
    """Return outcome, reason and the number of frames, judged after every `EVERY` frames."""
    total = NOTHING
    for index, part in enumerate(parts, 1):
        total = add(total, part)
        if index % EVERY == 0:
            verdict = judge(total, enough=ENOUGH)
            if verdict.outcome != "insufficient" or index >= ENOUGH:
                return verdict.outcome, verdict.reason, index
    return "insufficient", "", len(parts)


def good_models() -> Iterator[tuple[str, Detector]]:
    yield "another runtime", open_detector(input_size=SIZE, runtime="onnxruntime", threads=1)
    try:
        yield "bf16", open_detector(input_size=SIZE, precision="bf16", runtime="openvino", threads=1)
    except UnusableError as error:
        print(f"bf16: left out, {error}")
    starter = open_detector(threads=1).card.sha256
    for folder in filter(None, os.environ.get("WEAKSPOT_CANDIDATES", "").split(":")):
        own = open_detector(Path(folder), input_size=SIZE, threads=1)
        if own.card.sha256 != starter:
            yield f"fine-tuned {own.card.release}", own
        for variant in own.card.variants:
            if variant.input in {"", f"{SIZE[0]}x{SIZE[1]}"}:
                named = f"{own.card.release} {variant.precision}"
                yield named, open_detector(Path(folder), input_size=SIZE, variant=variant.name, threads=1)


def tell(recording: Recording, rate: float, name: str, parts: list[Figures]) -> collections.Counter[str]:
    """Judge every window of a pair, print it, and return the outcomes."""
    starts = range(0, len(parts) - ENOUGH + 1, BETWEEN)
    found = [verdict_of(parts[start : start + ENOUGH]) for start in starts]
    outcomes = collections.Counter(outcome for outcome, _, _ in found)
    reasons = collections.Counter(reason.split(":")[0] for _, reason, _ in found if reason)
    at = sorted(frames for _, _, frames in found)[len(found) // 2]
    total = NOTHING
    for part in parts:
        total = add(total, part)
    share = f"{total.new.boxes / total.old.boxes:.2f}" if total.old.boxes else "-"
    why = reasons.most_common(1)[0][0] if reasons else ""
    print(
        f"{recording.name[:18]:<18} {rate:>3.0f} {name:<27} {len(found):>7} {outcomes['pass']:>5} {outcomes['fail']:>5}"
        f" {outcomes['insufficient']:>5} {at:>6} {share:>6}  {why}",
        flush=True,
    )
    return outcomes


def on_recordings(paths: Sequence[Path]) -> None:
    recordings = [Recording(path) for path in paths]
    length_s = sum(len(one.images) / one.fps for one in recordings)
    print(f"\nReal: {len(recordings)} recordings, {length_s:.0f} s in all; overlapping windows of {ENOUGH} frames")
    print(
        f"{'recording':<18} {'fps':>3} {'pair':<27} {'windows':>7} {'pass':>5} {'fail':>5} {'else':>5} {'frame':>6}"
        f" {'boxes':>6}  reason; frame: of the verdict, at the median; boxes: new through old"
    )
    sums: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with TemporaryDirectory() as folder:
        bad = {
            name: open_detector(broken.spoiled(Path(folder) / str(i), spoil), input_size=SIZE, threads=1)
            for i, (name, spoil) in enumerate(BAD.items())
        }
        good = dict(good_models())
        for recording in recordings:
            old = Remembering(open_detector(input_size=SIZE, threads=1), recording.images)
            held: dict[str, Remembering] = {}
            for rate in RATES:
                judged = {**good, **(bad if rate == RATES[-1] else {})}
                for name, one in judged.items():
                    if name not in held:
                        held[name] = Remembering(one, recording.images)
                names = list(judged)
                counted = dict(zip(("", names[0]), sides_of(recording, rate, old, held[names[0]]), strict=True))
                for one, other in zip(names[1::2], [*names[2::2], names[0]], strict=False):
                    counted[one], counted[other] = sides_of(recording, rate, held[one], held[other])
                for name in names:
                    parts = paired(counted[""], counted[name])
                    sums["good pairs" if name in good else "spoiled"] += tell(recording, rate, name, parts)
    for kind, outcomes in sums.items():
        print(f"{kind}: {outcomes['fail']} of {outcomes.total()} windows refused", flush=True)


def main() -> None:
    by_simulation()
    on_recordings([path for name in VIDEOS if (path := DATA / name).is_file()] or [CLIP])


if __name__ == "__main__":
    main()
