import hashlib
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.detector.detections import Detections
from edge.detector.detector import Inference, Timings
from hub.datasets.version import Member, MemberBox, make_version, write_version
from hub.train.candidate import candidate_card, card_of, open_parent, write_model
from hub.train.graph import TorchGraph
from hub.train.interpolation import Interpolation, best_share, even, look_in_views, mixed, views
from hub.train.recipe import Recipe
from tests.hub.train.street_versions import jpegs, people, street_version

RECIPE = Recipe(alphas=(0.4, 0.7, 1.0), alpha=0.8, tolerance=0.02)
NAN = math.nan


@pytest.mark.parametrize(
    ("found", "kept", "chosen"),
    [
        ((0.5, 0.6, 0.7, 0.8), (0.4, 0.4, 0.4, 0.4), 1.0),  # nothing is forgotten
        ((0.5, 0.6, 0.7, 0.8), (0.4, 0.4, 0.39, 0.3), 0.7),  # the newest forgets too much
        ((0.5, 0.6, 0.7, 0.8), (0.4, 0.5, 0.49, 0.45), 0.7),  # better than the old one, yet it has begun to forget
        ((0.5, 0.7, 0.6, 0.6), (0.4, 0.4, 0.4, 0.4), 0.4),  # it finds less
        ((0.5, 0.7, 0.7, 0.7), (0.4, 0.4, 0.4, 0.4), 1.0),  # of equals the newest
        ((0.5, 0.6, 0.7, 0.8), (0.4, 0.3, 0.2, 0.1), 0.4),  # all forget too much: the gate says no, if any does
        ((0.5, 0.6, 0.7, 0.8), (NAN, NAN, NAN, NAN), 1.0),  # nothing for replay: its limit is not applied
        ((NAN, NAN, NAN, NAN), (0.4, 0.4, 0.4, 0.4), 0.7),  # nothing was looked for: at most the recipe's share
        ((NAN, NAN, NAN, NAN), (0.4, 0.4, 0.3, 0.3), 0.4),
        ((NAN, NAN, NAN, NAN), (0.3, 0.3, 0.35, 0.5), 0.7),  # nor where the best of what is kept lies above it
    ],
)
def test_the_share_of_the_new(found, kept, chosen):
    places = (0.0, *RECIPE.alphas)
    by_place = ({**dict(zip(places, values, strict=True))} for values in (found, kept))
    assert best_share(RECIPE, **dict(zip(("found", "kept"), by_place, strict=True))) == chosen


def test_one_share_that_wavers_does_not_decide():
    """Around a line that falls by a point a share, one of five lies four points too low."""
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    line = {share: 0.5 - 0.04 * share for share in shares}
    wavering = line | {0.75: line[0.75] - 0.04}
    assert all(abs(even(wavering)[share] - line[share]) < 0.02 for share in shares)
    assert even(line) == pytest.approx(line)


def test_what_is_not_known_or_too_little_stays_as_it_is():
    some = {0.0: 0.5, 0.5: 0.3, 1.0: 0.4}
    assert even(some) == some
    none = dict.fromkeys((0.0, 0.25, 0.5, 0.75, 1.0), math.nan)
    assert even(none) is none


def test_the_ends_of_the_line_are_the_two_models():
    old, new = {"w": np.array([1, 2], np.float32)}, {"w": np.array([3, -2], np.float32)}
    assert mixed(old, new, 0)["w"].tolist() == [1, 2]
    assert mixed(old, new, 1)["w"].tolist() == [3, -2]
    assert mixed(old, new, 0.5)["w"].tolist() == [2, 0]


def outlined(boxes, *, width=90, height=60):
    """A gray picture with a lit rectangle where each box is, and its member."""
    image = np.full((height, width, 3), 50, np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 200
    marks = tuple(MemberBox(xyxy=tuple(map(float, box)), label="person", origin="self") for box in boxes)
    return Member(name="made", sha256="0" * 64, width=width, height=height, split="val", boxes=marks), image


sides = st.tuples(st.integers(0, 40), st.integers(0, 25), st.integers(41, 90), st.integers(26, 60))


@given(sides)
def test_what_is_true_goes_with_the_picture_into_each_view(box):
    member, image = outlined([box])
    for shown, view in views(member, image, pad_value=114):
        assert view.shape == (shown.height, shown.width, 3)
        lit = np.argwhere(view[..., 0] == 200)
        y1, x1, y2, x2 = (*lit.min(axis=0), *(lit.max(axis=0) + 1))
        assert shown.boxes[0].xyxy == (x1, y1, x2, y2)


def test_four_views_each_another_picture():
    member, image = outlined([(5, 5, 30, 40)])
    shown = list(views(member, image, pad_value=114))
    assert [(one.width, one.height) for one, _ in shown] == [(90, 60), (90, 60), (106, 71), (138, 92)]
    assert (shown[1][1] == image[:, ::-1]).all()
    for _, view in shown[2:]:
        assert (view[:60, :90] == image).all()
        assert (view[60:] == 114).all()
        assert (view[:, 90:] == 114).all()


def a_version(folder, *, labelled, replay):
    """The validation frames with labels, and the same ones without."""
    made = street_version(folder.with_name("labelled"))
    members = [member for member in made.of("val") if labelled]
    content = {member.name: jpegs()[int(member.name[-3:])] for member in members}
    for number in (150, 160) if replay else ():
        jpeg = jpegs()[number]
        name = f"replay-{number}"
        content[name] = jpeg
        members.append(Member(name=name, sha256=hashlib.sha256(jpeg).hexdigest(), width=384, height=288, split="val"))
    version = make_version(members, labels=("person",), recipe={}, created_at_ms=0)
    write_version(version, folder, jpeg_of=lambda member: content[member.name])
    return version


class Writer:
    """Writes weights of the starter as a model folder, as a training does."""

    def __init__(self, folder):
        self.folder, self.parent = folder, open_parent(None)[0]
        self.graph = TorchGraph.open(self.parent.path)
        self.times = 0

    def __call__(self, state):
        self.times += 1
        self.graph.load(state)
        return write_model(self.folder, self.card, write_onnx=self.graph.write)

    def card(self, onnx):
        labels = card_of(self.parent).labels
        return candidate_card(self.parent, onnx, name="made", input_size=(192, 192), labels=labels, source="a test")


def chosen_of(folder, recipe, new_of, *, labelled=True, replay=True):
    writer = Writer(folder / "model")
    version = a_version(folder / "version", labelled=labelled, replay=replay)
    old = writer.graph.state()
    interpolation = Interpolation(
        version.of("val"),
        folder=folder / "version",
        model=writer.parent,
        input_size=(192, 192),
        recipe=recipe,
        threads=1,
    )
    return interpolation.choose(old, new_of(old), writer), writer


def test_a_model_that_has_forgotten_all_is_released_at_the_least_share(tmp_path):
    recipe = msgspec.structs.replace(RECIPE, alphas=(0.001, 1.0))
    chosen, writer = chosen_of(tmp_path, recipe, lambda old: {name: array * 0 for name, array in old.items()})
    assert chosen.alpha == 0.001
    assert chosen.validation["kept_0"] > 0.1
    assert chosen.validation["kept_1"] == chosen.validation["found_1"] == 0
    assert writer.times == 3
    assert set(chosen.state) == set(writer.graph.state())


class Dazzled:
    """A detector that gives NaN on every picture."""

    card = card_of(open_parent(None)[0])
    labels, input_size = card.labels, (192, 192)

    def detect(self, image, *, score_threshold):
        none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        return Inference(none, np.zeros(0, np.float32), Timings(0, 0, 0), finite=False)


def test_what_gives_no_numbers_is_not_released(tmp_path):
    version = a_version(tmp_path / "version", labelled=False, replay=True)
    with pytest.raises(UnusableError, match=r"starter-.* gives NaN or infinity on the picture replay-150: it cannot"):
        look_in_views(Dazzled(), tmp_path / "version", version.members)


def test_without_validation_the_recipes_share_is_taken_unseen(tmp_path):
    chosen, writer = chosen_of(tmp_path, RECIPE, dict, labelled=False, replay=False)
    assert chosen.alpha == RECIPE.alpha
    assert chosen.validation == {"labelled_pictures": 0, "replay_pictures": 0}
    assert writer.times == 0


def test_an_unchanged_model_is_as_good_at_every_share(tmp_path):
    assert people()[150]
    chosen, _ = chosen_of(tmp_path, RECIPE, dict, replay=False)
    assert chosen.alpha == 1.0
    assert chosen.validation["found_0"] == chosen.validation["found_1"] > 0.1
    assert not any(name.startswith("kept") for name in chosen.validation)
