"""`edge tune`: of which model, where its answer goes, and how it is printed."""

import tempfile
import textwrap
from pathlib import Path
from typing import Final

import msgspec

from edge.config import EdgeConfig
from edge.contract.errors import UnusableError
from edge.detector.opening import read_model
from edge.detector.tune import WORTH_A_CHANGE, TuneReport, Way
from edge.detector.tuned import TUNED_NAME, Choice, Machine
from edge.opening import active_release, tuned_path

_WIDTH: Final = 80


class WayRow(msgspec.Struct, frozen=True, kw_only=True):
    """One way of running the model, for `--json`. Times are of whole detections; None where it was not measured."""

    choice: Choice
    median_ms: float | None
    p95_ms: float | None
    recall: float | None
    precision: float | None
    moved: float | None
    against_default: float | None
    fault: str


class TuneAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`edge tune --json`."""

    release: str
    input: str
    golden: str
    pictures: int
    machine: Machine
    ways: tuple[WayRow, ...]
    picked: Choice | None
    written: str | None


def open_to_choice(config: EdgeConfig) -> None:
    """Raise `UnusableError` when the configuration names what tuning would choose: what is named wins."""
    named = [
        name
        for name, given in (
            ("runtime", config.model.runtime != "auto"),
            ("threads", config.model.threads is not None),
            ("providers", bool(config.model.providers)),
        )
        if given
    ]
    if named:
        msg = f"`model.{named[0]}` is set, and what is set wins over what is measured: take it out first"
        raise UnusableError(msg)


def target_path(model: Path | None, *, config: EdgeConfig | None, out: Path | None) -> Path:
    """Return where the answer goes: `out`, else the device's data folder, else beside the model.

    Raises `UnusableError` when nothing can be written there; better before a minute of measuring than after it.
    """
    if out is not None:
        target = out
    elif config is not None:
        target = tuned_path(config, active_release(config))
    else:
        target = read_model(model).path.with_name(TUNED_NAME)
    try:
        if config is not None:
            config.data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        msg = f"cannot write {target}: {error.strerror}; --config writes to the device's data_dir, --out FILE anywhere"
        raise UnusableError(msg) from error
    return target


def tune_answer(report: TuneReport, written: Path | None) -> TuneAnswer:
    """Return the report for `--json`."""
    width, height = report.input_size
    return TuneAnswer(
        release=report.release,
        input=f"{width}x{height}",
        golden=report.golden,
        pictures=report.pictures,
        machine=report.machine,
        ways=tuple(_row(way) for way in report.ways),
        picked=report.picked.choice if report.picked is not None else None,
        written=str(written) if written is not None else None,
    )


def tune_lines(report: TuneReport, written: Path | None) -> list[str]:
    """Return the report for a person."""
    width, height = report.input_size
    held = f"{report.pictures} golden pictures" if report.golden else "no golden set: parity is unknown"
    lines = [
        f"model    {report.release}, input {width}x{height}, {held}"[:_WIDTH],
        f"machine  {report.machine.cpu}, {report.machine.cores} cores"[:_WIDTH],
        "",
        f"{'variant':<16} {'runtime':<11} {'numbers':<7} {'threads':>7} {'ms':>7} {'p95':>7} {'parity':>7}  verdict",
    ]
    lines += [_line(way, report) for way in report.ways]
    why = dict.fromkeys(_why(way) for way in report.ways if way.fault)
    for one in why:
        lines += textwrap.wrap(one, _WIDTH, subsequent_indent="  ")
    return [*lines, "", *_conclusion(report, written)]


def _line(way: Way, report: TuneReport) -> str:
    choice = way.choice
    times = f"{_number(way.median_ms):>7} {_number(way.p95_ms):>7}"
    name = (choice.variant or "(float32 file)")[:16]
    row = f"{name:<16} {choice.runtime:<11} {choice.precision:<7} {choice.threads:>7} {times} {_parity(way):>7}"
    return f"{row}  {_verdict(way, report)}"


def _verdict(way: Way, report: TuneReport) -> str:
    if way.fault:
        return "no" if way.version else "unusable"
    if way is report.picked:
        return "picked"
    return "default" if way is report.default else "good"


def _parity(way: Way) -> str:
    if way.parity is None or way.parity.recall is None:
        return "?" if way.version else "-"
    worse = min(way.parity.recall, way.parity.precision or 0.0)
    return f"{int(worse * 1000) / 10:g} %"  # 99.97 % is not 100 %


def _why(way: Way) -> str:
    """Return why a way cannot be picked; the same for several threads is said once."""
    return f"{way.choice.variant or 'float32 file'}, {way.choice.runtime}, {way.choice.precision}: {way.fault}"


def _conclusion(report: TuneReport, written: Path | None) -> list[str]:
    picked, default = report.picked, report.default
    if picked is None:
        return [
            "Nothing here gives the boxes that it should: do not run this model on this",
            "device. Nothing written.",
        ]
    if picked is default:
        text = f"The default stays: nothing is faster by {WORTH_A_CHANGE:.0%}."
    elif picked.against_default is not None:
        text = f"Picked: {picked.choice}, {1 - picked.against_default:.0%} less time than the default."
    else:
        text = f"Picked: {picked.choice}; the default cannot be used here."
    return [*textwrap.wrap(text, _WIDTH), f"written to {written}"]


def _row(way: Way) -> WayRow:
    held = way.parity
    return WayRow(
        choice=way.choice,
        median_ms=way.median_ms,
        p95_ms=way.p95_ms,
        recall=held.recall if held is not None else None,
        precision=held.precision if held is not None else None,
        moved=held.moved if held is not None else None,
        against_default=way.against_default,
        fault=way.fault,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
