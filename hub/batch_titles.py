"""What a batch is about, in plain words, from the findings that it has."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

from edge.contract.samples import Reason
from hub.spot_names import camera_names, plain, printable
from hub.tags import split_tags

MOSTLY: Final = 0.5
MAX_NAMED_CAMERAS: Final = 3
_KINDS: Final = {
    Reason.MISSED: "missed {}",
    Reason.LOW_CONFIDENCE: "unsure {}",
    Reason.SUSPECT: "suspected false {}",
    Reason.CONTROL: "random frame",
}


class Titled(Protocol):
    """What a title is made of: a `Candidate`, a `FindingRow`."""

    @property
    def site(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def camera(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> Reason: ...  # noqa: D102
    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def tags(self) -> str: ...  # noqa: D102


def title_of(findings: Sequence[Titled]) -> str:
    """Name the most common weak point in plain words, as "missed person, mostly small and dark, cameras a and b".

    First the commonest reason and label: "mostly" when it is more than half of the findings, "and others" when it is
    less. Then the tags that at least half of all the findings have, "all" when every finding has each of them. Then the
    cameras, by device where a name is used twice. `control` frames have no part in the first two, unless there is
    nothing else.
    """
    telling = [finding for finding in findings if finding.reason is not Reason.CONTROL] or findings
    kinds = Counter(subject(finding.reason, finding.label) for finding in telling)
    kind, count = min(kinds.items(), key=by_count)
    if count < len(telling):
        kind = f"mostly {kind}" if count > MOSTLY * len(telling) else f"{kind} and others"
    words = [kind]
    tags = Counter(tag for finding in telling for tag in set(split_tags(finding.tags)))
    common = [tag for tag, times in sorted(tags.items(), key=by_count) if times >= MOSTLY * len(telling)][:3]
    if common:
        share = "all" if all(tags[tag] == len(telling) for tag in common) else "mostly"
        words.append(f"{share} {listed([plain(tag) for tag in common])}")
    cameras = sorted(camera_names((one.site, one.device, one.camera) for one in findings).values())
    named = f"cameras {listed(cameras)}" if len(cameras) > 1 else f"camera {cameras[0]}"
    words.append(named if len(cameras) <= MAX_NAMED_CAMERAS else f"{len(cameras)} cameras")
    return ", ".join(words)


def subject(reason: Reason, label: str) -> str:
    """Return what was found, as "missed person"."""
    return _KINDS[reason].format(printable(label) or "object")


def by_count(item: tuple[str, int]) -> tuple[int, str]:
    """Sort key: the most first, then the alphabet."""
    return -item[1], item[0]


def listed(words: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
