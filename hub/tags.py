"""Tags: words for what a finding or an object is like. Those of the device, and what the hub knows beside them.

A device measures (edge/TAGS.md): `tiny`, `dark`, `motion_blur` and so on. The hub adds where and when: `site:`,
`camera:`, `label:` and `hours:`, and the user's own, each by a rule over the others.

A rule is terms joined by `and`. A term is `TAG`, `not TAG` or `NAME OP NUMBER`: NAME one of `x`, `y` (the centre), `w`,
`h` (fractions of the frame, 0..1) and `hour` (local, 0..23), OP one of `<`, `<=`, `>`, `>=`.

Laws:

1. `split_tags(join_tags(tags)) == tags` for tags without spaces; a space in one becomes `_`.
2. `Where.parse(str(where)) == where`, within one time zone.
3. The user's tags come in the order of their rules; a rule sees those before it, none after it.
4. A device cannot give the hub's or the user's tags.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final, Protocol, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.tags import DEVICE_TAGS

KEYS: Final = ("site:", "camera:", "label:")
"""Tags that begin so are of the user's own making: any is known."""
HOURS: Final = tuple(f"hours:{hour:02}-{hour + 4:02}" for hour in range(0, 24, 4))
_MEASURES: Final = ("x", "y", "w", "h", "hour")
_GRAMMAR: Final = "a rule is `tag and not tag and x < 0.5`: tags, and x, y, w, h or hour compared with a number"
_COMPARISON: Final = re.compile(r"([a-z]+)\s*(<=|>=|<|>)\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)")
_TAG: Final = re.compile(r"(not\s+)?(\S+)")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_\-]{0,63}")
_LARGEST: Final = 24.0
_QUARTER_MS: Final = 900_000  # no time zone of today is shifted by less
_REMEMBERED: Final = 100_000


class TagsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tags]`: what the hub adds to the devices' tags.

    Attributes:
        timezone: of the hours, a name such as `Europe/Zurich`.
        rules: the user's own tags, each with its rule, such as `gate = "camera:plant7/cam1/gate and left"`.
    """

    timezone: str = "UTC"
    rules: dict[str, str] = {}


class Taggable(Protocol):
    """What tags can be told of: a `SightingRow`, a `FindingRow`."""

    @property
    def site(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def camera(self) -> str: ...  # noqa: D102
    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def captured_at_ms(self) -> int: ...  # noqa: D102
    @property
    def place(self) -> tuple[float, float, float, float]: ...  # noqa: D102
    @property
    def tags(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class HasTag:
    """`TAG`, or `not TAG` where it is not wanted."""

    tag: str
    wanted: bool = True

    def __str__(self) -> str:
        return self.tag if self.wanted else f"not {self.tag}"


@dataclass(frozen=True, slots=True)
class Compares:
    """`NAME OP NUMBER`."""

    name: str
    op: str
    number: float

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.number!r}"

    def holds(self, value: float) -> bool:
        """Whether the value of `name` is so."""
        at_number = value == self.number and len(self.op) == 2
        return at_number or (value < self.number if self.op[0] == "<" else value > self.number)


Term: TypeAlias = HasTag | Compares


@dataclass(frozen=True, slots=True)
class Where:
    """A rule: what all of its terms hold of. `zone` is that of `hour`."""

    terms: tuple[Term, ...]
    zone: tzinfo = UTC

    @classmethod
    def parse(cls, text: str, *, zone: tzinfo = UTC) -> "Where":
        """Return the rule written in `text`. Whether its tags are known is not asked: see `Tagger.where`.

        Raises `UnusableError`, naming the term, when one cannot be read.
        """
        return cls(tuple(_term(part) for part in re.split(r"\s+and\s+", " ".join(text.split()))), zone)

    def __str__(self) -> str:
        return " and ".join(map(str, self.terms))

    def holds(self, one: Taggable, tags: tuple[str, ...]) -> bool:
        """Whether the rule holds of what has these tags, as `Tagger.tags` tells them."""
        for term in self.terms:
            if isinstance(term, HasTag):
                if (term.tag in tags) is not term.wanted:
                    return False
            elif not term.holds(_value(term.name, one, self.zone)):
                return False
        return True


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule of the user's, its terms by what they are told by."""

    name: str
    bit: int
    of_device: Where
    of_hub: Where
    rest: Where | None  # the rules before it, and where in the frame


class Tagger:
    """Tells the tags of things.

    Attributes:
        zone: of the hours.

    Raises `UnusableError` at once for a time zone or a rule that can never be used.
    """

    def __init__(self, config: TagsConfig) -> None:
        try:
            self.zone: tzinfo = UTC if config.timezone == "UTC" else ZoneInfo(config.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            msg = f"tags.timezone: there is no time zone {config.timezone!r}"
            raise UnusableError(msg) from error
        self._rules: list[_Rule] = []
        for name, rule in config.rules.items():
            self._add_rule(name, rule)
        self._names = frozenset(config.rules)
        # what was told before, each with the bits of the rules that it leaves possible
        self._hours: dict[int, int] = {}
        self._told: dict[str, tuple[tuple[str, ...], int]] = {}
        self._told_at: dict[tuple[str, str, str, str, int], tuple[tuple[str, ...], int]] = {}

    def _add_rule(self, name: str, rule: str) -> None:
        if not _NAME.fullmatch(name) or name in ("and", "not"):
            msg = f"tags.rules: {name!r} is no plain word: a letter, then letters, digits, - and _"
            raise UnusableError(msg)
        if name in DEVICE_TAGS or name in _MEASURES:
            msg = f"tags.rules: {name} has a meaning already; give the rule another name"
            raise UnusableError(msg)
        try:
            self._rules.append(_split(name, self.where(rule), bit=1 << len(self._rules)))
        except UnusableError as error:
            msg = f"tags.rules: {name}: {error}"
            raise UnusableError(msg) from error

    def tags(self, one: Taggable) -> tuple[str, ...]:
        """Return the device's tags, then the hub's, then the user's."""
        try:
            hour = self._hours[one.captured_at_ms // _QUARTER_MS]
            own, possible = self._told[one.tags]
            at, possible_there = self._told_at[one.site, one.device, one.camera, one.label, hour]
        except KeyError:
            own, possible, at, possible_there = self._tell(one)
        tags = own + at
        possible &= possible_there
        if possible:
            for rule in self._rules:
                if possible & rule.bit and (rule.rest is None or rule.rest.holds(one, tags)):
                    tags += (rule.name,)
        return tags

    def _tell(self, one: Taggable) -> tuple[tuple[str, ...], int, tuple[str, ...], int]:
        """Return the device's tags and the hub's, each with the rules they leave possible, and remember them."""
        if max(len(self._hours), len(self._told), len(self._told_at)) >= _REMEMBERED:
            self._hours.clear()
            self._told.clear()
            self._told_at.clear()
        site, device, camera, label, quarter = one.site, one.device, one.camera, one.label, _quarter(one)
        hour = self._hours[quarter] = _hour(quarter, self.zone)
        own = tuple(dict.fromkeys(tag for tag in split_tags(one.tags) if ":" not in tag and tag not in self._names))
        of_label = (f"label:{label.replace(' ', '_')}",) if label else ()
        at = (f"site:{site}", f"camera:{site}/{device}/{camera}", *of_label, HOURS[hour // 4])
        possible = sum(rule.bit for rule in self._rules if rule.of_device.holds(one, own))
        possible_there = sum(rule.bit for rule in self._rules if rule.of_hub.holds(one, at))
        self._told[one.tags] = own, possible
        self._told_at[site, device, camera, label, hour] = at, possible_there
        return own, possible, at, possible_there

    def where(self, text: str) -> Where:
        """Return the rule that a user wrote, with the hours of this zone.

        Raises `UnusableError`, naming the term, when one cannot be read or asks for a tag that nobody gives.
        """
        where = Where.parse(text, zone=self.zone)
        known = (*DEVICE_TAGS, *HOURS, *(rule.name for rule in self._rules))
        for term in where.terms:
            if isinstance(term, HasTag) and term.tag not in known and not _is_keyed(term.tag):
                key, colon, _ = term.tag.partition(":")
                near = difflib.get_close_matches(term.tag, known, n=3) or difflib.get_close_matches(key + colon, KEYS)
                near = near or difflib.get_close_matches(term.tag, known, n=2, cutoff=0.4)
                meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join((*known, *KEYS))}"
                msg = f"nobody gives the tag {term.tag!r}; {meant}"
                raise UnusableError(msg)
        return where


def join_tags(tags: Iterable[str]) -> str:
    """Return tags as words between single spaces: ` dark tiny `, so that SQL can find a whole word."""
    words = [tag.replace(" ", "_") for tag in tags]
    return f" {' '.join(words)} " if words else ""


def split_tags(joined: str) -> tuple[str, ...]:
    """Return the words."""
    return tuple(joined.split())


def _term(text: str) -> Term:
    compared = _COMPARISON.fullmatch(text)
    if compared is not None and compared[1] in _MEASURES and float(compared[3]) <= _LARGEST:
        return Compares(compared[1], compared[2], float(compared[3]))
    tagged = _TAG.fullmatch(text)
    if tagged is None or tagged[2] in ("and", "not") or (re.search("[<>]", text) and not _is_keyed(tagged[2])):
        msg = f"the term {text!r} cannot be read; {_GRAMMAR}"
        raise UnusableError(msg)
    return HasTag(tagged[2], wanted=tagged[1] is None)


def _split(name: str, where: Where, *, bit: int) -> _Rule:
    of_device: list[Term] = []
    of_hub: list[Term] = []
    rest: list[Term] = []
    for term in where.terms:
        if isinstance(term, HasTag):
            of = of_device if term.tag in DEVICE_TAGS else of_hub if term.tag in HOURS or _is_keyed(term.tag) else rest
        else:
            of = of_hub if term.name == "hour" else rest
        of.append(term)
    device, hub, others = (Where(tuple(terms), where.zone) for terms in (of_device, of_hub, rest))
    return _Rule(name, bit, device, hub, others if rest else None)


def _is_keyed(tag: str) -> bool:
    return any(tag.startswith(key) and tag != key for key in KEYS)


def _value(name: str, one: Taggable, zone: tzinfo) -> float:
    if name == "hour":
        return _hour(_quarter(one), zone)
    x1, y1, x2, y2 = one.place
    if name == "x":
        return (x1 + x2) / 2
    if name == "y":
        return (y1 + y2) / 2
    return x2 - x1 if name == "w" else y2 - y1


def _quarter(one: Taggable) -> int:
    return one.captured_at_ms // _QUARTER_MS


@lru_cache(maxsize=_REMEMBERED)
def _hour(quarter: int, zone: tzinfo) -> int:
    """Return the hour of day, 0..23, of a quarter of an hour since 1970; of one beyond all calendars that of UTC."""
    try:
        return datetime.fromtimestamp(quarter * _QUARTER_MS / 1000, zone).hour
    except (ValueError, OverflowError, OSError):
        return quarter // 4 % 24
