"""What `hub keys`, `hub release` and `hub repository` print, in lines of at most 80 characters, but for file names."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from hub.keys import THRESHOLDS, KeyFile
from hub.lines import WIDTH, counted, cut, utc, wrapped
from hub.release import Release
from hub.repository import Repository, clock_faults, short_ends

_MARK: Final = "*** DEVELOPMENT KEYS ***"
_RENEWED_BY: Final = {
    "root": "hub keys renew",
    "targets": "hub keys renew",
    "snapshot": "hub repository refresh",
    "timestamp": "hub repository refresh",
}


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the repository, or one that lies in the folder of keys.

    Attributes:
        role: what it signs; "" where it is no key of the repository.
        file: "" where it is not here.
    """

    name: str
    role: str
    key: str
    development: bool
    passphrase: bool
    file: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the keys of a repository stand; `ends` is UTC milliseconds by role."""

    repository: str
    root: int
    development: bool
    ends: dict[str, int]
    keys: list[KeyRow]


def standing(repository: Repository, files: Sequence[KeyFile]) -> Standing:
    """Hold the keys that lie here against those that the root names."""
    root = repository.root.signed
    by_key = {one.key: one for one in files}
    order = {role: at for at, role in enumerate(THRESHOLDS)}
    rows: list[KeyRow] = []
    for role, told in root.roles.items():
        rows += [_key_row(key, role, by_key.pop(key, None)) for key in told.keyids]
    rows += [_key_row(one.key, "", one) for one in by_key.values()]
    ends = {name: int(end.timestamp() * 1000) for name, end in repository.expiries.items()}
    return Standing(
        repository=str(repository.folder),
        root=root.version,
        development=repository.development,
        ends=ends,
        keys=sorted(rows, key=lambda row: (order.get(row.role, len(order)), row.name or "~")),
    )


def development_lines(repository: Repository) -> list[str]:
    """Return the mark of keys that are for trials; nothing where they are not."""
    if not repository.development:
        return []
    return [_MARK, "for trials only; `hub keys promote` makes real ones before real devices", ""]


def warning_lines(repository: Repository, *, now: datetime) -> list[str]:
    """Return what ends soon, what a wrong clock has signed, and what to do about it."""
    lines = clock_lines(repository, now=now)
    for role, days in short_ends(repository, now=now).items():
        when = "has ended: no device takes anything now" if days < 0 else f"ends in {counted(days, 'day')}"
        lines.append(f"{role} {when}; run: {_RENEWED_BY[role]}")
    return lines


def clock_lines(repository: Repository, *, now: datetime) -> list[str]:
    """Return that a clock was ahead when something was signed, or is behind now; nothing where neither is."""
    faults = clock_faults(repository, now=now)
    if not faults:
        return []
    days = counted(max(faults.values()), "day")
    return [f"{', '.join(faults)} signed {days} ahead of this machine's clock, {now:%Y-%m-%d}: is it right?"]


def made_lines(repository: Repository, keys: Sequence[Path], *, replaced: bool = False) -> list[str]:
    """Return what `hub keys init` and `promote` did, and what is to do now."""
    folder, first = repository.folder, keys[0]
    lines = [f"made: keys in {first}; repository in {folder}, root {repository.root.signed.version}", ""]
    if repository.development:
        lines += development_lines(repository)
    else:
        lines += [
            *wrapped(
                f"1. Take {first}/offline off this machine: the three root keys to three places (two of them are"
                " enough to sign), targets to whoever releases."
            ),
            *wrapped(f"2. {first}/online stays where `hub repository refresh` runs, daily, from cron."),
        ]
    number = "" if repository.development else "3. "
    lines += wrapped(f"{number}{folder}/metadata/root.json is what each device trusts: copy it there.")
    if replaced:
        lines += wrapped(
            f'4. The old keys sign nothing any more: write keys = "{first}" under [repository] in hub.toml, or give'
            f" --keys {first}. Devices of before follow by themselves."
        )
    return lines


def keys_lines(told: Standing) -> list[str]:
    """Return `hub keys list`."""
    lines = [_MARK, ""] if told.development else []
    lines += [f"repository {told.repository}, root {told.root}", ""]
    lines.append(f"{'signs':11}{'key':10}{'passphrase':12}file")
    for row in told.keys:
        role = row.role or "-"
        word = "" if not row.file else "yes" if row.passphrase else "no"
        file = row.file or "not here"
        remark = "" if row.role else "  (not of this repository)"
        lines.append(f"{role:11}{row.key[:8]:10}{word:12}{file}{remark}")
    lines += ["", *(f"{role:11}ends {utc(end)} UTC" for role, end in told.ends.items())]
    return [*lines, "", "two of the three root keys are enough to sign a root"]


def list_lines(found: Sequence[Release]) -> list[str]:
    """Return `hub release list`."""
    if not found:
        return ["no release yet: `hub release create FOLDER` makes one"]
    lines = [f"{'release':20} {'name':20} {'MB':>6} {'back to':>7}  {'made (UTC)':16} gate"]
    for one in found:
        signed = one.signed
        word = "passed" if one.made.baseline else "NONE"
        name = f"{cut(signed.model, 13)}/{signed.number}" + ("" if one.published else "*")
        back = "factory" if signed.baseline == 0 else str(signed.baseline)
        size = f"{one.length / 1e6:.1f}"
        lines.append(f"{name:20} {cut(signed.release, 20):20} {size:>6} {back:>7}  {utc(one.made.at_ms)} {word}")
    if not all(one.published for one in found):
        lines += ["", "* signed, not published yet: `hub repository refresh` does it"]
    return lines


def show_lines(one: Release) -> list[str]:
    """Return `hub release show`."""
    signed = one.signed
    gate = f"passed against {one.made.baseline}" if one.made.baseline else f"NONE: {one.made.ungated}"
    lines = [
        f"{signed.model}/{signed.number}  {signed.release}",
        *wrapped(f"gate        {gate}"),
        f"made        {utc(one.made.at_ms)} UTC",
        f"published   {'yes' if one.published else 'no: `hub repository refresh` does it'}",
        f"back to     {_back_to(one)}",
        f"input       {signed.input}, score threshold {signed.score_threshold_permille / 1000:g}",
        f"precisions  {', '.join(signed.precisions)}",
        f"archive     {counted(signed.files, 'file')}, {one.length / 1e6:.1f} MB",
        f"target      {one.target}",
        f"sha256      {one.sha256}",
    ]
    if signed.back:
        lines.append("also taken by devices that confirmed a higher number")
    return lines


def created_lines(one: Release, *, new: bool, repository: Repository) -> list[str]:
    """Return what `hub release create` did."""
    word = f"{one.signed.model}/{one.signed.number}"
    if not new:
        lines = wrapped(f"{word} is this folder already; nothing was released")
    else:
        lines = wrapped(f"{word} ({one.signed.release}) is signed, {one.length / 1e6:.1f} MB")
        lines += wrapped(f"back to {_back_to(one)}, for devices that leave it; --baseline names another")
    if one.published:
        ends = min(repository.expiries[role] for role in ("snapshot", "timestamp"))
        lines.append(f"published; run `hub repository refresh` before {ends:%Y-%m-%d %H:%M} UTC")
        return [*lines, "", f"next: hub rollout start {word}"]
    return [
        *lines,
        *wrapped(f"not published: copy {repository.folder} to the online keys, and `hub repository refresh`"),
    ]


def refreshed_lines(repository: Repository) -> list[str]:
    """Return what `hub repository refresh` did."""
    ends = min(repository.expiries[role] for role in ("snapshot", "timestamp"))
    count = len(repository.published.signed.targets)
    return [f"{counted(count, 'release')}, signed until {ends:%Y-%m-%d %H:%M} UTC"]


def bundle_lines(out: Path, length: int) -> list[str]:
    """Return what `hub repository bundle` did."""
    return [
        cut(f"{out}: {length / 1e6:.1f} MB", WIDTH),
        f"where the devices are: tar xf {out.name}; hub repository serve -r .",
    ]


def _back_to(one: Release) -> str:
    number = one.signed.baseline
    return "the model that the device came with" if number == 0 else f"{one.signed.model}/{number}"


def _key_row(key: str, role: str, one: KeyFile | None) -> KeyRow:
    return KeyRow(
        name=one.name if one else "",
        role=role,
        key=key,
        development=bool(one and one.development),
        passphrase=bool(one and one.encrypted),
        file=str(one.path) if one else "",
    )
