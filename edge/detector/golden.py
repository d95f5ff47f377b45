"""A golden set: a few pictures with the boxes of a model's float32 file, and how far another way strays from them.

It stands in a folder beside the card, which names it: JPEGs and `golden.json`. Every device holds each way of running
the model against it: a quantized file or a new runtime that silently finds nothing is a known failure of the field.

Laws:

1. The folder is whole or not there, and is never changed; the card is written last.
2. Golden boxes are those of the card's own file in float32, and of that file only: its sha256 stands in `golden.json`.
3. Nothing found where golden boxes are is never parity.

Two boxes are twins when they have one class and overlap by IoU. A box right at the working threshold may fall to either
side of it, whatever computes it; so a box counts as found again when its twin's score is at most `SLACK` below the
threshold. That all scores sink together shows in their mean.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np

from edge.contract.card import Precision
from edge.contract.errors import UnusableError
from edge.detector.detections import Detections, box_iou
from edge.detector.detector import Detector, open_detector
from edge.detector.letterbox import Size
from edge.detector.opening import CARD_NAME, ModelFile, parse_size, read_model
from edge.detector.pictures import decode_jpeg
from edge.detector.written import flush_folder, write_card, write_flushed
from edge.frame import Image

GOLDEN_NAME: Final = "golden.json"
SCHEMA: Final = 1
LOWEST_SCORE: Final = 0.05
SLACK: Final = 0.05
_FOLDER: Final = re.compile(r"golden-[0-9a-f]{8}")
_STEM = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,199}\Z"


class GoldenBox(msgspec.Struct, frozen=True, array_like=True):
    """One box: pixels of the picture, score, and index into the card's labels."""

    xyxy: tuple[float, float, float, float]
    score: float
    class_id: int


class GoldenPicture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One picture.

    Attributes:
        name: the stem of its file, `NAME.jpg`.
        sha256: of the file.
        boxes: of score .05 and more, best first, by input size WIDTHxHEIGHT.
    """

    name: Annotated[str, msgspec.Meta(pattern=_STEM)]
    sha256: str
    boxes: dict[str, tuple[GoldenBox, ...]]


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `golden.json` holds.

    Attributes:
        model_sha256: of the file that gave the boxes.
        runtime: and its version, which ran it.
        inputs: the input sizes there are boxes of, WIDTHxHEIGHT.
    """

    schema: int = SCHEMA
    model_sha256: str
    runtime: str
    inputs: tuple[str, ...]
    pictures: tuple[GoldenPicture, ...]


@dataclass(frozen=True, slots=True, eq=False)
class GoldenSet:
    """A golden set that was read and checked, its decoded pictures by name, and the sha256 of its `golden.json`."""

    golden: Golden
    images: Mapping[str, Image]
    digest: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What keeps parity.

    Attributes:
        iou: the least of twins.
        share: the least recall and precision.
        moved: the most that the mean score may move.
    """

    iou: float
    share: float
    moved: float


# Halved mantissas move a score by some thousandths and a side by half a percent. Two of a hundred boxes may go: where
# two places of a heat map are nearly equal, rounding decides which of them is the peak.
FLOATS: Final = Limits(iou=0.95, share=0.98, moved=0.01)
# 8 bits move every box. A variant is listed when it lost no more accuracy than the budget; this asks that the device
# computes that variant, so it bounds what rounding of sums and of a vendor's kernels may do.
QUANTIZED: Final = Limits(iou=0.5, share=0.95, moved=0.03)


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a detector strays from the golden set.

    Attributes:
        boxes: golden boxes at or above the working threshold.
        recall: the share of them that is found again; None without any.
        precision: the share of the detector's boxes at or above the threshold that are golden; None without any.
        extra: how many are not.
        moved: the mean of its score minus the golden one, over boxes found again.
        worst: the largest difference of the two.
        finite: False when it gave NaN or infinity on a picture.
        limits: what was asked.
    """

    boxes: int
    recall: float | None
    precision: float | None
    extra: int
    moved: float
    worst: float
    finite: bool
    limits: Limits

    @property
    def known(self) -> bool:
        """Whether there is any golden box to find."""
        return self.boxes > 0

    @property
    def fault(self) -> str:
        """Return what speaks against parity; "" when it is kept."""
        fault = ""
        if not self.finite:
            fault = "it gives NaN or infinity"
        elif self.recall is None:
            fault = "the golden set has no box at the working threshold"
        elif self.precision is None:
            fault = f"it finds nothing where {self.boxes} golden boxes are"
        elif self.recall < self.limits.share:
            fault = f"it finds {self.recall:.1%} of the golden boxes again, not {self.limits.share:.0%}"
        elif self.precision < self.limits.share:
            fault = f"{self.precision:.1%} of its boxes are golden, not {self.limits.share:.0%}"
        elif abs(self.moved) > self.limits.moved:
            fault = f"its scores are {self.moved:+.3f} off at the mean, not {self.limits.moved:g} at most"
        return fault

    @property
    def kept(self) -> bool:
        """Whether parity is kept."""
        return not self.fault


def limits_of(precision: Precision) -> Limits:
    """Return what a precision must keep."""
    return QUANTIZED if precision == "int8" else FLOATS


def write_golden(folder: Path, pictures: Mapping[str, bytes], *, sizes: Sequence[Size] = ()) -> Golden:
    """Make the golden set of a model folder and name it in its card.

    Args:
        folder: with a `model.json`.
        pictures: JPEG bytes by stem; about 8 to 16 that show what the camera sees, and objects.
        sizes: input sizes (width, height); the card's and its variants' are taken too.

    Raises `UnusableError` when a picture is none, the model cannot run or the folder cannot be written.
    """
    found = read_model(folder)
    card = found.card
    if card is None:
        msg = f"{folder} has no {CARD_NAME} that could name a golden set"
        raise UnusableError(msg)
    if not pictures:
        msg = "a golden set needs pictures"
        raise UnusableError(msg)
    for name in pictures:
        if re.match(_STEM, name) is None:
            msg = f"a golden picture cannot be called {name!r}: letters, digits, - and _ only"
            raise UnusableError(msg)
    images = {name: _decoded(jpeg, name) for name, jpeg in sorted(pictures.items())}
    asked = dict.fromkeys([(card.input.width, card.input.height), *sizes])
    asked |= dict.fromkeys(parse_size(one.input) for one in card.variants if one.input)
    boxes: dict[str, dict[str, tuple[GoldenBox, ...]]] = {name: {} for name in images}
    runtime = ""
    for size in asked:
        detector = open_detector(found.path, input_size=size)
        runtime = f"{detector.runtime_name} {detector.runtime.version}"
        for name, image in images.items():
            boxes[name][_words(size)] = _golden_boxes(detector, image)
    golden = Golden(
        model_sha256=found.sha256,
        runtime=runtime,
        inputs=tuple(map(_words, asked)),
        pictures=tuple(
            GoldenPicture(name=name, sha256=hashlib.sha256(pictures[name]).hexdigest(), boxes=boxes[name])
            for name in images
        ),
    )
    content = msgspec.json.encode(golden)
    name = f"golden-{hashlib.sha256(content).hexdigest()[:8]}"
    _write_folder(folder / name, content, pictures)
    write_card(folder / CARD_NAME, msgspec.structs.replace(card, golden=name))
    if card.golden != name and _FOLDER.fullmatch(card.golden):  # never another folder, whatever a card names
        shutil.rmtree(folder / card.golden, ignore_errors=True)
    return golden


def read_golden(model: Path | None = None) -> GoldenSet | None:
    """Read the golden set of a model, None where its card names none.

    Raises `UnusableError` when it is not whole, or not of this model's file.
    """
    found = read_model(model)
    if found.card is None or not found.card.golden:
        return None
    if _FOLDER.fullmatch(found.card.golden) is None:
        msg = f"the card of {found.path} names {found.card.golden!r}, which is no golden set"
        raise UnusableError(msg)
    folder = found.path.parent / found.card.golden
    path = folder / GOLDEN_NAME
    content = _read(path)
    try:
        golden = msgspec.json.decode(content, type=Golden)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is not valid: {error}"
        raise UnusableError(msg) from error
    _check_golden(golden, path, found)
    images: dict[str, Image] = {}
    for picture in golden.pictures:
        jpeg = _read(folder / f"{picture.name}.jpg")
        if hashlib.sha256(jpeg).hexdigest() != picture.sha256:
            msg = f"{folder / picture.name}.jpg was changed after the golden set was made"
            raise UnusableError(msg)
        images[picture.name] = _decoded(jpeg, picture.name)
    return GoldenSet(golden, images, hashlib.sha256(content).hexdigest())


def parity(detector: Detector, golden_set: GoldenSet, *, score_threshold: float | None = None) -> Parity:
    """Hold a detector against a golden set at its input size and the working threshold, its card's without one.

    Raises `UnusableError` when the set has no boxes of the detector's input size.
    """
    size = _words(detector.input_size)
    golden, limits = golden_set.golden, limits_of(detector.precision)
    if size not in golden.inputs:
        msg = f"the golden set has no boxes for the input {size}; it has {', '.join(golden.inputs)}"
        raise UnusableError(msg)
    threshold = detector.score_threshold if score_threshold is None else score_threshold
    boxes = found_again = own = right = 0
    differences: list[float] = []
    finite = True
    for picture in golden.pictures:
        inference = detector.detect(golden_set.images[picture.name], score_threshold=LOWEST_SCORE)
        finite = finite and inference.finite
        theirs, ours = _detections(picture.boxes[size]), inference.detections
        meant, near = _from(theirs, threshold), _from(ours, threshold - SLACK)
        twins = _twins(meant, near, iou=limits.iou)
        boxes += len(meant)
        found_again += len(twins)
        differences += [float(near.score[b] - meant.score[a]) for a, b in twins]
        said = _from(ours, threshold)
        own += len(said)
        right += len(_twins(said, _from(theirs, threshold - SLACK), iou=limits.iou))
    return Parity(
        boxes=boxes,
        recall=found_again / boxes if boxes else None,
        precision=right / own if own else None,
        extra=own - right,
        moved=float(np.mean(differences)) if differences else 0.0,
        worst=max(map(abs, differences), default=0.0),
        finite=finite,
        limits=limits,
    )


def _from(detections: Detections, score: float) -> Detections:
    return detections.take(detections.score >= score)


def _twins(these: Detections, those: Detections, *, iou: float) -> list[tuple[int, int]]:
    """Return which of `these` is twin to which of `those`; the best score chooses first, and no box is twin to two."""
    pairs = box_iou(these.xyxy, those.xyxy)
    pairs[these.class_id[:, None] != those.class_id[None, :]] = 0
    twins: list[tuple[int, int]] = []
    for row in range(len(these) if len(those) else 0):
        column = int(pairs[row].argmax())
        if pairs[row, column] >= iou:
            twins.append((row, column))
            pairs[:, column] = -1
    return twins


def _golden_boxes(detector: Detector, image: Image) -> tuple[GoldenBox, ...]:
    found = detector.detect(image, score_threshold=LOWEST_SCORE).detections
    rows = zip(found.xyxy.tolist(), found.score.tolist(), found.class_id.tolist(), strict=True)
    return tuple(
        GoldenBox((round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)), round(score, 5), class_id)
        for (x1, y1, x2, y2), score, class_id in rows
    )


def _detections(boxes: Sequence[GoldenBox]) -> Detections:
    return Detections(
        np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4),
        np.array([box.score for box in boxes], np.float32),
        np.array([box.class_id for box in boxes], np.int32),
    )


def _check_golden(golden: Golden, path: Path, found: ModelFile) -> None:
    if golden.schema != SCHEMA:
        msg = f"{path} has the schema {golden.schema}, this side reads {SCHEMA}"
        raise UnusableError(msg)
    if golden.model_sha256 != found.sha256:
        msg = f"{path} was made with another model than {found.path}: make it anew"
        raise UnusableError(msg)
    if any(set(picture.boxes) != set(golden.inputs) for picture in golden.pictures):
        msg = f"{path} is not valid: a picture lacks the boxes of an input size"
        raise UnusableError(msg)


def _write_folder(folder: Path, content: bytes, pictures: Mapping[str, bytes]) -> None:
    if folder.is_dir():  # the same content has the same name
        return
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        beside.mkdir()
        for name, jpeg in pictures.items():
            write_flushed(beside / f"{name}.jpg", jpeg)
        write_flushed(beside / GOLDEN_NAME, content)
        flush_folder(beside)
        beside.rename(folder)
        flush_folder(folder.parent)
    except OSError as error:
        msg = f"cannot write the golden set {folder}: {error.strerror}"
        raise UnusableError(msg) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _decoded(jpeg: bytes, name: str) -> Image:
    try:
        return decode_jpeg(jpeg)
    except UnusableError as error:
        msg = f"the golden picture {name} is not one that can be used: {error}"
        raise UnusableError(msg) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"cannot read {path} of the golden set: {error.strerror}"
        raise UnusableError(msg) from error


def _words(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
