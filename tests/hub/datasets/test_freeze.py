"""`freeze`: what is trained on, what measures, and what neither gets; the same again gives the same."""

import msgspec
import pytest

from edge.contract.errors import UnusableError
from edge.contract.samples import Box, Reason
from hub.check import check_lines
from hub.datasets.choice import Asked
from hub.datasets.freeze import freeze as freeze_version
from hub.datasets.version import MANIFEST, read_jpeg, read_version
from hub.store import Store
from hub.store_weakspots import StepRow
from hub.testshare import APART_MS
from tests.hub.datasets.frozen import AT_MS, labelled, people, put_at, times
from tests.hub.labelled import draw, event_id, freeze, made_batch, person, put
from tests.hub.made import jpeg
from tests.hub.sighted import NOW, TAGGER


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def splits(version) -> dict[str, set[int]]:
    return {name: {int(one.event_id, 16) for one in version.of(name)} for name in ("train", "val", "test")}


def spot(store, tags="dark") -> int:
    step = StepRow(at_ms=NOW, state="open", model="m", rate=0.5, low=0.4, high=0.6, against=0.1, missed=9, found=9)
    return store.spots.open(tags, f" {tags} ", manual=False, first=step)


def test_every_image_is_on_its_side_with_its_boxes(store):
    labelled(store)
    done = people(store)
    assert splits(done.version) == {"train": {1, 2, 3, 4}, "val": {5, 6}, "test": {7, 8, 9}}
    one = next(one for one in done.version.members if one.event_id == event_id(1))
    assert one.labels == ("person", "head")  # in the order of the model's, then the alphabet
    assert (one.boxes[0].xyxy, one.boxes[0].origin, one.boxes[0].ignored) == ((4.0, 4.0, 14.0, 14.0), "person", False)
    assert (one.by, one.camera) == ("person", "lab/box/door")
    assert {"dark", "site:lab", "camera:lab/box/door"} <= set(one.tags)
    assert read_jpeg(done.folder, one) == jpeg(1)
    assert done.folder == store.datasets.home / "datasets" / "1"
    assert read_version(done.folder) == done.version
    row = store.datasets.one(1)
    assert (row.digest, row.train, row.val, row.test) == (done.version.digest, 4, 2, 3)
    assert store.datasets.images(1)[event_id(5)] == "val"
    assert check_lines(store)[1]


def test_the_same_again_gives_the_same_and_names_the_one_before(store):
    labelled(store)
    first, second = people(store), people(store)
    assert first.version.digest == second.version.digest
    assert (second.number, second.version.parent) == (2, first.version.digest)
    assert any("nothing has changed since version 1" in note for note in second.notes)
    assert store.datasets.newest().parent_id == 1


def test_an_image_never_changes_sides_when_others_come(store):
    labelled(store)
    before = splits(people(store).version)
    put_at(store, range(50, 90), [AT_MS + 86_400_000 * n for n in range(1, 41)])  # other days of that camera
    draw(store, freeze(store, *range(50, 90)), {n: [person(4)] for n in range(50, 90)})
    after = splits(people(store).version)
    assert all(before[name] <= after[name] for name in before)


def test_a_random_batch_measures_and_what_it_knows_is_not_trained_on(store):
    """1 is labelled at random; 2 is of the same moment, 3 is the same picture, 4 is neither."""
    one, *others = times("train", 3)
    put_at(store, [1, 2, 3, 4], [one, one + APART_MS, others[0], others[1]], frame_hash="5a" * 32)
    draw(store, freeze(store, 1, random=True), {1: [person(4)]})
    draw(store, freeze(store, 2, 3, 4), {2: [person(40)], 3: [person(4)], 4: [person(30, 20)]})
    done = people(store)
    assert splits(done.version) == {"train": {4}, "val": set(), "test": {1}}
    assert done.version.recipe["left_out_leaks"] == 2


def test_what_an_earlier_version_has_trained_on_measures_nothing(store):
    """1 and 6 taught themselves in version 1; 2 is of the moment of 1, 3 of its group. Then 2 to 6 are drawn at random.

    4 is nothing that was seen, 5 is of the test share, of which nothing is ever trained on.
    """
    labelled(store, first=20)
    one, far, other, six = times("train", 4, camera="lab/box/gate")
    put_at(store, [1, 6], [one, six], camera="gate")
    first = freeze_version(store, Asked(noise=False), model=None, tagger=TAGGER)
    assert {1, 6} <= splits(first.version)["train"]
    put_at(store, [2, 3, 4], [one + APART_MS, far, other], camera="gate")
    put_at(store, [5], times("test", 1, camera="lab/box/gate"), camera="gate")
    store._connection.execute(
        "UPDATE finding SET group_id = (SELECT group_id FROM finding WHERE event_id = ?) WHERE event_id = ?",
        (event_id(1), event_id(3)),
    )
    draw(store, freeze(store, 2, 3, 4, 5, 6, random=True), {n: [person(6 * n)] for n in range(2, 7)})
    done = people(store)
    assert splits(done.version)["test"] == splits(first.version)["test"] | {4, 5}
    assert not splits(done.version)["train"] & {2, 3, 4, 5, 6}
    assert done.version.recipe["left_out_known_before"] == 3
    assert any(note.startswith("3 images drawn at random cannot measure") for note in done.notes)


def test_no_option_touches_the_test(store):
    labelled(store)
    put_at(store, [50, 51], times("train", 2, camera="lab/box/gate"), camera="gate")
    tests = []
    for asked in (Asked(self_taught=False, noise=False), Asked(self_taught=False), Asked(people=False)):
        version = freeze_version(store, asked, model=None, tagger=TAGGER).version
        tests.append(version.of("test"))
        trained = [one for one in version.members if one.split == "train"]
        assert not {one.event_id for one in trained} & {event_id(n) for n in (7, 8, 9)}
    assert tests[0] == tests[1] == tests[2]


def test_disputed_places_are_ignored(store):
    """Two annotators: 4 is drawn by both, 40 by one only, which stays, and is ignored."""
    put_at(store, [1], times("train", 1))
    batch = freeze(store, 1)
    draw(store, batch, {1: [person(4), person(40)]}, annotator="ann")
    draw(store, batch, {1: [person(4)]}, annotator="bob")
    (member,) = people(store).version.members
    assert [(box.xyxy[0], box.ignored) for box in member.boxes] == [(4.0, False), (40.0, True)]


def test_three_annotators_of_whom_one_drew(store):
    """The box is in no answer, and not background either."""
    put_at(store, [1], times("train", 1))
    batch = freeze(store, 1)
    for name, boxes in (("ann", [person(4), person(40)]), ("bob", [person(4)]), ("cy", [person(4)])):
        draw(store, batch, {1: boxes}, annotator=name)
    (member,) = people(store).version.members
    assert sorted((box.xyxy[0], box.ignored) for box in member.boxes) == [(4.0, False), (40.0, True)]


def test_who_says_so_stands_with_every_box(store):
    """A review answers `person`, the annotator `head`, the machine `car`."""
    put_at(store, [1], times("train", 1))
    batch = freeze(store, 1)
    draw(store, None, {1: [person(4, 30, label="car", score=0.7)]}, kind="machine", annotator="m", labels=("car",))
    draw(store, batch, {1: [person(4), person(40, label="head")]})
    draw(store, batch, {1: [person(6)]}, kind="review", annotator="eve", labels=("person",))
    (member,) = people(store).version.members
    said = {box.label: (box.origin, box.score) for box in member.boxes}
    assert said == {"car": ("machine", 0.7), "head": ("person", None), "person": ("review", None)}
    assert member.by == "review"
    assert member.labels == ("person", "car", "head")


def test_weak_spots_mark_train_and_test_alike(store):
    """By the tags of the finding, by those of an object of a `control` frame, and by the batch."""
    number, other = spot(store, "dark"), spot(store, "tiny")
    moments = times("train", 4)
    put_at(store, [1], moments[:1], tags=("dark",))
    put_at(store, [2, 3], [moments[1], times("test", 1)[0]], tags=("tiny",))
    control = Box((1.0, 2.0, 30.0, 40.0), "person", 0.9, tags=("dark",))
    put_at(store, [4], moments[2:3], reason=Reason.CONTROL, boxes=(control,), tags=(), label="")
    put_at(store, [5], moments[3:], tags=("bright",))
    batch = freeze(store, 1, 2, 3, 4)
    own = freeze(store, 5, weak_spot_id=number, step=step(store, number), from_states=["open"])
    draw(store, batch, {n: [person(4)] for n in (1, 2, 3, 4)})
    draw(store, own, {5: [person(4)]})
    done = people(store, weak_spot=number)
    marked = {int(one.event_id, 16): one.weak_spots for one in done.version.members}
    assert marked == {1: (number,), 2: (other,), 3: (other,), 4: (number,), 5: (number,)}
    assert done.version.recipe["weak_spot_images"] == 3
    assert done.version.recipe["weak_spot_repeat"] == 1


def step(store, number):
    return StepRow(
        at_ms=NOW, state="batched", model="m", rate=None, low=None, high=None, against=None, missed=0, found=0
    )


def test_a_weak_spot_that_drowns_has_a_hint(store):
    number = spot(store, "tiny")
    moments = times("train", 231)
    put(store, *range(1, 231), captured_at_ms=0)
    store._connection.executemany(
        "UPDATE finding SET captured_at_ms = ? WHERE event_id = ?",
        [(at_ms, event_id(n)) for n, at_ms in enumerate(moments[:230], 1)],
    )
    put_at(store, [300], moments[230:], tags=("tiny",))
    draw(store, freeze(store, *range(1, 231), 300), {n: [person(4)] for n in (*range(1, 231), 300)})
    recipe = people(store, weak_spot=number).version.recipe
    assert recipe["weak_spot_images"] == 1
    assert recipe["weak_spot_repeat"] > 1


# What is refused


def no_labels(store):
    made_batch(store, 2)


def spot_without_batch(store):
    labelled(store, tags=("bright",))
    spot(store)


def spot_without_labels(store):
    labelled(store, tags=("bright",))
    number = spot(store)
    put_at(store, [50], times("train", 1, start=100), tags=("dark",))
    freeze(store, 50, weak_spot_id=number, step=step(store, number), from_states=["open"])


def spot_forgotten(store):
    spot_without_labels(store)
    store._connection.execute("UPDATE batch SET forgotten = size WHERE weak_spot_id = 1")


def all_forgotten(store):
    made_batch(store, 2)
    from hub.store_forgotten import Scope

    list(store.upkeep.forget(Scope("lab", "box", 10**15, whole=True), now_ms=10**15))


def only_test(store):
    labelled(store, train=0, val=0, test=3)


def only_test_of_spot(store):
    spot(store)
    labelled(store, train=2, val=0, test=0, tags=("bright",))
    put_at(store, [50], times("test", 1, start=100), tags=("dark",))
    draw(store, freeze(store, 50), {50: [person(4)]})


REFUSED = [
    (no_labels, Asked(), "no image is labelled: `hub batch new`, annotate, `hub labels import`"),
    (all_forgotten, Asked(), r"no image is labelled \(2 images of batches were forgotten\)"),
    (spot_without_batch, Asked(weak_spot=1), r"has no labelled image: make it a batch \(hub batch new --weakspot 1"),
    (spot_without_labels, Asked(weak_spot=1), r"export batch 2 \(hub batch export 2\), annotate, hub labels import"),
    (spot_forgotten, Asked(weak_spot=1), "every image of batch 2 was forgotten, make it another"),
    (only_test, Asked(self_taught=False), "every labelled image is kept for measuring"),
    (only_test_of_spot, Asked(weak_spot=1, self_taught=False), "every labelled image of weak spot 1 is kept"),
    (only_test, Asked(people=False), "there is no unlabelled frame to learn from"),
    (no_labels, Asked(weak_spot=7), "there is no weak spot 7"),
]


@pytest.mark.parametrize(("make", "asked", "says"), REFUSED)
def test_what_cannot_be_trained_on_is_one_line_and_nothing_is_written(store, make, asked, says):
    make(store)
    with pytest.raises(UnusableError, match=says) as raised:
        freeze_version(store, asked, model=None, tagger=TAGGER)
    assert "\n" not in str(raised.value)
    assert not (store.datasets.home / "datasets").exists()
    assert store.datasets.all() == []


def test_what_is_forgotten_while_it_is_written_leaves_nothing(store):
    from hub.store_forgotten import Scope

    labelled(store)
    other = Scope("lab", "box", 10**15, whole=True)

    def forget(what, done, total):
        if done == total:
            list(store.upkeep.forget(other, now_ms=10**15))

    with pytest.raises(UnusableError, match="forgotten meanwhile"):
        freeze_version(store, Asked(self_taught=False, noise=False), model=None, tagger=TAGGER, watch=forget)
    assert list((store.datasets.home / "datasets").iterdir()) == []
    assert store.datasets.all() == []


def test_self_taught_frames_have_the_models_word_and_people_win(store):
    """50 is of a labelled moment, 51 of a labelled image's group: neither is taught. 52 and 53 are."""
    labelled(store)
    moment = times("train", 1)[0]
    put_at(store, [50], [moment + 1000])
    put_at(store, [51], [times("train", 6)[-1]])
    store._connection.execute(
        "UPDATE finding SET group_id = (SELECT group_id FROM finding WHERE event_id = ?) WHERE event_id = ?",
        (event_id(1), event_id(51)),
    )
    put_at(store, [52, 53], times("train", 2, camera="lab/box/gate"), camera="gate")
    put_at(store, [54], times("test", 1, camera="lab/box/gate"), camera="gate")
    version = freeze_version(store, Asked(noise=False), model=None, tagger=TAGGER).version
    own = [one for one in version.members if one.by == "self"]
    assert {int(one.event_id, 16) for one in own} == {52, 53}
    assert all(box.origin == "self" for one in own for box in one.boxes)
    assert all("person" in one.labels and len(one.labels) == 80 for one in own)
    assert version.recipe["teacher"] == version.recipe["model"] == "starter-1"
    labels = next(one.labels for one in version.members if one.by == "person")
    assert set(labels) == {"person", "head"}  # of others nothing is known


def test_replay_from_the_field_is_of_other_cameras(store):
    labelled(store, tags=("bright",))
    put_at(store, [50, 51], times("train", 2, camera="lab/box/gate"), camera="gate")
    put_at(store, [60], [times("train", 9)[-1]])  # of the labelled camera
    done = people(store)
    replay = [one for one in done.version.members if not one.labels]
    assert {int(one.event_id, 16) for one in replay} == {50, 51}
    assert all((one.boxes, one.by, one.camera) == ((), "", "lab/box/gate") for one in replay)


def test_noisy_copies_come_with_it(store):
    """A camera that has seen another light has it put on its labelled images."""
    for number, at_ms in zip(range(1, 5), times("train", 80)[::20], strict=True):
        put(store, number, captured_at_ms=at_ms)
    draw(store, freeze(store, 1, 2, 3, 4), {n: [person(4)] for n in range(1, 5)})
    done = freeze_version(store, Asked(self_taught=False), model=None, tagger=TAGGER)
    copies = [one for one in done.version.members if one.copy_of]
    assert copies
    assert all(one.split == "train" and one.noise for one in copies)
    assert {one.copy_of for one in copies} <= {one.name for one in done.version.of("train")}
    again = freeze_version(store, Asked(self_taught=False), model=None, tagger=TAGGER)
    assert again.version.digest == done.version.digest
    for one in copies:
        assert read_jpeg(done.folder, one)


def test_the_manifest_is_what_the_version_is(store):
    labelled(store)
    done = people(store)
    content = msgspec.json.decode((done.folder / MANIFEST).read_bytes())
    assert content["recipe"]["train_person"] == 4
    assert content["recipe"]["test_person"] == 3
    assert len(content["members"]) == 9
