"""A file held against the batch that it answers: who drew what on which image, and which labels were looked for.

A label was looked for when it was asked for and the annotator's tool had it, where the file says which it had: an image
without a head is an example of "no head" only then. No database is touched here.
"""

import difflib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import plain_text
from hub.annotation import CONTEXT, Annotation
from hub.batch_view import BatchView, Member, image_names
from hub.drawn import DrawnImage, DrawnSet, Faults
from hub.export import Format
from hub.export_folder import MANIFEST
from hub.formats import Files, Source, open_files
from hub.label_faults import Asked, FaultsError, Judged, judge
from hub.label_files import read_drawn
from hub.passes import find_pass

NOBODY: Final = "annotator"  # who drew, where neither the file nor the command says
_MAX_NAME: Final = 128
_MANY: Final = 5

Boxes = Mapping[str, Sequence[Annotation]]
"""Event id to boxes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a file answers, found right.

    Attributes:
        format: of the file.
        labels: those that were looked for.
        drawn: by annotator, the boxes of each image by its event id.
        fixed: what was repaired, a line for each image.
        missing: the members that nobody answered.
        notes: what whoever imports it should know, one sentence each.
    """

    format: Format
    labels: tuple[str, ...]
    drawn: dict[str, Boxes]
    fixed: tuple[str, ...]
    missing: tuple[tuple[str, Member], ...]
    notes: tuple[str, ...]


def read_answer(
    source: Source,
    view: BatchView,
    *,
    fmt: Format | None,
    annotator: str,
    fix: bool,
    gone: frozenset[int] = frozenset(),
) -> Answer:
    """Read a file and judge it. Raises `FaultsError` with all that is wrong, `UnusableError` when it is unreadable.

    `annotator` is who drew; of a file that says who drew what, whose work is taken; empty: everybody's. `gone` are the
    ranks of the batch whose images are here no more.
    """
    members = dict(zip(image_names(view), view.members, strict=True))
    sizes = {name: (member.width, member.height) for name, member in members.items()}
    files = open_files(source)
    fmt, drawn = read_drawn(files, fmt=fmt, sizes=sizes)
    _require_pass(files, drawn, view)
    labels, notes = _looked_for(view, drawn)
    works, passed_over = _works(drawn.images, annotator)
    asked = Asked(
        batch_id=view.id,
        sizes=sizes,
        labels=labels,
        context={name: member.context for name, member in members.items()} if view.label_pass else {},
        gone=gone,
        label_pass=view.label_pass,
    )
    judged = _judged(drawn, works, asked, fix=fix)
    answered = {name for one in judged.values() for name in one.boxes}
    if not answered:
        msg = f"nothing to import: it answers no image of batch {view.id}"
        raise UnusableError(msg)
    forgotten = max(one.forgotten for one in judged.values())
    notes += [*drawn.notes, *_told(drawn, passed_over=passed_over, forgotten=forgotten)]
    return Answer(
        format=fmt,
        labels=labels,
        drawn={
            name: {members[image].event_id: boxes for image, boxes in one.boxes.items()}
            for name, one in judged.items()
            if one.boxes
        },
        fixed=tuple(line for one in judged.values() for line in one.fixed),
        missing=tuple((name, member) for name, member in members.items() if name not in answered),
        notes=tuple(notes),
    )


class _Manifest(msgspec.Struct):
    """What the export says of itself, where the whole of its folder came back."""

    label_pass: str = msgspec.field(name="pass", default="")


def _require_pass(files: Files, drawn: DrawnSet, view: BatchView) -> None:
    """Raise where the file answers another pass: what was not looked for would count as not there."""
    try:
        told = msgspec.json.decode(files[MANIFEST], type=_Manifest).label_pass if MANIFEST in files else ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = ""  # anybody's file may be called so
    if told and told != view.label_pass:
        msg = f"it answers the pass {plain_text(told)}: import it with --pass {plain_text(told)}"
        raise UnusableError(msg)
    if not view.label_pass and any(box.origin == CONTEXT for image in drawn.images for box in image.boxes):
        msg = "it has boxes of earlier passes as context, so it answers one pass: say which with --pass"
        raise UnusableError(msg)


def _looked_for(view: BatchView, drawn: DrawnSet) -> tuple[tuple[str, ...], list[str]]:
    """Return the labels that were asked for and could be drawn, and what to say of the others."""
    asked = (find_pass(view.label_pass, view.asked).label,) if view.label_pass else view.asked
    if drawn.labels is None:
        return asked, []
    had = tuple(label for label in asked if label in drawn.labels)
    if not had:
        theirs, ours = ", ".join(drawn.labels) or "none", ", ".join(asked)
        near = [one for label in asked for one in difflib.get_close_matches(label, drawn.labels, n=1)]
        meant = f"; is {near[0]!r} meant for one?" if near else ""
        what = f"this is pass {ours}" if view.label_pass else f"asked for is {ours}"
        msg = f"the annotator's labels are {theirs}, {what}{meant}"
        raise UnusableError(msg)
    lacking = [label for label in asked if label not in had]
    notes = [f"the annotator's tool did not have {', '.join(lacking)}: it counts as not looked for"] * bool(lacking)
    return had, notes


def _works(images: Sequence[DrawnImage], annotator: str) -> tuple[dict[str, list[DrawnImage]], list[str]]:
    """Return the images of each annotator whose work is taken, and who was passed over."""
    annotator = _name(annotator)
    works: dict[str, list[DrawnImage]] = {}
    for image in images:
        works.setdefault(_name(image.annotator) or NOBODY, []).append(image)
    if odd := [name for name in (*works, annotator) if len(name) > _MAX_NAME or not name.isprintable()]:
        msg = f"annotator {odd[0][:_MAX_NAME]!r}: a name has up to {_MAX_NAME} printable characters"
        raise UnusableError(msg)
    if not annotator:
        return works, []
    if annotator in works and len(works) > 1:
        return {annotator: works[annotator]}, [name for name in works if name != annotator]
    if len(works) > 1:
        names = ", ".join([*sorted(works)[:_MANY], *["..."] * (len(works) > _MANY)])
        msg = f"{len(works)} annotators drew in this file: name one of {names} with --annotator, or none for all"
        raise UnusableError(msg)
    return {annotator: [image for images in works.values() for image in images]}, []


def _name(text: str) -> str:
    """Return a name as it is compared: an accent may be written in two ways that look alike."""
    return unicodedata.normalize("NFC", text.strip())


def _judged(
    drawn: DrawnSet, works: Mapping[str, Sequence[DrawnImage]], asked: Asked, *, fix: bool
) -> dict[str, Judged]:
    faults = Faults(drawn.faults)
    judged: dict[str, Judged] = {}
    for name, images in works.items():
        judged[name], found = judge(images, asked, fix=fix)
        faults += found
    if faults:
        raise FaultsError(faults)
    return judged


def _told(drawn: DrawnSet, *, passed_over: Sequence[str], forgotten: int) -> list[str]:
    notes = []
    if drawn.unanswered:
        some = ", ".join(plain_text(name) for name in drawn.unanswered[:2]) + ", ..." * (len(drawn.unanswered) > 2)
        notes.append(f"{len(drawn.unanswered)} images stand in the file without an answer, such as {some}")
    if passed_over:
        notes.append(f"the work of {', '.join(passed_over)} was passed over")
    if forgotten:
        notes.append(f"{forgotten} images were forgotten since the export (`hub forget`) and passed over")
    return notes
