"""The names of weak spots in plain words, from their tags and the cameras they are seen by. Pure.

"tiny + motion blur, person, cameras 3 and 7": what is measured, then the labels, the hours and the sites, then the
cameras where few have most of it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

Camera = tuple[str, str, str]
MAX_CAMERAS: Final = 3
MOST: Final = 0.8
_WORDS: Final = {"border": "cut by the border", "flat": "low contrast"}


def name_of(tags: Sequence[str], seen_by: Mapping[Camera, int], fleet: Iterable[Camera]) -> str:
    """Return the name of a conjunction.

    Args:
        tags: the one that tells most first.
        seen_by: how many missed objects each camera, `(site, device, camera)`, has of it.
        fleet: all cameras, so that a name that two devices use is told with the device.
    """
    told = {prefix: _values(tags, prefix) for prefix in ("label:", "hours:", "site:", "camera:")}
    measured = [plain(tag) for tag in tags if not tag.startswith(tuple(told))]
    parts = [" + ".join(measured)] if measured else []
    parts += [plain(label) for label in told["label:"]]
    parts += [f"{hours} h" for hours in told["hours:"]]
    parts += [f"site {site}" for site in told["site:"]]
    parts += _cameras(told["camera:"], seen_by, list(fleet))
    return ", ".join(parts)


def name_of_rule(where: str) -> str:
    """Return the name of a rule that a person wrote: its words."""
    return printable(where)


def camera_names(fleet: Iterable[Camera]) -> dict[Camera, str]:
    """Return each camera's name; with its device, or its site too, where a name is used twice."""
    cameras = set(fleet)
    names = Counter(camera for _, _, camera in cameras)
    devices = Counter((device, camera) for _, device, camera in cameras)

    def name(site: str, device: str, camera: str) -> str:
        if names[camera] == 1:
            return camera
        return f"{device}/{camera}" if devices[device, camera] == 1 else f"{site}/{device}/{camera}"

    return {camera: printable(name(*camera)) for camera in cameras}


def _cameras(tagged: Sequence[str], seen_by: Mapping[Camera, int], fleet: Sequence[Camera]) -> list[str]:
    names = camera_names(fleet)
    of_tag = {"/".join(camera).replace(" ", "_"): name for camera, name in names.items()}
    if tagged:
        return [_listed([of_tag.get(tag, tag) for tag in tagged])]
    most = sorted(seen_by, key=lambda camera: (-seen_by[camera], camera))
    total, so_far = sum(seen_by.values()), 0
    for count, camera in enumerate(most[:MAX_CAMERAS], start=1):
        so_far += seen_by[camera]
        if so_far >= MOST * total:
            few = [names.get(one, "/".join(one)) for one in most[:count]]
            return [_listed(sorted(few))] if count < len(names) else []
    return []


def _values(tags: Sequence[str], prefix: str) -> list[str]:
    return [tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)]


def plain(tag: str) -> str:
    """Return a tag in plain words."""
    return printable(_WORDS.get(tag, tag.replace("_", " ")))


def _listed(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"camera {names[0]}"
    return f"cameras {', '.join(names[:-1])} and {names[-1]}"


def printable(text: str) -> str:
    """Return what a device has sent as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
