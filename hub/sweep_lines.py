"""What `hub sweep` prints, in lines of at most 80 characters. Figures are in percent, differences in points."""

from hub.evaluation.evaluate import Estimate
from hub.lines import counted, cut, wrapped
from hub.sweep import Line, Row, Sweep

_COLUMNS = "  AP50   recall at {:.2f}      ms"
_EMPTY = " " * len(_COLUMNS.format(0))


def sweep_lines(sweep: Sweep) -> list[str]:
    """Return `hub sweep`."""
    models = [sweep.model] if sweep.baseline is None else [sweep.baseline, sweep.model]
    seen = f"{counted(sweep.images, 'image')}, {counted(sweep.objects, 'object')}, frames {sweep.frame}"
    lines = [
        f"dataset {sweep.dataset[:12]}, split {sweep.split}: {seen}",
        cut(f"{sweep.runtime}, {counted(sweep.threads, 'thread')}; ms: the median of a whole detection", 80),
        "",
        *_table(models, sweep.picked.input if sweep.picked else ""),
        "",
    ]
    for note in sweep.notes:
        lines += wrapped(note)
    lines += wrapped(_verdict(sweep))
    return lines


def _table(models: list[Line], picked: str) -> list[str]:
    """Return one row a size: before, and after where there are two."""
    titles = (cut(model.release, len(_EMPTY) - 2).rjust(len(_EMPTY)) for model in models)
    lines = [" " * 9 + "".join(titles), "input    " + "".join(_COLUMNS.format(one.score_threshold) for one in models)]
    sizes = sorted({row.input for model in models for row in model.rows}, key=_area, reverse=True)
    for size in sizes:
        cells = "".join(_cells(model.at(size)) for model in models)
        mark = "  <" if size == picked else ""
        lines.append(f"{size:9}{cells}{mark}".rstrip())
    return lines


def _cells(row: Row | None) -> str:
    return _EMPTY if row is None else f" {_percent(row.ap50.value):>5} {_with_interval(row.recall):>16} {row.ms:7.1f}"


def _with_interval(of: Estimate) -> str:
    if of.value is None or of.low is None or of.high is None:
        return _percent(of.value)
    return f"{_percent(of.value)} ({100 * of.low:.0f}-{100 * of.high:.0f})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _verdict(sweep: Sweep) -> str:
    base = sweep.baseline or sweep.model
    if sweep.needed is None:
        return "nothing is picked: there is no object to measure AP50 with"
    goal = f"{100 * sweep.keep:.0f} % of the AP50 that {base.release} has at {base.runs_at}: {100 * sweep.needed:.1f}"
    if sweep.picked is None:
        return f"nothing is picked: no size keeps {goal}"
    change = sweep.picked.change
    row = sweep.model.at(sweep.picked.input)
    sure = ""
    if change.difference is not None and change.low is not None and change.high is not None:
        sure = (
            f" AP50 {100 * change.difference:+.1f} points against {base.release} at {base.runs_at}"
            f" (95 %: {100 * change.low:+.1f} to {100 * change.high:+.1f})."
        )
    faster = f"{sweep.picked.speedup:.1f} times as fast as {base.release} at {base.runs_at}"
    ms = "" if row is None else f", {row.ms:.1f} ms, {faster}"
    return f"picked: {sweep.picked.input}{ms}; the fastest that keeps {goal}.{sure}"


def _area(size: str) -> tuple[int, str]:
    width, height = map(int, size.split("x"))
    return width * height, size
