"""Whether machine labels keep their promise: hub.certify over simulated runs, and on real images with the real model.

A simulated run draws a population of images, each with a confidence and right or wrong, draws 200 of them that people
label, looks at 500 others, and certifies with epsilon .10 and delta .10, a first attempt. A violation is a certificate
whose accepted images have a risk above epsilon; beside it, one whose accepted images of this population, those people
have labelled aside, are wrong in more than epsilon: what is labelled then. The fewer there are, the harder that is to
promise: a second table has populations of 220 images and more. The models of confidence are realistic ones with 12 % of
all images wrong, and ones made to break the promise.

Beside it the rule of Ground Truth, and the plain search: the largest share whose accepted validation images are wrong
in at most epsilon.

On real images people's answers are the annotations. Right is as hub.confidence says. The data is not part of the
project; without it the benchmark says so.
"""

import csv
import random
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from hub import ground_truth_rule
from hub.annotation import Annotation
from hub.certify import Judged, certify, interval, shares, spent, thresholds
from hub.confidence import Calibration, confidence, fitted, is_right, kept, of_labels, outcomes
from hub.opinions import Onlooker

DATA = Path(__file__).parents[3] / "shared" / "data"
RUNS = 1000
EPSILON = DELTA = 0.10
LABELLED, LOOKED_AT, POPULATION = 200, 500, 3000
RAW = 0.12

Drawn = tuple[np.ndarray, np.ndarray]
"""Confidence and risk of each image."""


def calibrated(rng: np.random.Generator, n: int) -> Drawn:
    """The confidence is the chance that an image is right; most are easy."""
    risk = rng.beta(0.6, 0.6 * (1 - RAW) / RAW, n)
    return 1 - risk, risk


def separating(rng: np.random.Generator, n: int, *, distance: float) -> Drawn:
    """Two bells, for right and wrong images."""
    wrong = rng.random(n) < RAW
    return rng.normal(size=n) - distance * wrong, wrong.astype(float)


def useless(rng: np.random.Generator, n: int) -> Drawn:
    return rng.random(n), np.full(n, RAW)


def at_the_limit(rng: np.random.Generator, n: int) -> Drawn:
    """Each threshold is hardly worse than allowed."""
    return rng.random(n), np.full(n, EPSILON + 1e-6)


def confidently_wrong(rng: np.random.Generator, n: int) -> Drawn:
    """All errors are among the most confident."""
    sure = rng.random(n)
    return sure, np.where(sure > 0.76, 0.5, 0.0)


def at_the_boundary(rng: np.random.Generator, n: int) -> Drawn:
    """Right down to the second level, wrong from there on: each level after it is too much."""
    sure = rng.random(n)
    first = shares(LABELLED, epsilon=EPSILON, delta=spent(DELTA, 1))[0]
    return sure, np.where(sure > 1 - 0.9 * first, EPSILON - 0.02, 0.3)


def crossing(rng: np.random.Generator, n: int) -> Drawn:
    """The risk of the threshold rises to just above the limit at the first level and stays there."""
    sure = rng.random(n)
    first = shares(LABELLED, epsilon=EPSILON, delta=spent(DELTA, 1))[0]
    return sure, np.where(sure > 1 - first, EPSILON + 0.0005, EPSILON)


MODELS: dict[str, Callable[[np.random.Generator, int], Drawn]] = {
    "calibrated, 12 % wrong": calibrated,
    "AUROC .90, 12 % wrong": lambda rng, n: separating(rng, n, distance=1.812),
    "AUROC .85, 12 % wrong": lambda rng, n: separating(rng, n, distance=1.466),
    "AUROC .75, 12 % wrong": lambda rng, n: separating(rng, n, distance=0.954),
    "useless, 12 % wrong": useless,
    "just above 10 % everywhere": at_the_limit,
    "all errors in the confident": confidently_wrong,
    "errors from the first level on": at_the_boundary,
    "just above at the first level": crossing,
}


def plain_search(validation: list[Judged], pool: list[float]) -> float | None:
    """Return the least threshold of the same levels whose accepted are wrong in at most epsilon."""
    best = None
    for least in thresholds(pool, tuple(np.linspace(0.1, 1, 46))):
        reached = [one.wrong for one in validation if one.confidence >= least]
        if reached and sum(reached) <= EPSILON * len(reached):
            best = least
    return best


def guarantee(validation: list[Judged], pool: list[float], population: int | None = None) -> float | None:
    level = certify(validation, pool, epsilon=EPSILON, delta=spent(DELTA, 1), population=population).certified
    return None if level is None else level.threshold


def by_iou(validation: list[Judged], pool: list[float], *, rng: np.random.Generator) -> float | None:
    """Ground Truth's rule: a wrong image of the kind that it sees has an IoU of .5, one that lacks a box a good one."""
    measured = [
        ground_truth_rule.Measured(one.confidence, 0.5 if one.wrong and rng.random() < 0.5 else 0.85)
        for one in validation
    ]
    return ground_truth_rule.threshold(measured)


def simulate(
    model: Callable[[np.random.Generator, int], Drawn], rule: str, *, seed: int, population: int = POPULATION
) -> np.ndarray:
    """Return per run: certified, share accepted, risk above epsilon, more wrong than epsilon among the accepted."""
    rng = np.random.default_rng(seed)
    sure, risk = model(np.random.default_rng(99), 400_000)
    order = np.argsort(-sure)
    ranked, of_threshold = -sure[order], np.cumsum(risk[order]) / np.arange(1, len(order) + 1)
    rows = []
    for _ in range(RUNS):
        sure, chance = model(rng, population)
        wrong = rng.random(population) < chance
        validation = [Judged(float(a), bool(b)) for a, b in zip(sure[:LABELLED], wrong[:LABELLED], strict=True)]
        pool = sure[LABELLED : LABELLED + LOOKED_AT].tolist()
        if rule == "ours":
            least = guarantee(validation, pool, population - LABELLED)
        elif rule == "plain":
            least = plain_search(validation, pool)
        else:
            least = by_iou(validation, pool, rng=rng)
        if least is None:
            rows.append((0, 0.0, 0, 0))
            continue
        true_risk = of_threshold[max(0, int(np.searchsorted(ranked, -least, side="right")) - 1)]
        accepted = sure[LABELLED:] >= least
        bad = wrong[LABELLED:][accepted]
        rows.append((1, accepted.mean(), true_risk > EPSILON, bad.size and bad.mean() > EPSILON))
    return np.array(rows, float)


def print_simulated() -> None:
    print(f"{RUNS} runs, {LABELLED} random images labelled by people, epsilon {EPSILON}, delta {DELTA}")
    print("  violations: the risk of what is accepted is above epsilon; in brackets: this population's share is")
    print(f"  {'confidence':32} {'certified':>9} {'accepted':>8}  violations (95 %)        plain search   Ground Truth")
    worst = (0.0, "")
    for number, (name, model) in enumerate(MODELS.items()):
        ours, plain, iou = (simulate(model, rule, seed=number) for rule in ("ours", "plain", "ground-truth"))
        low, high = interval(int(ours[:, 2].sum()), RUNS)
        worst = max(worst, (ours[:, 2].mean(), name))
        rest = "  ".join(f"{rows[:, 1].mean():.2f} / {rows[:, 2].mean():.3f}" for rows in (plain, iou))
        print(
            f"  {name:32} {ours[:, 0].mean():9.3f} {ours[:, 1].mean():8.3f}  {ours[:, 2].mean():.3f}"
            f" ({low:.3f}-{high:.3f}) [{ours[:, 3].mean():.3f}]  {rest}"
        )
    print(f"  worst: {worst[0]:.3f} ({worst[1]}), allowed {DELTA}; of the others: accepted share / violations")


def print_few() -> None:
    print(f"\nof few images, {LABELLED} of them labelled by people: certified, accepted, and how often of what is left")
    print(f"  more than epsilon is wrong (allowed {DELTA})")
    sizes = (220, 260, 400, 700)
    print(f"  {'confidence':32}" + "".join(f"{f'{size} images':>20}" for size in sizes))
    for number, (name, model) in enumerate(MODELS.items()):
        told = [simulate(model, "ours", seed=number, population=size) for size in sizes]
        parts = [f"{rows[:, 0].mean():.2f} {rows[:, 1].mean():.2f} {rows[:, 3].mean():.3f}" for rows in told]
        print(f"  {name:32}" + "".join(f"{part:>20}" for part in parts))


def real_images(onlooker: Onlooker) -> dict[str, list[tuple[tuple[Annotation, ...], tuple[Annotation, ...]]]]:
    """Return what the model sees and what is there, of each image, by data set."""
    found: dict[str, list] = {"vtest.avi, first half": [], "coco128": []}
    marks: dict[int, list[Annotation]] = {}
    with (DATA / "vtest_annotations_first_half.csv").open() as lines:
        for row in csv.DictReader(lines):
            x, y, w, h = (float(row[key]) for key in "xywh")
            marks.setdefault(int(row["frame"]) - 1, []).append(Annotation((x, y, x + w, y + h), "person"))
    capture = cv2.VideoCapture(str(DATA / "vtest.avi"))
    for number in range(max(marks) + 1):
        image = capture.read()[1]
        if number in marks:
            jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            found["vtest.avi, first half"].append((onlooker.look(jpeg), tuple(marks[number])))
    names = (DATA / "coco128" / "names.txt").read_text().splitlines()
    for path in sorted((DATA / "coco128" / "images").glob("*.jpg")):
        height, width = cv2.imread(str(path)).shape[:2]
        text = DATA / "coco128" / "labels" / f"{path.stem}.txt"
        truth = []
        for line in text.read_text().splitlines() if text.is_file() else []:
            number, *place = line.split()
            x, y, w, h = (float(value) for value in place)
            x1, y1, x2, y2 = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
            if min(x2 - x1, y2 - y1) >= 3:
                truth.append(Annotation((x1, y1, x2, y2), names[int(number)]))
        found["coco128"].append((onlooker.look(path.read_bytes()), tuple(truth)))
    return found


def auroc(sure: np.ndarray, right: np.ndarray) -> float:
    if right.all() or not right.any():
        return float("nan")
    a, b = sure[right][:, None], sure[~right][None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def print_real() -> None:
    """Print how well the confidence tells right from wrong, fitted on the other half, and what is certified of it."""
    if not (DATA / "vtest.avi").is_file():
        print("\nReal images: skipped, the annotated images are not here")
        return
    onlooker = Onlooker.open()
    images = real_images(onlooker)
    photographs, street = images["coco128"], images["vtest.avi, first half"]
    cases = {
        "coco128, all labels": (photographs, onlooker.labels),
        "coco128, people": (photographs, ("person",)),
        "coco128, buses and trains": (photographs, ("bus", "train")),
        "vtest.avi first half, people": (street, ("person",)),
        "both, people": ([*photographs, *street], ("person",)),
    }
    print("\nreal images, starter model; 200 splits: a fifth calibrates, three fifths certify, a fifth is labelled")
    print("  AUROC: of the confidence, and of the mean score where there is a box; then ours and Ground Truth's rule:")
    print(
        "  the share of splits that are certified, the share of images accepted, and of these the share that is wrong"
    )
    print(f"  {'images':30} {'n':>4} {'wrong':>6} {'AUROC':>6} {'mean':>6}  {'ours':^21}  {'Ground Truth':^21}")
    for name, (of_case, labels) in cases.items():
        kinds = [(of_labels(seen, labels), of_labels(truth, labels)) for seen, truth in of_case]
        print(f"  {name:30} {len(kinds):4} {_splits(kinds, onlooker.score_threshold)}")


def _splits(images: list, score_threshold: float) -> str:
    rows, ours, theirs = [], [], []
    for seed in range(200):
        drawn = random.Random(seed).sample(images, len(images))
        first, second = len(drawn) // 5, 4 * len(drawn) // 5
        calibration = fitted([one for pair in drawn[:first] for one in outcomes(*pair)], Calibration(score_threshold))
        rest = [(confidence(seen, calibration), kept(seen, calibration), truth) for seen, truth in drawn[first:]]
        right = np.array([is_right(boxes, truth) for _, boxes, truth in rest])
        sure = np.array([one[0] for one in rest])
        mean = np.array([ground_truth_rule.mean_score(boxes) or 0.0 for _, boxes, _ in rest])
        boxed = np.array([bool(boxes) for _, boxes, _ in rest])
        rows.append((1 - right.mean(), auroc(sure, right), auroc(mean[boxed], right[boxed])))
        cut = second - first
        marked = [Judged(float(a), not b) for a, b in zip(sure[:cut], right[:cut], strict=True)]
        ours.append(_accepted(sure[cut:], right[cut:], guarantee(marked, sure[cut:].tolist())))
        measured = [
            ground_truth_rule.Measured(float(mean[n]), iou)
            for n, (_, boxes, truth) in enumerate(rest[:cut])
            if (iou := ground_truth_rule.mean_iou(boxes, truth)) is not None
        ]
        theirs.append(_accepted(np.where(boxed, mean, -1.0)[cut:], right[cut:], ground_truth_rule.threshold(measured)))
    wrong, of_ours, of_mean = np.nanmean(rows, axis=0)
    return f"{wrong:6.2f} {of_ours:6.3f} {of_mean:6.3f}  {_mean(ours)}  {_mean(theirs)}"


def _accepted(sure: np.ndarray, right: np.ndarray, least: float | None) -> tuple[float, int, int]:
    """Return what share is accepted, how many, and how many of them are wrong."""
    reached = right[:0] if least is None else right[sure >= least]
    return len(reached) / len(right), len(reached), int((~reached).sum())


def _mean(rows: list[tuple[float, int, int]]) -> str:
    share, accepted, wrong = np.array(rows, float).T
    of_accepted = f"{wrong.sum() / accepted.sum():5.2f}" if accepted.sum() else "    -"
    return f"{np.mean(accepted > 0):6.2f} {share.mean():8.2f} {of_accepted}"


def main() -> None:
    """Print every figure."""
    print_simulated()
    print_few()
    print_real()


if __name__ == "__main__":
    main()
