"""What `hub verdicts` prints, in lines of at most 80 characters; its JSON; and the sheet of what was wrong."""

import dataclasses
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.policy import BUILT_IN, Weights
from edge.contract.samples import Reason
from hub.contact_sheet import DETECTOR, PERSON, Tile, contact_sheet
from hub.finding_verdicts import Camera, Judged, Row, Verdict, table
from hub.lines import cut, wrapped
from hub.shares import LEAST
from hub.spot_names import camera_names
from hub.store import FrameState, Store
from hub.weight_policies import MIN_SEVERITY, Sent
from hub.witness_weights import KEYS, Proposal, Quality

MAX_WRONG: Final = 40
_BINS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.001)
_CAMERA: Final = 22
_REASONS: Final = {
    Reason.MISSED: "missed",
    Reason.LOW_CONFIDENCE: "low_confidence",
    Reason.SUSPECT: "suspect",
    Reason.CONTROL: "objects found",
}


def verdict_lines(judged: Judged, proposed: Sequence[Proposal[Camera]]) -> list[str]:
    """Return `hub verdicts`."""
    if not judged.verdicts and not judged.seen:
        return wrapped(
            "no finding is judged yet: that takes annotated images; hub batch new, hub batch export ID, then hub"
            " labels import FILE --batch ID"
        )
    rows = table(judged)
    names = camera_names({row.camera for row in rows if row.camera is not None})
    lines = [f"{'camera':{_CAMERA}} {'findings':14} {'judged':>6} {'right':>6} {'':>6}  95 %"]
    for camera, group in itertools.groupby(rows, key=lambda row: row.camera):
        name = "all" if camera is None else names[camera]
        for number, row in enumerate(group):
            lines.append(f"{cut(name if not number else '', _CAMERA):{_CAMERA}} {_row(row)}".rstrip())
    if any(row.share is None for row in rows):
        lines.append(f"too few: it takes {LEAST} judged")
    if any(row.reason is Reason.CONTROL for row in rows):
        lines += wrapped("objects found: what the detector had of all that people drew on random frames")
    lines += ["", *wrapped("Shares of what was annotated; of all findings only where a batch was drawn at random.")]
    return [*lines, *_weight_lines(proposed), *_reliability(proposed)]


def sent_lines(proposed: Sequence[Proposal[Camera]], *, sent: Sequence[Sent], gone: Sequence[Camera]) -> list[str]:
    """Return what `hub verdicts --send` has changed."""
    lines = [] if sent else ["no weights were changed: `hub verdicts` says what each camera needs"]
    for one in sent:
        lines += ["", "/".join(one.camera), *_table_of(one.before, one.after)]
        lines += [line for of in proposed if of.camera == one.camera for line in _dropped(of, "")]
    for camera in gone:
        lines += wrapped(f"{'/'.join(camera)} got none: its device has no such camera any more")
    if sent:
        places = sorted({one.camera[:2] for one in sent})
        lines += ["", *wrapped("stored; hub serve publishes it. Who follows it:")]
        lines += [f"  hub policy show {site} {device}" for site, device in places]
    return lines[1:] if lines and not lines[0] else lines


def verdicts_as_json(
    judged: Judged, proposed: Sequence[Proposal[Camera]], *, sent: Sequence[Sent], gone: Sequence[Camera]
) -> str:
    """Return `hub verdicts --json`: one object."""
    findings = [
        {
            "event_id": one.finding.event_id,
            "camera": "/".join(one.camera),
            "reason": one.finding.reason,
            "label": one.finding.label,
            "severity": one.finding.severity,
            "witnesses": one.finding.witnesses,
            "refuted": one.finding.refuted,
            "image": one.image,
            "batch": one.batch_id,
            "right": one.right,
        }
        for one in judged.verdicts
    ]
    rows = [_plain(row) | {"camera": None if row.camera is None else "/".join(row.camera)} for row in table(judged)]
    weights = [
        {key: value for key, value in _plain(one).items() if key not in {"foreseen", "right"}}
        | {"camera": "/".join(one.camera)}
        for one in proposed
    ]
    changed = [_plain(one) | {"camera": "/".join(one.camera)} for one in sent]
    whole = {
        "table": rows,
        "findings": findings,
        "weights": weights,
        "sent": changed,
        "gone": ["/".join(camera) for camera in gone],
    }
    return msgspec.json.encode(whole).decode()


def wrong_sheet(store: Store, judged: Judged) -> bytes:
    """Return a contact sheet of the findings that were wrong, the surest first, a PNG.

    Raises `UnusableError` where none was, or no frame of one is here.
    """
    wrong = sorted((one for one in judged.verdicts if not one.right), key=lambda one: -one.finding.severity)
    tiles = [tile for one in wrong[:MAX_WRONG] if (tile := _tile(store, one)) is not None]
    if not tiles:
        msg = "there is no picture of a wrong finding: " + ("none is here" if wrong else "none was wrong")
        raise UnusableError(msg)
    of = f", the {len(tiles)} surest" if len(wrong) > len(tiles) else ""
    return contact_sheet(tiles, title=f"{len(wrong)} of {len(judged.verdicts)} judged findings were wrong{of}")


def _row(row: Row) -> str:
    name = _REASONS[row.reason] if row.witness is None else f"  {row.witness.value}"
    if row.share is None:
        return f"{name:14} {row.of:>6} {row.right:>6}         too few"
    share = f"{100 * row.share.share:.0f}%"
    return f"{name:14} {row.of:>6} {row.right:>6} {share:>6}  {100 * row.share.low:.0f}-{100 * row.share.high:.0f}"


def _weight_lines(proposed: Sequence[Proposal[Camera]]) -> list[str]:
    if not proposed:
        return []
    names = camera_names({one.camera for one in proposed})
    head = f"{'weights of camera':{_CAMERA}} {'judged':>6}  {'log loss':16} {'Brier score':14}  weights"
    lines = ["", head]
    for one in proposed:
        loss, brier = _before_after(one.before, one.after)
        line = f"{cut(names[one.camera], _CAMERA):{_CAMERA}} {one.verdicts:>6}  {loss:16} {brier:14}  {_word(one)}"
        lines.append(line.rstrip())
    for one in proposed:
        lines += _dropped(one, f"{names[one.camera]}: ")
    told = "Before -> after; after is of weights that were fitted without the finding that they are tried on."
    if any(one.present != BUILT_IN for one in proposed):
        told += " Before is not, where the weights in force were fitted to these verdicts: it looks better than it is."
    lines += wrapped(told)
    if any(one.better for one in proposed):
        lines.append("next: hub verdicts --send")
    return lines


def _before_after(before: Quality | None, after: Quality | None) -> tuple[str, str]:
    if before is None:
        return "", ""
    if after is None:
        return f"{before.log_loss:.3f}", f"{before.brier:.3f}"
    return f"{before.log_loss:.3f} -> {after.log_loss:.3f}", f"{before.brier:.3f} -> {after.brier:.3f}"


def _word(one: Proposal[Camera]) -> str:
    if one.missing:
        return f"needs {one.missing} more"
    return "better" if one.better else "as they are"


def _dropped(one: Proposal[Camera], name: str) -> list[str]:
    """Say what a camera with new weights does not report any more: it is not seen again, right or wrong."""
    under = one.foreseen[:, 1] < MIN_SEVERITY
    if not (one.better and under.any()):
        return []
    right = int((one.right[under] > 0).sum())
    return wrapped(
        f"{name}{int(under.sum())} of {one.verdicts} judged would fall under a min_severity of {MIN_SEVERITY:g} and"
        f" not be reported, {right} of them right; hub policy can lower it"
    )


def _reliability(proposed: Sequence[Proposal[Camera]]) -> list[str]:
    tried = [one for one in proposed if one.after is not None]
    if not tried:
        return []
    foreseen = np.concatenate([one.foreseen for one in tried])
    right = np.concatenate([one.right for one in tried])
    lines = ["", f"{'severity':12} {'judged':>7} {'right before':>13} {'judged':>8} {'right after':>12}"]
    for low, high in itertools.pairwise(_BINS):
        cells = []
        for side in (0, 1):
            inside = (foreseen[:, side] >= low) & (foreseen[:, side] < high)
            share = f"{100 * right[inside].mean():.0f}%" if inside.any() else ""
            cells.append((int(inside.sum()), share))
        (before, share_before), (after, share_after) = cells
        if before or after:
            name = f"{low:.1f} to {min(1.0, high):.1f}"
            lines.append(f"{name:12} {before:>7} {share_before:>13} {after:>8} {share_after:>12}")
    return lines


def _table_of(before: Weights, after: Weights) -> list[str]:
    lines = ["  " + "".join(f"{key:>11}" for key in KEYS)]
    lines += ["  " + "".join(f"{getattr(weights, key):>11.2f}" for key in KEYS) for weights in (before, after)]
    return lines


def _tile(store: Store, one: Verdict) -> Tile | None:
    row = store.finding(one.image)
    if row.frame_state is not FrameState.PRESENT:
        return None
    finding = one.finding
    captured = datetime.fromtimestamp(finding.captured_at_ms / 1000, UTC)
    told = ", ".join(f"{witness.kind} {witness.score:.2f}" for witness in finding.witnesses)
    detections = [
        (box.xyxy, DETECTOR) for box in finding.boxes if box.witness is None and box.score >= finding.score_threshold
    ]
    return Tile(
        jpeg=store.frame(one.image),
        region=finding.region,
        reason=finding.reason.value,
        caption=(
            f"{finding.camera} | {captured:%Y-%m-%d %H:%M:%S} UTC",
            f"{finding.reason} {finding.severity:.2f} | {finding.label or 'no label'}",
            told or ", ".join(finding.tags),
        ),
        boxes=(*detections, *((box.xyxy, PERSON) for box in one.truth.boxes)),
    )


def _plain(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
