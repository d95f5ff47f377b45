"""What several devices counted, judged together: how often a good release is stopped, how soon a worse one is seen.

By simulation (hub.scenery): cameras from a yard to a busy street; what is worse takes so much from every object's
logit: -1 is a quarter of the boxes gone, -1.5 nearly half. Fleets and pools are drawn from `BANK` simulated devices.

A whole rollout: one device, 5 %, 25 %, all; each wave bakes for an hour, each device tells its figures 12 times, from
500 frames on to 3,600, and the hub judges all of them every five minutes. Stopped is a rollout that fails at any of
these looks. *Differ*: on each camera the release has a lasting bias of its own, better or worse, of sd .5 in logits.
*Lost*: on one camera the old model saw a false box all the time, and the new one rightly does not.

On real pictures: each of COCO's (coco128, where it is) is a camera that shows nothing else, each object counted ten
times: one picture more or less decides what such a camera counts. Good ones are candidates that were really fine-tuned,
where folders of them are named in WEAKSPOT_CANDIDATES; worse ones are the starter with its scores multiplied.
"""

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import msgspec
import numpy as np

from edge.contract.card import read_card
from edge.contract.judgement import NOTHING, Figures, Side, add, judge_pool
from edge.detector.detector import open_detector
from edge.detector.opening import CARD_NAME
from hub.scenery import MOMENT, Ailment, Fault, Scene
from hub.simulated import draw_places
from tests.benchmarks.bench_missed import DATA
from tests.edge.updating import broken_models as broken

BANK = 1200
LOOKS = 12
FIRST, LAST = 500, 3600
MINUTES = 60
EACH = 5
FLEETS = {4: 500, 20: 500, 100: 200, 400: 100}
POOLS = 500
SIZES = (3, 4, 5, 10, 20)
FRAMES = (500, 1000, 2000, 4000)
TIMES = 10
INPUT = (192, 192)

Device = Sequence[Figures]
"""What one device has counted at each of its looks."""


def draw_device(seed: int, at: Sequence[int], *, worse: float = 0.0, differ: float = 0.0) -> Device:
    """Return the figures of a simulated device after so many frames each."""
    rng = np.random.default_rng(seed)
    place = draw_places(1, rng=rng, site="bank")[0]
    scene = Scene(rng, objects=place.objects, detect_ms=place.detect_ms)
    strength = worse + differ * rng.normal()
    fault = Fault(ailment=Ailment.WORSE, strength=strength) if strength else None
    total, told = NOTHING, []
    for frames in at:
        seen = scene.look(MOMENT, fault, moments=round((frames - total.frames) / MOMENT))
        assert seen is not None
        total = add(total, seen)
        told.append(total)
    return told


def bank(at: Sequence[int], *, count: int = BANK, worse: float = 0.0, differ: float = 0.0) -> list[Device]:
    return [draw_device(seed, at, worse=worse, differ=differ) for seed in range(count)]


def with_a_false_box(device: Device) -> Device:
    """Return what it had counted if the old model had seen one thing more, always, that is not there."""
    return [
        msgspec.structs.replace(
            one,
            old=add(Figures(old=one.old), Figures(old=Side(boxes=one.frames // MOMENT, near=one.frames // MOMENT))).old,
        )
        for one in device
    ]


def is_stopped(fleet: Sequence[Device], rng: random.Random) -> bool:
    """Play a rollout: whether the pool fails at any look."""
    begun = 0
    for size in (1, max(2, len(fleet) // 20), max(3, len(fleet) // 4), len(fleet)):
        wave = range(begun, size)
        # the n-th report of a device comes in the n-th twelfth of the hour
        at = {one: [(n + rng.random()) * MINUTES / LOOKS for n in range(LOOKS)] for one in wave}
        for minute in range(EACH, MINUTES + 1, EACH):
            known = [device[-1] for device in fleet[:begun]]
            known += [fleet[one][n - 1] for one in wave if (n := sum(told <= minute for told in at[one]))]
            if judge_pool(known).outcome == "fail":
                return True
        begun = max(begun, size)
    return False


def rollouts() -> None:
    at = [round(frames / MOMENT) * MOMENT for frames in np.linspace(FIRST, LAST, LOOKS)]
    alike, unlike = bank(at), bank(at, differ=0.5)
    print(f"Whole rollouts of a good release: stopped, of so many; the fleets are drawn from {BANK} devices")
    print(f"{'devices':>7} {'rollouts':>8} {'good':>7} {'differ':>7} {'lost':>7}")
    for size, count in FLEETS.items():
        rng = random.Random(size)
        shares = []
        for devices, lost in ((alike, False), (unlike, False), (alike, True)):
            stopped = 0
            for _ in range(count):
                fleet = rng.sample(devices, size)
                if lost:
                    odd = rng.randrange(size)
                    fleet[odd] = with_a_false_box(fleet[odd])
                stopped += is_stopped(fleet, rng)
            shares.append(stopped / count)
        print(f"{size:>7} {count:>8} " + " ".join(f"{share:>7.1%}" for share in shares), flush=True)


def power() -> None:
    print(f"\nSeen at one look, of {POOLS} pools, by what is taken from every logit and by the frames of each device")
    print(f"{'':>7} {'devices':>7} " + " ".join(f"{frames:>7}" for frames in FRAMES))
    for worse in (0.0, 1.0, 1.5, 2.0, 3.0):
        devices = bank(FRAMES, count=BANK // 3, worse=worse)
        kept = sum(one[-1].new.boxes for one in devices) / sum(one[-1].old.boxes for one in devices)
        print(f"{-worse:>7.1f} {kept:>7.0%} of the boxes are left")
        for size in SIZES:
            rng = random.Random(size)
            pools = [rng.sample(devices, size) for _ in range(POOLS)]
            seen = [
                sum(judge_pool([one[look] for one in pool]).outcome == "fail" for pool in pools) / POOLS
                for look in range(len(FRAMES))
            ]
            print(f"{'':>7} {size:>7} " + " ".join(f"{share:>7.1%}" for share in seen), flush=True)


def counts_of(model: Path | None, images: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Return the boxes of each picture at the threshold, and a little below."""
    detector = open_detector(model, input_size=INPUT, threads=1)
    threshold = detector.score_threshold
    found = [detector.detect(image).detections.score for image in images]
    return [(int((one >= threshold).sum()), int((one >= threshold - 0.05).sum())) for one in found]


def on_pictures() -> None:
    files = sorted((DATA / "coco128" / "images").glob("*.jpg"))
    if not files:
        print(f"\nskipped: no coco128 in {DATA}")
        return
    images = [image for file in files if (image := cv2.imread(str(file))) is not None]
    before = counts_of(None, images)
    seeing = [index for index, (boxes, _) in enumerate(before) if boxes]
    sizes = (*SIZES, 60)
    print(
        f"\nCOCO's pictures, each a camera ({len(seeing)} where the starter sees something): stopped, of {POOLS} pools"
    )
    print(f"{'release':<24} {'boxes':>6} " + " ".join(f"{f'{size} dev.':>8}" for size in sizes))
    with TemporaryDirectory() as folder:
        named = map(Path, filter(None, os.environ.get("WEAKSPOT_CANDIDATES", "").split(":")))
        models = {f"candidate {read_card(one / CARD_NAME).release}": one for one in named}
        models |= {
            f"scores x {factor}": broken.spoiled(Path(folder) / str(factor), broken.times(factor))
            for factor in (0.92, 0.85, 0.7, 0.45)
        }
        for name, model in models.items():
            after = counts_of(model, images)
            kept = sum(after[one][0] for one in seeing) / sum(before[one][0] for one in seeing)
            cameras = [Figures(frames=LAST, old=_ten(before[one]), new=_ten(after[one])) for one in seeing]
            # a single camera that is blind fails by itself, before any pool
            cameras = [one for one in cameras if one.new.near]
            rng = random.Random(1)
            stopped = [
                sum(judge_pool(rng.sample(cameras, size)).outcome == "fail" for _ in range(POOLS)) / POOLS
                if len(cameras) >= size
                else None
                for size in sizes
            ]
            told = " ".join(f"{'-':>8}" if share is None else f"{share:>8.1%}" for share in stopped)
            print(f"{name:<24} {kept:>6.0%} {told}   {len(seeing) - len(cameras)} cameras blind", flush=True)


def _ten(counts: tuple[int, int]) -> Side:
    return Side(boxes=TIMES * counts[0], near=TIMES * counts[1])


def speed() -> None:
    print("\nProcessor time of one judgement, the least of five")
    for name, worse in (("good", 0.0), ("worse", 1.5)):
        devices = [one[-1] for one in bank([LAST], count=200, worse=worse)] * 20
        spent = []
        for _ in range(5):
            begun = time.process_time()
            judge_pool(devices)
            spent.append(time.process_time() - begun)
        print(f"{len(devices)} devices, {name:<6} {min(spent) * 1e3:5.1f} ms")


def main() -> None:
    rollouts()
    power()
    on_pictures()
    speed()


if __name__ == "__main__":
    main()
