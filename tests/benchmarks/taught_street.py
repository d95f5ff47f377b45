"""Trainings on the street recording, each in a process of its own, and what the models before and after find.

python -m tests.benchmarks.taught_street VERSION OUT SEED      # one training, through hub.train.course
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np

from edge.config import MiningConfig
from edge.contract.samples import encode_event
from edge.contract.topics import Kind as Topic
from edge.detector.detector import open_detector
from edge.finding import seal
from edge.frame import Frame
from edge.pipeline import Pipeline
from hub.batches import new_batch
from hub.datasets.teaching import open_teacher, taught
from hub.datasets.version import Member, MemberBox, Split, make_version, read_version, write_version
from hub.evaluation.ap import ap50_of
from hub.evaluation.columns import columns
from hub.evaluation.compare import compare
from hub.evaluation.matching import RIGHT, UNCOUNTED, match
from hub.evaluation.seen import Seen, look, members_to_test
from hub.store import GroupAssignment, Store
from hub.train.training import read_training
from tests.benchmarks import street
from tests.hub.made import arrival

SIZE = (192, 192)
WORKING = 0.4
THREADS = 2
EVERY = 3  # of the training part's frames, which teach themselves
VAL = 5  # every fifth picture for replay is validation
START_MS = 1_767_225_600_000


@dataclass(frozen=True)
class Figures:
    """AP50, recall and precision at the working threshold on the street; AP50 of COCO's people, and of all labels.

    `people_low`, `people_high`: the 95 % interval of what changed for COCO's people, over the same pictures.
    """

    street: float
    recall: float
    precision: float
    people: float
    labels: float
    people_low: float
    people_high: float


@dataclass(frozen=True)
class Run:
    """A training: what came of it, the share of new weights, and what it took."""

    figures: Figures
    alpha: float
    clock_s: float
    processor_s: float
    memory_gb: float


def self_taught(numbers: Iterable[int]) -> tuple[dict[int, tuple[MemberBox, ...]], float]:
    """Return what the starter's second look shows of these frames, and the processor seconds it took."""
    teacher = open_teacher(None)
    began = time.process_time()
    found = {number: taught(teacher, street.frames()[number], labels={"person"}) for number in numbers}
    return found, time.process_time() - began


def train_part() -> range:
    """Return the frames that may be trained on, by number."""
    return range(street.split()[1][0] - street.APART)


def write_train_version(folder: Path, *, people: Collection[int], machine: dict[int, tuple[MemberBox, ...]]) -> None:
    """Write a version: people's frames, the machine's where people have none, and COCO's pictures for replay."""
    pictures = street.Pictures()
    pictures.add_coco(replay=True, split="train")
    replay = {member.name for member in pictures.members[::VAL]}
    for number in people:
        pictures.add_frame(number, split="train")
    for number in machine.keys() - set(people):
        pictures.add_frame(number, split="train", labelled=False)
    changed = [_changed(member, replay=replay, machine=machine) for member in pictures.members]
    version = make_version(changed, labels=street.LABELS, recipe={}, created_at_ms=0)
    write_version(version, folder, jpeg_of=pictures.jpeg_of)


def _changed(member: Member, *, replay: set[str], machine: dict[int, tuple[MemberBox, ...]]) -> Member:
    if member.name in replay:
        split: Split = "val"
        return msgspec.structs.replace(member, split=split)
    if member.camera and not member.labels:
        boxes = machine[int(member.name.rsplit("-", 1)[1])]
        return msgspec.structs.replace(member, labels=("person",), by="self", boxes=boxes)
    return member


class Tests:
    """The street's test frames and COCO's test pictures."""

    def __init__(self, folder: Path) -> None:
        self._street, self._coco = folder / "street-test", folder / "coco-test"
        street.street_to_test(self._street)
        street.coco_to_test(self._coco)
        self._before: list[Seen] = []

    def of(self, model: Path | None) -> Figures:
        """Look through edge.detector."""
        detector = open_detector(model, input_size=SIZE, threads=THREADS)
        seen = {one: look(detector, one, members_to_test(read_version(one))) for one in (self._street, self._coco)}
        recall, precision = at_work(seen[self._street])
        of_coco = seen[self._coco]
        self._before = self._before or of_coco  # the starter is looked at first
        changed = compare(self._before, of_coco, score_threshold=WORKING, labels=["person"]).overall.ap50
        assert changed.low is not None
        assert changed.high is not None
        return Figures(
            street=ap50_of(seen[self._street], "person"),
            recall=recall,
            precision=precision,
            people=ap50_of(of_coco, "person"),
            labels=ap50_of(of_coco),
            people_low=changed.low,
            people_high=changed.high,
        )


def at_work(seen: Sequence[Seen]) -> tuple[float, float]:
    """Return recall and precision of people at the working threshold."""
    table = columns(seen, labels=["person"])
    matches = match(table)
    true, shown = ~table.ignored, (table.score >= WORKING) & (matches.state != UNCOUNTED)
    return float((matches.found[true] >= WORKING).mean()), float((matches.state[shown] == RIGHT).mean())


def train(version: Path, out: Path, tests: Tests, *, seed: int = 0) -> Run:
    """Train in a process of its own, so that its memory and processor time are its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.benchmarks.taught_street", str(version), str(out), str(seed)]
    child = subprocess.Popen(command)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        msg = f"the training ended with {child.returncode}"
        raise RuntimeError(msg)
    return Run(
        figures=tests.of(out),
        alpha=read_training(out).alpha,
        clock_s=time.monotonic() - began,
        processor_s=used.ru_utime + used.ru_stime,
        memory_gb=used.ru_maxrss / 1e6,
    )


def at_random(count: int, *, seed: int) -> list[int]:
    """Choose among the annotated frames of the training part."""
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(street.split()[0], count, replace=False).tolist())


def least_sure(count: int) -> list[int]:
    """Choose the annotated frames whose people, as the starter sees them, have the lowest mean score."""
    detector = open_detector(None, input_size=SIZE, threads=THREADS)

    def sure(number: int) -> float:
        seen = detector.detect(street.frames()[number], score_threshold=0.1).detections
        people = seen.score[seen.class_id == 0]
        return float(people.mean()) if len(people) else 0.0

    return sorted(sorted(street.split()[0], key=sure)[:count])


def ours(count: int) -> list[int]:
    """Choose as `hub batch new` does among what a device mines; each finding stands for the nearest annotated frame."""
    detector = open_detector(None, input_size=SIZE, threads=THREADS)
    pipeline = Pipeline(detector=detector, score_threshold=WORKING, mining=MiningConfig(control_per_hour=0), seed=0)
    mined = []
    for number in train_part():
        image = street.frames()[number]
        mined += pipeline.step(Frame(image, "north", number, START_MS + 100 * number, number / street.FPS)).mined
    mined += pipeline.finish()
    sealed = [seal(one, detector=detector, site="lab", device="box", jpeg_quality=80) for one in mined]
    frame_of = {one.event_id: one.sequence for one, _ in sealed}
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "hub.db") as store:
        store.commit([arrival(Topic.EVENT, encode_event(*one)) for one in sealed], now_ms=START_MS)
        groups = [GroupAssignment(one, number, new=True) for number, one in enumerate(frame_of, 1)]
        store.assign_groups(groups)
        members = new_batch(store, size=len(groups), control=0).members
    annotated = street.split()[0]
    ranked = [min(annotated, key=lambda one: abs(one - frame_of[member.event_id])) for member in members]
    return sorted(list(dict.fromkeys(ranked))[:count])


def main() -> None:
    """Train once; the words are the version's folder, the candidate's, and the seed."""
    from hub.train.course import train as run_course
    from hub.train.recipe import Recipe

    version, out, seed = sys.argv[1:4]
    run_course(
        Path(version), model=None, out=Path(out), input_size=SIZE, recipe=Recipe(seed=int(seed)), threads=THREADS
    )


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
