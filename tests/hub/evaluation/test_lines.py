"""What is printed: within 80 characters, few objects never as "no change", and the pictures of odd evaluations."""

import dataclasses
import time

import msgspec
import numpy as np
import pytest

from hub.evaluation.compare import compare
from hub.evaluation.evaluate import evaluate
from hub.evaluation.lines import comparison_lines, how_sure, names_of, report_lines
from hub.evaluation.plots import report_pictures
from hub.evaluation.report import Measured, Report
from hub.plots import save
from tests.hub.evaluation.scenes import START_MS, made, member, seen

MANY = tuple(f"label with a name that is long {at:02d}" for at in range(30))
BOX = (10.0, 10.0, 110.0, 110.0)


def report_of(candidate, baseline=None, threshold=0.4):
    measured = [
        Measured(
            release=name,
            sha256="0" * 64,
            runtime="onnxruntime",
            evaluation=evaluate(one, score_threshold=threshold, resamples=60),
        )
        for name, one in (("candidate-with-a-long-name-0123abcd", candidate), ("baseline-1", baseline))
        if one is not None
    ]
    if baseline is None:
        return Report(dataset="d" * 64, split="test", model=measured[0])
    changes = compare(baseline, candidate, score_threshold=threshold, resamples=60)
    return Report(dataset="d" * 64, split="test", model=measured[0], baseline=measured[1], comparison=changes)


def tagged(looks):
    """The same looks with long names of cameras and tags, and dollars, which matplotlib reads as formulas."""
    answer = []
    for at, one in enumerate(looks):
        camera = f"a-site/a-device-{at % 2}/a camera with $a$ name_{at % 3}"
        of = member(
            one.member.name,
            labels=one.member.labels,
            camera=camera,
            at_ms=START_MS + at * 60_000,
            tags=("motion_blur", "some_tag_that_nobody_would_ever_write_$x$")[: 1 + at % 2] if at else (),
            weak_spots=(at % 2,),
        )
        of = msgspec.structs.replace(of, boxes=one.member.boxes)
        answer.append(dataclasses.replace(one, member=of))
    return answer


CASES = {
    "many labels with long names": lambda: (made(1, labels=MANY, pictures=15), made(1, labels=MANY, pictures=15)),
    "long names of cameras": lambda: (tagged(made(2)), tagged(made(2))),
    "one picture": lambda: (made(3, pictures=1), made(3, pictures=1)),
    "few moments": lambda: (made(4, moments=3), made(4, moments=3)),
    "nothing detected": lambda: (made(5), [seen(one.member) for one in made(5)]),
    "no objects": lambda: ([seen(member(f"p{at}"), [("car", BOX, 0.9)]) for at in range(6)], None),
    "nothing at all": lambda: ([seen(member(f"p{at}")) for at in range(6)], None),
}


@pytest.mark.parametrize("case", CASES)
def test_lines_fit_and_pictures_are_drawn(case, tmp_path):
    baseline, candidate = CASES[case]()
    candidate = baseline if candidate is None else candidate
    for report in (report_of(candidate), report_of(candidate, baseline)):
        lines = report_lines(report)
        assert max(map(len, lines)) <= 80
        assert "nan" not in "\n".join(lines)
    names = []
    for name, figure in report_pictures(report):
        save(figure, tmp_path / name)  # a warning of matplotlib fails here
        names.append(name)
    assert "groups.png" in names


def test_few_objects_are_marked_whatever_their_difference():
    of = [member(f"p{at}", [("car", BOX)], camera="a/b/c", at_ms=START_MS + at * 60_000) for at in range(12)]
    old, new = ([seen(one, [("car", BOX, score)]) for one in of] for score in (0.2, 0.9))
    lines = comparison_lines(compare(old, new, score_threshold=0.5))
    assert "too few objects to tell" in next(line for line in lines if line.startswith("recall"))
    assert "+100.0?" in next(line for line in lines if line.startswith("car"))
    same = comparison_lines(compare(old, old, score_threshold=0.5))
    assert "0.0?" in next(line for line in same if line.startswith("car"))
    assert "*" not in "\n".join(same[:-2])


def test_what_the_intervals_are_made_of_is_said():
    assert "40 moments" in how_sure("moments", 40)
    assert "narrower than they should be" in how_sure("pictures", 12)
    assert "too few" in how_sure("too few", 1)


def test_cameras_are_as_short_as_they_can_be_told_apart():
    looks = [
        seen(member(f"p{at}", [("car", BOX)], camera=camera), [("car", BOX, 0.9)])
        for at, camera in enumerate(["lab/one/door", "lab/two/door", "lab/two/yard", ""])
    ]
    groups = evaluate(looks, score_threshold=0.5).of("camera")
    assert names_of("camera", groups) == {
        "": "from elsewhere",
        "lab/one/door": "one/door",
        "lab/two/door": "two/door",
        "lab/two/yard": "yard",
    }


@pytest.mark.slow
def test_two_thousand_pictures_of_twenty_boxes_are_counted_in_seconds():
    looks = made(1, pictures=2000, objects=14, wrong=10, moments=300, labels=("bike", "bus", "car", "dog", "person"))
    assert np.mean([len(one.detections) for one in looks]) > 20
    begun = time.process_time()
    evaluate(looks, score_threshold=0.4)
    assert time.process_time() - begun < 8  # 3.7 s measured; other work beside it slows the caches
