"""What `hub costs` prints, in lines of at most 80 characters, and its JSON."""

import dataclasses
import textwrap
from typing import Any, Final

import msgspec

from hub.account import Account, Line
from hub.lines import wrapped
from hub.slices import Rate

_HEAD: Final = (
    f"{'images':>6} {'boxes':>6} {'reviews':>7} {'machine':>7} {'minutes':>7} {'cost':>9} {'settled':>7} {'misses':>6}"
)


def cost_lines(account: Account) -> list[str]:
    """Return `hub costs`."""
    if not account.batches:
        return wrapped("nothing was labelled yet: hub labels import FILE --batch ID")
    lines = [f"{'batch':>5} {_HEAD}"]
    lines += [_row(line, "-" if line.batch_id is None else str(line.batch_id)) for line in account.batches]
    lines += [_row(account.total, "all")]
    told = [line for line in account.batches if line.before is not None]
    if told:
        lines += ["", f"{'batch':>5} {'spot':>4} missed before -> after"]
        lines += [f"{line.batch_id:>5} {line.weak_spot_id:>4} {_brought(line)}" for line in told]
    if account.spots:
        lines += ["", f"{'spot':>4} {'batches':>7} {'minutes':>7} {'cost':>9}  {'missed before -> after':24} weak spot"]
        lines += [_spot(line) for line in account.spots]
    return [*lines, "", *_sentences(account)]


def account_as_json(account: Account) -> str:
    """Return `hub costs --json`: one object."""
    lines = {"batches": [_plain(one) for one in account.batches], "spots": [_plain(one) for one in account.spots]}
    whole = {field.name: getattr(account, field.name) for field in dataclasses.fields(account)}
    return msgspec.json.encode(whole | lines | {"total": _plain(account.total)}).decode()


def _plain(line: Line) -> dict[str, Any]:
    told = {field.name: getattr(line, field.name) for field in dataclasses.fields(line)}
    return told | {"cost_per_box": line.cost_per_box}


def _row(line: Line, name: str) -> str:
    work = line.work
    return (
        f"{name:>5} {work.images:>6} {work.boxes:>6} {work.reviews:>7} {work.machine:>7} {work.minutes:>7.4g}"
        f" {line.cost:>9.2f} {line.settled:>7} {line.misses:>6}"
    )


def _brought(line: Line) -> str:
    after = f"{_percent(line.after)} {line.outcome}" if line.after else "not judged yet"
    return f"{_percent(line.before)} -> {after}"


def _spot(line: Line) -> str:
    first, *rest = textwrap.wrap(line.title, 25) or [""]
    numbers = f"{line.weak_spot_id:>4} {line.batches:>7} {line.work.minutes:>7.4g} {line.cost:>9.2f}"
    told = f"{numbers}  {_life(line):24} {first}"
    return "\n".join((told, *(f"{'':56}{more}" for more in rest)))


def _life(line: Line) -> str:
    if line.after is None:
        return f"{_percent(line.before)}, {line.outcome}"
    return f"{_percent(line.before)} -> {_percent(line.after)} {line.outcome}"


def _percent(rate: Rate | None) -> str:
    return "?" if rate is None else f"{100 * rate.rate:.0f}%"


def _sentences(account: Account) -> list[str]:
    total, money = account.total, f" {account.currency}".rstrip()
    lines = []
    if not account.all_by_hand and not total.cost:
        lines += wrapped("no prices are set: [costs] in hub.toml")
        return lines
    if total.cost_per_box is not None:
        lines += wrapped(f"a true box cost {total.cost_per_box:.3f}{money}: {total.boxes} of them")
    if account.cost_per_fixed is not None:
        lines += wrapped(f"a fixed weak spot cost {account.cost_per_fixed:.2f}{money}: {account.fixed} of them")
    if total.work.machine and account.all_by_hand > 0:
        saved = account.all_by_hand - total.cost
        share = f" ({100 * saved / account.all_by_hand:.0f} %)" if saved > 0 else ""
        lines += wrapped(
            f"all by people would have cost {account.all_by_hand:.2f}{money}, this was {total.cost:.2f}:"
            f" {saved:.2f} less{share}"
        )
    return lines
