"""`hub dataset health`: exact counts on small data sets, leaks that were planted, when a batch drowns, the command."""

import json
import re
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edge.contract.samples import Box, Light, Reason, WitnessKind
from hub.annotation import Annotation
from hub.cli import app
from hub.health import DAY_MS, DROWNED, health, repeats
from hub.health_lines import health_lines
from hub.label_table import MIN_TOLD, SIZE_EDGES, input_side, label_table
from hub.leaks import leaks
from hub.store import BatchRow, Store
from hub.store_health import LabelledRow
from hub.store_labels import LabelSet
from hub.testshare import APART_MS, BLOCK_MS, is_test
from hub.truth import Truth, truths
from tests.hub.labelled import NOW, draw, event_id, freeze, made_batch, person, put

AT_MS = 1_700_000_000_000
HASH = bytes(range(32))
OTHER_HASH = bytes(255 - byte for byte in HASH)
runner = CliRunner()


def row(number, **changes):
    """A labelled image; every one of another time and picture, in no batch, to train on."""
    made = {
        "event_id": event_id(number),
        "site": "lab",
        "device": "box",
        "camera": "door",
        "captured_at_ms": AT_MS + number * 3_600_000,
        "reason": Reason.MISSED,
        "region": (100.0, 100.0, 140.0, 180.0),
        "width": 640,
        "height": 480,
        "tags": "",
        "frame_hash": number.to_bytes(1) * 32,
        "model": "starter-1",
        "group_id": number,
        "here": True,
        "batch_id": None,
        "test": False,
        "random": False,
        "light": Light(80.0, 20.0, 3.0, 5.0),
        "boxes": (),
        "score_threshold": 0.3,
    }
    return LabelledRow(**made | changes)


def box(x1, y1, x2, y2, label="person"):
    return Annotation((float(x1), float(y1), float(x2), float(y2)), label)


def table(rows, drawn, *, by="person", labels=("person", "head"), stated=None, zone=UTC, **more):
    """`drawn`: boxes by the number of the image; images that are not named have none."""
    answers = {
        one.event_id: Truth(
            event_id=one.event_id,
            boxes=tuple(drawn.get(int(one.event_id, 16), ())),
            labels=frozenset(labels),
            by=by,
            annotators=("ann",),
        )
        for one in rows
    }
    return label_table(rows, answers, zone=zone, stated=stated or {}, **more)


def told(made, **more):
    return health(made, **{"batches": [], "sets": [], "now_ms": AT_MS, **more})


def group(of, title):
    """The counts of one group: name to (train, test)."""
    found = next(one for one in of.groups if one.title == title)
    return {one.name: (one.train, one.test) for one in found.rows}


def what(of) -> str:
    return "\n".join(one.what for one in of.warnings)


# Exact counts


def test_labels_a_class_are_boxes_train_and_test_apart():
    rows = [row(1), row(2), row(3, test=True)]
    person_ = [box(0, 0, 20, 40)]
    of = told(table(rows, {1: person_ * 3, 2: [box(0, 0, 9, 9, "head")], 3: person_}))
    one, head = of.classes
    assert (one.label, one.train, one.test, one.images, one.share) == ("person", 3, 1, 2, 3 / 3000)
    assert (head.label, head.train, head.test, head.images) == ("head", 1, 0, 1)
    assert (of.train, of.test, of.train_boxes, of.test_boxes) == (2, 1, 4, 1)
    assert "no label in the test share: head" in what(of)
    assert "2 of 2 classes have under 3,000" in what(of)


def test_difficulty_is_by_reason_and_by_what_the_detector_had_found():
    seen = (
        Box((0.0, 0.0, 20.0, 40.0), "person", 0.9),  # found
        Box((100.0, 0.0, 120.0, 40.0), "person", 0.2),  # under the threshold: not a detection
        Box((200.0, 0.0, 220.0, 40.0), "person", 0.9, WitnessKind.ZOOM),  # only a witness saw it
        Box((300.0, 0.0, 320.0, 40.0), "head", 0.9),  # another label
        Box((400.0, 22.0, 420.0, 62.0), "person", 0.9),  # too far from what is there: IoU .29
    )
    drawn = [box(x, 0, x + 20, 40) for x in (0, 100, 200, 300, 400)]
    rows = [
        row(1, boxes=seen),
        row(2, reason=Reason.SUSPECT, test=True),
        row(3, reason=Reason.CONTROL),
        row(4, reason=Reason.LOW_CONFIDENCE),
    ]
    of = told(table(rows, {1: drawn}))
    assert group(of, "difficulty") == {
        "hard: missed/suspect": (1, 1),
        "easy: unsure": (1, 0),
        "random: control": (1, 0),
    }
    assert group(of, "the detector had") == {"found it": (1, 0), "not found it": (4, 0)}


def test_what_images_and_boxes_are_like():
    rows = [
        row(1, light=Light(20.0, 9.0, 9.0, 1.0), tags=" dark noisy motion_blur "),
        row(2, light=Light(205.0, 9.0, 2.0, 1.0), test=True),
    ]
    drawn = {
        1: [
            box(10, 10, 50, 60),
            box(10, 35, 50, 70),  # covers half of the first, and ends lower
            box(300, 0, 420, 40),  # wide, cut above
            box(500, 100, 520, 170),  # tall
        ]
    }
    of = told(table(rows, drawn, input_size=(320, 320)))
    assert group(of, "brightness")["under 50"] == (1, 0)
    assert group(of, "brightness")["over 205"] == (0, 1)
    assert group(of, "noise")["over 8.5"] == (1, 0)
    assert group(of, "noise")["2 to 5"] == (0, 1)
    assert group(of, "tags of the device") == {"motion blur": (1, 0), "noisy": (1, 0)}
    assert group(of, "shape") == {"wide, w >= 2 h": (1, 0), "tall, h >= 3 w": (1, 0), "between": (2, 0)}
    assert group(of, "occlusion") == {"covered, 25 %": (1, 0), "cut by border": (1, 0)}
    assert group(of, "objects an image")["none"] == (0, 1)
    assert group(of, "objects an image")["2 to 4"] == (1, 0)
    # half the scale: shorter sides of 20, 17.5, 20 and 10 pixels of the input
    assert group(of, "size, input px") == {
        "tiny, under 8 px": (0, 0),
        "small, 8 to 16": (1, 0),
        "medium, 16 to 32": (3, 0),
        "big, from 32": (0, 0),
    }


def test_hours_are_those_of_the_zone():
    at_ms = 1_704_067_200_000  # 2024-01-01 00:00 UTC
    rows = [row(1, captured_at_ms=at_ms), row(2, captured_at_ms=at_ms + 3 * 3_600_000, camera="yard")]
    of = told(table(rows, {}, zone=ZoneInfo("Asia/Kolkata")))
    hours = {one.camera: [hour for hour, count in enumerate(one.hours) if count] for one in of.cameras}
    assert hours == {"door": [5], "yard": [8]}  # five and a half hours later


def test_images_that_nobody_can_train_on_are_named_and_not_counted():
    of = told(table([row(1), row(2, here=False)], {2: [person(4)]}))
    assert (of.train, of.gone, of.train_boxes) == (1, 1, 0)
    assert "1 image that is labelled has no frame here" in what(of)


def test_labels_that_nobody_looked_for():
    made = table([row(1), row(2)], {}, labels=("person",))
    assert "nobody has looked for some labels in some images: head in 2" in what(told(made, names=("person", "head")))
    assert "nobody has looked" not in what(told(made, names=("person",)))


# The split


def bits(value: bytes, flipped: int) -> bytes:
    return (int.from_bytes(value) ^ ((1 << flipped) - 1)).to_bytes(32)


ONE, TWO = [box(100, 100, 150, 200)], [box(100, 100, 150, 200), box(300, 100, 350, 200)]
SAME = {"frame_hash": HASH}
LEAKS = {
    "one group, however far apart": ({"group_id": 1}, TWO, "group"),
    "one camera, 3 s later": ({"captured_at_ms": row(1).captured_at_ms + APART_MS}, TWO, "moment"),
    "one camera, 3 s before": ({"captured_at_ms": row(1).captured_at_ms - APART_MS}, TWO, "moment"),
    "a moment too late": ({"captured_at_ms": row(1).captured_at_ms + APART_MS + 1}, TWO, None),
    "another camera at the same time": ({"captured_at_ms": row(1).captured_at_ms, "camera": "yard"}, TWO, None),
    "the same picture": (SAME, ONE, "picture"),
    "31 bits": ({"frame_hash": bits(HASH, 31)}, ONE, "picture"),
    "32 bits": ({"frame_hash": bits(HASH, 32)}, ONE, None),
    "the same picture of another camera": ({**SAME, "camera": "yard"}, ONE, None),
    "half of its boxes in common": (SAME, TWO, "picture"),
    "a third of its boxes in common": (SAME, [*TWO, box(400, 300, 450, 400)], None),
    "the same background, somebody elsewhere": (SAME, [box(300, 100, 350, 200)], None),
    "the same place, another label": (SAME, [box(100, 100, 150, 200, "head")], None),
    "a box that is a little off: IoU .6": (SAME, [box(100, 125, 150, 225)], "picture"),
    "a box that is more off: IoU .43": (SAME, [box(100, 140, 150, 240)], None),
    "nothing in either picture but the background": (SAME, [], None),
}


@pytest.mark.parametrize(("changes", "drawn", "why"), LEAKS.values(), ids=LEAKS)
def test_a_planted_leak_is_found_and_what_is_none_is_not(changes, drawn, why):
    rows = [row(1, test=True, frame_hash=HASH), row(7, **changes), row(9, frame_hash=OTHER_HASH)]
    found = leaks(table(rows, {1: ONE, 7: drawn, 9: ONE}))
    assert [(one.train, one.test, one.why) for one in found] == [(event_id(7), event_id(1), why)] * (why is not None)


def test_half_of_the_boxes_of_the_test_image_and_boxes_within_one_cell_of_the_grid():
    """The other way round than in the table; and a box that is narrower than what the search looks at first."""
    rows = [row(1, test=True, frame_hash=HASH), row(7, frame_hash=HASH)]
    assert len(leaks(table(rows, {1: TWO, 7: ONE}))) == 1
    assert len(leaks(table(rows, {1: [*TWO, box(400, 300, 450, 400)], 7: ONE}))) == 0
    small = [box(84, 65, 90, 75)]
    assert len(leaks(table(rows, {1: small, 7: small}))) == 1


def test_black_frames_are_no_pictures():
    rows = [row(1, test=True, frame_hash=bytes(32)), row(2, frame_hash=bytes(32))]
    assert leaks(table(rows, {1: ONE, 2: ONE})) == ()


def test_of_several_test_images_the_nearest_in_time_is_named():
    rows = [row(n, test=n != 4, frame_hash=HASH) for n in (1, 3, 4, 9)]
    (found,) = leaks(table(rows, dict.fromkeys((1, 3, 4, 9), ONE)))
    assert (found.test, found.apart_ms) == (event_id(3), 3_600_000)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_leaks_are_those_that_comparing_each_with_each_finds(data):
    n = data.draw(st.integers(0, 8))
    places = st.lists(st.integers(0, 12), max_size=4)
    rows, drawn = [], {}
    for number in range(1, n + 1):
        rows.append(
            row(
                number,
                test=data.draw(st.booleans()),
                camera=data.draw(st.sampled_from(["door", "yard"])),
                captured_at_ms=AT_MS + data.draw(st.integers(0, 20)) * 1000,
                group_id=data.draw(st.sampled_from([None, 1, 2, number + 10])),
                frame_hash=bits(HASH, data.draw(st.sampled_from([0, 20, 60, 200]))),
            )
        )
        drawn[number] = [box(40 * x, 100, 40 * x + 90, 300) for x in data.draw(places)]
    expected = {a.event_id for a in rows for b in rows if not a.test and b.test and _plainly(a, b, drawn)}
    assert {one.train for one in leaks(table(rows, drawn))} == expected


def _plainly(a, b, drawn) -> bool:
    if a.group_id is not None and a.group_id == b.group_id:
        return True
    if a.camera != b.camera:
        return False
    if abs(a.captured_at_ms - b.captured_at_ms) <= APART_MS:
        return True
    mine, theirs = drawn[int(a.event_id, 16)], drawn[int(b.event_id, 16)]
    if not mine or not theirs or (int.from_bytes(a.frame_hash) ^ int.from_bytes(b.frame_hash)).bit_count() > 31:
        return False

    def like(one, other) -> bool:
        shared = max(0.0, 90 - abs(one.xyxy[0] - other.xyxy[0]))
        return shared / (180 - shared) >= 0.5

    sides = ((mine, theirs), (theirs, mine))
    return all(2 * sum(any(like(x, y) for y in other) for x in one) >= len(one) for one, other in sides)


def test_images_in_no_batch_are_test_by_the_law_of_the_test_share():
    rows = [row(n, test=None, captured_at_ms=AT_MS + n * BLOCK_MS) for n in range(1, 60)]
    made = table(rows, {})
    law = [is_test(site="lab", device="box", camera="door", captured_at_ms=one.captured_at_ms) for one in rows]
    assert made.test.tolist() == law
    assert any(law)
    assert not all(law)


# Sound advice


def test_every_test_image_needs_a_person():
    rows = [row(1), row(2, test=True)]
    assert "1 image of the test share has labels of the machine only" in what(told(table(rows, {}, by="machine")))
    assert "machine only" not in what(told(table(rows, {})))
    assert "nothing to train on" in what(told(table(rows[1:], {})))
    assert "no image of the test share is labelled" in what(told(table(rows[:1], {})))


DROWNING = [
    (1, 99, 1),  # exactly 1 %
    (1, 100, 2),  # just under
    (50, 4950, 1),
    (50, 4951, 2),
    (50, 98_990, 20),  # 1,000 of 99,990
    (3, 0, 1),
]


@pytest.mark.parametrize(("images", "others", "times"), DROWNING)
def test_how_often_a_batch_is_repeated(images, others, times):
    assert repeats(images, others) == times


@given(st.integers(1, 10_000), st.integers(0, 10**7))
def test_repeated_so_often_it_is_one_percent_and_once_less_it_is_not(images, others):
    times = repeats(images, others)
    assert times * images >= DROWNED * (times * images + others)
    assert times == 1 or (times - 1) * images < DROWNED * ((times - 1) * images + others)


def test_the_newest_batch_of_a_weak_spot_that_drowns_says_how_often_to_show_it():
    rows = [row(n % 250, event_id=event_id(n), batch_id=1, captured_at_ms=AT_MS + n * 10_000) for n in range(1, 400)]
    rows += [row(1, event_id=event_id(900), batch_id=2), row(2, event_id=event_id(901), batch_id=2, test=True)]
    rows += [row(3, event_id=event_id(902), batch_id=3)]
    batches = [
        BatchRow(1, AT_MS, 399, "all", 5, "starter-1"),
        BatchRow(2, AT_MS, 2, "dark", 6, "starter-1"),
        BatchRow(3, AT_MS, 9, "random", None, "starter-1"),
        BatchRow(4, AT_MS, 9, "not labelled yet", 7, "starter-1"),
    ]
    of = told(table(rows, {}), batches=batches)
    assert (of.newest.batch_id, of.newest.images, of.newest.repeat) == (2, 1, 5)
    assert of.newest.share == 1 / 401
    assert "batch of a weak spot, 2, drowns: 1 of 401 images to train on, 0.25 %" in what(of)
    assert "show each of them 5 times" in "\n".join(one.do for one in of.warnings)


def test_batches_without_a_second_look_and_old_ones():
    batches = [BatchRow(1, AT_MS, 1, "a", None, "m"), BatchRow(2, AT_MS, 1, "b", None, "m")]
    sets = [
        LabelSet(1, 1, "person", "ann", "", ("person",), AT_MS - 400 * DAY_MS, "t"),
        LabelSet(2, 2, "person", "ann", "", ("person",), AT_MS - DAY_MS, "t"),
    ]
    of = told(table([row(1, batch_id=1), row(2, batch_id=2)], {}), batches=batches, sets=sets)
    assert [(one.batch_id, one.labelled, one.reviewed) for one in of.batches] == [(1, 1, 0), (2, 1, 0)]
    assert "2 of 2 labelled batches have had no second look: batch 1, 2" in what(of)
    assert "more than a year ago: batch 1" in what(of)
    again = told(table([row(1, batch_id=1), row(2, batch_id=2)], {}, by="review"), batches=batches, sets=sets)
    assert "no second look" not in what(again)


# Sizes of the input


def tag_of(side_px: float) -> str:
    return next(tag for tag, (low, high) in SIZE_EDGES.items() if low <= side_px < high)


@pytest.mark.parametrize("side", [192, 256, 320, 640])
def test_the_tags_of_size_tell_the_input(side):
    parts = [n / 1000 for n in range(2, 300)]
    assert input_side((tag_of(part * side), part) for part in parts) == side


@pytest.mark.parametrize(
    ("known", "stated", "side"),
    [
        ([], 320.0, 320.0),  # nothing told: the card
        ([], None, None),
        ([("big", 0.5)] * 40, None, None),  # agrees with every input from 64 on
        ([("big", 0.5)] * 40, 320.0, 320.0),
        ([("tiny", 0.02), ("small", 0.03), ("medium", 0.06)] * MIN_TOLD, 1280.0, 352.0),  # the card does not agree
        ([("tiny", 0.5), ("big", 0.01)] * MIN_TOLD, 320.0, None),  # they contradict each other
    ],
)
def test_a_card_counts_where_the_tags_do_not_tell(known, stated, side):
    assert input_side(known, stated=stated) == side


def test_unknown_sizes_are_said_and_not_guessed():
    of = told(table([row(1, model="own-7")], {1: ONE}))
    assert group(of, "size, input px")["not known"] == (1, 0)
    assert "do not tell the input of own-7" in what(of)


# Laws


@st.composite
def data_sets(draw_):
    rows, drawn = [], {}
    for number in range(1, draw_(st.integers(0, 12)) + 1):
        rows.append(
            row(
                number,
                test=draw_(st.sampled_from([True, False, None])),
                reason=draw_(st.sampled_from(list(Reason))),
                camera=draw_(st.sampled_from(["a", "b"])),
                captured_at_ms=draw_(st.sampled_from([0, AT_MS, 2**53 - 1])) // 2 + number,
                light=Light(*(draw_(st.floats(-1e6, 1e6)) for _ in range(4))),
                model=draw_(st.sampled_from(["starter-1", "own"])),
                here=draw_(st.integers(0, 5)) > 0,
            )
        )
        places = draw_(st.lists(st.tuples(*[st.integers(0, 400)] * 2, *[st.integers(3, 80)] * 2), max_size=5))
        drawn[number] = [box(x, y, x + w, y + h, draw_(st.sampled_from(["person", "head"]))) for x, y, w, h in places]
    return rows, drawn


@given(data_sets())
@settings(max_examples=80, deadline=None)
def test_counts_add_up_and_lines_fit(made):
    rows, drawn = made
    here = [one for one in rows if one.here]
    of = told(table(rows, drawn, stated={"starter-1": 320.0}))
    boxes = sum(len(drawn[int(one.event_id, 16)]) for one in here)
    assert of.train + of.test == len(here) == len(rows) - of.gone
    assert of.train_boxes + of.test_boxes == boxes
    assert sum(one.train for one in of.classes) == of.train_boxes
    assert sum(one.test for one in of.classes) == of.test_boxes
    for one in of.groups:
        train, test = (of.train, of.test) if one.of == "images" else (of.train_boxes, of.test_boxes)
        if one.whole:
            assert (sum(r.train for r in one.rows), sum(r.test for r in one.rows)) == (train, test), one.title
        assert all(r.train <= train and r.test <= test for r in one.rows)
    assert sum(one.train for one in of.cameras) == of.train
    assert sum(sum(one.hours) for one in of.cameras) == len(here)
    assert sum(one.boxes for one in of.cameras) == boxes
    assert of.is_sound == (len(here) > 0 and not of.leaks)
    if here:
        assert max(len(line) for line in health_lines(of, zone_name="Europe/Zurich")) <= 80


# The command


def run(database, *words):
    return runner.invoke(app, ["dataset", "health", "--database", str(database), *words])


def apart(store: Store, count: int) -> list[int]:
    """Put findings five blocks apart, so that no two are near, and return their numbers."""
    for number in range(1, count + 1):
        put(store, number, captured_at_ms=NOW + 5 * BLOCK_MS * number)
    return list(range(1, count + 1))


def test_the_command_counts_draws_and_exits_0_where_the_split_is_sound(tmp_path):
    database, out = tmp_path / "hub.db", tmp_path / "plots"
    with Store.open(database) as store:
        numbers = apart(store, 30)
        batch = freeze(store, *numbers)
        draw(store, batch, {n: [person(n), person(30, label="head")] for n in numbers})
        counted = len(truths(store))
    done = run(database, "--out", str(out))
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.stdout.splitlines() if "drawn:" not in line) <= 80
    assert re.search(r"^person +2\d +<1 % .* 30$", done.stdout, re.MULTILINE)
    names = ["cameras.png", "classes.png", "looks.png", "sizes.png", "split.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in out.iterdir())
    assert sorted(line.rsplit("/", 1)[1] for line in done.stdout.splitlines() if line.startswith("drawn:")) == names
    told_ = json.loads(run(database, "--json").stdout)
    assert told_["train"] + told_["test"] == counted == 30
    assert told_["train_boxes"] + told_["test_boxes"] == 60
    assert told_["leaks"] == []


def test_a_leak_exits_1_and_is_listed(tmp_path):
    """Labels of the machine on two pictures a second apart, on either side of a block's edge."""
    edge = next(
        at
        for at in range(NOW - NOW % BLOCK_MS, NOW + 10**7, BLOCK_MS)
        if is_test(site="lab", device="box", camera="door", captured_at_ms=at)
        and not is_test(site="lab", device="box", camera="door", captured_at_ms=at - 1)
    )
    with Store.open(tmp_path / "hub.db") as store:
        for number, at_ms in ((1, edge), (2, edge - 1000)):
            put(store, number, captured_at_ms=at_ms)
        batch = freeze(store, 1)
        draw(store, batch, {1: [person(4)]})
        store._connection.execute("INSERT INTO frame SELECT id, x'00' FROM finding WHERE true ON CONFLICT DO NOTHING")
        draw(store, None, {2: [person(4)]}, kind="machine", annotator="starter-1")
    done = run(tmp_path / "hub.db")
    assert done.exit_code == 1
    assert "the split leaks: 1 image to train on has a near-duplicate in the test share" in " ".join(
        done.stdout.split()
    )
    assert f"{event_id(2)} {event_id(1)} moment   1.0 s" in done.stdout


def test_nothing_labelled_says_how_to_begin_and_exits_1(tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        made_batch(store)
    done = run(tmp_path / "hub.db")
    assert done.exit_code == 1
    assert "hub labels import FILE --batch ID" in done.stderr
    as_json = run(tmp_path / "hub.db", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["train"] == 0


def test_what_was_drawn_at_random_is_counted_apart(tmp_path):
    """It is on no side of the split: it measures machine labels, so that nothing may be trained on it."""
    database = tmp_path / "hub.db"
    with Store.open(database) as store:
        numbers = apart(store, 20)
        drawn = freeze(store, *numbers[:8], random=True)
        draw(store, drawn, {n: [person(n), person(30)] for n in numbers[:8]})
        only = run(database)
        assert (only.exit_code, "only images that were drawn at random" in only.stderr) == (1, True)
        draw(store, freeze(store, *numbers[8:]), {n: [person(n)] for n in numbers[8:]})
    done = run(database)
    assert done.exit_code == 0, done.output
    assert "apart: 8 images drawn at random with 16 labels" in done.stdout
    told_ = json.loads(run(database, "--json").stdout)
    assert (told_["train"] + told_["test"], told_["train_boxes"] + told_["test_boxes"]) == (12, 12)
    assert (told_["random"], told_["random_boxes"], [one["batch_id"] for one in told_["batches"]]) == (8, 16, [2])


def test_no_database_and_a_wrong_input_are_one_line(tmp_path):
    for words in ([], ["--input", "320"]):
        done = run(tmp_path / "none.db", *words)
        assert done.exception is not None
        assert "\n" not in str(done.exception)
