"""What `hub gate` prints, in lines of at most 80 characters."""

import textwrap
from typing import Final

from hub.gate import GATE, GateReport
from hub.gate_rules import Check
from hub.lines import WIDTH, cut, points, wrapped

_WORDS: Final = {"pass": "pass", "fail": "FAIL", "insufficient": "?"}
_COLUMN: Final = 6


def gate_lines(report: GateReport, *, moved: str) -> list[str]:
    """Return the verdict of a gate; `moved` says what came of the weak spot's life."""
    verdict = "passes" if report.passed else "does not pass"
    lines = [
        cut(f"{report.release} {verdict}", WIDTH),
        cut(f"against {report.baseline}, dataset {report.dataset[:12]}, budget {points(report.budget)}", WIDTH),
        "",
    ]
    for check in report.checks:
        lines += _lines(check)
    stopped = [check.name for check in report.checks if check.stops]
    if stopped:
        lines += ["", *wrapped(f"stopped by: {'; '.join(stopped)}")]
    if any(check.outcome == "insufficient" and not check.stops for check in report.checks):
        lines += ["", "? cannot be told from the test pictures; it does not stop the candidate,", "and is no pass."]
    return [*lines, "", *wrapped(f"written: {GATE} in the candidate's folder. {moved[:1].upper()}{moved[1:]}.")]


def _lines(check: Check) -> list[str]:
    word = _WORDS[check.outcome] if not (check.outcome == "insufficient" and check.stops) else "MORE"
    head = f"{word:<{_COLUMN}}{check.name}: "
    return textwrap.wrap(
        head + check.text, WIDTH, subsequent_indent=" " * _COLUMN, break_on_hyphens=False, break_long_words=True
    )
