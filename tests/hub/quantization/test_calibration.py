"""Which pictures give the ranges, and on which a variant is judged: laws of both."""

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.card import InputSpec
from edge.detector.letterbox import Letterbox
from hub.datasets.version import Member, MemberBox, make_version
from hub.quantization.calibration import FEWEST, MOST, pictures_to_calibrate, tensors_of
from hub.quantization.judging import ENOUGH, pictures_to_choose_on, pictures_to_judge_on
from tests.hub.quantization.blobs import LABELS, blob_version, picture

BOX = MemberBox(xyxy=(0.0, 0.0, 9.0, 9.0), label="blob", origin="person")


def member(at: int, split: str, *, labelled: bool = True, copy: bool = False, boxes: int = 1) -> Member:
    known = {"labels": LABELS, "by": "person", "boxes": (BOX,) * boxes} if labelled else {}
    return Member(
        name=f"m{at:04d}", sha256="0" * 64, width=64, height=64, split=split, copy_of="m0" if copy else "", **known
    )


def version_of(members):
    return make_version(members, labels=LABELS, recipe={}, created_at_ms=0)


@given(st.lists(st.tuples(st.sampled_from(["train", "val", "test"]), st.booleans(), st.booleans()), max_size=300))
def test_never_a_test_picture_never_a_copy_replay_only_where_there_are_few(drawn):
    members = [member(at, split, labelled=known, copy=copy) for at, (split, known, copy) in enumerate(drawn)]
    usable = [one for one in members if one.split != "test" and not one.copy_of]
    field = [one for one in usable if one.labels]
    if not usable:
        return
    chosen = pictures_to_calibrate(version_of(members))
    assert len(set(chosen)) == len(chosen) <= MOST
    assert set(chosen) <= set(usable)
    assert len(chosen) == min(MOST, max(len(field), min(FEWEST, len(usable))))
    if len(field) >= FEWEST:
        assert set(chosen) <= set(field)


@pytest.mark.parametrize(
    ("val", "train", "labelled", "of", "truth"),
    [
        (ENOUGH, 5, True, "val", "labels"),
        (ENOUGH - 1, 5, True, "val and train", "labels"),  # one box in val would be more than a point
        (5, 5, True, "val and train", "float32"),
        (200, 200, False, "val and train", "float32"),  # nothing was looked for
    ],
)
def test_where_layers_are_chosen(val, train, labelled, of, truth):
    splits = ["val"] * val + ["train"] * train + ["test"] * 300
    members = [member(at, split, labelled=labelled) for at, split in enumerate(splits)]
    asked = pictures_to_choose_on(version_of(members), LABELS)
    assert (asked.of, asked.truth) == (of, truth)
    assert asked.members
    assert all(one.split != "test" for one in asked.members)


def test_the_verdict_is_of_labelled_test_pictures_or_there_is_none():
    members = [member(0, "train"), member(1, "test"), member(2, "test", labelled=False), member(3, "test", copy=True)]
    asked = pictures_to_judge_on(version_of(members), LABELS)
    assert asked is not None
    assert [one.name for one in asked.members] == ["m0001"]
    assert pictures_to_judge_on(version_of(members[:1]), LABELS) is None


def test_tensors_are_those_of_the_device(tmp_path):
    version = blob_version(tmp_path / "v", train=3, val=0, test=0)
    spec = InputSpec(width=64, height=64, mean=(10.0, 20.0, 30.0), std=(2.0, 3.0, 4.0), letterbox="center")
    chosen = pictures_to_calibrate(version)
    tensors = tensors_of(tmp_path / "v", chosen, spec=spec, size=(96, 64))
    for at, tensor in enumerate(tensors):
        image = cv2.imdecode(np.frombuffer(picture(at)[0], np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(tensor, Letterbox(spec, input_size=(96, 64))(image)[0])
    assert msgspec.json.encode(chosen) == msgspec.json.encode(pictures_to_calibrate(version))
