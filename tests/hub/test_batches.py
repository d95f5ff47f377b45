"""Batches on the real store: chosen once, frozen, named in plain words; and the `hub batch` commands."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.contract.errors import UnusableError
from edge.contract.samples import Light, Reason
from edge.contract.topics import Kind
from hub.batches import (
    NothingToChooseError,
    batch_rows,
    batch_view,
    list_lines,
    made_lines,
    new_batch,
    read_batch,
    show_lines,
    title_of,
)
from hub.cli import app
from hub.selection import describe
from hub.store import BatchRow, GroupAssignment, Store
from tests.hub.made import arrival, event_id, event_payload, finding, jpeg, part_payloads

NOW = 1_700_000_100_000


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def put(store, *numbers, inline=True, grouped=True, **changes):
    """Commit findings, each of a group of its own with its own number."""
    for number in numbers:
        device = changes.get("device", "box")
        payload = event_payload(number, inline=inline, **changes)
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
    assert lines[-1] == "next: hub batch export 1 --format cvat --out batch-1"


def test_the_same_findings_give_the_same_batch(tmp_path):
    chosen = []
    for name in ("a.db", "b.db"):
        with Store.open(tmp_path / name) as store:
            put(store, *range(1, 40))
            chosen.append(new_batch(store, size=12, now_ms=NOW).members)
    assert chosen[0] == chosen[1]


def test_control_and_black_frames_are_no_candidates(store):
    put(store, 1, reason=Reason.CONTROL, region=(0.0, 0.0, 64.0, 48.0), label="")
    put(store, 2, frame_hash="0" * 64)
    with pytest.raises(NothingToChooseError, match=r"2 frames here.*control and black frames do not count"):
        new_batch(store, now_ms=NOW)
    put(store, 3)
    assert member_numbers(new_batch(store, now_ms=NOW)) == [3]


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
    monkeypatch.setattr("hub.batches.describe", lambda traits: described.append(len(traits)) or describe(traits))
    assert new_batch(store, size=12, now_ms=NOW).size == 12
    assert new_batch(store, size=2, now_ms=NOW).size == 2
    assert described == [13, 5]  # nothing is described that cannot be chosen


def test_a_title_is_one_line_without_control_characters():
    sent = finding(1, label="per\n\x1b[31mson\x00  x", tags=("a\tb\r",))
    assert title_of([sent]) == "missed per [31mson x, all a b, camera door"
    assert title_of([finding(2, label="\x1b\n", tags=())]) == "missed object, camera door"


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
        # a user's own tag
        ([{"tags": ("motion_blur",)}], "missed person, all motion blur, camera door"),
    ],
)
def test_a_title_names_the_commonest_weak_point(changes, title):
    assert title_of([finding(number, **change) for number, change in enumerate(changes)]) == title


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
    assert shown.stdout.count("missed person, severity") == 5
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
    assert json.loads(hub("batch", "show", 1, "--json", "-d", database).stdout) == made
    listed = json.loads(hub("batch", "list", "--json", "-d", database).stdout)
    assert [batch["title"] for batch in listed["batches"]] == [made["title"]]


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
