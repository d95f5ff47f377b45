"""Looks of two models of a stated quality at the same made pictures: each picture is a moment of its own."""

import hashlib

import numpy as np

from edge.detector.detections import Detections
from hub.datasets.version import Member, MemberBox
from hub.evaluation.seen import Seen

LABELS = ("person", "car")
CAMERAS = ("lab/box/door", "lab/box/yard")
START_MS = 1_700_000_000_000
SPOT, FIXED = 1, 2


def two_looks(seed, *, pictures=120, objects=4, find=0.7, change=0.3, gain=0.0, spot_gain=0.0) -> tuple[list, list]:
    """Return baseline and candidate.

    Each object is found with the chance `find`. Of a share `change` of them the candidate's finding is drawn anew, with
    the chance `find + gain`, or `find + spot_gain` on the third of the pictures that is of weak spot 1.
    """
    rng = np.random.default_rng(seed)
    before, after = [], []
    for at in range(pictures):
        spots = ((SPOT,), (FIXED,), ())[at % 3]
        true, old, new = [], [], []
        for place in range(1 + rng.poisson(objects - 1)):
            x, y = 60.0 * (place % 6), 60.0 * (place // 6)
            side = (12.0, 30.0, 50.0)[rng.integers(3)]
            label = int(rng.random() < 0.4)
            box = (x, y, x + side, y + side)
            true.append(MemberBox(xyxy=box, label=LABELS[label], origin="person"))
            chance = np.clip(find + 0.15 * np.sin(at), 0, 1)  # some pictures are harder
            first = (rng.random() < chance, rng.beta(6, 2))
            better = chance + (spot_gain if SPOT in spots else gain)
            second = (rng.random() < better, rng.beta(6, 2)) if rng.random() < change else first
            for told, (found, score) in ((old, first), (new, second)):
                if found:
                    told.append((box, 0.4 + 0.6 * score, label))
        for told in (old, new):
            for _ in range(rng.poisson(0.5)):
                told.append(((340.0, 340.0, 380.0, 380.0), 0.4 + 0.3 * rng.random(), int(rng.integers(2))))
        member = Member(
            name=f"p{at:04}",
            sha256=hashlib.sha256(str(at).encode()).hexdigest(),
            width=400,
            height=400,
            split="test",
            labels=LABELS,
            boxes=tuple(true),
            by="person",
            camera=CAMERAS[at // 3 % 2],
            captured_at_ms=START_MS + 60_000 * at,
            weak_spots=spots,
        )
        before.append(_seen(member, old))
        after.append(_seen(member, new))
    return before, after


def _seen(member, told) -> Seen:
    told = sorted(told, key=lambda box: -box[1])
    return Seen(
        member,
        Detections(
            np.array([box for box, _, _ in told], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in told], np.float32),
            np.array([label for _, _, label in told], np.int32),
        ),
        LABELS,
        (400, 400),
    )
