"""What `hub labels show` prints, in lines of at most 80 characters, but for names of images."""

import itertools
import shlex
import textwrap
from collections.abc import Mapping
from typing import Final

import msgspec

from hub.agreement import Agreement, Pairs, Score
from hub.label_standing import DisputedPlace, Round, Standing
from hub.lines import counted, cut, utc, wrapped
from hub.shares import LEAST, Share

_FEW: Final = "too few"
_MOST: Final = 12  # lines of a list
_NAME: Final = 18


def show_lines(standing: Standing) -> list[str]:
    """Return `hub labels show`."""
    pots = f", {standing.honeypots} with known answers mixed in" if standing.honeypots else ""
    lines = [
        *wrapped(f"batch {standing.batch_id}: {standing.title}"),
        *wrapped(f"{counted(standing.images, 'image')}{pots}; asked for: {', '.join(standing.labels)}"),
    ]
    if not standing.history:
        return [*lines, "", "nothing has come back yet", *(f"next: {one}" for one in _first_steps(standing))]
    lines += ["", *_history(standing), "", *_missing(standing)]
    lines += _agreement(standing.agreement)
    lines += _honeypots(standing)
    lines += _disputes(standing)
    lines += _rechecks(standing)
    return [*lines, "", f"next: {next_step(standing)}"]


def standing_as_json(standing: Standing) -> str:
    """Return it as one JSON object, with `next`: the command that comes next."""
    return msgspec.json.encode({**msgspec.structs.asdict(standing), "next": next_step(standing)}).decode()


def next_step(standing: Standing) -> str:
    """Return the command that comes next."""
    number = standing.batch_id
    if not standing.history:
        return _first_steps(standing)[0]
    if standing.missing:
        label = standing.missing[0].label
        begun = len(standing.missing[0].images) < standing.images
        if not begun and any(one.label_pass for one in standing.history):
            folder = f"batch-{number}-{''.join(letter if letter.isalnum() else '-' for letter in label)}"
            return f"hub batch export {number} --format cvat --pass {shlex.quote(label)} --out {folder}"
        return f"hub labels import FILE --batch {number} --annotator NAME"
    if standing.rechecks_open:
        return f"hub labels import FILE --batch {number} --review"
    return "hub dataset health" if standing.rechecks and not standing.audit_again else f"hub labels audit {number}"


def _first_steps(standing: Standing) -> list[str]:
    number = standing.batch_id
    return [
        f"hub batch export {number} --format cvat --out batch-{number}",
        f"hub labels import FILE --batch {number} --annotator NAME",
    ]


def _history(standing: Standing) -> list[str]:
    head = f"{'set':>4}  {'imported (UTC)':16}  {'who':12}  {'kind':7}  {'pass':10}  {'images':>7}"
    lines = [f"{head}  {'boxes':>6}  {'min':>4}", *(_round(one) for one in standing.history)]
    if any(one.counts < one.images for one in standing.history):
        lines += ["images as 2/5: two of five still count; later imports by the same person replaced the rest"]
    told = [one.minutes for one in standing.history if one.minutes is not None]
    if standing.minutes and len(told) > 1:
        lines += [f"{standing.minutes:g} minutes of people's work"]
    return lines


def _round(one: Round) -> str:
    images = str(one.images) if one.counts == one.images else f"{one.counts}/{one.images}"
    minutes = "" if one.minutes is None else f"{one.minutes:.0f}"
    line = (
        f"{one.set_id:>4}  {utc(one.at_ms)}  {cut(one.annotator, 12):12}  {one.kind:7}"
        f"  {cut(one.label_pass or 'all', 10):10}  {images:>7}  {one.boxes:>6}  {minutes:>4}"
    )
    return line.rstrip()


def _missing(standing: Standing) -> list[str]:
    told = ", ".join(f"{images} by {people or 'nobody'}" for people, images in standing.looked_at.items())
    lines = wrapped(f"images by how many annotators drew them: {told}")
    if not standing.missing:
        return [*lines, "nothing is missing: every label was looked for on every image"]
    for one in standing.missing:
        lines += wrapped(f"{one.label}: not looked for on {len(one.images)} of {standing.images} images")
        if len(one.images) < standing.images:
            lines += _listed([f"  {name}" for name in one.images], most=3)
    return lines


def _agreement(agreement: Agreement) -> list[str]:
    if not agreement.annotators:
        return ["", *wrapped("agreement: no image was drawn by two annotators in the same pass")]
    lines = ["", f"{'agreement of pairs':{_NAME}}  {'images':>6}  {'boxes':>6}  {'F1':>7}  {'mean IoU':>8}"]
    lines += [_pairs(name, one) for name, one in agreement.annotators.items()]
    for what, rows in (("pass", agreement.passes), ("label", agreement.labels)):
        lines += [_pairs(f"{what} {name or 'all'}", one) for name, one in rows.items() if len(rows) > 1]
    if agreement.confusions:
        told = ", ".join(f"{one.first} and {one.second} {one.count}" for one in agreement.confusions[:4])
        lines += wrapped(f"labels confused: {told}")
    if agreement.label_alpha is not None:
        lines += wrapped(
            f"labels beyond chance: {_decimal(agreement.label_alpha)} (Krippendorff's alpha; 1 is agreement)"
        )
    return [*lines, "", *_scores("against the others", agreement.others)]


def _pairs(name: str, one: Pairs) -> str:
    f1, iou = _decimal(one.f1), _decimal(one.mean_iou)
    return f"{cut(name, _NAME):{_NAME}}  {one.images:>6}  {one.boxes:>6}  {f1:>7}  {iou:>8}"


def _honeypots(standing: Standing) -> list[str]:
    if not standing.honeypots:
        return []
    if not standing.agreement.honeypots:
        return ["", "known answers: none of them has come back yet"]
    return ["", *_scores("known answers", standing.agreement.honeypots)]


def _scores(title: str, scores: Mapping[str, Score]) -> list[str]:
    lines = [
        f"{title:{_NAME}}  {'boxes':>6}  {'found':>16}  {'missed':>6}  {'label':>5}  {'extra':>5}  {'mean IoU':>8}",
        *(_score(name, one) for name, one in scores.items()),
    ]
    if any(one.found_share is None for one in scores.values()):
        lines += [f"too few: it takes {LEAST} boxes"]
    return lines


def _score(name: str, one: Score) -> str:
    return (
        f"{cut(name, _NAME):{_NAME}}  {one.known:>6}  {_share(one.found_share):>16}  {one.missed:>6}"
        f"  {one.wrong_label:>5}  {one.extra:>5}  {_decimal(one.mean_iou):>8}"
    )


def _disputes(standing: Standing) -> list[str]:
    if not standing.disputes:
        return []
    images = len({one.event_id for one in standing.disputes})
    kept = sum(one.kept for one in standing.disputes)
    lines = wrapped(
        f"{counted(len(standing.disputes), 'dispute')} on {counted(images, 'image')}; until somebody looks again, the"
        f" answer has {kept} of these boxes"
    )
    told = []
    for image, places in itertools.groupby(standing.disputes, key=lambda one: one.image):
        told += [f"  {image}", *(line for one in places for line in _place(one))]
    return ["", *lines, *_listed(told, most=_MOST)]


def _place(one: DisputedPlace) -> list[str]:
    x1, y1, *_ = one.xyxy
    what = f"{one.labels[0]}, " if len(one.labels) == 1 else ""
    text = f"at {x1:.0f}, {y1:.0f}: {what}{one.why} ({', '.join(one.annotators)})"
    return textwrap.wrap(text, 80, initial_indent=" " * 4, subsequent_indent=" " * 6)


def _rechecks(standing: Standing) -> list[str]:
    if not standing.rechecks:
        return []
    return ["", f"audit: {standing.rechecks_open} of {counted(standing.rechecks, 're-check')} still to be looked at"]


def _listed(lines: list[str], *, most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], "  ... `--json` lists all"]


def _share(share: Share | None) -> str:
    if share is None:
        return _FEW
    return f"{100 * share.share:.0f}% ({100 * share.low:.0f}-{100 * share.high:.0f})"


def _decimal(number: float | None) -> str:
    return _FEW if number is None else f"{number:.2f}"
