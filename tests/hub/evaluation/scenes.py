"""Made looks: pictures with true boxes, and what a detector of a stated quality would say of them."""

import hashlib

import numpy as np

from edge.detector.detections import Detections
from hub.datasets.version import Member, MemberBox
from hub.evaluation.seen import Seen

LABELS = ("car", "person", "dog")
SIDE = 400
INPUT = (200, 200)
START_MS = 1_700_000_000_000
MINUTE_MS = 60_000


def member(name="a", boxes=(), *, labels=LABELS, camera="", at_ms=0, tags=(), weak_spots=(), side=SIDE) -> Member:
    """A picture; `boxes` are (label, xyxy) or (label, xyxy, True) for an uncertain one."""
    made = tuple(
        MemberBox(xyxy=tuple(map(float, xyxy)), label=label, origin="person", ignored=any(more))
        for label, xyxy, *more in boxes
    )
    return Member(
        name=name,
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        width=side,
        height=side,
        split="test",
        labels=tuple(labels),
        boxes=made,
        by="person",
        camera=camera,
        captured_at_ms=at_ms,
        tags=tuple(tags),
        weak_spots=tuple(weak_spots),
    )


def seen(of: Member, boxes=(), *, labels=LABELS, input_size=INPUT) -> Seen:
    """A look; `boxes` are (label, xyxy, score)."""
    ordered = sorted(boxes, key=lambda box: -box[2])
    found = Detections(
        np.array([xyxy for _, xyxy, _ in ordered], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in ordered], np.float32),
        np.array([labels.index(label) for label, _, _ in ordered], np.int32),
    )
    return Seen(of, found, labels, input_size)


def made(
    seed=0,
    *,
    pictures=40,
    objects=6,
    labels=LABELS,
    shift=6.0,
    find=0.7,
    wrong=4,
    ignored=0.0,
    looked_for=None,
    ties=False,
    moments=None,
) -> list[Seen]:
    """Random looks: each object is found with the chance `find`, boxes are off by `shift` pixels."""
    rng = np.random.default_rng(seed)
    answer = []
    for at in range(pictures):
        asked = labels if looked_for is None else looked_for[at % len(looked_for)]
        true, told = [], []
        for xyxy in _boxes(rng, rng.poisson(objects)):
            label = asked[rng.integers(len(asked))]
            true.append((label, xyxy, rng.random() < ignored))
            if rng.random() < find:
                mistaken = labels[rng.integers(len(labels))] if rng.random() < 0.15 else label
                told.append((mistaken, _off(rng, xyxy, shift), _score(rng, 4, 2, ties)))
                if rng.random() < 0.2:
                    told.append((mistaken, _off(rng, xyxy, shift), _score(rng, 2, 3, ties)))
        told += [
            (labels[rng.integers(len(labels))], xyxy, _score(rng, 2, 4, ties))
            for xyxy in _boxes(rng, rng.poisson(wrong))
        ]
        moment = at if moments is None else at % moments
        of = member(
            f"p{at:05d}", true, labels=asked, camera=f"lab/box/c{moment % 3}", at_ms=START_MS + moment * MINUTE_MS
        )
        answer.append(seen(of, told, labels=labels))
    return answer


def _boxes(rng, count):
    corner = rng.uniform(0, SIDE - 60, (count, 2))
    side = np.exp(rng.uniform(np.log(8), np.log(60), (count, 2)))
    return np.hstack([corner, corner + side]).tolist()


def _off(rng, xyxy, shift):
    x1, y1, x2, y2 = np.asarray(xyxy) + rng.normal(0, shift * rng.random(), 4)
    return [min(x1, x2 - 1), min(y1, y2 - 1), max(x2, x1 + 1), max(y2, y1 + 1)]


def _score(rng, a, b, ties):
    score = float(rng.beta(a, b))
    return max(0.02, round(score, 1) if ties else score)
