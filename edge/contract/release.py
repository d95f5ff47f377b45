"""What is signed of a release beside its bytes: the custom metadata of its target. Whole numbers only, no floats.

A release is one target: an uncompressed tar of the model folder (the card, the ONNX files, the golden set), regular
files with plain relative names only (`is_plain`), `model.json` at its top.

Law: a device goes below the highest number it ever confirmed only where something signed says so: the release that it
leaves names the one before it as its `baseline`, or the release that it takes says `back`.
"""

import re
from typing import Annotated, Any, Final

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import SCHEMA, Label, Name

KEY: Final = "weakspot"
MOST_FILES: Final = 256
MOST_BYTES: Final = 2 << 30
DEEPEST: Final = 4
LONGEST_NAME: Final = 100
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._ +-]*[A-Za-z0-9._+-])?")
_SHA256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class SignedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """One release of one model line.

    Attributes:
        model: the line: the name of the card.
        release: its name, for people.
        number: rises with every release of the line, from 1; the model that a device was installed with is 0.
        baseline: the number of the release that it replaces; a device may go back to it.
        back: it may be taken though its number is below the highest that a device confirmed.
        card_sha256: of `model.json`.
        input: WIDTHxHEIGHT.
        score_threshold_permille: the working threshold.
        precisions: of the card's file and its variants.
        files, unpacked_bytes: of the archive.
    """

    schema: int = SCHEMA
    model: Name
    release: Label
    number: Annotated[int, msgspec.Meta(ge=1, le=999_999)]
    baseline: Annotated[int, msgspec.Meta(ge=0, le=999_999)] = 0
    back: bool = False
    card_sha256: _SHA256
    input: str
    score_threshold_permille: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    precisions: tuple[str, ...] = ()
    files: Annotated[int, msgspec.Meta(ge=2, le=MOST_FILES)]
    unpacked_bytes: Annotated[int, msgspec.Meta(ge=1, le=MOST_BYTES)]


def target_name(model: str, number: int) -> str:
    """Return the name of a release's target."""
    return f"{model}/{number:06d}.tar"


def is_plain(name: str, *, deepest: int = DEEPEST) -> bool:
    """Return whether a file of a release may have this name.

    At most `deepest` parts between slashes and 100 characters in all; a part is of ASCII letters, digits and `._ +-`,
    begins with a letter, a digit or `_`, and does not end with a space. The files that the card names have one part.
    """
    parts = name.split("/")
    return len(parts) <= deepest and len(name) <= LONGEST_NAME and all(map(_PLAIN.fullmatch, parts))


def to_custom(release: SignedRelease) -> dict[str, Any]:
    """Return it as the custom metadata of a target."""
    return {KEY: msgspec.to_builtins(release)}


def from_custom(custom: Any) -> SignedRelease:
    """Read it. Raises `UnusableError` when it is not a release of this schema."""
    try:
        found = msgspec.convert(custom[KEY], SignedRelease)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        msg = f"the signed target is no release: {error}"
        raise UnusableError(msg) from error
    if found.schema != SCHEMA:
        msg = f"the signed release has the schema {found.schema}, this side reads {SCHEMA}"
        raise UnusableError(msg)
    return found
