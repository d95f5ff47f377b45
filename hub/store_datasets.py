"""SQL of the dataset versions: which folders were written, and whose pictures are in them.

Laws:

1. A row comes after its folder is in place. Every picture of the hub's that is in it was not forgotten by then: the row
   and the findings are looked at in one transaction.
2. A row is never changed, but for that its folder was removed because something in it was forgotten: then it says when,
   and no event id of it is left.

A folder beside the database, or below its folder, is stored relative to it: both can be moved together.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import Xyxy
from hub.store_erasure import findings_of
from hub.store_forgotten import Scope
from hub.store_rows import immediate

FOLDER: Final = "datasets"
"""Beside the database: where versions are written unless another place is named."""

_ROW: Final = "id, created_at_ms, digest, parent_id, weak_spot_id, folder, recipe, train, val, test, forgotten_at_ms"


class DatasetRow(NamedTuple):
    """One dataset version.

    Attributes:
        digest: 64 hex digits.
        parent_id: the version before it; None for the first.
        weak_spot_id: what it was made for; None for no one.
        folder: absolute.
        recipe: JSON, as in the folder.
        train, val, test: pictures.
        forgotten_at_ms: when its folder was removed, because something in it was forgotten; None: it is there.
    """

    id: int
    created_at_ms: int
    digest: str
    parent_id: int | None
    weak_spot_id: int | None
    folder: Path
    recipe: str
    train: int
    val: int
    test: int
    forgotten_at_ms: int | None = None


class FieldFrame(NamedTuple):
    """A frame that is here and that nobody has labelled: what tells of it without its pixels.

    Attributes:
        region: `xyxy` pixels of the frame; the whole frame for `control`.
        tags: the device's, words between spaces.
        group_id: its near-duplicate group.
    """

    event_id: str
    site: str
    device: str
    camera: str
    label: str
    captured_at_ms: int
    region: Xyxy
    width: int
    height: int
    tags: str
    group_id: int

    @property
    def place(self) -> Xyxy:
        """The region in fractions of the frame's width and height."""
        x1, y1, x2, y2 = self.region
        return x1 / self.width, y1 / self.height, x2 / self.width, y2 / self.height

    @property
    def camera_path(self) -> str:
        """The camera as "site/device/camera"."""
        return f"{self.site}/{self.device}/{self.camera}"


class Datasets:
    """The dataset versions in the database. Made by `Store.datasets`; it belongs to the store's thread.

    Attributes:
        home: the folder of the database.
    """

    def __init__(self, connection: sqlite3.Connection, home: Path) -> None:
        self._connection = connection
        self.home = home

    def all(self) -> list[DatasetRow]:
        """Return every version, oldest first."""
        return [self._row(row) for row in self._connection.execute(f"SELECT {_ROW} FROM dataset_version ORDER BY id")]

    def one(self, number: int) -> DatasetRow:
        """Return one. Raises `UnusableError` when there is none of that number."""
        row = self._connection.execute(f"SELECT {_ROW} FROM dataset_version WHERE id = ?", (number,)).fetchone()
        if row is None:
            msg = f"there is no dataset version {number}: `hub dataset list` names those there are"
            raise UnusableError(msg)
        return self._row(row)

    def newest(self) -> DatasetRow | None:
        """Return the newest; None when there is none."""
        row = self._connection.execute(f"SELECT {_ROW} FROM dataset_version ORDER BY id DESC LIMIT 1").fetchone()
        return None if row is None else self._row(row)

    def next_number(self) -> int:
        """Return a number that no version has had, and no folder beside the database has."""
        used = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'dataset_version'").fetchone()
        number: int = (used[0] if used else 0) + 1
        while (self.home / FOLDER / str(number)).exists():
            number += 1
        return number

    def add(self, row: DatasetRow, splits: Mapping[str, str]) -> None:
        """Store a version under `row.id`, with the split of each of the hub's pictures by event id.

        Raises `UnusableError`, and stores nothing, when one of them was forgotten meanwhile, or the number is taken.
        """
        with immediate(self._connection):
            for event_id in splits:
                if self._connection.execute("SELECT 1 FROM finding WHERE event_id = ?", (event_id,)).fetchone() is None:
                    msg = "some of these images were forgotten meanwhile: freeze again"
                    raise UnusableError(msg)
            try:
                self._connection.execute(
                    f"INSERT INTO dataset_version ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*row[:5], self._told(row.folder), *row[6:]),
                )
            except sqlite3.IntegrityError as error:
                msg = f"dataset version {row.id} was written by another process meanwhile: freeze again"
                raise UnusableError(msg) from error
            self._connection.executemany(
                "INSERT INTO dataset_image (version_id, event_id, split) VALUES (?, ?, ?)",
                [(row.id, event_id, split) for event_id, split in splits.items()],
            )

    def field_frames(self) -> Iterator[FieldFrame]:
        """Yield the frames that are here, not black, grouped, unlabelled and in no random batch, in order of coming."""
        rows = self._connection.execute(
            "SELECT event_id, site, device, camera, label, captured_at_ms, x1, y1, x2, y2, width, height, tags,"
            " group_id FROM finding WHERE frame_state = 'present' AND frame_hash <> zeroblob(32)"
            " AND group_id IS NOT NULL AND event_id NOT IN (SELECT event_id FROM label_image)"
            " AND event_id NOT IN (SELECT event_id FROM batch_member JOIN batch ON id = batch_id WHERE random)"
            " ORDER BY id"
        )
        for row in rows:
            yield FieldFrame._make((*row[:6], row[6:10], *row[10:]))

    def first_heard_ms(self, camera: str) -> int:
        """Return when the first finding that came of a camera, "site/device/camera", was captured; 0 when none did."""
        row = self._connection.execute(
            "SELECT captured_at_ms FROM finding WHERE (site, device, camera) = (?, ?, ?) ORDER BY id LIMIT 1",
            tuple(camera.split("/")),
        ).fetchone()
        return row[0] if row else 0

    def trained_on(self) -> Iterator[tuple[str, int, int | None]]:
        """Yield camera ("site/device/camera"), time and group of every picture that any version has trained on."""
        yield from self._connection.execute(
            "SELECT site || '/' || device || '/' || camera, captured_at_ms, group_id FROM finding"
            " WHERE event_id IN (SELECT event_id FROM dataset_image WHERE split = 'train')"
        )

    def images(self, number: int) -> dict[str, str]:
        """Return the split of each of the hub's pictures in a version, by event id."""
        rows = self._connection.execute("SELECT event_id, split FROM dataset_image WHERE version_id = ?", (number,))
        return dict(rows.fetchall())

    def holding(self, scope: Scope) -> list[DatasetRow]:
        """Return the versions whose folder has a picture of what is to be forgotten, oldest first."""
        place, values = findings_of(scope)
        rows = self._connection.execute(
            f"SELECT {_ROW} FROM dataset_version WHERE id IN (SELECT version_id FROM dataset_image"
            f" WHERE event_id IN (SELECT event_id FROM finding WHERE {place})) ORDER BY id",
            values,
        )
        return [self._row(row) for row in rows]

    def event_ids(self, scope: Scope) -> frozenset[str]:
        """Return the event ids of the findings that are to be forgotten."""
        place, values = findings_of(scope)
        return frozenset(
            row[0] for row in self._connection.execute(f"SELECT event_id FROM finding WHERE {place}", values)
        )

    def mark_forgotten(self, number: int, *, now_ms: int) -> None:
        """Note that the folder of a version was removed; its event ids go."""
        with immediate(self._connection):
            self._connection.execute("UPDATE dataset_version SET forgotten_at_ms = ? WHERE id = ?", (now_ms, number))
            self._connection.execute("DELETE FROM dataset_image WHERE version_id = ?", (number,))

    def _told(self, folder: Path) -> str:
        whole = folder.absolute()
        return str(whole.relative_to(self.home) if whole.is_relative_to(self.home) else whole)

    def _row(self, row: tuple[Any, ...]) -> DatasetRow:
        return DatasetRow._make((*row[:5], self.home / row[5], *row[6:]))


def recipe_of(row: DatasetRow) -> dict[str, Any]:
    """Return the recipe of a version as names and plain values. Raises `UnusableError` when it is damaged."""
    try:
        return msgspec.json.decode(row.recipe, type=dict[str, Any])
    except msgspec.DecodeError as error:
        msg = f"the recipe of dataset version {row.id} cannot be read: {error}"
        raise UnusableError(msg) from error
