"""What `hub labels audit` prints, in lines of at most 80 characters, as JSON, and the sheet of what to look at."""

import dataclasses
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hub.audit import Audit
from hub.certify import interval
from hub.contact_sheet import PERSON, Tile, contact_sheet
from hub.inspection import Inspected
from hub.lines import wrapped
from hub.rechecked import Measured, Tally
from hub.store import Store
from hub.store_labels import Recheck

_FAULTS: Final = {
    "missing": "missing",
    "swapped": "swapped",
    "badly_placed": "badly placed",
    "extra": "extra",
    "disagreement": "disagreement",
    "random": "random",
}
_WHY: Final = 34
_AFTER_WHY: Final = 46


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What was written beside the list, None where it was not asked for or there is no list.

    Attributes:
        sheet: the PNG.
        folder: the images to look at again, with their labels; `images` of them.
    """

    sheet: Path | None = None
    folder: Path | None = None
    images: int = 0


def audit_lines(audit: Audit, *, title: str, written: Written) -> list[str]:
    """Return the table of images to look at again, what is to be expected of the whole batch, and what comes next."""
    looked_for = frozenset[str]().union(*(one.page.labels for one in audit.audited))
    lines = [*wrapped(f"batch {audit.batch_id}: {title}"), *wrapped(f"looked for: {', '.join(sorted(looked_for))}")]
    lines += ["", *_table(audit.rechecks)] if audit.rechecks else []
    lines += ["", *_expected(audit)]
    if unknown := sorted(frozenset[str]().union(*(one.unknown for one in audit.audited))):
        lines += wrapped(
            f"the model does not know {', '.join(unknown)}: for these only doubled boxes, odd sizes and places are told"
        )
    lines += measured_lines(audit.measured) if audit.measured else []
    lines += ["", *_written(written)] if written != Written() else []
    return [*lines, "", *_next(audit, written)]


def _expected(audit: Audit) -> list[str]:
    if not audit.left:
        return ["every labelled image was looked at again"]
    again = " that nobody looked at again" * (len(audit.left) < len(audit.audited))
    return wrapped(
        f"model {audit.model}: of {len(audit.left)} images{again}, {audit.expected:.1f} are expected to be wrong"
    )


def _written(written: Written) -> Iterator[str]:
    if written.sheet is not None:
        yield f"drawn: {written.sheet}"
    if written.folder is not None:
        images = f"{written.images} image{'s' * (written.images != 1)}"
        yield f"written: {written.folder}, {images} with the labels as they are"


def _table(rechecks: Sequence[Recheck]) -> list[str]:
    lines = [f"{'rank':>4} {'image':8}  {'fault':12} {'label':11} {'wrong':>5}  why"]
    for one in rechecks:
        first, *rest = textwrap.wrap(one.why, _WHY) or [""]
        label = one.label if len(one.label) <= 11 else f"{one.label[:8]}..."
        lines.append(
            f"{one.rank:>4} {one.event_id[-8:]}  {_FAULTS[one.fault]:12} {label:11} {one.score:>5.0%}  {first}"
        )
        lines += [" " * _AFTER_WHY + line for line in rest]
    return lines


def measured_lines(measured: Measured) -> list[str]:
    """Return how good the list was, as far as people have looked again."""
    lines = ["", "looked at again (95 % intervals):"]
    lines += [
        f"  {_tally('picked by the audit', measured.picks, place=True)}",
        f"  {_tally('drawn at random', measured.drawn)}",
    ]
    if measured.remaining is not None:
        estimate, low, high = measured.remaining
        lines += wrapped(
            f"of the {measured.others - measured.drawn.settled} images nobody looked at again, about {estimate:.0f} are"
            f" still wrong ({low} to {high}), by those drawn at random"
        )
    return lines


def _tally(name: str, tally: Tally, *, place: bool = False) -> str:
    if not tally.settled:
        return f"{name}: 0 of {tally.images}"
    low, high = interval(tally.wrong_anywhere, tally.settled)
    where = f", {tally.wrong} at the place named" if place else ""
    return f"{name}: {tally.wrong_anywhere} of {tally.settled} wrong ({low:.0%} to {high:.0%}){where}"


def _next(audit: Audit, written: Written) -> Iterator[str]:
    number = audit.batch_id
    if audit.enough and audit.left:
        wrong = audit.expected_at_most
        about = f"about {int(wrong + 0.5)} wrong images are" if wrong >= 1.5 else "about 1 wrong image is"
        if wrong < 0.5:
            about = "no wrong image is"
        yield from wrapped(f"enough: {about} expected among the {len(audit.left)} left")
        if wrong >= 0.5 and not audit.rechecks:
            yield f"`hub labels audit {number} --size N` lists N of them all the same"
    if not audit.rechecks:
        yield "next: hub dataset health"
        return
    folder = "again" if written.folder is None else shlex.quote(str(written.folder))
    if written.folder is None:
        yield f"next: hub labels audit {number} --export again, look again, then"
    else:
        yield f"next: look again at the images in {folder}, then"
    yield f"      hub labels import {folder} --batch {number} --review --annotator NAME"


def audit_as_json(audit: Audit, *, title: str, written: Written) -> str:
    """Return the list, every image with all its faults, what was measured and written, as one JSON object."""
    images: list[dict[str, Any]] = [
        {
            "event_id": one.page.name,
            "score": round(one.score, 4),
            "expected": round(one.expected, 4),
            "unknown": sorted(one.unknown),
            "faults": [
                {**dataclasses.asdict(fault), "probability": round(fault.probability, 4)} for fault in one.faults
            ],
        }
        for one in audit.audited
    ]
    content = {
        "batch_id": audit.batch_id,
        "title": title,
        "model": audit.model,
        "rechecks": [one._asdict() for one in audit.rechecks],
        "images": images,
        "measured": None if audit.measured is None else dataclasses.asdict(audit.measured),
        "left": len(audit.left),
        "expected_left": round(audit.expected, 4),
        "enough": audit.enough,
        "sheet": None if written.sheet is None else str(written.sheet),
        "folder": None if written.folder is None else str(written.folder),
    }
    return msgspec.json.encode(content).decode()


def audit_sheet(store: Store, audited: Sequence[Inspected], rechecks: Sequence[Recheck], *, title: str) -> bytes:
    """Return a PNG with each image of the list: the annotations, and the place in question."""
    of: Mapping[str, Inspected] = {one.page.name: one for one in audited}
    tiles = [_tile(store, of[one.event_id], one) for one in rechecks if one.event_id in of]
    return contact_sheet(tiles, title=title)


def _tile(store: Store, one: Inspected, recheck: Recheck) -> Tile:
    width, height = one.page.size
    first, *rest = textwrap.wrap(recheck.why, 56) or [""]
    return Tile(
        jpeg=store.frame(recheck.event_id),
        region=recheck.xyxy or (0.0, 0.0, float(width), float(height)),
        reason=_FAULTS[recheck.fault],
        caption=(
            f"{recheck.rank:02d} | {_FAULTS[recheck.fault]} {recheck.label} | wrong {recheck.score:.0%}",
            first,
            " ".join(rest),
        ),
        boxes=tuple((box.xyxy, PERSON) for box in one.page.boxes),
    )
