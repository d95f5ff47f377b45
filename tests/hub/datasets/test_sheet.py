"""The contact sheet of a version: what is on it, what is said, colours of boxes; and the command."""

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from hub.cli import app
from hub.datasets.sheet import _COLOURS, REPLAY_SHOWN, version_sheet
from hub.datasets.version import MemberBox, make_version, write_version
from tests.hub.datasets.lit import jpeg_of
from tests.hub.datasets.test_noise import member

runner = CliRunner()
BOX = (40.0, 30.0, 120.0, 110.0)


def picture(level, *, width=160, height=120):
    return jpeg_of(np.full((height, width, 3), level, np.uint8))


def made(levels, **changes):
    """A version of flat pictures of these grey levels, and their JPEGs."""
    jpegs = {f"m{number:03d}": picture(level) for number, level in enumerate(levels)}
    each = {name: member(jpeg, name=name, width=160, height=120, boxes=(), **changes) for name, jpeg in jpegs.items()}
    return each, jpegs


def sheet_of(members, jpegs, **options):
    version = make_version(members.values(), labels=("person",), recipe={}, created_at_ms=0)
    sheet = version_sheet(version, jpeg_of=lambda one: jpegs[one.name], **options)
    return sheet, cv2.imdecode(np.frombuffer(sheet.png, np.uint8), cv2.IMREAD_COLOR)


def has(image, colour):
    return bool((image == np.array(colour, np.uint8)).all(axis=2).any())


def count(image, colour):
    return int((image == np.array(colour, np.uint8)).all(axis=2).sum())


def with_box(one, **changes):
    box = MemberBox(**{"xyxy": BOX, "label": "person", "origin": "person"} | changes)
    return type(one)(**{name: getattr(one, name) for name in one.__struct_fields__} | {"boxes": (box,)})


@pytest.mark.parametrize(
    ("origin", "others"),
    [
        ("person", ("machine", "self")),
        ("review", ("machine", "self")),
        ("machine", ("person", "self")),
        ("self", ("person",)),
    ],
)
def test_each_origin_has_its_colour(origin, others):
    members, jpegs = made([128])
    members["m000"] = with_box(members["m000"], origin=origin)
    _, image = sheet_of(members, jpegs)
    assert has(image, _COLOURS[origin])
    assert not any(has(image, _COLOURS[other]) for other in others)


def test_an_ignored_box_is_dashed():
    members, jpegs = made([128])
    (name,) = members
    plain = count(sheet_of({name: with_box(members[name], origin="self")}, jpegs)[1], _COLOURS["self"])
    dashed = count(sheet_of({name: with_box(members[name], origin="self", ignored=True)}, jpegs)[1], _COLOURS["self"])
    in_the_legend = 2 * 2 * (18 + 14)
    assert 0.3 * (plain - in_the_legend) < dashed < 0.8 * (plain - in_the_legend)


def test_a_copy_stands_beside_its_original_and_a_dark_one_is_lit_up():
    members, jpegs = made([200, 20])
    original, copy = members.values()
    pair = {"m000": original, "m001": with_box(copy)}
    fields = {name: getattr(copy, name) for name in copy.__struct_fields__}
    pair["m001"] = type(copy)(**fields | {"copy_of": "m000", "noise": ("light x0.10", "noise 6.0")})
    sheet, image = sheet_of(pair, jpegs)
    assert (sheet.shown, sheet.more) == (1, 0)
    row = image[200]
    first, second = (np.flatnonzero((row == level).all(axis=1)) for level in (200, 20))
    assert len(first) > 250
    assert len(second) > 100
    assert first.max() < second.min() <= first.max() + 10
    assert has(image, (105, 105, 105))  # the inset


def test_what_does_not_fit_is_counted_and_every_split_is_seen():
    members, jpegs = made([100] * 30)
    names = list(members)
    for name in names[:2]:
        fields = {key: getattr(members[name], key) for key in members[name].__struct_fields__}
        members[name] = type(members[name])(**fields | {"split": "test"})
    sheet, small = sheet_of(members, jpegs, limit=10)
    assert sheet.shown + sheet.more == 30
    assert sheet.shown <= 10
    _, tall = sheet_of(members, jpegs, limit=30)
    assert tall.shape[0] > small.shape[0]
    only_test = {name: members[name] for name in names[:2]}
    assert small.shape[0] > sheet_of(only_test, jpegs)[1].shape[0]  # the few of the test are on it, too


def test_of_pictures_for_replay_only_a_few_are_shown():
    members, jpegs = made([100] * 20, labels=(), by="")
    sheet, _ = sheet_of(members, jpegs)
    assert (sheet.shown, sheet.more) == (REPLAY_SHOWN, 20 - REPLAY_SHOWN)


def test_a_picture_that_cannot_be_shown_says_why():
    members, jpegs = made([100])
    sheet, image = sheet_of(members, jpegs | {"m000": b"no picture"})
    assert sheet.shown == 1
    assert count(image, (100, 100, 100)) < 500  # 160x120 and more where it is shown


def test_the_command(tmp_path):
    members, jpegs = made([100] * 4)
    version = make_version(members.values(), labels=("person",), recipe={}, created_at_ms=0)
    write_version(version, tmp_path / "v", jpeg_of=lambda one: jpegs[one.name])
    out = tmp_path / "sheet.png"
    done = runner.invoke(app, ["dataset", "sheet", str(tmp_path / "v"), "--out", str(out), "--limit", "3"])
    assert done.exit_code == 0, done.output
    assert "3 images; 1 more do not fit: --limit" in " ".join(done.output.split())
    assert cv2.imread(str(out)) is not None
