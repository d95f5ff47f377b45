"""Batches on the real store: chosen once, frozen, named in plain words; and the `hub batch` commands."""

import json
import sqlite3
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edge.contract.errors import UnusableError
from edge.contract.samples import Box, Light, Reason
from edge.contract.topics import Kind
from hub.batch_lines import list_lines, made_lines, show_lines
from hub.batch_titles import title_of
from hub.batches import NothingToChooseError, batch_rows, batch_view, new_batch, read_batch
from hub.cli import app
from hub.likeness import describe
from hub.naming import open_by_hand
from hub.store import BatchMember, BatchRow, FrameState, GroupAssignment, Store
from hub.store_forgotten import Scope
from hub.store_rows import FindingRow
from hub.tags import Tagger, TagsConfig, join_tags
from hub.testshare import is_test
from hub.weakspots import SpotState, advance, sources, step_of, weak_spot
from tests.hub.made import arrival, event_id, event_payload, finding, jpeg, part_payloads

NOW = 1_700_000_100_000
START = 1_700_000_005_000
TAGGER = Tagger(TagsConfig())
WHOLE = (0.0, 0.0, 64.0, 48.0)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def put(store, *numbers, inline=True, grouped=True, **changes):
    """Commit findings, each of a group of its own with its own number."""
    for number in numbers:
        device = changes.get("device", "box")
        at = {"captured_at_ms": START + 10_000 * number}  # far enough apart to be no near-duplicates
        payload = event_payload(number, inline=inline, **(at | changes))
        assert store.commit([arrival(Kind.EVENT, payload, device=device)], now_ms=NOW)
    if grouped:
        store.assign_groups([GroupAssignment(event_id(n), n, new=True) for n in numbers])


def member_numbers(batch):
    return sorted(int(member.event_id, 16) for member in batch.members)


def test_a_batch_is_chosen_frozen_and_read_back(store):
    put(store, *range(1, 31))
    batch = new_batch(store, size=10, now_ms=NOW)
    assert (batch.id, batch.size, len(batch.members)) == (1, 10, 10)
    assert len({member.group_id for member in batch.members}) == 10
    assert batch.row.model == "starter-1"
    assert batch.title == "missed person, all dark, camera door"
    assert all(member.why.startswith("missed person, severity 0.50; ") for member in batch.members)
    read = read_batch(store, 1)
    assert (read.row, read.members) == (batch.row, batch.members)
    assert not list(store.violations())


def test_a_second_batch_takes_nothing_of_the_first(store):
    put(store, *range(1, 16))
    first, second = (new_batch(store, size=10, now_ms=NOW) for _ in range(2))
    assert second.size == 5
    assert sorted(member_numbers(first) + member_numbers(second)) == list(range(1, 16))
    with pytest.raises(NothingToChooseError, match=r"15 already in batches.*wait for new findings"):
        new_batch(store, now_ms=NOW)


def test_fewer_candidates_make_a_smaller_batch_that_says_so(store):
    put(store, 1, 2, 3)
    lines = made_lines(new_batch(store, size=50, now_ms=NOW))
    assert lines[0].startswith("batch 1: 3 images")
    assert any("asked for 50" in line for line in lines)
    assert "too few for the shares asked for: 3 of 30 hard, 0 of 15 easy, 0 of 5 control" in lines
    assert lines[-1] == "next: hub batch export 1 --format cvat --out batch-1"


def test_the_same_findings_give_the_same_batch(tmp_path):
    chosen = []
    for name in ("a.db", "b.db"):
        with Store.open(tmp_path / name) as store:
            put(store, *range(1, 40))
            chosen.append(new_batch(store, size=12, now_ms=NOW).members)
    assert chosen[0] == chosen[1]


def test_control_frames_alone_make_no_batch(store):
    put(store, 1, 2, reason=Reason.CONTROL, region=WHOLE, label="")
    put(store, 3, frame_hash="0" * 64)
    with pytest.raises(NothingToChooseError, match=r"3 frames here.*control frames alone make no batch"):
        new_batch(store, now_ms=NOW)
    put(store, 4)
    assert member_numbers(new_batch(store, now_ms=NOW)) == [1, 2, 4]


@pytest.mark.parametrize(
    "junk",
    [
        {"frame_hash": "0" * 64},  # a black frame
        {"crop_hash": "0" * 64},  # nothing but one grey in the region
        {"region": (5.0, 5.0, 5.0, 20.0)},  # without area
        {"region": WHOLE},  # no region at all
    ],
)
def test_junk_is_no_candidate(store, junk):
    put(store, 1)
    put(store, 2, **junk)
    assert member_numbers(new_batch(store, now_ms=NOW)) == [1]


def spoil(store, number, picture):
    """Put another picture in the place of a frame, as a failing disk would."""
    store._connection.execute(
        "UPDATE frame SET jpeg = ? WHERE finding_id = (SELECT id FROM finding WHERE event_id = ?)",
        (picture, event_id(number)),
    )


def put_picture(store, number, picture):
    """Commit a finding and its own picture."""
    put(store, number, inline=False, picture=picture)
    assert store.commit([arrival(Kind.FRAME, part) for part in part_payloads(number, picture=picture)], now_ms=NOW)


def test_a_frame_that_nobody_can_annotate_never_enters_a_batch(store):
    put(store, *range(1, 8))
    black = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    spoil(store, 2, jpeg(2)[:-20])  # cut off
    spoil(store, 3, jpeg(4))  # another picture
    put_picture(store, 8, black)
    store._connection.execute("UPDATE finding SET header = x'7b' WHERE event_id = ?", (event_id(5),))
    batch = new_batch(store, size=4, now_ms=NOW)
    assert batch.size == 4  # the bad ones were replaced
    assert set(member_numbers(batch)) == {1, 4, 6, 7}
    assert new_batch_fails(store) == "4 frames passed over that nobody can annotate"


def new_batch_fails(store):
    with pytest.raises(NothingToChooseError) as caught:
        new_batch(store, now_ms=NOW)
    return next(part for part in str(caught.value).split("; ") if "passed over" in part).split(",")[0]


def kinds(batch, store):
    return Counter(row.reason.value for row in batch_rows(store, batch))


def put_kinds(store, *, hard, easy, control):
    put(store, *range(1, hard + 1))
    put(store, *range(101, easy + 101), reason=Reason.LOW_CONFIDENCE)
    put(store, *range(201, control + 201), reason=Reason.CONTROL, region=WHOLE, label="")


@pytest.mark.parametrize(
    ("here", "asked", "chosen"),
    [
        # enough of all
        ((20, 20, 20), {}, (6, 3, 1)),
        ((20, 20, 20), {"hard": 0.2, "control": 0.5}, (2, 3, 5)),
        ((20, 20, 20), {"hard": 1.0, "control": 0.0}, (10, 0, 0)),
        ((20, 20, 20), {"hard": 0.0, "control": 1.0}, (0, 0, 10)),
        # hard and easy fill each other and control; control fills nothing
        ((2, 20, 20), {}, (2, 7, 1)),
        ((20, 1, 20), {}, (8, 1, 1)),
        ((2, 2, 20), {}, (2, 2, 1)),
        ((0, 20, 0), {}, (0, 10, 0)),
    ],
)
def test_hard_and_easy_are_mixed_as_asked(store, here, asked, chosen):
    put_kinds(store, hard=here[0], easy=here[1], control=here[2])
    batch = new_batch(store, size=10, now_ms=NOW, **asked)
    found = kinds(batch, store)
    assert (found["missed"], found["low_confidence"], found["control"]) == chosen
    assert any("too few for the shares" in note for note in batch.notes) == (min(here) < 3)


@pytest.mark.parametrize("asked", [{"hard": 0.95}, {"hard": -0.1}, {"control": 1.5}, {"hard": float("nan")}])
def test_shares_that_make_no_sense_are_refused(store, asked):
    put(store, 1)
    with pytest.raises(UnusableError, match="each must be 0 to 1"):
        new_batch(store, **asked)


def test_the_test_share_is_decided_by_camera_and_time(store):
    put(store, *range(1, 61))
    batch = new_batch(store, now_ms=NOW)
    sides = {
        member.event_id: is_test(site=row.site, device=row.device, camera=row.camera, captured_at_ms=row.captured_at_ms)
        for member, row in zip(batch.members, batch_rows(store, batch), strict=True)
    }
    assert {member.event_id: member.test for member in batch.members} == sides
    count = sum(sides.values())
    assert 0 < count < 25
    assert batch.notes[-1] == f"test share: {count} of the 50 images, to be annotated and never trained on"
    assert [member.test for member in batch_view(store, 1).members] == [member.test for member in batch.members]
    shown = show_lines(batch, batch_rows(store, batch))
    assert sum(line[6:10] == "test" for line in shown) == count


def test_a_batch_without_a_test_image_says_so(store):
    put(store, 1)
    assert new_batch(store, now_ms=NOW).notes[-1].startswith("test share: none of these images")


# For a weak spot


def open_spot(store, where):
    return open_by_hand(store, TAGGER, where, NOW).id


def put_control(store, *numbers, tags):
    """Control frames with one measured object."""
    box = Box((1.0, 2.0, 30.0, 40.0), "person", 0.9, tags=tags)
    put(store, *numbers, reason=Reason.CONTROL, region=WHOLE, label="", boxes=(box,), looked_twice=True)


def test_a_batch_for_a_weak_spot_has_only_what_is_of_it(store):
    put(store, *range(1, 21), tags=("dark", "tiny"))
    put(store, *range(21, 41), tags=("tiny",))
    put_control(store, *range(101, 111), tags=("dark", "big"))
    put_control(store, *range(111, 131), tags=("big",))
    spot = open_spot(store, "dark")
    batch = new_batch(store, size=20, weak_spot_id=spot, now_ms=NOW)
    assert (batch.title, batch.row.weak_spot_id) == (weak_spot(store, spot).name, spot)
    numbers = member_numbers(batch)
    assert [n for n in numbers if n > 100] == [n for n in numbers if 101 <= n <= 110]
    assert len(numbers) == 20
    assert max(n for n in numbers if n <= 100) <= 20
    assert weak_spot(store, spot).state == "batched"
    # it lacks easy ones, which no finding of it is
    assert any("0 of 6 easy: the others fill the batch" in note for note in batch.notes)


def test_other_control_frames_come_where_none_has_an_object_of_the_weak_spot(store):
    put(store, *range(1, 11), tags=("dark",))
    put_control(store, 101, tags=("dark", "big"))
    put_control(store, *range(111, 121), tags=("big",))
    batch = new_batch(store, size=10, control=0.3, weak_spot_id=open_spot(store, "dark"), now_ms=NOW)
    control = [n for n in member_numbers(batch) if n > 100]
    assert len(control) == 3
    assert 101 in control


def test_too_few_of_a_weak_spot_say_what_is_on_its_way(store):
    put(store, 1, 2, tags=("dark",))
    put(store, 3, 4, 5, tags=("dark",), inline=False)
    put(store, 6, 7, tags=(), inline=False)
    store.mark_wanted([event_id(n) for n in (3, 4, 6)], now_ms=NOW)
    spot = open_spot(store, "dark")
    batch = new_batch(store, size=10, weak_spot_id=spot, now_ms=NOW)
    assert batch.size == 2
    text = " ".join(batch.notes)
    assert "asked for 10: there is no other picture here of an event of weak spot 1" in text
    assert "2 frames are asked for, 1 more are held by devices: let `hub serve` and the devices run" in text
    with pytest.raises(NothingToChooseError, match=r"nothing of it to make a batch of.*2 frames are asked for"):
        new_batch(store, weak_spot_id=spot, now_ms=NOW)


def test_a_weak_spot_that_cannot_get_a_batch_now_gets_none(store):
    put(store, 1, 2, tags=("dark",))
    spot = open_spot(store, "dark")
    new_batch(store, size=1, weak_spot_id=spot, now_ms=NOW)
    advance(store, spot, "annotated", now_ms=NOW)
    with pytest.raises(UnusableError, match="weak spot 1 is `annotated`"):
        new_batch(store, weak_spot_id=spot, now_ms=NOW)
    with pytest.raises(UnusableError, match="weak spot 9"):
        new_batch(store, weak_spot_id=9, now_ms=NOW)
    assert len(store.batches()) == 1


def test_a_batch_and_the_step_of_its_weak_spot_are_stored_together_or_not_at_all(store):
    put(store, *range(1, 6), tags=("dark",))
    spot = open_spot(store, "dark")
    store._connection.execute(
        "CREATE TEMP TRIGGER crash BEFORE INSERT ON weak_spot_step BEGIN SELECT RAISE(ABORT, 'crash'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="crash"):
        new_batch(store, size=2, weak_spot_id=spot, now_ms=NOW)
    assert (store.batches(), weak_spot(store, spot).state) == ([], "open")
    store._connection.execute("DROP TRIGGER crash")
    batch = new_batch(store, size=2, weak_spot_id=spot, now_ms=NOW)
    assert [(step.state, step.batch_id) for step in store.spots.steps(spot)] == [("open", None), ("batched", batch.id)]


@pytest.mark.parametrize("meanwhile", ["annotated", "dropped"])
def test_a_weak_spot_that_another_process_took_on_meanwhile_gets_no_batch(store, meanwhile):
    put(store, 1, tags=("dark",))
    spot = open_spot(store, "dark")
    step = step_of(SpotState.BATCHED, None, now_ms=NOW)
    if meanwhile == "dropped":
        store.spots.drop(spot)
    else:
        advance(store, spot, "batched", now_ms=NOW)
        advance(store, spot, meanwhile, now_ms=NOW)
    with pytest.raises(UnusableError, match=f"weak spot {spot}"):
        store.freeze_batch(
            [BatchMember(event_id(1), 1, "why", 1.0)],
            now_ms=NOW,
            title="t",
            weak_spot_id=spot,
            step=step,
            from_states=sources(SpotState.BATCHED),
        )
    assert store.batches() == []


def test_ranks_stay_when_an_image_is_forgotten(store):
    put(store, *range(1, 4))
    put(store, *range(4, 7), device="yard", camera="yard")
    batch = new_batch(store, size=6, now_ms=NOW)
    kept = {member.event_id: member.rank for member in batch.members if int(member.event_id, 16) < 4}
    list(store.upkeep.forget(Scope("lab", "yard", NOW, whole=True), now_ms=NOW))
    left = read_batch(store, batch.id)
    assert {member.event_id: member.rank for member in left.members} == kept
    assert [member.rank for member in batch_view(store, batch.id).members] == sorted(kept.values())
    shown = "\n".join(show_lines(left, batch_rows(store, left)))
    assert all(f"\n{rank:>4}  " in shown for rank in kept.values())


def test_two_findings_of_one_frame_give_one_image(store):
    put(store, 1, 2, captured_at_ms=NOW)
    put(store, 3, 4, captured_at_ms=NOW, camera="gate")
    assert new_batch(store, now_ms=NOW).size == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"captured_at_ms": NOW},  # the camera's frame of one moment
        {"picture": jpeg(7)},  # the very same bytes
    ],
)
def test_a_second_batch_takes_no_picture_of_the_first(store, changes):
    put(store, 1, 2, inline="picture" not in changes, **changes)
    if "picture" in changes:
        payloads = [payload for n in (1, 2) for payload in part_payloads(n, picture=changes["picture"])]
        store.commit([arrival(Kind.FRAME, payload) for payload in payloads], now_ms=NOW)
    put(store, 3)
    put(store, 4, device="other", captured_at_ms=NOW)
    assert new_batch(store, size=2, now_ms=NOW).size == 2
    rest = new_batch(store, now_ms=NOW)
    chosen = member_numbers(read_batch(store, 1)) + member_numbers(rest)
    assert len({1, 2} & set(chosen)) == 1
    assert {3, 4} < set(chosen)


def test_a_size_over_the_prefilter_is_kept(store, monkeypatch):
    monkeypatch.setattr("hub.batches.PREFILTER", 5)
    put(store, *range(1, 21))
    described = []

    def note(traits):
        described.append({traits.light is not None: len(traits.label)})
        return describe(traits)

    monkeypatch.setattr("hub.batches.describe", note)
    assert new_batch(store, size=12, now_ms=NOW).size == 12
    assert new_batch(store, size=2, now_ms=NOW).size == 2
    # the light, for which a header is decoded, only of what can be chosen and of the earlier batch
    assert described == [{False: 20}, {True: 13}, {False: 8}, {True: 5 + 12}]


def test_a_title_is_one_line_without_control_characters():
    sent = row(1, label="per\n\x1b[31mson\x00  x", tags=("a\x00b",))
    assert title_of([sent]) == "missed per [31mson x, all a b, camera door"
    assert title_of([row(2, label="\x1b\n", tags=())]) == "missed object, camera door"


def test_how_often_a_group_was_seen_is_part_of_why(store):
    put(store, 1)
    put(store, 2, 3, grouped=False)
    store.assign_groups([GroupAssignment(event_id(n), 1, new=False) for n in (2, 3)])
    assert "seen 3 times" in new_batch(store, now_ms=NOW).members[0].why


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda store: None, "0 findings.*run `hub serve` and a device"),
        (lambda store: put(store, 1, grouped=False), "1 findings.*let `hub serve`"),  # not grouped yet
        (lambda store: put(store, 1, inline=False), "0 frames here.*let `hub serve`"),  # the device holds it
    ],
)
def test_nothing_to_choose_says_what_to_do(store, prepare, says):
    prepare(store)
    with pytest.raises(NothingToChooseError, match=says):
        new_batch(store, now_ms=NOW)


def test_a_batch_of_nothing_is_refused(store):
    put(store, 1)
    with pytest.raises(UnusableError, match="at least 1"):
        new_batch(store, size=0)


def test_an_unknown_batch_names_those_there_are(store):
    with pytest.raises(UnusableError, match="no batch 4; `hub batch new` makes one"):
        read_batch(store, 4)
    put(store, 1, 2)
    new_batch(store, size=1, now_ms=NOW)
    new_batch(store, size=1, now_ms=NOW)
    with pytest.raises(UnusableError, match="no batch 4; known are 1, 2"):
        read_batch(store, 4)


def test_a_view_carries_what_an_export_needs(store):
    put(store, 5)
    new_batch(store, now_ms=NOW)
    view = batch_view(store, 1)
    member = view.members[0]
    assert (view.id, view.model, len(view.members)) == (1, "starter-1", 1)
    assert (member.jpeg, member.region, member.boxes) == (jpeg(5), finding(5).region, finding(5).boxes)
    assert (member.width, member.height, member.reason, member.label) == (64, 48, "missed", "person")


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ([{}], "missed person, all dark, camera door"),
        ([{"tags": ()}] * 2, "missed person, camera door"),  # nothing in common but the kind
        (
            [{"tags": ("small",)}, {"tags": ("small", "border")}, {"tags": ()}],
            "missed person, mostly small, camera door",
        ),
        # half is "mostly"; the commonest first, then the alphabet
        (
            [{"tags": ("dark", "border")}, {"tags": ("border",)}, {"tags": ()}, {"tags": ("border", "dark")}],
            "missed person, mostly cut by the border and dark, camera door",
        ),
        (
            [{"tags": ()}] * 2 + [{"tags": (), "reason": Reason.SUSPECT, "label": "dog"}],
            "mostly missed person, camera door",
        ),
        (
            [{"tags": (), "label": label} for label in ("person", "person", "dog", "cat", "car")],
            "missed person and others, camera door",
        ),
        ([{"tags": (), "label": "", "reason": Reason.SUSPECT}], "suspected false object, camera door"),
        ([{"tags": (), "reason": Reason.LOW_CONFIDENCE}], "unsure person, camera door"),
        ([{"tags": (), "camera": c} for c in "ba"], "missed person, cameras a and b"),
        ([{"tags": (), "camera": c} for c in "bcad"], "missed person, 4 cameras"),
        # one name on two devices, and on two sites
        ([{"tags": (), "device": d} for d in "ab"], "missed person, cameras a/door and b/door"),
        ([{"tags": (), "site": s} for s in "xy"], "missed person, cameras x/box/door and y/box/door"),
        # random frames tell nothing but their camera
        ([{"tags": ("dark",)}] + [{"reason": Reason.CONTROL, "tags": ()}] * 3, "missed person, all dark, camera door"),
        ([{"reason": Reason.CONTROL, "tags": ()}], "random frame, camera door"),
        # a user's own tag
        ([{"tags": ("motion_blur",)}], "missed person, all motion blur, camera door"),
    ],
)
def test_a_title_names_the_commonest_weak_point(changes, title):
    assert title_of([row(number, **change) for number, change in enumerate(changes)]) == title


def row(number, **changes):
    """A finding as the store gives it."""
    one = finding(number, **changes)
    return FindingRow(
        event_id=one.event_id,
        site=one.site,
        device=one.device,
        camera=one.camera,
        reason=one.reason,
        severity=one.severity,
        label=one.label,
        captured_at_ms=one.captured_at_ms,
        region=one.region,
        width=one.width,
        height=one.height,
        track=one.track,
        tags=join_tags(one.tags),
        crop_hash=bytes.fromhex(one.crop_hash),
        frame_hash=bytes.fromhex(one.frame_hash),
        features=np.frombuffer(one.features, np.int8),
        model=one.model,
        frame_state=FrameState.PRESENT,
        group_id=number,
        header=b"",
    )


def test_what_is_printed_fits_80_columns(store):
    long = {"camera": "a-camera-with-a-very-long-name-over-the-door", "label": "a label of some length, and more"}
    put(store, *range(1, 9), **long)
    put(store, 9, **{**long, "reason": Reason.LOW_CONFIDENCE, "light": Light(200.0, 3.0, 1.0, 9.0)})
    batch = new_batch(store, now_ms=NOW)
    many = [*store.batches(), BatchRow(12345, NOW, 50, "missed " + "x" * 200, "", "m")]
    lines = [*made_lines(batch), *list_lines(many), *list_lines([]), *show_lines(batch, batch_rows(store, batch))]
    assert max(len(line) for line in lines) <= 80


# The commands


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "hub.db"
    with Store.open(path) as store:
        put(store, *range(1, 8))
        put(store, *range(8, 12), camera="gate", tags=("small",))
    return path


def hub(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def test_the_commands_from_new_to_export(database, tmp_path):
    made = hub("batch", "new", "--size", 5, "--database", database)
    assert made.exit_code == 0
    assert made.stdout.startswith("batch 1: 5 images, missed person")
    listed = hub("batch", "list", "-d", database)
    assert "missed person" in listed.stdout.splitlines()[1]
    shown = hub("batch", "show", 1, "-d", database)
    assert shown.stdout.count("missed person,") == 5 + 1  # and the title
    out = tmp_path / "batch-1"
    exported = hub("batch", "export", 1, "--format", "cvat", "--out", out, "-d", database)
    assert exported.exit_code == 0, exported.stderr
    assert "5 images" in exported.stdout
    assert (out / "README.txt").is_file()
    assert (out / "contact-sheet.png").is_file()


def test_the_configuration_names_the_database(database, tmp_path):
    config = tmp_path / "hub.toml"
    config.write_text(f'database = "{database.name}"\n')
    assert hub("batch", "list", "--config", config).stdout.startswith("no batch yet")


def test_json_is_one_object(database):
    made = json.loads(hub("batch", "new", "--size", 3, "--json", "-d", database).stdout)
    assert (made["id"], made["size"], len(made["members"])) == (1, 3, 3)
    assert [member["rank"] for member in made["members"]] == [1, 2, 3]
    assert made.pop("notes")
    where = ("site", "device", "camera", "captured_at_ms")
    assert all(member["test"] == is_test(**{key: member[key] for key in where}) for member in made["members"])
    assert json.loads(hub("batch", "show", 1, "--json", "-d", database).stdout) == made
    listed = json.loads(hub("batch", "list", "--json", "-d", database).stdout)
    assert [batch["title"] for batch in listed["batches"]] == [made["title"]]


def test_a_batch_for_a_weak_spot_of_the_users_own_tags(database, tmp_path):
    config = tmp_path / "hub.toml"
    config.write_text(f'database = "{database.name}"\n[tags]\nrules = {{ entry = "camera:lab/box/gate" }}\n')
    assert hub("weakspots", "new", "--where", "entry", "--config", config).exit_code == 0
    made = hub("batch", "new", "--weakspot", 1, "--size", 3, "--hard", 1, "--control", 0, "--config", config)
    assert made.exit_code == 0, made.stderr
    shown = json.loads(hub("batch", "show", 1, "--json", "--config", config).stdout)
    assert (shown["weak_spot_id"], {member["camera"] for member in shown["members"]}) == (1, {"gate"})
    assert "batched" in hub("weakspots", "show", 1, "--config", config).stdout


def test_nothing_to_choose_exits_1(tmp_path):
    path = tmp_path / "empty.db"
    Store.open(path).close()
    answer = hub("batch", "new", "-d", path)
    assert answer.exit_code == 1
    assert answer.stderr.startswith("hub: nothing to make a batch of")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "9"),
        ("export", "9", "--format", "coco", "--out", "nowhere"),
    ],
)
def test_an_unknown_batch_is_an_error_a_person_can_read(database, arguments):
    answer = hub("batch", *arguments, "-d", database)
    assert isinstance(answer.exception, UnusableError)  # `main` makes one line and exit status 2 of it
    assert "there is no batch 9" in str(answer.exception)
    assert not Path("nowhere").exists()
