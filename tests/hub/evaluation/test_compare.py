"""The paired bootstrap: what changed is told, what did not is not, and few objects are told as few."""

import msgspec
import numpy as np
import pytest

from edge.detector.detections import Detections
from hub.evaluation.compare import Comparison, Level, compare
from hub.evaluation.seen import Seen
from tests.hub.evaluation.scenes import LABELS, START_MS, made, member, seen

BOX, FAR = (10.0, 10.0, 110.0, 110.0), (200.0, 200.0, 300.0, 300.0)


def changed(looks, alter):
    """The same pictures seen by another model; `alter` gets xyxy, score, class_id and the place of the picture."""
    answer = []
    for at, one in enumerate(looks):
        xyxy, score, code = alter(one.detections.xyxy.copy(), one.detections.score.copy(), one.detections.class_id, at)
        order = np.argsort(-score, kind="stable")
        answer.append(Seen(one.member, Detections(xyxy[order], score[order], code[order]), one.labels, one.input_size))
    return answer


def test_a_model_against_itself_has_no_difference_anywhere():
    looks = made(1)
    for group in compare(looks, looks, score_threshold=0.4).groups:
        for change in (group.ap50, group.recall, group.precision):
            assert change.baseline == change.candidate
            assert change.difference in {0.0, None}
            assert not change.is_better
            assert not change.is_worse


def test_a_model_that_finds_more_of_one_label_is_better_on_that_label_only():
    looks = made(2, pictures=80)
    person = LABELS.index("person")
    candidate = changed(
        looks, lambda xyxy, score, code, _: (xyxy, np.where(code == person, np.sqrt(score), score), code)
    )
    found = compare(looks, candidate, score_threshold=0.5)
    assert found.find("label", "person").recall.is_better
    for name in ("car", "dog"):
        assert found.find("label", name).recall.difference == 0
        assert found.find("label", name).ap50.difference == pytest.approx(0, abs=1e-6)
    assert found.overall.recall.is_better
    assert found.find("label", "person").precision.is_worse  # it believes its mistakes, too


def test_a_model_that_lost_its_boxes_is_worse_everywhere():
    looks = made(3, pictures=80)
    blind = changed(looks, lambda xyxy, score, code, _: (xyxy, score * 0.2, code))
    found = compare(looks, blind, score_threshold=0.4)
    assert found.overall.recall.is_worse
    assert found.overall.recall.candidate == 0
    assert found.overall.precision.candidate is None  # it says nothing
    assert found.overall.precision.low is None


def test_pairing_tells_a_small_gain_that_the_scatter_of_pictures_would_hide():
    looks = made(4, pictures=60, moments=30)
    gains = changed(looks, lambda xyxy, score, code, at: (xyxy, np.where(at % 3 == 0, score + 0.08, score), code))
    recall = compare(looks, gains, score_threshold=0.55).overall.recall
    assert recall.is_better
    assert recall.high - recall.low < 0.06
    assert recall.low < recall.difference < recall.high


def test_each_model_is_held_to_its_own_threshold():
    looks = made(5)
    halved = changed(looks, lambda xyxy, score, code, _: (xyxy, score / 2, code))
    found = compare(looks, halved, score_threshold=0.25, baseline_threshold=0.5)
    assert found.overall.recall.difference == 0
    assert found.overall.precision.difference == 0


def test_a_label_that_one_of_them_lacks_is_named_and_left_out():
    of = [member(f"p{at}", [("car", BOX), ("kite", FAR)], labels=("car", "kite")) for at in range(6)]
    old = [seen(one, [("car", BOX, 0.9)], labels=("person", "car")) for one in of]
    new = [seen(one, [("car", BOX, 0.9), ("kite", FAR, 0.9)], labels=("car", "kite", "person")) for one in of]
    found = compare(old, new, score_threshold=0.5)
    assert found.left_out == ("kite",)
    assert found.labels == ("car",)
    assert found.overall.objects == 6
    assert (found.overall.recall.baseline, found.overall.recall.candidate) == (1.0, 1.0)


def test_labels_may_stand_in_another_order_in_the_other_model():
    looks = made(6)
    order = [2, 0, 1]
    names = tuple(LABELS[at] for at in order)
    codes = np.array([order.index(at) for at in range(3)], np.int32)
    turned = [
        Seen(one.member, Detections(d.xyxy, d.score, codes[d.class_id]), names, one.input_size)
        for one in looks
        for d in [one.detections]
    ]
    for group in compare(looks, turned, score_threshold=0.4).groups:
        assert group.ap50.difference == pytest.approx(0, abs=1e-6)
        assert group.recall.difference == 0


def test_few_objects_are_told_as_few():
    of = [
        member(
            f"p{at}",
            [("car", BOX)] + [("dog", FAR)] * (at == 0),
            camera="lab/box/door",
            at_ms=START_MS + at * 60_000,
            tags=("dark",) if at % 2 else (),
            weak_spots=(3,) if 0 < at < 5 else (),
        )
        for at in range(50)
    ]
    looks = [seen(one, [("car", BOX, 0.9)]) for one in of]
    found = compare(looks, looks, score_threshold=0.5)
    assert not found.find("label", "car").few
    assert found.find("label", "dog").few
    assert found.find("label", "dog").objects == 1
    assert (found.find("weak spot", "3").objects, found.find("weak spot", "3").few) == (4, True)
    assert (found.find("slice", "dark").objects, found.find("slice", "dark").few) == (25, False)
    assert found.find("size", "tiny") is None
    assert found.find("size", "big").objects == 51


def test_frames_of_one_moment_are_drawn_together():
    """Ten pictures of each moment that say the same add nothing: the interval stays as wide."""
    one_each = made(7, pictures=24, moments=24)
    base = changed(one_each, lambda xyxy, score, code, at: (xyxy, score * (0.5 + 0.04 * (at % 12)), code))
    repeated, again = ([one for one in looks for _ in range(10)] for looks in (one_each, base))
    width = [
        (change := compare(*both, score_threshold=0.5).overall.recall).high - change.low
        for both in ((base, one_each), (again, repeated))
    ]
    assert width[1] == pytest.approx(width[0])


def test_with_few_moments_pictures_are_drawn_and_it_is_said():
    looks = made(8, pictures=20, moments=4)
    assert compare(looks, looks, score_threshold=0.5).resampled == "pictures"
    assert compare(looks, looks, score_threshold=0.5).units == 20
    single = compare(looks[:1], looks[:1], score_threshold=0.5)
    assert single.resampled == "too few"
    assert single.overall.recall.low is None
    assert single.overall.few


def test_looks_at_other_pictures_are_refused():
    looks = made(9, pictures=4)
    for other in (looks[:3], looks[::-1], []):
        with pytest.raises(ValueError, match="the same pictures"):
            compare(looks, other, score_threshold=0.5)


def test_a_comparison_goes_through_json_and_the_seed_decides_all():
    looks = made(10)
    other = changed(looks, lambda xyxy, score, code, _: (xyxy, score**1.3, code))
    found = compare(looks, other, score_threshold=0.4)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found
    assert compare(looks, other, score_threshold=0.4) == found
    assert compare(looks, other, score_threshold=0.4, seed=1) != found


def test_all_that_is_not_of_a_weak_spot_is_told_when_it_is_asked_for():
    """The gain on the weak spot is half of all; elsewhere as much is lost."""
    of = [
        member(
            f"p{at:02}", [("car", BOX)], camera="lab/box/door", at_ms=START_MS + at * 60_000, weak_spots=(3,) * (at % 2)
        )
        for at in range(60)
    ]
    old = [seen(one, [("car", BOX, 0.9)] * (not one.weak_spots)) for one in of]
    new = [seen(one, [("car", BOX, 0.9)] * bool(one.weak_spots)) for one in of]
    found = compare(old, new, score_threshold=0.5, apart_from=3)
    elsewhere = found.find("elsewhere", "3")
    assert (elsewhere.images, elsewhere.objects) == (30, 30)
    assert elsewhere.recall.difference == -1
    assert found.find("weak spot", "3").recall.difference == 1
    assert found.overall.recall.difference == 0
    assert compare(old, new, score_threshold=0.5).of("elsewhere") == ()
    assert compare(new[1::2], new[1::2], score_threshold=0.5, apart_from=3).of("elsewhere") == ()  # there is none


def test_what_is_found_where_both_are_as_precise():
    """The baseline is right in 3 of 4 boxes; the candidate from .6 up, where it finds 3 of 5, and never from .9 up."""
    of = [member(f"p{at}", [("car", BOX)]) for at in range(5)]
    old = [seen(one, [("car", BOX, 0.9)] if at < 3 else [("car", FAR, 0.5)] * (at == 3)) for at, one in enumerate(of)]
    told = [(FAR, 0.95), (BOX, 0.8), (BOX, 0.7), (BOX, 0.6), (FAR, 0.55)]
    new = [seen(one, [("car", *box)]) for one, box in zip(of, told, strict=True)]
    found = compare(old, new, score_threshold=0.5)
    assert found.overall.precision.baseline == 0.75
    assert found.level == Level(score=pytest.approx(0.6), recall=0.6)
    worse = [seen(one, [("car", FAR, 0.9), ("car", BOX, 0.6)]) for one in of]
    assert compare(old, worse, score_threshold=0.5).level is None
    tied = [seen(one, [("car", BOX, 0.7), ("car", FAR, 0.7)]) for one in of]  # of equal scores all count or none
    assert compare(old, tied, score_threshold=0.5).level is None
