"""Tags: words for what a finding or an object is like. Those of the device, and what the hub knows beside them.

A device measures (edge.tags): `tiny`, `dark`, `motion_blur` and so on. The hub adds where and when: `site:`, `camera:`,
`label:` and `hours:`, and the user's own, each by a rule over the others.

Law: `split_tags(join_tags(tags)) == tags` for tags without spaces; a space in one becomes `_`.
"""

from collections.abc import Iterable
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec


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


class Tagger:
    """Tells the tags of things."""

    def __init__(self, config: TagsConfig) -> None:
        self._zone = ZoneInfo(config.timezone)

    def tags(self, one: Taggable) -> tuple[str, ...]:
        """Return the device's tags, then the hub's."""
        where = (f"site:{one.site}", f"camera:{one.site}/{one.device}/{one.camera}")
        return (*split_tags(one.tags), *where, *([f"label:{one.label.replace(' ', '_')}"] if one.label else []))


def join_tags(tags: Iterable[str]) -> str:
    """Return tags as words between single spaces: ` dark tiny `, so that SQL can find a whole word."""
    words = [tag.replace(" ", "_") for tag in tags]
    return f" {' '.join(words)} " if words else ""


def split_tags(joined: str) -> tuple[str, ...]:
    """Return the words."""
    return tuple(joined.split())
