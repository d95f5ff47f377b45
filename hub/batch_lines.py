"""Batches as what the `hub batch` commands print. Lines have at most 80 characters, but for what names files."""

import dataclasses
import shlex
from collections.abc import Sequence

import msgspec

from hub.batch_titles import by_count
from hub.batches import Batch, batch_rows
from hub.export import CONTACT_SHEET, README, ExportReport
from hub.lines import cut, utc, wrapped
from hub.store import BatchRow, FindingRow, Store


def list_lines(batches: Sequence[BatchRow]) -> list[str]:
    """Return `hub batch list`, oldest first."""
    if not batches:
        return ["no batch yet: `hub batch new` makes one"]
    lines = [f"{'id':>4}  {'made (UTC)':16}  {'images':>6}  weak point"]
    lines += [
        f"{row.id:>4}  {utc(row.created_at_ms)}  {row.size - row.forgotten:>6}  {cut(row.title, 47)}" for row in batches
    ]
    return lines


def show_lines(batch: Batch, rows: Sequence[FindingRow]) -> list[str]:
    """Return `hub batch show`. `rows` are the findings of the members, by rank."""
    test = sum(member.test for member in batch.members)
    lines = [
        *wrapped(f"batch {batch.id}: {batch.title}"),
        f"{batch.size} images, made {utc(batch.row.created_at_ms)} UTC",
        *wrapped(f"{batch.row.forgotten} more were forgotten (`hub forget`)") * (batch.row.forgotten > 0),
        *wrapped(f"model that failed: {batch.row.model}"),
        *wrapped(
            "drawn at random, all of them for measuring: to be annotated, never to be trained on"
            if batch.row.random
            else f"{test} marked `test`: to be annotated as the others, never to be trained on"
        ),
        "",
        f"{'rank':>4}  {'':4}  {'event':8}  {'camera':14}  {'gain':>8}  why",
    ]
    for member, row in zip(batch.members, rows, strict=True):
        first, *rest = wrapped(member.why, width=32)
        mark = "test" if member.test else ""
        lines.append(
            f"{member.rank:>4}  {mark:4}  {row.event_id[-8:]}  {cut(row.camera, 14):14}  {member.gain:>8.2f}  {first}"
        )
        lines += [" " * 48 + line for line in rest]
    return lines


def made_lines(batch: Batch) -> list[str]:
    """Return what `hub batch new` prints: what was made, what differs from what was asked for, and what comes next."""
    lines = wrapped(f"batch {batch.id}: {batch.size} images, {batch.title}")
    for note in batch.notes:
        lines += wrapped(note)
    return [*lines, f"next: hub batch export {batch.id} --format cvat --out batch-{batch.id}"]


def exported_lines(report: ExportReport, *, batch_id: int, label_pass: str) -> list[str]:
    """Return what `hub batch export` prints: what was written, what was left out, and what comes next."""
    boxes = ", ".join(f"{count} {origin}" for origin, count in sorted(report.boxes.items(), key=by_count)) or "none"
    lines = [f"{report.images} images in {report.out}"]
    lines += [f"{report.test} of them are the test share: annotate them too, never train on them"] * (report.test > 0)
    lines += [f"boxes to start from: {boxes}"]
    lines += [f"boxes not written: {count} {why}" for why, count in sorted(report.dropped.items(), key=by_count)]
    lines += [f"left out: {event_id}: {why}" for event_id, why in report.left_out]
    for note in report.notes:
        lines += wrapped(note)
    turn = f" --pass {shlex.quote(label_pass)}" if label_pass else ""
    return [
        *lines,
        f"next: {README} says how to open it, {CONTACT_SHEET} shows all on one page",
        f"then: hub labels import FILE --batch {batch_id}{turn} --annotator NAME",
    ]


def batch_as_json(store: Store, batch: Batch) -> str:
    """Return a batch as one JSON object: its row, and `members` by rank with what was suspected in each.

    `test` of a member: it is annotated and never trained on. `notes` are there when the batch has just been made.
    """
    members = [
        {
            "rank": member.rank,
            "event_id": row.event_id,
            "group_id": member.group_id,
            "site": row.site,
            "device": row.device,
            "camera": row.camera,
            "captured_at_ms": row.captured_at_ms,
            "reason": row.reason,
            "label": row.label,
            "severity": row.severity,
            "gain": member.gain,
            "why": member.why,
            "test": member.test,
        }
        for member, row in zip(batch.members, batch_rows(store, batch), strict=True)
    ]
    notes = {"notes": batch.notes} if batch.notes else {}
    return msgspec.json.encode({**dataclasses.asdict(batch.row), "members": members, **notes}).decode()
