"""What the annotator reads: README.txt of an exported batch."""

from collections.abc import Iterator, Sequence
from typing import Final

from edge.contract.samples import WitnessKind, plain_text
from hub.annotation import CARRIED, CONTEXT, AnnotationSet
from hub.batch_view import BatchView
from hub.contact_sheet import DETECTOR
from hub.passes import Pass

MAX_LINE: Final = 500

_RULES: Final = """\
- Nothing under 3 x 3 pixels.
- Look row by row, from top to bottom, in each row from RIGHT to LEFT: this is the order in which people overlook
  least. The proposed boxes are listed in this order.
- Proposed boxes may be wrong: move them, relabel them, delete them.
- Look at the whole image, not only where a miss is suspected. An image without any object stays empty.
"""
_RULE_OF_ALL: Final = """\
- Draw a box around every object of the labels below that you can recognise, also around those that the detector
  missed. What you cannot recognise, leave.
"""
_RULE_OF_ONE: Final = """\
- Draw a box around every {label} that you can recognise, also around those that the detector missed. What you cannot
  recognise, leave. Draw nothing else: every other label has a pass of its own.
"""
_RULE_OF_CONTEXT: Final = """\
- The boxes of the passes before ({before}) are context: there to be seen. Leave them as they are.
"""
_RULES_OF_PASS: Final = _RULES.replace("move them, relabel them, delete them", "move them, delete them")

_TEST_SHARE: Final = """\
The images below, with "-test-" in their names, measure what the training brings. Annotate them as carefully as all
others. NEVER TRAIN ON THEM, and never choose a model's settings by them: it would make the model look better than it
is, and the weak point look fixed. Which images these are was decided by camera and time alone and does not change.

"""
_DRAWN: Final = """\
All of these images were drawn at random and are for measuring: they tell how often a machine's labels are wrong.
Annotate every one of them. NEVER TRAIN ON THEM: of a model that has seen them they tell nothing.

"""
_NO_TEST_SHARE: Final = "None of these images: all of them may be trained on.\n"

_SECOND_LOOK: Final = """\
The boxes are those that people drew on these images before. Some of them may be wrong, some may be missing, and some
of the images have no fault at all. Correct what is wrong; what you leave counts as right.
"""

_ORIGINS: Final = {
    DETECTOR: "the detector reported it",
    WitnessKind.GAP.value: "suspected: a followed object vanished here for a while and came back",
    WitnessKind.CANDIDATE.value: "suspected: the detector was never sure enough, again and again at this place",
    WitnessKind.MOTION.value: "suspected: something of a fitting size moved here",
    WitnessKind.ZOOM.value: "the detector sees it when it looks at an enlarged part of the image",
    WitnessKind.PEER.value: "another model saw it while a release was being judged; the detector did not",
    CARRIED: "a person drew it on another image of this camera, and the picture has not changed here",
    CONTEXT: "a person drew it in a pass before: leave it as it is",
}


def title_of(batch: BatchView) -> str:
    """Return the heading of all that is written: the batch, its weak point, and the pass."""
    turn = batch.this_pass
    title = f"Batch {batch.id}: {plain_text(batch.title, most=MAX_LINE)}"
    return title if turn is None else f"{title}; pass {turn.number} of {turn.count}: {turn.label}"


def readme(
    batch: BatchView,
    annotations: AnnotationSet,
    *,
    test: Sequence[str],
    open_with: tuple[str, str],
    files: tuple[str, str],
    again: bool,
) -> str:
    """Return the text.

    Args:
        batch: what is exported.
        annotations: the images and boxes that are written, with the labels that may be drawn.
        test: the names of the images of the test share.
        open_with: the format, and how a folder of this format is opened.
        files: the names of the contact sheet and of the manifest.
        again: it is for a second look.
    """
    return "".join(_parts(batch, annotations, test=test, open_with=open_with, files=files, again=again))


def _parts(
    batch: BatchView,
    annotations: AnnotationSet,
    *,
    test: Sequence[str],
    open_with: tuple[str, str],
    files: tuple[str, str],
    again: bool,
) -> Iterator[str]:
    title, turn, (sheet, manifest) = title_of(batch), batch.this_pass, files
    cameras = len({(member.site, member.device, member.camera) for member in batch.members})
    boxes = [box for image in annotations.images for box in image.annotations]
    shown = sum(box.origin == CONTEXT for box in boxes)
    yield f"{title}\n{'=' * len(title)}\n\n"
    yield f"The images: {plain_text(batch.title, most=MAX_LINE)}\n"
    yield f"The model that failed: {plain_text(batch.model, most=MAX_LINE)}\n"
    yield f"{len(annotations.images)} images of {cameras} camera{'s' * (cameras != 1)}"
    yield f", {len(boxes) - shown} boxes proposed{f', {shown} boxes of context' * (turn is not None)}\n"
    if turn is not None:
        yield from _of_pass(batch, turn)
    if again:
        yield f"\nA second look\n-------------\n{_SECOND_LOOK}"
    yield f"\nWhat to do\n----------\n{_rules(turn, context=shown > 0)}"
    origins = {box.origin for box in boxes}
    known = [f"  {origin:10} {meaning}\n" for origin, meaning in _ORIGINS.items() if origin in origins]
    if known:
        yield from ("\nWhere a proposed box comes from (its origin)\n\n", *known)
    yield "\nLabels\n------\n"
    yield from (f"  {label}\n" for label in (annotations.labels if turn is None else (turn.label,)))
    share = _DRAWN if batch.random else _TEST_SHARE if test else _NO_TEST_SHARE
    yield f"\nThe test share\n--------------\n{share}"
    yield from (f"  {name}\n" for name in test)
    heading = f"How to open it ({open_with[0]})"
    yield f"\n{heading}\n{'-' * len(heading)}\n{open_with[1]}"
    yield f"\nThe images carry no marks: {sheet} shows on one page where a miss is suspected and why.\n"
    yield f"{manifest} ties each image to its event: keep it, and keep the names of the images.\n"


def _of_pass(batch: BatchView, turn: Pass) -> Iterator[str]:
    """Say which pass this is, which come before and after, and what is missing."""
    yield "\nThis pass\n---------\n"
    yield "One kind of thing at a time: people overlook less so, and mistake less.\n\n"
    missing = dict(batch.unanswered)
    images = len(batch.members)
    for number, label in enumerate((*turn.before, turn.label, *turn.after), 1):
        if label == turn.label:
            state = "this pass"
        elif label in turn.after:
            state = "comes next" if label == turn.after[0] else "later"
        elif label not in missing:
            state = "done: its boxes are shown as context"
        elif missing[label] == images:
            state = "not done yet: no box of it is shown here"
        else:
            state = f"not done yet on {missing[label]} of {images} images: there no box of it is shown"
        yield f"  {number}  {label:12}  {state}\n"


def _rules(turn: Pass | None, *, context: bool) -> str:
    if turn is None:
        return _RULE_OF_ALL + _RULES
    shown = _RULE_OF_CONTEXT.format(before=", ".join(turn.before)) if context else ""
    return _RULE_OF_ONE.format(label=turn.label) + shown + _RULES_OF_PASS
