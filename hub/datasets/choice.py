"""What goes into a dataset version, gathered step by step: members, their pictures, and what there is to say of them.

The laws stand in hub.datasets.freeze.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from edge.contract.card import ModelCard
from edge.contract.errors import UnusableError
from edge.detector.pictures import decode_jpeg
from hub.datasets.field import Taken, choose
from hub.datasets.measured_noise import measured_noise
from hub.datasets.noise import noisy_copies
from hub.datasets.replay import read_picture, replay_of
from hub.datasets.sources import Marks, Shot, label_order, leaking, member_of, taught_shot
from hub.datasets.splits import Side, side
from hub.datasets.teaching import open_teacher, taught
from hub.datasets.version import Member, Plain
from hub.health import repeats
from hub.lines import counted
from hub.store import Store
from hub.store_datasets import FieldFrame
from hub.tags import Tagger
from hub.weakspots import weak_spot

SELF_TAUGHT: Final = 100
REPLAY: Final = 200

Watch = Callable[[str, int, int], None]
"""Told what is being done, how many images are done, and of how many."""


class Asked(NamedTuple):
    """What is to be trained on.

    Attributes:
        weak_spot: the one that it is for; None: for none.
        people: with people's boxes, and a certified machine's.
        self_taught: with frames that the detector labels by its second look.
        teacher: a larger model that looks instead.
        replay: a folder of pictures of anything; None: frames of cameras that nothing else is of.
        noise: with a noisy copy of each original.
        seed: of what is drawn.
    """

    weak_spot: int | None = None
    people: bool = True
    self_taught: bool = True
    teacher: Path | None = None
    replay: Path | None = None
    noise: bool = True
    seed: int = 0


@dataclass(slots=True)
class Choice:
    """A version in the making.

    Attributes:
        model: the one to be trained, None: the starter; `card` is its.
        members: so far.
        notes: what whoever trains on it should know, a sentence each.
        left_out: how many images, by why.
    """

    store: Store
    asked: Asked
    model: Path | None
    card: ModelCard
    marks: Marks
    tagger: Tagger
    watch: Watch
    members: list[Member] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    _teacher: ModelCard | None = None
    _jpegs: dict[str, bytes] = field(default_factory=dict)
    _paths: dict[str, Path] = field(default_factory=dict)
    _taken: Taken = field(default_factory=Taken)
    _first_heard: dict[str, int] = field(default_factory=dict)

    def take(self, shots: Sequence[Shot]) -> None:
        """Leave the moments and groups of these to them: no other frame of one is chosen."""
        for shot in shots:
            self._taken.add(shot.camera, shot.row.captured_at_ms, shot.row.group_id)

    def self_taught(self) -> Iterator[Shot]:
        """Yield frames that nobody has labelled, those of the weak spot first, with what the second look sees."""
        chosen = self._chosen(SELF_TAUGHT, is_first=self._is_of_weak_spot())
        if not chosen:
            return
        teacher = open_teacher(self.model, self.asked.teacher)
        self._teacher = teacher.card
        labels = [label for label in self.card.labels if label in teacher.labels]
        for at, frame in enumerate(chosen):
            self.watch("second look", at, len(chosen))
            jpeg = self.store.frame(frame.event_id)
            try:
                boxes = taught(teacher, decode_jpeg(jpeg), labels=labels)
            except UnusableError as error:
                self._leave_out(f"frame {frame.event_id} is left out: {error}")
            else:
                self._jpegs[frame.event_id] = jpeg
                yield taught_shot(self.store, frame.event_id, boxes, labels=labels, marks=self.marks)
        self.watch("second look", len(chosen), len(chosen))

    def add(self, shots: Sequence[Shot]) -> None:
        """Add what is known, each to its side, but for what the test knows and what is beside validation.

        What was drawn at random was drawn from all that no person had, also from what an earlier version has trained
        on: a model of that version is not measured on it, nor on what shows the same.
        """
        shots = self._without_known(shots)
        leaks = leaking(shots, tagger=self.tagger)
        labels = label_order({label for shot in shots for label in shot.truth.labels}, self.card.labels)
        order = {label: at for at, label in enumerate(labels)}
        for shot in shots:
            if shot.is_test:
                self.members.append(member_of(shot, "test", order=order))
            elif shot.event_id in leaks:
                self.left_out["leaks"] += 1
            elif (found := self._side(shot.camera, shot.row.captured_at_ms)) is None:
                self.left_out["beside_val"] += 1
            else:
                self.members.append(member_of(shot, found, order=order))

    def add_replay(self) -> None:
        """Add pictures on which the old model's word is kept."""
        if self.asked.replay is not None:
            known = frozenset(member.sha256 for member in self.members)
            found = replay_of(self.asked.replay, REPLAY, seed=self.asked.seed, known=known)
            self.members += found.members
            self._paths |= found.paths
            for told in found.left_out:
                self._leave_out(told)
            return
        trained = {
            one.camera for one in self.members if one.split != "test" and (one.by == "self") != self.asked.people
        }
        chosen = self._chosen(REPLAY, is_wanted=lambda one: one.camera_path not in trained)
        for frame in chosen:
            self._add_for_replay(frame)
        if not chosen:
            self.notes.append(
                "there is no picture for replay, so the model may forget what is not in here: name a folder of"
                " pictures of anything with --replay"
            )

    def add_noisy_copies(self) -> None:
        """Add a copy of each original to train on that is not self-taught, as its camera sees at other times."""
        originals = [one for one in self.members if is_original(one)]
        measured = measured_noise(self.store, {one.camera for one in originals})
        done = iter(range(1, len(originals) + 1))
        made = noisy_copies(
            originals,
            jpeg_of=self.jpeg_of,
            measured=measured,
            seed=self.asked.seed,
            on_image=lambda: self.watch("noisy copies", next(done, len(originals)), len(originals)),
        )
        for copy, jpeg in made.copies:
            self.members.append(copy)
            self._jpegs[copy.name] = jpeg
        if made.without:
            self.notes.append(f"no noisy copies where nothing is known of the light: {', '.join(made.without)}")
        if made.unreached:
            said = "their camera saw nothing else that can be made of them"
            self.notes.append(f"no noisy copy of {counted(made.unreached, 'image')}: {said}")

    def jpeg_of(self, member: Member) -> bytes:
        """Return the picture of a member. Raises `UnusableError` when it is here no more."""
        if member.name in self._paths:
            return read_picture(self._paths[member.name])
        return self._jpegs.get(member.name) or self.store.frame(member.event_id)

    def labels(self) -> tuple[str, ...]:
        """Return the labels that were looked for in any member, in the order of the model's."""
        return label_order({label for member in self.members for label in member.labels}, self.card.labels)

    def recipe(self) -> dict[str, Plain]:
        """Return how the members were chosen."""
        told: dict[str, Plain] = {
            "people": self.asked.people,
            "self_taught": self.asked.self_taught,
            "replay": "field" if self.asked.replay is None else "folder",
            "noise": self.asked.noise,
            "seed": self.asked.seed,
            "model": self.card.release,
            "model_sha256": self.card.sha256,
        }
        if self._teacher is not None:
            told |= {"teacher": self._teacher.release, "teacher_sha256": self._teacher.sha256}
        if self.asked.weak_spot is not None:
            of = Counter(self.asked.weak_spot in one.weak_spots for one in self.members if is_original(one))
            told |= {"weak_spot": self.asked.weak_spot, "weak_spot_images": of[True]}
            told["weak_spot_repeat"] = repeats(of[True], of[False]) if of[True] else 1
        left_out = {f"left_out_{why}": number for why, number in sorted(self.left_out.items()) if number}
        return told | left_out | dict(sorted(Counter(map(counted_as, self.members)).items()))

    def _without_known(self, shots: Sequence[Shot]) -> list[Shot]:
        """Return all but the tests that a model may know from an earlier version; none of the test share is such."""
        trained = Taken()
        for camera, at_ms, group_id in self.store.datasets.trained_on():
            trained.add(camera, at_ms, group_id)
        kept = [
            shot
            for shot in shots
            if not (shot.is_test and not shot.row.test)
            or not trained.has(shot.camera, shot.row.captured_at_ms, shot.row.group_id)
        ]
        if known := len(shots) - len(kept):
            self.left_out["known_before"] += known
            self.notes.append(
                f"{counted(known, 'image')} drawn at random cannot measure: an earlier version trained on the same"
            )
        return kept

    def _side(self, camera: str, at_ms: int) -> Side | None:
        if camera not in self._first_heard:
            self._first_heard[camera] = self.store.datasets.first_heard_ms(camera)
        return side(camera, at_ms, first_ms=self._first_heard[camera])

    def _is_of_weak_spot(self) -> Callable[[FieldFrame], bool]:
        if self.asked.weak_spot is None:
            return lambda _: True
        spot = weak_spot(self.store, self.asked.weak_spot)
        return lambda frame: self.marks.has(spot, frame)

    def _chosen(
        self,
        count: int,
        *,
        is_first: Callable[[FieldFrame], bool] = lambda _: True,
        is_wanted: Callable[[FieldFrame], bool] = lambda _: True,
    ) -> list[FieldFrame]:
        return choose(
            (one for one in self.store.datasets.field_frames() if is_wanted(one)),
            count,
            taken=self._taken,
            side_of=lambda one: self._side(one.camera_path, one.captured_at_ms),
            is_first=is_first,
        )

    def _add_for_replay(self, frame: FieldFrame) -> None:
        jpeg = self.store.frame(frame.event_id)
        try:
            decode_jpeg(jpeg)
        except UnusableError as error:
            self._leave_out(f"frame {frame.event_id} is left out: {error}")
            return
        shot = taught_shot(self.store, frame.event_id, (), labels=(), marks=self.marks)
        found = self._side(shot.camera, shot.row.captured_at_ms)
        if found is not None:
            self._jpegs[frame.event_id] = jpeg
            self.members.append(member_of(shot, found, order={}))

    def _leave_out(self, told: str) -> None:
        self.left_out["unreadable"] += 1
        self.notes.append(told)


def counted_as(member: Member) -> str:
    """Return what a recipe counts a member as, such as `train_person`, `train_noisy`, `val_replay`."""
    return f"{member.split}_{'noisy' if member.copy_of else member.by or 'replay'}"


def is_original(member: Member) -> bool:
    """Whether a training learns from a person's or a certified machine's word on this very picture."""
    return member.split == "train" and not member.copy_of and member.by not in {"", "self"}
