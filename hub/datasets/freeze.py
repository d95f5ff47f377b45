"""Freezing a dataset version: what is trained on is chosen, written to a folder, and noted in the database.

Laws:

1. Nothing that measures is trained on: the test share, what was drawn at random, and what either knows (hub.leaks). No
   option changes what is `test`. What was drawn at random and trained on before, by any version, measures nothing: it
   is on no side.
2. People's boxes win: a frame that anyone has labelled, or of its moment or near-duplicate group, is not self-taught.
3. The folder is in place before its row. Where something in it was forgotten meanwhile, neither stays.
4. The same database, options and seed give the same digest.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from edge.detector.detector import open_detector
from edge.detector.opening import read_model
from hub.datasets.choice import Asked, Choice, Watch
from hub.datasets.sources import Marks, labelled_shots
from hub.datasets.version import Member, Version, make_version, write_version
from hub.datasets.wanting import require_labelled, require_trainable
from hub.store import Store
from hub.store_datasets import FOLDER, DatasetRow
from hub.tags import Tagger
from hub.weakspots import weak_spot, weak_spots

__all__ = ["Asked", "Frozen", "Watch", "freeze"]


class Frozen(NamedTuple):
    """What was frozen.

    Attributes:
        number: of the version in the database.
        notes: what whoever trains on it should know, a sentence each.
    """

    version: Version
    folder: Path
    number: int
    notes: tuple[str, ...]


def freeze(
    store: Store,
    asked: Asked,
    *,
    model: Path | None,
    tagger: Tagger,
    folder: Path | None = None,
    watch: Watch = lambda *_: None,
) -> Frozen:
    """Choose, write and note a version; `model` is the one to be trained, None: the starter.

    `folder` is new; None: `datasets/N` beside the database. Raises `UnusableError`, with what to do, when there is
    nothing to train on, and leaves nothing behind then.
    """
    if asked.weak_spot is not None:
        weak_spot(store, asked.weak_spot)  # first: it names those there are
    marks = Marks(weak_spots(store), tagger)
    known, gone = labelled_shots(store, marks)
    if asked.people:
        require_labelled(store, known, weak_spot=asked.weak_spot)
    card = read_model(model).card or open_detector(model).card
    choice = Choice(store, asked, model, card, marks, tagger, watch)
    choice.left_out["gone"] = gone
    choice.take(known)
    self_taught = list(choice.self_taught()) if asked.self_taught else []
    choice.add([*(shot for shot in known if shot.is_test or asked.people), *self_taught])
    require_trainable(choice.members, weak_spot=asked.weak_spot, people=asked.people)
    choice.add_replay()
    if asked.noise:
        choice.add_noisy_copies()
    return _written(choice, folder)


def _written(choice: Choice, folder: Path | None) -> Frozen:
    datasets = choice.store.datasets
    before = datasets.newest()
    version = make_version(
        choice.members,
        labels=choice.labels(),
        recipe=choice.recipe(),
        created_at_ms=time.time_ns() // 1_000_000,
        parent=before.digest if before is not None else "",
    )
    notes = list(choice.notes)
    if before is not None and before.digest == version.digest:
        notes.append(f"nothing has changed since version {before.id}: it has the same content")
    number = datasets.next_number()
    place = folder if folder is not None else datasets.home / FOLDER / str(number)
    write_version(version, place, jpeg_of=_watched(choice, len(version.members)))
    try:
        datasets.add(
            row_of(version, number=number, folder=place, before=before, weak_spot_id=choice.asked.weak_spot),
            {member.event_id: member.split for member in version.members if member.event_id},
        )
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return Frozen(version, place, number, tuple(notes))


def row_of(
    version: Version, *, number: int, folder: Path, before: DatasetRow | None, weak_spot_id: int | None
) -> DatasetRow:
    """Return the row that a version has in the database under `number`."""
    splits = Counter(member.split for member in version.members)
    return DatasetRow(
        id=number,
        created_at_ms=version.created_at_ms,
        digest=version.digest,
        parent_id=before.id if before is not None else None,
        weak_spot_id=weak_spot_id,
        folder=folder,
        recipe=msgspec.json.encode(version.recipe).decode(),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
    )


def _watched(choice: Choice, total: int) -> Callable[[Member], bytes]:
    done = iter(range(1, total + 1))

    def jpeg_of(member: Member) -> bytes:
        jpeg = choice.jpeg_of(member)
        choice.watch("pictures written", next(done), total)
        return jpeg

    return jpeg_of
