"""The judge with real models: what a release is, good or spoiled, and that its crash or hanging is an answer."""

import os
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import MiningConfig
from edge.contract.judgement import NOTHING, STAYS_S, Figures, add, judge, side
from edge.contract.samples import Reason, WitnessKind, decode_event, encode_event
from edge.detector.detections import Detections
from edge.detector.detector import open_detector
from edge.detector.golden import write_golden
from edge.detector.tuned import read_tuned
from edge.finding import seal
from edge.updating.judge import Judge, hold_golden, tune_on_arrival
from edge.updating.pairing import Pair, Sight, fallback, pack, unpack
from edge.updating.sightings import MOST_TIMES, Objects, Sightings
from tests.edge.detector.golden_models import jpegs, starter_folder
from tests.edge.updating import broken_models as broken

PATIENCE_S = 240.0

pytestmark = pytest.mark.timeout(600)  # children that load runtimes, on a machine that may do other work


def offered(judge_: Judge, count: int, *, cameras=("gate",)) -> None:
    """Offer the clip's frames until `count` were taken, or the judge cannot go on."""
    end = time.monotonic() + PATIENCE_S
    for index in range(count):
        for camera in cameras:
            frame = broken.frame(index, camera=camera)
            while not judge_.offer(frame) and not judge_.fault and not judge_.trouble:
                assert time.monotonic() < end, "the judge takes no frames"
                time.sleep(0.002)


def waited(ready) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def processor_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


# Two models in one process: what is counted, and the verdict.


def looked(tmp_path: Path, new: Path, *, count: int, new_serves=False, **mining) -> tuple[Figures, list[Sight]]:
    old = starter_folder(tmp_path / "old", size=broken.SIZE)
    turns: list[int] = []
    pair = Pair(
        old=open_detector(old, threads=1),
        new=open_detector(new, threads=1),
        score_threshold=None,
        mining=MiningConfig(**mining),
        blur="none",
        zones={"gate": ()},
        new_serves=new_serves,
        turn=turns.append,
    )
    figures, sights = NOTHING, []
    for index in range(count):
        more, sight = pair.look(broken.frame(index))
        figures = add(figures, more)
        sights += [sight] if sight is not None else []
    assert turns[:6] == [1, 2, 0, 2, 1, 0][: 3 * count], "who is first alternates"
    return figures, sights


SPOILED = [
    # finds nothing: the field's own
    (broken.times(0.0), 60, "it is blind"),
    # NaN on the first real picture
    (broken.not_a_number, 1, "NaN or infinity"),
    # clutter everywhere
    (broken.sees_everything, 60, "too many boxes"),
    # twice the work
    (broken.slow, 60, "too slow"),
    # a third of the score lost: the sure ones stay
    (broken.times(0.45), 80, "too few boxes"),
]


@pytest.mark.parametrize(("spoil", "count", "reason"), SPOILED)
def test_a_spoiled_release_fails_early(tmp_path, spoil, count, reason):
    figures, _ = looked(tmp_path, broken.spoiled(tmp_path / "new", spoil), count=count)
    verdict = judge(figures, enough=500)
    assert (verdict.outcome, figures.frames) == ("fail", count)
    assert verdict.reason.startswith(reason)


def test_the_same_model_passes_and_differs_nowhere(tmp_path):
    figures, sights = looked(tmp_path, starter_folder(tmp_path / "new", size=broken.SIZE), count=80)
    assert msgspec.structs.replace(figures.old, spent={}) == msgspec.structs.replace(figures.new, spent={})
    assert figures.old.boxes > 20
    assert judge(figures, enough=81).outcome == "insufficient"
    faster = msgspec.structs.replace(figures.new, spent=figures.old.spent)  # on a busy machine times tell nothing
    assert judge(msgspec.structs.replace(figures, new=faster), enough=80).outcome == "pass"
    assert sights == []


def test_what_only_the_other_sees(tmp_path):
    """The serving model has lost half its score: what the other surely sees is a peer, once a place, seldom."""
    spoiled = broken.spoiled(tmp_path / "new", broken.times(0.4))
    _, sights = looked(tmp_path, spoiled, count=60, new_serves=True)
    assert 2 <= len(sights) <= 60 * broken.PERIOD_S / STAYS_S + 1
    places = [peer.xyxy for sight in sights for peer in sight.peers]
    assert len(set(places)) == len(places)
    for sight in sights:
        assert all(peer.score >= 0.4 for peer in sight.peers)
        assert sight.score_threshold == 0.3
    _, none = looked(tmp_path, spoiled, count=10, new_serves=True, labels=("dog",))
    assert none == [], "nobody mines people here"


# What is counted once.


@given(st.integers(1, 60), st.floats(0.1, 3.0))
@settings(deadline=None)
def test_what_stands_still_counts_once_in_a_while(frames, period_s):
    objects = Objects()
    n = sum(len(objects.count(_one(20), time_s=index * period_s)) for index in range(frames))
    seconds = (frames - 1) * period_s
    assert 1 <= n <= seconds / STAYS_S + 1


@given(st.integers(1, 40), st.integers(0, 5))
@settings(deadline=None)
def test_what_walks_counts_as_often_as_what_stands(frames, stride_px):
    standing, walking = Objects(), Objects()
    for index in range(frames):
        a = standing.count(_one(20), time_s=index * 0.2)
        b = walking.count(_one(20 + index * stride_px), time_s=index * 0.2)
        assert len(a) == len(b)


@pytest.mark.parametrize(
    ("period_s", "shown"),
    [
        # an hour of a parked car, looked at once a second
        (1.0, lambda _: True),
        # one whose score is about the threshold: it comes and goes
        (1.0, lambda index: index % 3 == 0),
        # two cameras for a slow device
        (8.0, lambda _: True),
    ],
)
def test_what_stays_for_an_hour_is_still_one_object(period_s, shown):
    objects = Objects()
    steps = range(round(3600 / period_s))
    counted = [len(objects.count(_one(*[20] * shown(index)), time_s=index * period_s)) for index in steps]
    assert sum(counted) == MOST_TIMES
    assert len(objects.count(_one(20, 120), time_s=3601.0)) == 1, "who comes meanwhile is counted"
    assert len(objects.count(_one(20, 120), time_s=3601.0 + STAYS_S)) == 1
    assert len(objects.count(_one(120), time_s=3601.0 + 2 * STAYS_S)) == 1
    assert len(objects.count(_one(20), time_s=3601.0 + 3 * STAYS_S)) == 1, "it was away: another one, for all we know"


def test_what_is_remembered_does_not_grow():
    """An hour of a busy street: who left is forgotten."""
    objects = Objects()
    for index in range(3600):
        objects.count(_one(*((index * 37 + 90 * one) % 1800 for one in range(10))), time_s=float(index))
        assert len(objects._xyxy) <= 10 * (STAYS_S + 1)


def test_each_object_counts_and_a_class_of_its_own():
    objects = Objects()
    assert len(objects.count(_one(20, 120, 220), time_s=0.0)) == 3
    assert len(objects.count(_one(20, 120, 220, 320), time_s=1.0)) == 1, "a fourth came"
    assert len(objects.count(_one(20, class_id=2), time_s=2.0)) == 1, "another class"
    assert len(objects.count(Detections(), time_s=3.0)) == 0
    assert len(objects.count(_one(20), time_s=4.0)) == 0, "gone for a moment"
    assert len(objects.count(_one(20), time_s=0.5)) == 0, "a clip that begins anew"


@given(st.lists(st.floats(0, 1), max_size=30))
@settings(deadline=None)
def test_what_is_counted_of_a_frame(scores):
    found = _one(*(100 * i for i in range(len(scores))))
    found = Detections(found.xyxy, np.array(sorted(scores, reverse=True), np.float32), found.class_id)
    counted = Sightings(score_threshold=0.3).count(found, time_s=0.0)
    assert sum(counted.scores) == int((found.score >= 0.05).sum())
    assert counted.boxes == int((found.score >= 0.3).sum()) <= counted.near


def _one(*lefts: float, class_id: int = 1) -> Detections:
    boxes = np.array([(x, 50, x + 40, 130) for x in lefts], np.float32).reshape(-1, 4)
    return Detections(boxes, np.full(len(boxes), 0.8, np.float32), np.full(len(boxes), class_id, np.int32))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("CPU", "CPU", ""),
        # the driver is gone
        ("CUDA", "CPU", "CUDA to CPU"),
        ("TensorRT", "CUDA", "TensorRT to CUDA"),
        # faster is no fallback
        ("CPU", "CUDA", ""),
        # a device of which nothing is known
        ("NPU", "CPU", ""),
    ],
)
def test_falling_back(old, new, told):
    assert fallback(old, new) == told


def test_boxes_go_through_the_pipe():
    found = _one(20, 120)
    back = unpack(pack(found))
    assert np.array_equal(back.xyxy, found.xyxy)
    assert np.array_equal(back.class_id, found.class_id)
    assert len(unpack(())) == 0


# The child.


def test_a_judge_beside_a_serving_model(tmp_path):
    """The new one serves and sees less: the figures come back, and what it misses becomes findings."""
    config = broken.device(tmp_path, cameras=("gate", "door"))
    new = broken.spoiled(tmp_path / "new", broken.times(0.4))
    with Judge(config, old=None, new=new, serving="new", share=8.0) as judging:
        first = broken.frame(0)
        begun_s = time.perf_counter()
        assert not judging.offer(first), "nothing is open yet"
        assert time.perf_counter() - begun_s < 1.0
        offered(judging, 20, cameras=("gate", "door"))
        waited(lambda: judging.figures.frames == 40)
        assert judging.verdict(500).reason.startswith("it is blind")
        assert judging.verdict(None).reason.startswith("it is blind"), "that is no matter of chance"
        found = judging.disagreements()
        assert {one.at.frame.camera for one in found} == {"gate", "door"}
        assert judging.disagreements() == []
    detector = open_detector(new, threads=1)
    for one in found:
        finding, jpeg = seal(one, detector=detector, site="yard", device="one", jpeg_quality=90)
        assert decode_event(encode_event(finding, jpeg)) == (finding, jpeg)
        assert (finding.reason, finding.label, finding.model) == (Reason.MISSED, "person", "starter-2")
        assert [witness.kind for witness in finding.witnesses] == [WitnessKind.PEER]
        assert finding.boxes[0].witness is WitnessKind.PEER
        assert 0.4 <= finding.severity == finding.witnesses[0].score <= 1


def test_a_judge_goes_on_from_what_another_counted_at_the_share_that_it_is_given(tmp_path):
    """At a twentieth of a processor it rests for nineteen times as long as it looks."""
    config = broken.device(tmp_path)
    before = Figures(frames=100, old=side(scores=[0.9] * 20, threshold=0.3, spent_ms=[8.0] * 40))
    before = msgspec.structs.replace(before, new=before.old)
    with Judge(config, old=None, new=None, serving="new", counted=before, share=8.0) as judging:
        assert judging.figures == before
        offered(judging, 5)
        waited(lambda: judging.figures.frames == 105)
        assert judging.figures.old.boxes >= 20
        assert judging.verdict(None).outcome == "insufficient", "however many there are"
        assert judging.verdict(106).outcome == "insufficient"
        judging.share = 0.05
        child = judging._bench._child._process.pid
        begun_s, spent_s = time.monotonic(), -processor_s(child)
        offered(judging, 4)
        took_s, spent_s = time.monotonic() - begun_s, spent_s + processor_s(child)
        assert spent_s > 0
        assert took_s > 0.5 * spent_s / 0.05, "the last of the four has yet to be rested from"
        waited(lambda: judging.figures.frames == 109)
    assert judging.figures.frames == 109, "they stay when it has ended"


def test_a_crash_while_the_new_model_is_loaded_is_its_fault(tmp_path, monkeypatch):
    config = broken.device(tmp_path)
    new = broken.crashes(tmp_path / "new", monkeypatch)
    with Judge(config, old=None, new=new, serving="old") as judging:
        waited(lambda: judging.fault)
        assert not judging.offer(broken.frame(0))
        assert judging.verdict(10).outcome == "fail"
        assert judging.verdict(10).reason.startswith("its process was killed by SIGABRT")
    with Judge(config, old=new, new=None, serving="old") as judging:
        waited(lambda: judging.trouble)
        assert judging.fault == "", "it was the old one's"
        assert judging.verdict(10).outcome == "insufficient"
    assert hold_golden(config, new).outcome == "fail"


def test_a_device_without_memory_tells_nothing_of_a_golden_set(tmp_path, monkeypatch):
    """The system kills whom it likes: here while the release is opened."""
    new = broken.crashes(tmp_path / "new", monkeypatch, how="os.kill(os.getpid(), 9)")
    verdict = hold_golden(broken.device(tmp_path), new)
    assert (verdict.outcome, verdict.reason) == ("insufficient", "its process was killed by SIGKILL")


@pytest.mark.slow
def test_a_model_that_hangs_is_its_fault_and_leaves_nothing_behind(tmp_path):
    config = broken.device(tmp_path)
    new = broken.spoiled(tmp_path / "new", broken.hangs)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, runtime="onnxruntime"))
    with Judge(config, old=None, new=new, serving="old", open_s=20.0) as judging:
        child = judging._bench._child._process.pid
        waited(lambda: judging.fault)
        assert judging.fault == "it did not answer within 20 s"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_judge_is_left_at_once(tmp_path):
    """However far it is: opening takes seconds."""
    config = broken.device(tmp_path)
    with Judge(config, old=None, new=None, serving="old") as judging:
        child = judging._bench._child._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert (judging.fault, judging.trouble, judging.figures) == ("", "", NOTHING)
    assert judging.verdict(10).outcome == "insufficient"


UNUSABLE = [
    # not an ONNX file
    (lambda folder: (folder / "starter.onnx").write_bytes(b"junk"), "fail"),
    # no file at all
    (lambda folder: (folder / "starter.onnx").unlink(), "fail"),
    # nothing to hold it against: that is said, and no fault
    (lambda _: None, "pass"),
]


@pytest.mark.parametrize(("spoil", "outcome"), UNUSABLE)
def test_what_cannot_be_held_against_a_golden_set(tmp_path, spoil, outcome):
    folder = starter_folder(tmp_path / "new", size=broken.SIZE)
    spoil(folder)
    verdict = hold_golden(broken.device(tmp_path), folder)
    assert verdict.outcome == outcome
    assert verdict.reason


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_golden_and_tuned_on_arrival(tmp_path):
    """A release is tuned, then held against its golden set as it will be opened; one that lost its scores is not."""
    config = broken.device(tmp_path)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, threads=None))
    good = starter_folder(tmp_path / "good", size=broken.SIZE)
    write_golden(good, jpegs(4))
    assert tune_on_arrival(config, good, seconds=1.0).outcome == "pass"
    assert read_tuned(good / "tuned.json") is not None
    assert hold_golden(config, good).outcome == "pass"
    bad = broken.spoiled(tmp_path / "bad", broken.times(0.5))
    card = msgspec.json.decode((bad / "model.json").read_bytes())
    golden = msgspec.json.decode((good / "model.json").read_bytes())["golden"]
    (bad / golden).mkdir()
    for file in (good / golden).iterdir():  # boxes of the good file, as if this device computed the bad one's otherwise
        content = file.read_bytes().replace(
            msgspec.json.decode((good / "model.json").read_bytes())["sha256"].encode(), card["sha256"].encode()
        )
        (bad / golden / file.name).write_bytes(content)
    (bad / "model.json").write_bytes(msgspec.json.encode({**card, "golden": golden}))
    assert hold_golden(config, bad).reason.startswith("it finds")
    tuned = tune_on_arrival(config, bad, seconds=1.0)
    assert tuned.outcome == "fail"
    assert tuned.reason.startswith("no way of running it is good here: it finds")
    assert not (bad / "tuned.json").exists()


def test_tuning_that_takes_too_long_tells_nothing(tmp_path):
    config = broken.device(tmp_path)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, threads=None))
    folder = starter_folder(tmp_path / "new", size=broken.SIZE)
    verdict = tune_on_arrival(config, folder, seconds=600.0, within_s=0.5)
    assert (verdict.outcome, verdict.reason) == ("insufficient", "it did not answer within 0 s")
