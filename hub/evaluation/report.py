"""One model, or a candidate against its baseline, on one split of a dataset version: what `hub evaluate` writes."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.contract.errors import UnusableError
from edge.detector.detector import Detector, open_detector
from edge.detector.letterbox import Size
from edge.detector.opening import parse_size
from edge.detector.written import write_whole
from hub.datasets.version import Member, Split, read_version
from hub.evaluation.compare import Comparison, compare
from hub.evaluation.evaluate import Evaluation, evaluate
from hub.evaluation.seen import look, members_to_test

SCHEMA: Final = 1
REPORT: Final = "evaluation.json"

OnImage = Callable[[str, int, int], None]
"""The release that looks, how many pictures it has seen, how many there are, of both models together."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One model and how good it is.

    Attributes:
        sha256: of the ONNX file.
        runtime: what ran it here.
    """

    release: str
    sha256: str
    runtime: str
    evaluation: Evaluation


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `evaluation.json` holds.

    Attributes:
        dataset: the digest of the version.
        baseline, comparison: where the model was held against another.
    """

    schema: int = SCHEMA
    dataset: str
    split: Split
    model: Measured
    baseline: Measured | None = None
    comparison: Comparison | None = None


class Baseline(NamedTuple):
    """What runs now: an ONNX file or a folder with a card, and its input on the devices; None: as its card says."""

    model: Path
    input_size: Size | None = None


def parse_baseline(model: Path | None, input_size: str) -> Baseline | None:
    """Return the baseline as it is named, at "WIDTHxHEIGHT" or "". Raises `UnusableError`: a size without a model."""
    if model is not None:
        return Baseline(model, parse_size(input_size) if input_size else None)
    if input_size:
        msg = "--against-input is the input of the baseline: name that with --against"
        raise UnusableError(msg)
    return None


def measure(
    folder: Path,
    *,
    model: Path | None,
    against: Baseline | None = None,
    split: Split = "test",
    input_size: Size | None = None,
    score_threshold: float | None = None,
    apart_from: int | None = None,
    on_image: OnImage = lambda *_: None,
) -> Report:
    """Look at the pictures of a version with one model or two, and count.

    Args:
        folder: of the dataset version.
        model: an ONNX file or a folder with a card; None: the starter.
        against: the baseline; None: there is none.
        split: of the version.
        input_size: of both models, unless the baseline has its own; None: as their cards say. Sizes of objects are told
            by the model's, for both.
        score_threshold: of both models; None: as their cards say.
        apart_from: the weak spot beside which the comparison tells of all else, too.
        on_image: called after each picture.

    Raises `UnusableError` when the split has no labelled image, a picture was changed or is broken, a model cannot be
    used, or the model can tell none of the labels that were looked for.
    """
    version = read_version(folder)
    members = members_to_test(version, split)
    detectors = [open_detector(model, input_size=input_size)]
    if against is not None:
        detectors.append(open_detector(against.model, input_size=against.input_size or input_size))
    for detector in detectors:
        require_labels(detector, members)
    steps, total = itertools.count(1), len(detectors) * len(members)
    looks, measured = [], []
    for detector in detectors:
        release = detector.card.release
        looks.append(look(detector, folder, members, partial(_step, on_image, release, steps, total)))
    thresholds = [detector.score_threshold if score_threshold is None else score_threshold for detector in detectors]
    for detector, seen, threshold in zip(detectors, looks, thresholds, strict=True):
        counted = evaluate(seen, score_threshold=threshold, input_size=detectors[0].input_size)
        card = detector.card
        told = Measured(release=card.release, sha256=card.sha256, runtime=detector.runtime_name, evaluation=counted)
        measured.append(told)
    report = Report(dataset=version.digest, split=split, model=measured[0])
    if against is None:
        return report
    changes = compare(
        looks[1],
        looks[0],
        score_threshold=thresholds[0],
        baseline_threshold=thresholds[1],
        apart_from=apart_from,
    )
    return msgspec.structs.replace(report, baseline=measured[1], comparison=changes)


def write_report(report: Report, path: Path) -> None:
    """Write a report, whole or not at all, over one that is there. Raises `UnusableError`."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def read_report(path: Path) -> Report:
    """Read a report. Raises `UnusableError` when it is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is no evaluation: {error}"
        raise UnusableError(msg) from error


def _step(on_image: OnImage, release: str, steps: Iterator[int], total: int) -> None:
    on_image(release, next(steps), total)


def require_labels(detector: Detector, members: Iterable[Member]) -> None:
    """Raise `UnusableError` unless the model can tell one of the labels that were looked for."""
    looked_for = {label for member in members for label in member.labels}
    if not looked_for & set(detector.labels):
        msg = (
            f"{detector.card.release} can tell none of the labels that were looked for: "
            f"{', '.join(sorted(looked_for))}; name a model that has one of them"
        )
        raise UnusableError(msg)
