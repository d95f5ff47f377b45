"""How well the audit finds planted human errors, with cleanlab's ObjectLab beside it on the same opinions.

Images with true boxes: coco128 and the annotated first half of `vtest.avi`, one frame every 12. In 21 % of the images
errors are planted (tests.benchmarks.planted), ten times anew. COCO's own labels have errors, too: what the audit finds
of those counts against it here. Of the 20 images that it lists first with nothing planted, looked at by eye, 4 are
wrong (a donut without a box, a wooden tub as a potted plant, an oven drawn across two pictures, a walker half outside
of the box), in 4 nobody can tell what is in the box, and 12 are right.

The images fall into six parts (of the recording: by time). The weights that judge one part were fitted on the other
five, with errors of other seeds. The built-in weights are fitted on all of it, and printed.

AUROC of images: bad against clean ones by the image score; for each kind of error, images with it against clean ones,
by the image score and by the probabilities of that fault alone. AUROC of boxes: annotations with the error against all
others by the probability of the fault; of missing objects, the model's boxes on them against its other boxes that no
annotation explains. Of objects that the model does not see at all nothing can be said; their share is printed.

ObjectLab (Tkachenko, Thyagarajan, Mueller 2023) runs where cleanlab is installed (2.9: Apache licence, 2.0): at its own
thresholds, which few of this model's scores reach, and at lower ones.

The data is not part of the project; without it the benchmark says so.
"""

import csv
import importlib.util
import itertools
import math
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
FIT_SEEDS = range(100, 120)
SEEDS = range(10)
OBJECTLAB = {"its own thresholds, .5 and .95": (0.5, 0.95), "at .3 and .7": (0.3, 0.7), "at .3 and .5": (0.3, 0.5)}
ALPHA = 0.9  # its default
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
    found = {"bad images": auroc(kind != "", values), "precision in the top 10 %": float((kind[top] != "").mean())}
    for one in KINDS:
        found[one] = against_clean(one, kind, values)
    return found


def against_clean(one: str, kind: np.ndarray, values: np.ndarray) -> float:
    some = (kind == one) | (kind == "")
    return auroc(kind[some] != "", values[some])


def by_fault(found: list[Inspected], planted: dict[str, Planted]) -> dict[str, float]:
    """Return AUROC of the images of each kind by the probabilities of that fault alone."""
    kinds = of_kind(planted)
    kind = np.array([kinds[one.page.name] for one in found])
    scores = {
        mine: np.array([1 - math.prod(1 - f.probability for f in one.faults if f.kind == mine) for one in found])
        for mine in KINDS
    }
    return {one: against_clean(one, kind, scores[one]) for one in KINDS}


def by_box(found: list[Inspected], planted: dict[str, Planted]) -> tuple[dict[str, float], list[tuple[float, bool]]]:
    """Return AUROC of each kind over boxes, and for the reliability every probability with its truth."""
    told: dict[str, list[tuple[float, bool]]] = {kind: [] for kind in KINDS}
    lost = 0
    for one in found:
        wrong = planted[one.page.name].faults
        places = {(kind, box.xyxy) for kind, box in wrong}
        missing = [box for kind, box in wrong if kind == "missing"]
        lost += len(missing)
        for fault in one.faults:
            if fault.kind != "missing":
                told[fault.kind].append((fault.probability, (fault.kind, fault.xyxy) in places))
                continue
            hits = [box for box in missing if overlap(box, fault.xyxy) >= 0.5]
            told["missing"].append((fault.probability, bool(hits)))
            missing = [box for box in missing if box not in hits]
    scores = {
        kind: auroc(np.array([true for _, true in some]), np.array([p for p, _ in some])) for kind, some in told.items()
    }
    scores["missing objects that the model sees"] = sum(true for _, true in told["missing"]) / lost
    return scores, [one for some in told.values() for one in some]


def overlap(box: Annotation, xyxy) -> float:
    return float(box_iou(corners([box]), np.float32([xyxy]))[0, 0])


def objectlab(pages: list[Page]) -> dict[str, dict[str, float]]:
    """Return its image scores at each of `OBJECTLAB`, turned so that 1 is surely wrong."""
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
    auxiliary = rank._get_valid_inputs_for_compute_scores(ALPHA, labels, predictions)
    found = {}
    for name, (low, high) in OBJECTLAB.items():
        of_faults = (
            rank.compute_overlooked_box_scores(high_probability_threshold=high, auxiliary_inputs=auxiliary),
            rank.compute_badloc_box_scores(low_probability_threshold=low, auxiliary_inputs=auxiliary),
            rank.compute_swap_box_scores(high_probability_threshold=high, auxiliary_inputs=auxiliary),
        )
        pooled = np.array([rank.pool_box_scores_per_image(scores) for scores in of_faults])
        quality = np.exp(np.log(np.maximum(pooled, 1e-6)).mean(axis=0))  # equal weights, its default
        found[name] = {one.name: 1 - float(q) for one, q in zip(pages, quality, strict=True)}
    return found


def reliability(title: str, told: list[tuple[float, bool]]) -> None:
    p, true = np.array([t[0] for t in told]), np.array([t[1] for t in told], float)
    print(f"\n{title}\n{'probability':>12} {'places':>8} {'predicted':>10} {'true':>6}")
    error = 0.0
    for low, high in itertools.pairwise(BINS):
        inside = (p >= low) & (p < high)
        if inside.any():
            error += inside.mean() * abs(p[inside].mean() - true[inside].mean())
            print(
                f"{low:>7.2f}-{min(high, 1):.2f} {inside.sum():>8} {p[inside].mean():>10.3f}"
                f" {true[inside].mean():>6.3f}"
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
        rows = {
            "audit, images": by_image(scores, planted),
            "audit, images, by that fault alone": by_fault(found, planted),
            "audit, boxes": boxes,
        }
        told += places
        of_image += [(scores[name], bool(planted[name].faults)) for name in scores]
        if theirs is not None:
            for name, quality in theirs([one.page for one in found]).items():
                rows[f"ObjectLab, images, {name}"] = by_image(quality, planted)
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
