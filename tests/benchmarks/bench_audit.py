"""How well the audit finds planted human errors, with cleanlab's ObjectLab beside it on the same opinions.

Images with true boxes: coco128 and the annotated first half of `vtest.avi`, one frame every 12. In 21 % of the images
errors are planted (tests.benchmarks.planted), ten times anew. COCO's own labels have errors, too: what the audit finds
of those counts against it here.

The images fall into six parts (of the recording: by time). The weights that judge one part were fitted on the other
five, with errors of other seeds. The built-in weights are fitted on all of it, and printed.

AUROC: of the image score, bad images against clean ones; for each kind of error, images with that kind against clean
ones by the same score, and boxes with it against all others by the probability of that fault. A missing object that the
model does not see at all has the probability 0.

ObjectLab (Tkachenko, Mueller, Northcutt 2023) runs where cleanlab is installed (2.9 is Apache-2.0): its quality score of
an image for the first two, its own score of each fault for boxes.

The data is not part of the project; without it the benchmark says so.
"""

import csv
import importlib.util
import itertools
from typing import NamedTuple

import cv2
import numpy as np

from edge.detector.detections import box_iou
from hub.annotation import Annotation
from hub.evidence import OF_ANNOTATION, OF_BOX, SEEN, Compared, Page, Record, Usual, corners, log_odds
from hub.fault_odds import NONE, OF_BOXES_DRAWN, Odds, fitted, logistic
from hub.inspection import Inspected, judge
from hub.opinions import Onlooker
from tests.benchmarks.bench_missed import DATA
from tests.benchmarks.bench_severity import read_labels
from tests.benchmarks.planted import KINDS, Image, Planted, plant

STREET = "street"
STEP = 12
PARTS = 6
FIT_SEEDS = range(100, 110)
SEEDS = range(10)
OBJECTLAB = {
    "its own thresholds": {"low_probability_threshold": 0.5, "high_probability_threshold": 0.95},
    "thresholds .3, .7": {"low_probability_threshold": 0.3, "high_probability_threshold": 0.7},
    "thresholds .3, .5": {"low_probability_threshold": 0.3, "high_probability_threshold": 0.5},
    "thresholds .1, .3": {"low_probability_threshold": 0.1, "high_probability_threshold": 0.3},
}
BINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.001)

Seen = dict[str, tuple[Annotation, ...]]
Names = list[str]


def read_images() -> tuple[dict[str, Image], dict[str, bytes]]:
    """Return the true annotations and the JPEGs, by name; those of the recording begin with `STREET`."""
    images, jpegs = {}, {}
    people: dict[int, list[Annotation]] = {}
    with (DATA / "vtest_annotations_first_half.csv").open() as lines:
        for row in csv.DictReader(lines):
            x, y, w, h = (float(row[key]) for key in "xywh")
            box = max(0.0, x), max(0.0, y), min(768.0, x + w), min(576.0, y + h)
            people.setdefault(int(row["frame"]) - 1, []).append(Annotation(box, "person"))
    video = cv2.VideoCapture(str(DATA / "vtest.avi"))
    for index in range(max(people) + 1):
        frame = video.read()[1]
        if index % STEP == 0:
            name = f"{STREET}-{index:03d}"
            images[name] = Image((768, 576), frozenset({"person"}), tuple(people[index]))
            jpegs[name] = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    names = (DATA / "coco128" / "names.txt").read_text().splitlines()
    for path in sorted((DATA / "coco128" / "images").glob("*.jpg")):
        jpegs[path.stem] = path.read_bytes()
        height, width = cv2.imread(str(path)).shape[:2]
        classes, boxes = read_labels(path, width, height)
        boxes = boxes.clip(0, [width, height, width, height])
        found = [
            Annotation(tuple(map(float, box)), names[number])
            for number, box in zip(classes, boxes, strict=True)
            if min(box[2:] - box[:2]) >= 3.1
        ]
        images[path.stem] = Image((width, height), frozenset(names), tuple(found))
    return images, jpegs


def look(jpegs: dict[str, bytes]) -> Seen:
    onlooker = Onlooker.open()
    print(f"opinions of {onlooker.name}")
    return {name: onlooker.look(jpeg) for name, jpeg in jpegs.items()}


def part_of(names: Names) -> dict[str, int]:
    """Return the part of each image: the recording's are stretches of time."""
    street = [name for name in names if name.startswith(STREET)]
    others = [name for name in names if not name.startswith(STREET)]
    parts = {name: at * PARTS // len(street) for at, name in enumerate(street)}
    return parts | {name: at % PARTS for at, name in enumerate(others)}


def page(name: str, image: Image, boxes: tuple[Annotation, ...], seen: Seen) -> Page:
    camera = STREET if name.startswith(STREET) else ""
    return Page(name, image.size, image.labels, boxes, seen[name], camera)


def usual_of(pages: list[Compared]) -> Usual:
    """Fit what is usual of the model on true annotations."""
    asked = [one.asked for one in pages]
    scores = np.concatenate([log_odds(one.scores)[mine] for one, mine in zip(pages, asked, strict=True)])
    sizes = np.concatenate([one.seen_size[mine] for one, mine in zip(pages, asked, strict=True)])
    told = np.concatenate([(one.of_box >= 0)[mine] for one, mine in zip(pages, asked, strict=True)])
    annotated = logistic(np.stack([np.ones(len(scores)), scores, sizes], axis=1), told)
    drawn = np.concatenate([one.drawn_size for one in pages])
    seen = logistic(np.stack([np.ones(len(drawn)), drawn], axis=1), np.concatenate([one.own >= SEEN for one in pages]))
    return Usual(tuple(annotated), tuple(seen))


class Trial(NamedTuple):
    """The images with errors of one seed, held against what the model sees."""

    planted: dict[str, Planted]
    pages: dict[str, Compared]


class Trials:
    """Makes trials; what is not planted in is held against the model once."""

    def __init__(self, images: dict[str, Image], seen: Seen) -> None:
        self.images, self.seen = images, seen
        self.clean = {name: _Once(page(name, image, image.boxes, seen)) for name, image in images.items()}

    def trial(self, seed: int) -> Trial:
        planted = plant(self.images, seed=seed)
        pages = {
            name: Compared(page(name, self.images[name], done.boxes, self.seen)) if done.faults else self.clean[name]
            for name, done in planted.items()
        }
        return Trial(planted, pages)


class _Once(Compared):
    """A page whose signs are computed once."""

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self._tables = super().of_annotations(), super().of_boxes()

    def of_annotations(self):
        return self._tables[0].copy()

    def of_boxes(self):
        return self._tables[1].copy()


def fit(trials: list[Trial], names: Names, usual: Usual) -> Odds:
    """Return weights fitted on these images of the trials, as if they were one batch."""
    drawn, faults, boxes, missing = [], [], [], []
    for planted, every in trials:
        pages = [every[name] for name in names]
        record = Record(pages, usual)
        for one in pages:
            mine = planted[one.page.name]
            wrong = {box: 1 + OF_BOXES_DRAWN.index(kind) for kind, box in mine.faults if kind != "missing"}
            drawn.append(record.of_annotations(one))
            faults += [wrong.get(box, 0) for box in one.page.boxes]
            boxes.append(record.of_boxes(one))
            missing += missing_boxes(one, mine)
    start = Odds(usual, NONE.annotation, NONE.box)
    return fitted((np.concatenate(drawn), faults), (np.concatenate(boxes), missing), start)


def missing_boxes(one: Compared, planted: Planted) -> list[bool]:
    found = np.zeros(len(one.open), bool)
    for kind, box in planted.faults:
        if kind == "missing" and len(found):
            overlap = box_iou(corners([box]), one.seen[one.open])[0] * (one.seen_labels[one.open] == box.label)
            found[overlap.argmax()] |= overlap.max() >= 0.5
    return found.tolist()


def auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of pairs in the right order; ties count half."""
    order = np.argsort(scores, kind="stable")
    values = scores[order]
    ranks = np.empty(len(scores))
    starts = np.r_[0, np.flatnonzero(np.diff(values)) + 1, len(values)]
    for a, b in itertools.pairwise(starts):
        ranks[order[a:b]] = (a + b + 1) / 2
    n = positive.sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def of_kind(planted: dict[str, Planted]) -> dict[str, str]:
    return {name: done.faults[0][0] if done.faults else "" for name, done in planted.items()}


def by_image(scores: dict[str, float], planted: dict[str, Planted]) -> dict[str, float]:
    """Return AUROC of all bad images and of each kind, and the precision in the top tenth."""
    kinds = of_kind(planted)
    names = list(scores)
    values, kind = np.array([scores[name] for name in names]), np.array([kinds[name] for name in names])
    top = np.argsort(-values, kind="stable")[: round(0.1 * len(names))]
    found = {"image": auroc(kind != "", values), "top 10 %": float((kind[top] != "").mean())}
    for one in KINDS:
        some = (kind == one) | (kind == "")
        found[one] = auroc(kind[some] != "", values[some])
    return found


def by_box(found: list[Inspected], planted: dict[str, Planted]) -> tuple[dict[str, float], dict[str, list]]:
    """Return AUROC of each kind over boxes, and for the reliability every probability with its truth."""
    told: dict[str, list[tuple[float, bool]]] = {kind: [] for kind in KINDS}
    for one in found:
        wrong = planted[one.page.name].faults
        places = {(kind, box.xyxy) for kind, box in wrong}
        lost = [box for kind, box in wrong if kind == "missing"]
        for fault in one.faults:
            if fault.kind != "missing":
                told[fault.kind].append((fault.probability, (fault.kind, fault.xyxy) in places))
                places.discard((fault.kind, fault.xyxy))
                continue
            hits = [box for box in lost if box.label == fault.label and overlap(box, fault.xyxy) >= 0.5]
            told["missing"].append((fault.probability, bool(hits)))
            lost = [box for box in lost if box not in hits[:1]]
        told["missing"] += [(0.0, True) for _ in lost]
        for kind in OF_BOXES_DRAWN:
            untold = len(one.page.boxes) - sum(fault.kind == kind for fault in one.faults)
            left = sum(mine == kind for mine, _ in places)
            told[kind] += [(0.0, True)] * left + [(0.0, False)] * (untold - left)
    scores = {
        kind: auroc(np.array([t for _, t in some]), np.array([p for p, _ in some])) for kind, some in told.items()
    }
    return scores, told


def overlap(box: Annotation, xyxy) -> float:
    return float(box_iou(corners([box]), np.float32([xyxy]))[0, 0])


def objectlab(pages: list[Page], **thresholds: float) -> dict[str, float]:
    """Return its image scores, turned so that 1 is surely wrong."""
    from cleanlab.object_detection import rank

    names = sorted({label for one in pages for label in one.labels})
    number = {name: at for at, name in enumerate(names)}
    labels, predictions = [], []
    for one in pages:
        labels.append({"bboxes": corners(one.boxes), "labels": np.array([number[box.label] for box in one.boxes], int)})
        of_image = np.empty(len(names), object)
        for at, name in enumerate(names):
            rows = [(*box.xyxy, box.score) for box in one.seen if box.label == name and name in one.labels]
            of_image[at] = np.array(rows, np.float32).reshape(-1, 5)
        predictions.append(of_image)
    quality = rank._get_subtype_label_quality_scores(labels=labels, predictions=predictions, **thresholds)
    return {one.name: 1 - float(q) for one, q in zip(pages, quality, strict=True)}


def reliability(title: str, told: list[tuple[float, bool]]) -> None:
    p, true = np.array([t[0] for t in told]), np.array([t[1] for t in told], float)
    print(f"\n{title}\n{'probability':>12} {'places':>8} {'predicted':>10} {'true':>6}")
    error = 0.0
    for low, high in itertools.pairwise(BINS):
        inside = (p >= low) & (p < high)
        if inside.any():
            error += inside.mean() * abs(p[inside].mean() - true[inside].mean())
            print(
                f"{low:>7.2f}-{min(high, 1):.2f} {inside.sum():>8} {p[inside].mean():>10.3f} {true[inside].mean():>6.3f}"
            )
    print(f"expected calibration error {error:.4f}")


def show(title: str, runs: list[dict[str, float]]) -> None:
    cells = [f"{key} {np.mean(v):.3f} ±{np.std(v):.3f}" for key in runs[0] if (v := [run[key] for run in runs])]
    print(f"{title}\n  " + "\n  ".join(cells))


def print_weights(odds: Odds) -> None:
    print(f"usual: annotated {np.round(odds.usual.annotated, 2)}, seen {np.round(odds.usual.seen, 2)}")
    for name, *row in zip(OF_ANNOTATION, *odds.annotation, strict=True):
        print(f"  {name:12}" + "".join(f" {value:7.2f}" for value in row))
    for name, value in zip(OF_BOX, odds.box, strict=True):
        print(f"  {name:12} {value:7.2f}")


def fit_parts(trials: Trials) -> tuple[dict[int, Odds], Odds]:
    """Return the weights for each part, and those of all of it."""
    names = sorted(trials.images)
    part = part_of(names)
    fitting = [trials.trial(seed) for seed in FIT_SEEDS]

    def of(some: Names) -> Odds:
        return fit(fitting, some, usual_of([trials.clean[name] for name in some]))

    return {one: of([name for name in names if part[name] != one]) for one in range(PARTS)}, of(names)


def judged(pages: dict[str, Compared], odds: dict[int, Odds]) -> list[Inspected]:
    """Return what the audit says of one batch, each image by weights that were not fitted on it."""
    part = part_of(sorted(pages))
    records = {one: Record(list(pages.values()), weights.usual) for one, weights in odds.items()}
    found = []
    for name, one in pages.items():
        faults = judge(one, records[part[name]], odds[part[name]])
        faults.sort(key=lambda fault: -fault.probability)
        found.append(Inspected(one.page, tuple(faults), frozenset()))
    return found


def main(seen: Seen | None = None) -> None:
    if not (DATA / "vtest.avi").is_file() or not (DATA / "coco128").is_dir():
        print("Audit: skipped, the annotated images are not here")
        return
    images, jpegs = read_images()
    trials = Trials(images, look(jpegs) if seen is None else seen)
    odds, of_all = fit_parts(trials)
    theirs = objectlab if importlib.util.find_spec("cleanlab") else None
    runs: dict[str, list[dict[str, float]]] = {}
    told, of_image = [], []
    for seed in SEEDS:
        planted, pages = trials.trial(seed)
        found = judged(pages, odds)
        scores = {one.page.name: one.score for one in found}
        boxes, places = by_box(found, planted)
        rows = {"audit, images": by_image(scores, planted), "audit, boxes": boxes}
        told += [one for some in places.values() for one in some]
        of_image += [(scores[name], bool(planted[name].faults)) for name in scores]
        if theirs is not None:
            for name, thresholds in OBJECTLAB.items():
                rows[f"ObjectLab, {name}"] = by_image(theirs([one.page for one in found], **thresholds), planted)
        for title, row in rows.items():
            runs.setdefault(title, []).append(row)
    print(f"{len(images)} images, {len(SEEDS)} seeds, mean ± standard deviation over the seeds")
    if theirs is None:
        print("ObjectLab: skipped, cleanlab is not installed")
    for title, some in runs.items():
        show(title, some)
    reliability("Places", told)
    reliability("Images", of_image)
    print("\nFitted on all of it")
    print_weights(of_all)
    print("\nNothing planted: the top of the list")
    for one in sorted(judged(dict(trials.clean), odds), key=lambda one: -one.score)[:20]:
        worst = one.faults[0]
        print(f"  {one.page.name} {one.score:.2f} {worst.kind} {worst.label} {worst.xyxy}: {worst.why}")


if __name__ == "__main__":
    main()
