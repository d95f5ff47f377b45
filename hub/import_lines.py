"""Imports of labels as what `hub labels import` prints. Lines have at most 80 characters, but for what names files."""

import dataclasses
from collections.abc import Sequence

import msgspec

from hub.label_answers import NOBODY
from hub.labeling import Changed, FaultsError, ImportReport
from hub.lines import wrapped


def imported_lines(report: ImportReport, *, review: bool = False) -> list[str]:
    """Return what was stored, what differs from what was asked for, and what comes next. A review has only a part."""
    sets = ", ".join(f"{who} (set {number})" for who, number in zip(report.annotators, report.set_ids, strict=True))
    lines = wrapped(
        f"batch {report.batch_id}, {report.format}: {_count(report.images, 'image')},"
        f" {_count(report.boxes, 'box')} by {sets}"
    )
    lines += wrapped(f"looked for: {', '.join(report.labels)}")
    lines += _kept_lines(report)
    lines += wrapped(_changed(report.changed)) if report.changed else []
    lines += [f"fixed {line}" for line in report.fixed]
    if report.missing and not review:
        first = [f"  {name}" for name in report.missing[:5]]
        lines += [f"{_count(len(report.missing), 'image')} of the batch not in it:", *first]
        lines += ["  ..."] * (len(report.missing) > len(first))
    if NOBODY in report.annotators:
        lines += wrapped(f"nobody is named: with --annotator NAME a second one can be told from `{NOBODY}`")
    for note in report.notes:
        lines += wrapped(note)
    return [*lines, f"next: hub labels show {report.batch_id}, hub labels audit {report.batch_id}"]


def fault_lines(error: FaultsError, *, fix: bool) -> list[str]:
    """Return that nothing was imported and why, a line for each of the first faults, and what to do."""
    fixable = sum(fault.fixable for fault in error.faults)
    lines = [f"nothing is imported, {_count(len(error.faults), 'fault')}:", *(f"  {line}" for line in _lines(error))]
    if fixable and not fix:
        lines.append(f"--fix repairs {fixable} of them; its help says how")
    if any(fault.says.startswith("label ") for fault in error.faults):
        lines.append("the labels asked for: [labels] names in hub.toml, else those of the batch")
    return lines


def imported_as_json(report: ImportReport) -> str:
    """Return an import as one JSON object: the report as it stands."""
    return msgspec.json.encode(dataclasses.asdict(report)).decode()


def faults_as_json(error: FaultsError) -> str:
    """Return all faults as one JSON object, `{"faults": [{"place", "image", "says", "fixable"}]}`."""
    return msgspec.json.encode({"faults": [dataclasses.asdict(fault) for fault in error.faults]}).decode()


def _kept_lines(report: ImportReport) -> list[str]:
    if not report.proposed:
        return []
    share = report.kept / report.proposed
    lines = [f"kept untouched: {report.kept} of {_count(report.proposed, 'proposed box')} ({share:.0%})"]
    if report.kept == report.proposed == report.boxes:
        lines += wrapped("nothing was changed or added: is this the file that came back, not the one that went out?")
    return lines


def _changed(changed: Changed) -> str:
    if not changed.images:
        return "nothing has changed since the earlier import"
    counts = [("added", changed.added), ("removed", changed.removed), ("moved", changed.moved)]
    counts.append(("relabelled", changed.relabelled))
    told = ", ".join(f"{count} {what}" for what, count in counts if count)
    return f"it replaces an earlier import, {_count(changed.images, 'image')} changed: boxes {told}"


def _lines(error: FaultsError) -> Sequence[str]:
    return str(error).splitlines()


def _count(count: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("x") else f"{what}s"
    return f"{count} {what if count == 1 else plural}"
