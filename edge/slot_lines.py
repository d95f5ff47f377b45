"""`edge model list`: what the device holds, as a report and as lines."""

import textwrap
from pathlib import Path
from typing import Final

import msgspec

from edge.config import EdgeConfig
from edge.contract.errors import UnusableError
from edge.contract.rollout import Phase
from edge.detector.opening import read_model
from edge.detector.tuned import read_tuned
from edge.opening import factory_line, tuned_path
from edge.slot_state import FACTORY, back_target
from edge.slots import models_folder, read_slots, slot_path

_WIDTH: Final = 80


class HeldModel(msgspec.Struct, frozen=True, kw_only=True):
    """One slot. `uses` is what it is to the device; `tuned` the way of running it that `edge tune` chose, or ""."""

    number: int
    release: str
    uses: tuple[str, ...]
    baseline: int | None
    tuned: str
    folder: str


class ModelsReport(msgspec.Struct, frozen=True, kw_only=True):
    """`edge model list --json`.

    Attributes:
        model: the line that the device follows.
        active: the number that is to serve.
        back: the number that it may go back to; None where nothing signed allows it.
        highest: the highest number ever confirmed.
        below: why `active` may be below it; "" where it is not.
        starts: of `active`, since one was counted as good.
        rollout, number, phase, reason: of the last assignment; "" and None without one.
        refused: number -> why it failed here.
    """

    model: str
    active: int
    back: int | None
    highest: int
    below: str
    starts: int
    models: tuple[HeldModel, ...]
    rollout: str
    number: int | None
    phase: Phase | None
    reason: str
    refused: dict[str, str]


def report_models(config: EdgeConfig) -> ModelsReport:
    """Return what the device holds. Raises `UnusableError` when the state or the factory's model cannot be read."""
    folder, line = models_folder(config.data_dir), factory_line(config)
    slots = read_slots(folder, line)
    work = slots.work
    uses = {slots.active: ["active, on trial" if slots.on_trial else "active"]}
    if slots.active != FACTORY:
        uses.setdefault(slots.previous, []).append("previous")
    if work is not None and work.installing is not None and not slots.on_trial:
        uses.setdefault(work.installing, []).append(work.phase)
    factory = read_model(config.model.path)
    models = [
        HeldModel(
            number=FACTORY,
            release=line if factory.card is None else factory.card.release,
            uses=tuple(uses.get(FACTORY, ())),
            baseline=None,
            tuned=_tuned(tuned_path(config)),
            folder=str(factory.path.parent),
        )
    ]
    for slot in slots.held:
        path = slot_path(folder, slot.number)
        models.append(
            HeldModel(
                number=slot.number,
                release=slot.release,
                uses=tuple(uses.get(slot.number, ())),
                baseline=slot.baseline,
                tuned=_tuned(tuned_path(config, path)),
                folder=str(path),
            )
        )
    return ModelsReport(
        model=line,
        active=slots.active,
        back=back_target(slots),
        highest=slots.highest,
        below=slots.below,
        starts=slots.starts,
        models=tuple(models),
        rollout="" if work is None else work.assignment.rollout,
        number=None if work is None else work.assignment.number,
        phase=None if work is None else work.phase,
        reason="" if work is None else work.reason,
        refused={number: refusal.reason for number, refusal in slots.refused.items()},
    )


def model_lines(report: ModelsReport) -> list[str]:
    """Return the report for a person."""
    lines = [f"line      {report.model}", ""]
    lines += [f"{one.number:>6}  {one.release[:30]:<30}  {_uses(one)}" for one in report.models]
    lines.append("")
    if report.below:
        lines.append(f"below     {report.highest} was confirmed once; {report.below}")
    if report.active != FACTORY:
        way = "nothing signed allows it; --factory does" if report.back is None else _name(report, report.back)
        lines.append(f"way back  {way}")
    if report.phase is not None:
        last = f"rollout {report.rollout}: {report.number} is {report.phase.replace('_', ' ')}"
        lines.append(f"update    {last}{f': {report.reason}' if report.reason else ''}")
    lines += [f"refused   {number}: {reason}" for number, reason in report.refused.items()]
    return [
        part
        for line in lines
        for part in (textwrap.wrap(line, _WIDTH, subsequent_indent=" " * 10, drop_whitespace=True) or [""])
    ]


def _uses(model: HeldModel) -> str:
    words = [*model.uses, *(["factory"] if model.number == FACTORY else [])]
    return ", ".join([*words, f"tuned: {model.tuned}"] if model.tuned else words)


def _name(report: ModelsReport, number: int) -> str:
    release = next((one.release for one in report.models if one.number == number), "")
    return f"{number}, {release}"


def _tuned(path: Path) -> str:
    """Return in words what `edge tune` chose; one that cannot be read is followed by nobody."""
    try:
        tuned = read_tuned(path)
    except UnusableError:
        return ""
    return "" if tuned is None else str(tuned.choice)
