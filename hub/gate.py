"""The gate: whether a candidate may take its baseline's place. hub.gate_rules judges; `hold` measures and writes.

Rules:

1. It is better on its weak spot: the 95 % intervals of the differences of recall and of AP50, on the weak spot's
   pictures of the test split, both lie above 0. Recall alone could be bought with a lower threshold. A candidate that
   is for no weak spot must be better over all in one of the two.
2. No weak spot that is `fixed` comes back: on none is a loss of recall or AP50 shown.
3. Nothing else is worse by more than the budget: over all, on the pictures that are not of its weak spot (over all,
   what they lose hides behind the gain), and for each label, size and camera with enough objects, no loss of recall or
   AP50 is shown that is larger than the budget.
4. It does not give more false alarms for nothing: where a loss of precision is shown that is larger than the budget,
   the candidate must find what its baseline finds also from the score up from which it is as precise. That score is
   said.
5. Each variant that the card lists was measured, and kept the budget.

A loss is shown when it is significant: over all and elsewhere, when the 95 % interval lies below 0. Where many groups
are looked at, one of them is off by chance: their significance is Bonferroni's, so that a candidate as good as its
baseline is refused for a group in at most 5 % of the cases. On 300 pairs of made models of one quality that find
different objects, 120 pictures with 470 objects each, a loss was shown in 3.7 % for a group, 2.0 % over all, 1.7 % on a
fixed weak spot, and 3.0 % passed; that was before rule 4 and the look elsewhere, which can only stop more. In 28 % more
than a point seemed lost over all; of candidates that gain 9 points on their weak spot and lose nothing, in none of 160.

Missing data is `insufficient`, never `pass`. It stops a candidate where the answer is what the gate is for: on its weak
spot, and over all when more than the budget seems lost: what gains there and seems to lose on the whole is no gain. On
a fixed weak spot, elsewhere, or in a group, where the test pictures cannot tell it is a warning: all are watched live
after the rollout, and a gate that nothing can pass would be turned off.

How much it sees elsewhere, on 40 to 60 made candidates each that gain 9 points on a third of the pictures, with 45, 120
and 300 pictures: of those that lose nothing on the others 0, 3 and 0 % are stopped; of those that lose 3 points there
13, 33 and 70 %, 6 points 45, 85 and 100 %, 12 points 93, 100 and 100 %. Over all alone, a loss of 6 points elsewhere is
shown for 0, 3 and 5 % of them. To ask that a loss be excluded would stop 78 % and more of those that lose nothing.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from edge.contract.card import ModelCard
from edge.contract.errors import UnusableError
from edge.detector.opening import read_model
from edge.detector.written import write_whole
from hub.datasets.version import read_version
from hub.evaluation.compare import Comparison
from hub.evaluation.report import Baseline, OnImage, Report, measure
from hub.gate_rules import BUDGET, Check, judge
from hub.lines import points
from hub.quantization.report import REPORT as QUANTIZATION
from hub.quantization.report import read_quantization
from hub.store import Store
from hub.weakspots import SpotState, advance, weak_spots

GATE: Final = "gate.json"
SCHEMA: Final = 1


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `gate.json` holds.

    Attributes:
        release, sha256: of the candidate and its ONNX file.
        variants: the sha256 of the file of each variant that its card lists, by the variant's name.
        baseline, baseline_sha256: what it was held against.
        dataset: the digest of the version.
        weak_spot: what it was made for; None for none.
        budget: points of 100 that may be lost.
        comparison: all figures.
        at_ms: UTC milliseconds.
    """

    schema: int = SCHEMA
    release: str
    sha256: str
    variants: dict[str, str]
    baseline: str
    baseline_sha256: str
    dataset: str
    weak_spot: int | None
    budget: float
    passed: bool
    checks: tuple[Check, ...]
    comparison: Comparison
    at_ms: int


def hold(
    candidate: Path,
    *,
    against: Baseline,
    version: Path,
    weak_spot: int | None,
    fixed: Mapping[int, str] | None,
    budget: float = BUDGET,
    now_ms: int,
    on_image: OnImage = lambda *_: None,
) -> GateReport:
    """Hold a candidate's folder against its baseline and write `gate.json` into it.

    Args:
        candidate: a folder with a card.
        against: what runs now.
        version: the folder of a dataset version.
        weak_spot: what it was made for; None for none.
        fixed: weak spots that are fixed, by number, with their names; None where no database tells.
        budget: points of 100 that may be lost.
        now_ms: UTC milliseconds.
        on_image: as in hub.evaluation.report.measure.

    Raises `UnusableError` as that, when both are the same file, and when the folder cannot be written.
    """
    found = read_model(candidate)
    if found.card is None or not candidate.is_dir():
        msg = f"{candidate} is no candidate's folder, with a model.json"
        raise UnusableError(msg)
    if read_model(against.model).sha256 == found.sha256:
        msg = f"{candidate} and {against.model} are the same model: name the release that it was trained from"
        raise UnusableError(msg)
    report = measure(version, model=candidate, against=against, apart_from=weak_spot, on_image=on_image)
    assert report.baseline is not None
    assert report.comparison is not None
    checks = [
        *judge(report.comparison, weak_spot=weak_spot, fixed=fixed, budget=budget),
        *_lost_labels(report),
        *variant_checks(candidate, found.card, budget=budget),
    ]
    judged = GateReport(
        release=report.model.release,
        sha256=found.sha256,
        variants={one.name: one.sha256 for one in found.card.variants},
        baseline=report.baseline.release,
        baseline_sha256=report.baseline.sha256,
        dataset=report.dataset,
        weak_spot=weak_spot,
        budget=budget,
        passed=not any(check.stops for check in checks),
        checks=tuple(checks),
        comparison=report.comparison,
        at_ms=now_ms,
    )
    write_whole(candidate / GATE, msgspec.json.format(msgspec.json.encode(judged), indent=1) + b"\n")
    return judged


def variant_checks(folder: Path, card: ModelCard, *, budget: float) -> list[Check]:
    """Judge the card's variants by the fifth rule."""
    if not card.variants:
        return []
    try:
        measured = read_quantization(folder)
    except UnusableError as error:
        return [Check(name="variants", outcome="insufficient", text=f"{error}: run `hub quantize` again")]
    name = f"variants in {QUANTIZATION}"
    if measured.model_sha256 != card.sha256 or measured.budget > budget:
        why = (
            "it is of another model file"
            if measured.model_sha256 != card.sha256
            else f"its budget was {points(measured.budget)}, not {budget:g}"
        )
        return [Check(name=name, outcome="insufficient", text=f"{why}: run `hub quantize` again")]
    checks = []
    for variant in card.variants:
        good = {
            one.runtime
            for one in measured.tried
            if one.name == variant.name and one.sha256 == variant.sha256 and one.kept and not one.parity
        }
        missing = sorted(set(variant.runtimes) - good) if variant.runtimes else ["any runtime"]
        text = f"not measured within {points(budget)} on {', '.join(missing)}" if missing else "within the budget"
        checks.append(Check(name=f"variant {variant.name}", outcome="fail" if missing else "pass", text=text))
    return checks


def weak_spot_of(version: Path) -> int | None:
    """Return the weak spot that a dataset version was frozen for; None for none."""
    told = read_version(version).recipe.get("weak_spot")
    return told if isinstance(told, int) else None


def fixed_spots(store: Store) -> dict[int, str]:
    """Return the weak spots that are fixed, by number, with their names."""
    return {spot.id: spot.name for spot in weak_spots(store) if spot.state is SpotState.FIXED}


def move_on(store: Store, report: GateReport) -> str:
    """Take the weak spot of a report that passed to `trained`; return what came of it, one sentence."""
    if report.weak_spot is None or not report.passed:
        return "no weak spot moves on"
    try:
        advance(
            store,
            report.weak_spot,
            SpotState.TRAINED,
            now_ms=report.at_ms,
            release=report.release,
            note=f"passed the gate against {report.baseline}",
        )
    except UnusableError as error:
        return f"its life does not move on: {error}"
    return f"weak spot {report.weak_spot} is `trained`; `hub weakspots` measures whether {report.release} fixed it"


def _lost_labels(report: Report) -> Iterator[Check]:
    """Judge labels that were looked for, that the baseline could tell and the candidate cannot."""
    assert report.baseline is not None
    lost = set(report.model.evaluation.lacking) - set(report.baseline.evaluation.lacking)
    if lost:
        yield Check(name="labels", outcome="fail", text=f"it cannot tell {', '.join(sorted(lost))} any more")
