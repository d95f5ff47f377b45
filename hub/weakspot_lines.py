"""What `hub weakspots` prints, in lines of at most 80 characters, and what it says when there is none."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Final

import msgspec

from hub.lines import counted, cut, utc, wrapped
from hub.naming import DAY_MS, MIN_SUPPORT, Naming
from hub.sighting_table import MIN_OBJECTS
from hub.slices import Rate
from hub.spot_names import camera_names
from hub.spot_report import Brought, Overview, Point, Report
from hub.store_weakspots import StepRow
from hub.verdict import Outcome
from hub.weakspots import NEXT, SpotState, WeakSpot

_NAME: Final = 26
_SPANS: Final = 24
_BAR: Final = 30
_TREND: Final = {1: "up", 0: "=", -1: "down", None: ""}
_HOW: Final = "set mining.control_per_hour and mining.zoom_budget over 0 in edge.toml, or by `hub policy set`"


def table_lines(overviews: Sequence[Overview], naming: Naming) -> list[str]:
    """Return `hub weakspots`; `overviews` in the order in which they are printed."""
    if not overviews:
        return wrapped(what_is_missing(naming))
    lines = [f"{'id':>3} {'state':9} {'weak spot':{_NAME}} {'missed / elsewhere':20} {'events':>6} {'cams':>4} trend"]
    for one in overviews:
        lines += _row(one)
    if one_back := [line.spot for line in overviews if line.spot.state is SpotState.REGRESSED]:
        lines += ["", *wrapped(f"{counted(len(one_back), 'weak spot')} that had been fixed came back")]
    lines += ["", *wrapped(_base_line(naming))]
    return [*lines, f"next: hub weakspots show {overviews[0].spot.id}"]


def what_is_missing(naming: Naming) -> str:
    """Return why nothing new is named: one sentence of what is here and one of what to do."""
    table, base = naming.table, naming.base
    if not len(table.rows):
        return "no weak spot: nothing was sighted in 30 days; run `hub serve` and the devices: `edge run`"
    missed, counted = (int((table.missed & rows).sum()) for rows in (table.present, table.present & table.counted))
    if not base.objects:
        return f"no weak spot: {missed} missed, but no control frame was looked at twice, so there is no rate; {_HOW}"
    if not base.is_enough:
        return (
            f"no weak spot: two looks at control frames have found {base.objects} objects, {base.overlooked} of them"
            f" overlooked by the detector; it takes {MIN_OBJECTS} with at least one overlooked: let the devices run, or"
            " raise mining.control_per_hour"
        )
    if counted < MIN_SUPPORT:
        few = f"no weak spot: {counted} missed is too few, it takes {MIN_SUPPORT}; let the devices run"
        return " ".join((few, *_not_compared(naming)))
    return f"no weak spot: nothing stands out. {_base_line(naming)}"


def _base_line(naming: Naming) -> str:
    base = naming.base
    if not base.is_enough:
        return what_is_missing(naming).replace("no weak spot", "nothing new is named")
    told = (
        f"base: the detector overlooks {_percent(base.rate)}, {base.overlooked} of {base.objects} objects of control"
        " frames. In brackets the 95 % interval."
    )
    return " ".join((told, *_not_compared(naming)))


def _not_compared(naming: Naming) -> list[str]:
    """Return a sentence about the cameras that no rate counts, none where all are counted."""
    table = naming.table
    cameras = table.cameras_of(table.missed & table.present & ~table.counted)
    if not cameras:
        return []
    names = camera_names(table.cameras)
    few = ", ".join(names[camera] for camera in list(cameras)[:3]) + ", ..." * (len(cameras) > 3)
    without = f"{counted(len(cameras), 'camera')} without any object of a control frame"
    return [f"Not compared: {without}, with {sum(cameras.values())} missed: {few}."]


def _row(one: Overview) -> list[str]:
    spot = one.spot
    name, *rest = textwrap.wrap(spot.name, _NAME) or [""]
    rate = _rate(spot.rate) if spot.rate is not None else "not measured"
    events = spot.rate.missed if spot.rate is not None else 0
    numbers = f"{rate:20} {events:>6} {one.cameras:>4} {_TREND[one.rises]}".rstrip()
    return [
        f"{spot.id:>3} {spot.state:9} {name:{_NAME}} {numbers}",
        *(f"{'':13} {line}" for line in rest),
    ]


def show_lines(report: Report) -> list[str]:
    """Return `hub weakspots show`."""
    spot = report.spot
    lines = wrapped(f"weak spot {spot.id}: {spot.name}")
    lines += wrapped(_standing(report))
    lines += wrapped(f"rule: {spot.where}" if spot.manual else f"tags: {', '.join(spot.tags)}")
    lines += wrapped(f"cameras: {_cameras(report)}")
    lines += ["", f"{'life (UTC)':16}  {'state':9}  {'missed / elsewhere':21}  release"]
    for step in report.steps:
        if not step.measured:
            lines += _step(step)
    if report.batches:
        lines += ["", f"{'batch':>5} {'images':>6} {'test':>4} {'minutes':>7} {'MB':>6}  missed before -> after"]
        lines += [_brought(one) for one in report.batches]
    if report.releases:
        lines += ["", f"{'release':40} {'missed / elsewhere':20} {'missed':>6} {'found':>6}"]
        lines += [
            f"{cut(name, 40):40} {_rate(rate):20} {rate.missed:>6} {rate.found:>6}" for name, rate in report.releases
        ]
    lines += _trend(report)
    if report.examples:
        lines += ["", f"{'example':32} {'captured (UTC)':16} {'camera':20} frame"]
        lines += [
            f"{one.event_id:32} {utc(one.captured_at_ms)} {cut(one.camera, 20):20} {one.frame}"
            for one in report.examples
        ]
    return [*lines, "", f"next: {_next(spot)}"]


def report_as_json(report: Report) -> str:
    """Return `hub weakspots show --json`: one object."""
    whole = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    batches = [
        {field.name: getattr(one, field.name) for field in dataclasses.fields(one)} | {"cost": one.cost._asdict()}
        for one in report.batches
    ]
    seen_by = [
        {"site": site, "device": device, "camera": camera, "missed": count}
        for (site, device, camera), count in report.seen_by
    ]
    releases = [{"release": release, "rate": rate} for release, rate in report.releases]
    steps = [step._asdict() for step in report.steps]
    replaced = {"steps": steps, "batches": batches, "seen_by": seen_by, "releases": releases}
    return msgspec.json.encode(whole | replaced).decode()


def mark_lines(spot: WeakSpot) -> list[str]:
    """Return what `mark` and `new` print of a weak spot."""
    rate = f"missed {_rate(spot.rate)} elsewhere" if spot.rate is not None else "not measured yet"
    return [*wrapped(f"weak spot {spot.id}, {spot.name}: {spot.state}, {rate}"), f"next: {_next(spot)}"]


def _standing(report: Report) -> str:
    now, spot = report.measured, report.spot
    if now.rate is None:
        return f"{spot.state}; it cannot be measured now"
    told = (
        f"{spot.state}; missed {_percent(now.rate.rate)} ({_percents(now.rate.low, now.rate.high)}) against"
        f" {_percent(now.rate.against)} elsewhere: {now.rate.missed} missed and {now.rate.found} found by {now.model}"
    )
    verdict = now.verdict
    if spot.state is SpotState.TRAINED and verdict is None:
        return f"{told}; not judged yet: nothing was sighted with the release that was trained"
    if verdict is not None and verdict.outcome is Outcome.TOO_FEW:
        return f"{told}; not judged yet: too few sightings, {verdict.sightings} of about {verdict.needed}"
    return told


def _cameras(report: Report) -> str:
    names = camera_names(camera for camera, _ in report.seen_by)
    few = [f"{names[camera]} ({count})" for camera, count in report.seen_by[:8]]
    more = f" and {len(report.seen_by) - 8} more" if len(report.seen_by) > 8 else ""
    return (", ".join(few) or "none") + more


def _step(step: StepRow) -> list[str]:
    rate = ""
    if step.rate is not None and step.low is not None and step.high is not None and step.against is not None:
        rate = f"{_percent(step.rate)} ({_percents(step.low, step.high)}) / {_percent(step.against)}"
    batch = f"batch {step.batch_id}" if step.batch_id is not None else ""
    words = ", ".join(word for word in (step.model, batch, step.note) if word)
    first, *rest = textwrap.wrap(words, 28) or [""]
    line = f"{utc(step.at_ms)}  {step.state:9}  {rate:21}  {first}".rstrip()
    return [line, *(f"{'':52}{more}" for more in rest)]


def _brought(one: Brought) -> str:
    cost = one.cost
    minutes = f"{cost.minutes:g}" if cost.minutes is not None else "-"
    before = _percent(one.before.rate) if one.before is not None else "?"
    after = f"{_percent(one.after.rate)} {one.outcome}" if one.after is not None else "not judged yet"
    return (
        f"{cost.id:>5} {cost.size:>6} {cost.test:>4} {minutes:>7} {cost.frame_bytes / 1e6:>6.1f}  {before} -> {after}"
    )


def _trend(report: Report) -> list[str]:
    points = [point for point in report.trend if point.rate is not None][-_SPANS:]
    if not points:
        return []
    by = "day" if report.step_ms == DAY_MS else "hour"
    return ["", f"by {by} (UTC)", *(_point(point) for point in points)]


def _point(point: Point) -> str:
    if point.rate is None:
        return utc(point.at_ms)
    bar = "#" * round(point.rate.rate * _BAR)
    return f"{utc(point.at_ms)}  {_rate(point.rate):21} {bar}".rstrip()


def _next(spot: WeakSpot) -> str:
    if SpotState.ANNOTATED in NEXT[spot.state]:
        return f"annotate the batch, then hub weakspots mark {spot.id} annotated"
    if spot.state is SpotState.ANNOTATED:
        return f"hub train --weakspot {spot.id}; trained elsewhere: hub weakspots mark {spot.id} trained"
    if spot.state is SpotState.TRAINED:
        return "roll the release out; its sightings tell whether it is fixed"
    if SpotState.BATCHED in NEXT[spot.state]:
        return f"hub batch new --weakspot {spot.id}"
    return "nothing; it is measured on"


def _rate(rate: Rate) -> str:
    return f"{_percent(rate.rate)} ({_percents(rate.low, rate.high)}) / {_percent(rate.against)}"


def _percent(share: float) -> str:
    return f"{_figure(share)}%"


def _percents(low: float, high: float) -> str:
    return f"{_figure(low)}-{_figure(high)}"


def _figure(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.1f}"
