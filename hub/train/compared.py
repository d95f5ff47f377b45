"""Baseline against candidate on the test split, right after the training."""

from collections.abc import Callable
from pathlib import Path

from edge.detector.detector import open_detector
from edge.detector.letterbox import Size
from hub.datasets.version import Version
from hub.evaluation.compare import Comparison, compare
from hub.evaluation.seen import look


def compare_on_test(
    version: Version,
    folder: Path,
    *,
    baseline: Path | None,
    candidate: Path,
    input_size: Size,
    watch: Callable[[str, int, int], object] = lambda _what, _done, _total: None,
) -> Comparison | None:
    """Compare both at one input size and the candidate's threshold; None where no image of the test split is labelled.

    Raises `UnusableError` when a picture or a model cannot be used.
    """
    members = tuple(member for member in version.of("test") if member.labels and not member.copy_of)
    if not members:
        return None
    both = []
    threshold = 0.0
    for what, model in (("baseline", baseline), ("candidate", candidate)):
        detector = open_detector(model, input_size=input_size)
        threshold = detector.score_threshold
        both.append(look(detector, folder, members, _counter(what, len(members), watch)))
    return compare(both[0], both[1], score_threshold=threshold)


def _counter(what: str, total: int, watch: Callable[[str, int, int], object]) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        watch(f"testing the {what}", done, total)

    return count
