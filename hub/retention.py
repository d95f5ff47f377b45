"""What of the hub's data stays, and for how long: `hub gc`, the hourly tidying of `hub serve`, and `hub forget`.

Laws:

1. `hub serve` is never held up for longer than one short transaction by `hub gc`: after each the file is left alone for
   as long as it took. `hub forget` holds it up once, while the file is written anew.
2. Findings stay as rows. What grows beside them is bounded: refused messages by number, counts of recall by age.
"""

import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from edge.contract.errors import UnusableError
from hub.config import HOUR_MS, KeepConfig
from hub.store import Store
from hub.store_forgotten import Scope
from hub.store_recall import KEPT_DAYS
from hub.store_retention import Swept

DAY_MS: Final = 24 * HOUR_MS
SPARE: Final = 0.1  # of the file: what `hub serve` leaves free, for the next frames to use
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}\Z")
_T = TypeVar("_T")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What one `hub gc` did, or with `dry_run` would do. `file_bytes`: what the file system got back."""

    frames: int
    frame_bytes: int
    file_bytes: int
    left_frames: int
    left_bytes: int
    dry_run: bool


def keep_within(store: Store, keep: KeepConfig, *, now_ms: int) -> Iterator[None]:
    """Do the hourly tidying, one short transaction a step."""
    store.upkeep.prune_recall(heard_before_ms=now_ms - KEPT_DAYS * DAY_MS)
    yield
    for _ in sweep(store, keep, now_ms=now_ms):
        yield
    for _ in store.upkeep.give_back(spare=SPARE):
        yield


def sweep(store: Store, keep: KeepConfig, *, now_ms: int, dry_run: bool = False) -> Iterator[Swept]:
    """Delete frames that are too old, or too many, one short transaction a step. With `dry_run` only count them."""
    return store.upkeep.sweep(
        came_before_ms=now_ms - int(keep.frame_days * DAY_MS), most_bytes=keep.frame_bytes, dry_run=dry_run
    )


def gently(pieces: Iterable[_T]) -> Iterator[_T]:
    """Yield the pieces; after each, pause for as long as it took, so that others come to the file."""
    started_s = time.monotonic()
    for piece in pieces:
        yield piece
        time.sleep(time.monotonic() - started_s)
        started_s = time.monotonic()


def parse_bytes(text: str) -> int:
    """Return a size such as `20G` (10**9), `500M` or `1.5T` in bytes. Raises `UnusableError`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        msg = f"{text} is no size: write it as 20G, 500M or 1000000"
        raise UnusableError(msg)
    return int(float(found[1]) * _UNITS[found[2].upper()])


def parse_scope(*, site: str, device: str, before: str, now_ms: int) -> Scope:
    """Return what shall be forgotten: a site, or SITE/DEVICE, or everything before a time, or both.

    `before` is a date or a time as ISO 8601 writes it, UTC where it names no zone. Raises `UnusableError`.
    """
    if site and device:
        msg = "--device names its site already: give one of --site and --device"
        raise UnusableError(msg)
    if not (site or device or before):
        msg = "what shall be forgotten? Give --site, --device or --before"
        raise UnusableError(msg)
    place = device.split("/") if device else [site, ""] if site else ["", ""]
    named = place if device else place[:1] if site else []
    if len(place) != 2 or not all(_NAME.match(name) for name in named):
        msg = f"{device or site} is not the name of a {'device, SITE/DEVICE' if device else 'site'}"
        raise UnusableError(msg)
    return Scope(place[0], place[1], parse_time(before, now_ms=now_ms) if before else now_ms, not before)


def parse_time(text: str, *, now_ms: int) -> int:
    """Return UTC milliseconds. Raises `UnusableError` for what is no time, or still to come."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{text} is no time: write it as 2026-01-31 or 2026-01-31T18:00+01:00"
        raise UnusableError(msg) from None
    at_ms = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms > now_ms:
        msg = f"{text} is still to come: what is captured from now on cannot be forgotten yet"
        raise UnusableError(msg)
    return at_ms
