"""SQL of what people and machines drew on the images: label sets, known answers, re-checks, opinions, certificates.

A label set is one import, or one round of machine labels: who drew, which labels were looked for, and the boxes of each
image, also of those that have none. Of an image the newest set of the same kind, annotator and pass counts; the earlier
ones stay as the history.

Laws:

1. A label set is stored whole or not at all, and never changed.
2. It has images of its batch, known answers that were mixed into it, or, of a machine, any that are here.
"""

import itertools
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from edge.contract.errors import UnusableError
from hub.annotation import Annotation
from hub.store_rows import FINDING_COLUMNS, FindingRow, finding_row, immediate

Kind = Literal["person", "review", "machine"]
"""Who drew: an annotator; a person who looked again at what the audit pointed to; a model."""

Boxes = tuple[Annotation, ...]
_SET: Final = "s.id, s.batch_id, s.kind, s.annotator, s.label_pass, s.labels, s.at_ms, s.source, s.minutes"
_NEWEST: Final = (
    "i.set_id = (SELECT max(o.set_id) FROM label_image o JOIN label_set t ON t.id = o.set_id"
    " WHERE o.event_id = i.event_id AND t.kind = s.kind AND t.annotator = s.annotator AND t.label_pass = s.label_pass"
    " AND t.batch_id IS s.batch_id)"
)
_boxes_decoder = msgspec.json.Decoder(Boxes)
_labels_decoder = msgspec.json.Decoder(tuple[str, ...])


class LabelSet(NamedTuple):
    """One import, or one round of machine labels.

    Attributes:
        id: 0 before it is stored.
        batch_id: None for what a machine labelled outside any batch.
        annotator: a person's name; of a machine its release.
        label_pass: the one label that was looked for, empty for all at once.
        labels: those that were looked for: where none of them is drawn, there is none.
        source: where it came from, for people to read: format and file.
        minutes: of people's work, None where it was not told.
    """

    id: int
    batch_id: int | None
    kind: Kind
    annotator: str
    label_pass: str
    labels: tuple[str, ...]
    at_ms: int
    source: str
    minutes: float | None = None


class Drawn(NamedTuple):
    """The boxes of one image in one set."""

    event_id: str
    label_set: LabelSet
    boxes: Boxes


class Honeypot(NamedTuple):
    """An image with a known answer, mixed into a batch under the rank of one of its members."""

    event_id: str
    rank: int
    boxes: Boxes


class Annotated(NamedTuple):
    """An image that people annotated for its own batch, whose frame is here; `labels` were looked for."""

    event_id: str
    batch_id: int
    site: str
    device: str
    camera: str
    captured_at_ms: int
    labels: tuple[str, ...]


class Recheck(NamedTuple):
    """One image that the audit wants looked at again.

    Attributes:
        rank: 1 for the first.
        fault: `missing`, `swapped`, `badly_placed`, `extra`, `disagreement`; `random`: drawn to measure the audit.
        label: of the box in question; empty for none.
        xyxy: where, pixels of the frame; None for the whole image.
        score: 0..1, how likely the annotation is wrong.
        why: one phrase.
        wrong: what the second look of a person found; None before.
    """

    event_id: str
    rank: int
    fault: str
    label: str
    xyxy: tuple[float, float, float, float] | None
    score: float
    why: str
    at_ms: int
    wrong: bool | None = None


class Certificate(NamedTuple):
    """What a certification of machine labels has found.

    Attributes:
        id: 0 before it is stored.
        model: what labels: see hub.opinions.
        rule: `guarantee` or `ground-truth`.
        images: human-labelled random images that it was measured on.
        wrong: of those accepted.
        accepted: how many of `images` reach the threshold.
        threshold: the least confidence that is accepted; None: refused.
        share: of the pool that reaches it.
        details: JSON for the report: levels, counts, what is missing.
    """

    id: int
    at_ms: int
    model: str
    rule: str
    epsilon: float
    delta: float
    images: int
    accepted: int
    wrong: int
    threshold: float | None
    share: float
    details: str


class Labels:
    """What was drawn. Made by `Store.labels`; it belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    # Label sets

    def add(self, label_set: LabelSet, images: Mapping[str, Sequence[Annotation]]) -> int:
        """Store a set with its images, event id to boxes, and return its number.

        `minutes` are added to those of the batch. Raises `UnusableError` and stores nothing when there is no image, one
        is not of the batch, or the minutes are none.
        """
        return self.add_all([(label_set, images)])[0]

    def add_all(self, sets: Sequence[tuple[LabelSet, Mapping[str, Sequence[Annotation]]]]) -> list[int]:
        """Store several sets, each as `add` does, all or none of them, and return their numbers."""
        with immediate(self._connection):
            return [self._added(label_set, images) for label_set, images in sets]

    def _added(self, label_set: LabelSet, images: Mapping[str, Sequence[Annotation]]) -> int:
        if not images:
            msg = "a label set needs at least one image"
            raise UnusableError(msg)
        if label_set.minutes is not None and not (math.isfinite(label_set.minutes) and label_set.minutes >= 0):
            msg = f"{label_set.minutes} minutes: expected a number from 0 up"
            raise UnusableError(msg)
        self._require_known(label_set, images)
        number: int = self._connection.execute(
            "INSERT INTO label_set (batch_id, kind, annotator, label_pass, labels, at_ms, source, minutes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (*label_set[1:5], msgspec.json.encode(label_set.labels).decode(), *label_set[6:]),
        ).fetchone()[0]
        self._connection.executemany(
            "INSERT INTO label_image (set_id, event_id, boxes) VALUES (?, ?, ?)",
            [(number, event_id, _encoded(boxes)) for event_id, boxes in images.items()],
        )
        if label_set.minutes is not None:
            self._connection.execute(
                "UPDATE batch SET minutes = coalesce(minutes, 0) + ? WHERE id = ?",
                (label_set.minutes, label_set.batch_id),
            )
        return number

    def sets(self, batch_id: int | None = None) -> list[LabelSet]:
        """Return every set, or those of a batch, oldest first."""
        where, values = ("", ()) if batch_id is None else (" WHERE s.batch_id = ?", (batch_id,))
        rows = self._connection.execute(f"SELECT {_SET} FROM label_set s{where} ORDER BY s.id", values)
        return [_label_set(row) for row in rows]

    def sizes(self, batch_id: int) -> dict[int, tuple[int, int]]:
        """Return how many images each set of a batch has, and how many boxes, by the number of the set."""
        rows = self._connection.execute(
            "SELECT set_id, count(*), sum(json_array_length(CAST(boxes AS TEXT))) FROM label_image"
            " JOIN label_set ON id = set_id WHERE batch_id = ? GROUP BY set_id",
            (batch_id,),
        )
        return {number: (images, boxes) for number, images, boxes in rows}

    def drawn(self, batch_id: int | None = None) -> list[Drawn]:
        """Return what counts, of a batch or of all: of each image the newest of each kind, annotator and pass.

        In order of set, then of event id.
        """
        of_batch, values = ("", ()) if batch_id is None else (" AND s.batch_id = ?", (batch_id,))
        return self._drawn(f"{_NEWEST}{of_batch}", values)

    def answers(self, batch_id: int | None = None) -> list[Drawn]:
        """Return what counts as an answer, for the members of a batch or for every image, in the order of `drawn`.

        It is what was drawn on an image for its own batch, or by a machine outside any, and not what was drawn on it
        as a known answer in another.
        """
        own = "(s.batch_id IS NULL OR (i.event_id, s.batch_id) IN (SELECT event_id, batch_id FROM batch_member))"
        members = " AND i.event_id IN (SELECT event_id FROM batch_member WHERE batch_id = ?)"
        of_batch, values = ("", ()) if batch_id is None else (members, (batch_id,))
        return self._drawn(f"{_NEWEST} AND {own}{of_batch}", values)

    def annotated(self) -> list[Annotated]:
        """Return every image that people annotated for its own batch and whose frame is here, once for each set.

        In order of event id.
        """
        rows = self._connection.execute(
            "SELECT DISTINCT event_id, m.batch_id, f.site, f.device, f.camera, f.captured_at_ms, s.labels"
            " FROM batch_member m JOIN finding f USING (event_id) JOIN label_image i USING (event_id)"
            " JOIN label_set s ON s.id = i.set_id AND s.batch_id = m.batch_id"
            " WHERE f.frame_state = 'present' AND s.kind <> 'machine' ORDER BY event_id, s.labels"
        )
        return [Annotated._make((*row[:6], _labels_decoder.decode(row[6]))) for row in rows]

    def drawn_on(self, event_id: str) -> list[Drawn]:
        """Return all that was ever drawn on one image, oldest first."""
        return self._drawn("i.event_id = ?", (event_id,))

    def history(self) -> list[Drawn]:
        """Return all that was ever drawn, oldest first."""
        return self._drawn("1", ())

    def findings_on(self, row: FindingRow) -> list[FindingRow]:
        """Return the other findings on the picture of this one: of the same camera, moment and bytes.

        They are found by their event ids, which begin with the moment; those of other systems do not.
        """
        rows = self._connection.execute(
            f"SELECT {FINDING_COLUMNS} FROM finding WHERE event_id >= ? AND event_id < ? AND event_id <> ?"
            " AND (site, device, camera, captured_at_ms) = (?, ?, ?, ?)"
            " AND frame_sha256 = (SELECT frame_sha256 FROM finding WHERE event_id = ?) ORDER BY event_id",
            (
                f"{row.captured_at_ms:012x}",
                f"{row.captured_at_ms + 1:012x}",
                row.event_id,
                *(row.site, row.device, row.camera, row.captured_at_ms),
                row.event_id,
            ),
        )
        return [finding_row(one) for one in rows]

    def _drawn(self, where: str, values: tuple[object, ...]) -> list[Drawn]:
        rows = self._connection.execute(
            f"SELECT i.event_id, i.boxes, {_SET} FROM label_image i JOIN label_set s ON s.id = i.set_id WHERE {where}"
            " ORDER BY s.id, i.event_id",
            values,
        )
        return [Drawn(row[0], _label_set(row[2:]), _decoded(row[1])) for row in rows]

    def _require_known(self, label_set: LabelSet, event_ids: Iterable[str]) -> None:
        if label_set.batch_id is None:
            known = "SELECT event_id FROM finding JOIN frame ON finding_id = finding.id WHERE event_id = ?"
            values: tuple[object, ...] = ()
        else:
            known = (
                "SELECT event_id FROM batch_member WHERE event_id = ? AND batch_id = ?"
                " UNION SELECT event_id FROM honeypot WHERE event_id = ? AND batch_id = ?"
            )
            values = (label_set.batch_id,)
        for event_id in event_ids:
            once = (event_id, *values)
            if self._connection.execute(known, once * known.count("event_id = ?")).fetchone() is None:
                of = "here" if label_set.batch_id is None else f"of batch {label_set.batch_id}"
                msg = f"{event_id} is no image {of}"
                raise UnusableError(msg)

    # Known answers mixed into a batch

    def honeypots(self, batch_id: int) -> list[Honeypot]:
        """Return those of a batch, by rank."""
        rows = self._connection.execute(
            "SELECT event_id, rank, boxes FROM honeypot WHERE batch_id = ? ORDER BY rank, event_id", (batch_id,)
        )
        return [Honeypot(event_id, rank, _decoded(boxes)) for event_id, rank, boxes in rows]

    def freeze_honeypots(self, batch_id: int, honeypots: Sequence[Honeypot]) -> None:
        """Store those of a batch. They stay: a batch that has some gets no others."""
        with immediate(self._connection):
            if self._connection.execute("SELECT 1 FROM honeypot WHERE batch_id = ?", (batch_id,)).fetchone() is None:
                self._connection.executemany(
                    "INSERT INTO honeypot (batch_id, event_id, rank, boxes) VALUES (?, ?, ?, ?)",
                    [(batch_id, one.event_id, one.rank, _encoded(one.boxes)) for one in honeypots],
                )

    # Re-checks

    def rechecks(self, batch_id: int) -> list[Recheck]:
        """Return the newest re-check list of a batch, by rank."""
        return next(iter(self.recheck_lists(batch_id)), [])

    def recheck_lists(self, batch_id: int) -> list[list[Recheck]]:
        """Return every re-check list of a batch, the newest first, each by rank."""
        rows = self._connection.execute(
            "SELECT event_id, rank, fault, label, x1, y1, x2, y2, score, why, at_ms, wrong FROM recheck"
            " WHERE batch_id = ? ORDER BY at_ms DESC, rank",
            (batch_id,),
        )
        return [list(one) for _, one in itertools.groupby(map(_recheck, rows), key=lambda one: one.at_ms)]

    def add_rechecks(self, batch_id: int, rechecks: Sequence[Recheck]) -> None:
        """Store a list; the one before it stays as history."""
        with immediate(self._connection):
            self._connection.executemany(
                "INSERT INTO recheck (batch_id, event_id, rank, fault, label, x1, y1, x2, y2, score, why, at_ms, wrong)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(batch_id, r.event_id, r.rank, r.fault, r.label, *(r.xyxy or (None,) * 4), *r[5:]) for r in rechecks],
            )

    def settle_rechecks(self, batch_id: int, verdicts: Mapping[int, bool]) -> None:
        """Note for ranks of the newest list whether the annotation was wrong."""
        with immediate(self._connection):
            self._connection.executemany(
                "UPDATE recheck SET wrong = ? WHERE batch_id = ? AND rank = ?"
                " AND at_ms = (SELECT max(at_ms) FROM recheck WHERE batch_id = ?)",
                [(wrong, batch_id, rank, batch_id) for rank, wrong in verdicts.items()],
            )

    # What a model says of an image

    def opinion(self, event_id: str, model: str) -> Boxes | None:
        """Return what the model sees in an image; None where it has not looked yet."""
        row = self._connection.execute(
            "SELECT boxes FROM opinion WHERE event_id = ? AND model = ?", (event_id, model)
        ).fetchone()
        return None if row is None else _decoded(row[0])

    def add_opinions(self, model: str, opinions: Mapping[str, Sequence[Annotation]]) -> None:
        """Keep what the model sees, event id to boxes."""
        with immediate(self._connection):
            self._connection.executemany(
                "INSERT OR REPLACE INTO opinion (event_id, model, boxes) VALUES (?, ?, ?)",
                [(event_id, model, _encoded(boxes)) for event_id, boxes in opinions.items()],
            )

    # Certificates

    def add_certificate(self, certificate: Certificate) -> int:
        """Store one and return its number."""
        with immediate(self._connection):
            number: int = self._connection.execute(
                "INSERT INTO certificate (at_ms, model, rule, epsilon, delta, images, accepted, wrong, threshold,"
                " share, details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                certificate[1:],
            ).fetchone()[0]
        return number

    def certificates(self) -> list[Certificate]:
        """Return every certificate, oldest first."""
        rows = self._connection.execute(
            "SELECT id, at_ms, model, rule, epsilon, delta, images, accepted, wrong, threshold, share, details"
            " FROM certificate ORDER BY id"
        )
        return [Certificate._make(row) for row in rows]


def _encoded(boxes: Sequence[Annotation]) -> bytes:
    return msgspec.json.encode(tuple(boxes))


def _decoded(boxes: bytes) -> Boxes:
    try:
        return _boxes_decoder.decode(boxes)
    except msgspec.DecodeError as error:
        msg = f"stored boxes cannot be read: {error}; `hub check` may say more"
        raise UnusableError(msg) from error


def _label_set(row: tuple[Any, ...]) -> LabelSet:
    return LabelSet._make((*row[:5], _labels_decoder.decode(row[5]), *row[6:]))


def _recheck(row: tuple[Any, ...]) -> Recheck:
    event_id, rank, fault, label, x1, y1, x2, y2, score, why, at_ms, wrong = row
    xyxy = None if x1 is None else (x1, y1, x2, y2)
    return Recheck(event_id, rank, fault, label, xyxy, score, why, at_ms, None if wrong is None else bool(wrong))
