"""What `hub train` prints at its end: what went in, what it cost, what it brought, what comes next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from hub.evaluation.compare import Change, Comparison
from hub.lines import counted, cut, spell_seconds, wrapped
from hub.train.estimate import Estimate, gigabytes
from hub.train.training import Training

_LABEL: Final = 10
_FIGURES: Final = (("ap50", "AP50"), ("recall", "recall"), ("precision", "precision"))


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a training gave.

    Attributes:
        candidate: the candidate's folder.
        dataset: the dataset version as a command names it.
        model: the baseline as a command names it; "" for the starter model.
        weak_spot: that it was trained for.
        comparison: None where no image of the test split is labelled.
    """

    candidate: str
    dataset: str
    model: str
    weak_spot: int | None
    training: Training
    comparison: Comparison | None


def trained_as_json(trained: Trained) -> str:
    """Return one JSON object."""
    return msgspec.json.encode(trained).decode()


def trained_lines(trained: Trained) -> list[str]:
    """Return the lines for a person, at most 80 characters each but for commands with long paths."""
    training = trained.training
    lines = [
        *_row("candidate", f"{training.release} in {trained.candidate}"),
        *_row("from", f"{training.parent}, trained at {training.input}"),
        *_row("dataset", f"{trained.dataset}, digest {training.dataset[:12]}"),
        *_row("pictures", ", ".join(f"{count} {part}" for part, count in training.pictures.items())),
        *_row("training", _cost(training)),
    ]
    if training.new_labels:
        lines += _row("labels", f"new: {', '.join(training.new_labels)}")
    if not training.command:
        lines += _row("weights", _weights(training))
    return [*lines, "", *_comparison_lines(trained.comparison), "", *_next_lines(trained)]


def estimate_line(estimate: Estimate) -> str:
    """Return what is said before a training is under way."""
    return (
        f"{counted(estimate.steps, 'step')} to go: about {spell_seconds(estimate.seconds)},"
        f" {gigabytes(estimate.peak_bytes)}"
    )


def _cost(training: Training) -> str:
    if training.command:
        return f"by a command, {spell_seconds(training.seconds)}, {gigabytes(training.peak_bytes)}"
    early = f" of {training.planned}, stopped early" if training.steps < training.planned else ""
    resumed = f", resumed {training.resumed} times" if training.resumed > 1 else ", resumed" * training.resumed
    return (
        f"{counted(training.steps, 'step')}{early}, {spell_seconds(training.seconds)},"
        f" {gigabytes(training.peak_bytes)}, {counted(training.threads, 'thread')}{resumed}"
    )


def _weights(training: Training) -> str:
    told = f"{training.alpha:.0%} new, {1 - training.alpha:.0%} old"
    for name, what in (("found", "found"), ("kept", "kept for replay")):
        old, new = (training.validation.get(f"{name}_{share:g}") for share in (0, training.alpha))
        if old is not None and new is not None:
            told += f"; validation AP50 {what} {old:.1%} -> {new:.1%}"
    return told


def _comparison_lines(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return wrapped(
            "No image of the test split is labelled, so nothing is told of what it brought: label a batch's test"
            " share, or `hub batch new --random`."
        )
    overall = comparison.overall
    measured = counted(overall.objects, "object")
    tested = f"test: {counted(comparison.images, 'image')}, {measured}"
    lines = [f"{tested:<38}before  after   change (95 %)"]
    for name, title in _FIGURES:
        shown = title if name == "ap50" else f"{title} at score {comparison.score_threshold:.2f}"
        lines.append(f"  {shown:<36}{_change(getattr(overall, name))}")
    lines += [
        f"  {cut(f'AP50 {group.name}', 35):<36}{_change(group.ap50)}"
        for group in comparison.of("label")
        if len(comparison.of("label")) > 1 and not group.few
    ]
    if comparison.resampled == "too few":
        lines += wrapped("The test split has too few moments for intervals.")
    elif overall.few:
        lines += wrapped("The test split is small: an interval that holds 0 does not say that nothing changed.")
    return lines


def _change(change: Change) -> str:
    if change.baseline is None or change.candidate is None or change.difference is None:
        return "     -      -"
    shown = f"{change.baseline:6.1%} {change.candidate:6.1%} {100 * change.difference:+6.1f}"
    if change.low is None or change.high is None:
        return shown
    return f"{shown} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"


def _next_lines(trained: Trained) -> list[str]:
    candidate, dataset = shlex.quote(trained.candidate), shlex.quote(trained.dataset)
    baseline = shlex.quote(trained.model) if trained.model else _starter()
    spot = f" --weakspot {trained.weak_spot}" if trained.weak_spot is not None else ""
    training = trained.training
    size = f" --against-input {training.input}" if training.input != training.parent_input else ""
    return [
        "next:",
        *_command(f"hub evaluate {candidate}", f"--against {baseline}", f"--dataset {dataset}{size}"),
        *_command(f"hub quantize {candidate}", f"--dataset {dataset}"),
        *_command(f"hub gate {candidate}", f"--against {baseline}", f"--dataset {dataset}{spot}{size}"),
    ]


def _command(*words: str) -> Sequence[str]:
    """Return a command on one line, or on several where it is long."""
    whole = "  " + " ".join(words)
    return [whole] if len(whole) <= 80 else ["  " + f" {chr(92)}\n      ".join(words)]


def _starter() -> str:
    """Return the starter model's folder as a command names it."""
    from edge.detector.opening import find_starter

    found = find_starter()
    here = Path.cwd()
    return shlex.quote(str(found.relative_to(here) if found.is_relative_to(here) else found))


def _row(label: str, text: str) -> list[str]:
    first, *more = wrapped(text, width=80 - _LABEL)
    return [f"{label:<{_LABEL}}{first}", *(" " * _LABEL + line for line in more)]
