"""What annotated images say of the findings on them: who was right, and how often.

An annotated image judges the findings on its picture: the one it was chosen for, and every other one of the same
camera, moment and bytes (where people are blurred, two findings of one moment have two pictures, and each is judged on
its own). By reason:

- `missed` is right where an object of its label lies at the region (IoU >= .3) that no detection shows, and none of
  another label either (IoU >= .6). Without a label it may be any object.
- `low_confidence` is right where an object of its label is there (IoU >= .4): it was worth more than its score.
- `suspect` is right where the box has no object of its own. A `duplicate` is right, too, where the other box has none.
- `control` is not judged. Its objects, found and overlooked, are the detector's recall.

Which detection shows which object: one to one, of one label, IoU >= .4, the best overlap first.

Laws:

1. Only people judge (`person`, `review`), never the machine, and only of labels that they looked for. Where annotators
   do not agree at the region, nothing is judged until a review has answered.
2. What is judged depends on the finding and the truth, not on what else was judged.
3. A detection is what the detector itself reported at or above its threshold: no witness's box.

These shares are of what was annotated. A batch takes more of the severe and of its weak spot: they are those of all
findings only where a batch was drawn at random. Recall takes the `control` frames of batches that were made for no weak
spot: those of a weak spot's batch show its objects, so they are none of chance.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.contract.samples import Box, Finding, Reason, Witness, WitnessKind, Xyxy
from edge.detector.detections import Floats, box_iou
from hub.annotation import Annotation
from hub.shares import Share, share_of
from hub.store import FindingRow, Store
from hub.truth import Truth, people_truths

Camera = tuple[str, str, str]
"""Site, device, camera."""

REGION_IOU: Final = 0.3  # of a missed region with the object it speaks of, as tests.benchmarks measures it
SHOWN_IOU: Final = 0.4  # of a detection with the object that it shows
RENAMED_IOU: Final = 0.6  # of a detection of another label: the object is reported, by a wrong name
TWIN_IOU: Final = 0.5  # of the other box of a duplicate
TWIN_INSIDE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding, judged.

    Attributes:
        image: event id of the annotated image.
        batch_id: that the image is of.
        truth: what is there, as people say.
        right: whether the finding claimed what is so.
    """

    finding: Finding
    image: str
    batch_id: int | None
    truth: Truth
    right: bool

    @property
    def camera(self) -> Camera:
        """Where it was seen."""
        return self.finding.site, self.finding.device, self.finding.camera


@dataclass(frozen=True, slots=True)
class Seen:
    """The objects of one annotated `control` frame, those the detector found and those it overlooked."""

    camera: Camera
    found: int
    overlooked: int


@dataclass(frozen=True, slots=True)
class Judged:
    """All that annotated images say.

    Attributes:
        verdicts: by image, then by event id.
        seen: of the frames drawn at random.
    """

    verdicts: tuple[Verdict, ...]
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        camera: None for the whole fleet.
        reason: of `control` the share is the detector's recall.
        witness: `missed` findings for which this one speaks; None: all of the reason.
        right: how many of `of` were right; of `control`, how many objects were found.
        share: with its interval; None where there are too few.
    """

    camera: Camera | None
    reason: Reason
    witness: WitnessKind | None
    right: int
    of: int
    share: Share | None


def judge(finding: Finding, truth: Truth, *, names: Collection[str] = ()) -> bool | None:
    """Return whether the finding is right; None where the truth cannot say it, and for `control`.

    `names` are all labels that annotators are asked for: a finding without a label is judged when all were looked for.
    """
    if finding.reason is Reason.CONTROL or not _was_looked_for(finding.label, truth, names):
        return None
    if (_iou([finding.region], [one.xyxy for one in truth.disputes]) >= REGION_IOU).any():
        return None
    if finding.reason is Reason.MISSED:
        return _is_missed(finding, truth)
    if finding.reason is Reason.LOW_CONFIDENCE:
        there = [box.xyxy for box in truth.boxes if box.label == finding.label]
        return bool((_iou([finding.region], there) >= SHOWN_IOU).any())
    return _is_false(finding, truth)


def verdicts(store: Store, *, names: Collection[str] = ()) -> Judged:
    """Return what every image that people annotated says. `names`: see `judge`."""
    spotless = {row.id for row in store.batches() if row.weak_spot_id is None}
    batch_of = {member.event_id: row.id for row in store.batches() for member in store.batch_members(row.id)}
    judged: list[Verdict] = []
    controls: list[tuple[Finding, Truth]] = []
    known: set[str] = set()
    for image, truth in sorted(people_truths(store).items()):
        batch_id = batch_of.get(image)
        for finding in _findings(store, image):
            known |= {box.label for box in finding.boxes}
            right = judge(finding, truth, names=names)
            if right is not None:
                judged.append(Verdict(finding, image, batch_id, truth, right))
            elif finding.reason is Reason.CONTROL and batch_id in spotless:
                controls.append((finding, truth))
    seen = tuple(objects_of(finding, truth, known=known) for finding, truth in controls)
    return Judged(tuple(judged), seen)


def objects_of(finding: Finding, truth: Truth, *, known: Collection[str]) -> Seen:
    """Return how many objects of a control frame the detector found and overlooked.

    Only those whose label is among `known`, those that the fleet's detectors give: no detector finds what it was never
    taught.
    """
    objects = [box for box in truth.boxes if box.label in known]
    found = len(_pairs(_detections(finding), objects))
    return Seen((finding.site, finding.device, finding.camera), found, len(objects) - found)


def table(judged: Judged) -> list[Row]:
    """Return the fleet's rows, then each camera's: by reason, under `missed` by witness, at last the recall."""
    counts: defaultdict[tuple[Camera | None, Reason, WitnessKind | None], list[bool]] = defaultdict(list)
    for one in judged.verdicts:
        kinds = [witness.kind for witness in _speaking(one.finding.witnesses)]
        for camera in (None, one.camera):
            counts[camera, one.finding.reason, None].append(one.right)
            for kind in kinds:
                counts[camera, one.finding.reason, kind].append(one.right)
    recall: defaultdict[Camera | None, list[int]] = defaultdict(lambda: [0, 0])
    for frame in judged.seen:
        for camera in (None, frame.camera):
            recall[camera][0] += frame.found
            recall[camera][1] += frame.found + frame.overlooked
    rows = [Row(*key, sum(rights), len(rights), share_of(sum(rights), len(rights))) for key, rights in counts.items()]
    rows += [
        Row(camera, Reason.CONTROL, None, found, of, share_of(found, of))
        for camera, (found, of) in recall.items()
        if of
    ]
    return sorted(rows, key=_place)


def _place(row: Row) -> tuple[Camera, int, int]:
    witness = 0 if row.witness is None else 1 + list(WitnessKind).index(row.witness)
    order = (Reason.MISSED, Reason.LOW_CONFIDENCE, Reason.SUSPECT, Reason.CONTROL)
    return row.camera or ("", "", ""), order.index(row.reason), witness


def _speaking(witnesses: Iterable[Witness]) -> list[Witness]:
    return [witness for witness in witnesses if witness.score > 0]


def _findings(store: Store, image: str) -> list[Finding]:
    row = store.finding(image)
    rows: list[FindingRow] = [row, *store.labels.findings_on(row)]
    return [one.finding() for one in rows]


def _was_looked_for(label: str, truth: Truth, names: Collection[str]) -> bool:
    return label in truth.labels if label else truth.labels.issuperset(names)


def _is_missed(finding: Finding, truth: Truth) -> bool:
    detections = _detections(finding)
    shown = {j for _, j in _pairs(detections, truth.boxes)}
    here = _iou([finding.region], [box.xyxy for box in truth.boxes])[0] >= REGION_IOU
    return any(
        near and at not in shown and not _is_renamed(box, detections)
        for at, (box, near) in enumerate(zip(truth.boxes, here.tolist(), strict=True))
        if finding.label in ("", box.label)
    )


def _is_renamed(box: Annotation, detections: Sequence[Box]) -> bool:
    others = [one.xyxy for one in detections if one.label != box.label]
    return bool((_iou([box.xyxy], others) >= RENAMED_IOU).any())


def _is_false(finding: Finding, truth: Truth) -> bool:
    """Return whether a suspected box is false: there is no object left for it, or for its twin."""
    own = Box(finding.region, finding.label, finding.severity)
    others = [box for box in _detections(finding) if not _is_same(box, own)]
    boxes = [own, *(box for box in others if box.label in truth.labels)]
    matched = {i for i, _ in _pairs(boxes, truth.boxes)}
    twins = {0}
    if "duplicate" in finding.tags:
        twins |= {at for at in range(1, len(boxes)) if _are_twins(own.xyxy, boxes[at].xyxy)}
    return not twins.issubset(matched)


def _is_same(box: Box, own: Box) -> bool:
    return box.label == own.label and float(_iou([box.xyxy], [own.xyxy])[0, 0]) > 0.99


def _are_twins(a: Xyxy, b: Xyxy) -> bool:
    iou = float(_iou([a], [b])[0, 0])
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    inside = iou / (1 + iou) * sum(areas) / max(min(areas), 1e-9)
    return iou >= TWIN_IOU or inside >= TWIN_INSIDE


def _detections(finding: Finding) -> list[Box]:
    return [box for box in finding.boxes if box.witness is None and box.score >= finding.score_threshold]


def _pairs(boxes: Sequence[Box], objects: Sequence[Annotation]) -> list[tuple[int, int]]:
    """Return which box shows which object: one to one, of one label, the largest overlap first."""
    iou = _iou([box.xyxy for box in boxes], [one.xyxy for one in objects])
    for at, box in enumerate(boxes):
        iou[at, [one.label != box.label for one in objects]] = 0
    pairs = []
    while iou.size and iou.max() >= SHOWN_IOU:
        i, j = divmod(int(iou.argmax()), iou.shape[1])
        pairs.append((i, j))
        iou[i], iou[:, j] = 0, 0
    return pairs


def _iou(a: Sequence[Xyxy], b: Sequence[Xyxy]) -> Floats:
    return box_iou(np.array(a, np.float32).reshape(-1, 4), np.array(b, np.float32).reshape(-1, 4))
