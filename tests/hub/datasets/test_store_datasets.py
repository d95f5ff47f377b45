"""The versions in the database: numbers, folders that move with it, what is never stored."""

import shutil

import pytest

from edge.contract.errors import UnusableError
from hub.check import check_lines
from hub.datasets.finding import find_version, resolve_version
from hub.datasets.forgetting import holding, remove
from hub.store import Store
from hub.store_datasets import DatasetRow, recipe_of
from hub.store_forgotten import Scope
from hub.store_weakspots import StepRow
from tests.hub.datasets.frozen import AT_MS, member, people, times, written
from tests.hub.labelled import draw, event_id, freeze, person, put

NOWHERE = Scope("nowhere", "", 10**15, whole=True)
BOX = Scope("lab", "box", 10**15, whole=True)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub" / "hub.db") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _place(tmp_path):
    (tmp_path / "hub").mkdir()


def filled(store):
    for number, at_ms in enumerate([*times("train", 2), *times("test", 1)], 1):
        put(store, number, captured_at_ms=at_ms)
    draw(store, freeze(store, 1, 2, 3), {n: [person(4)] for n in (1, 2, 3)})


def row(store, number=1, **changes):
    made = DatasetRow(
        number, AT_MS, "d" * 64, None, None, store.datasets.home / "datasets" / "1", '{"seed":1}', 1, 0, 1
    )
    return made._replace(**changes)


def test_a_row_comes_back_as_it_was_stored(store):
    filled(store)
    store.datasets.add(row(store), {event_id(1): "train", event_id(3): "test"})
    assert store.datasets.one(1) == row(store)
    assert recipe_of(store.datasets.one(1)) == {"seed": 1}
    assert store.datasets.images(1) == {event_id(1): "train", event_id(3): "test"}
    assert [one.id for one in store.datasets.all()] == [1]


def test_a_picture_without_a_finding_and_a_number_twice_store_nothing(store):
    filled(store)
    with pytest.raises(UnusableError, match="forgotten meanwhile"):
        store.datasets.add(row(store), {event_id(1): "train", event_id(99): "train"})
    assert store.datasets.all() == []
    store.datasets.add(row(store), {event_id(1): "train"})
    with pytest.raises(UnusableError, match="written by another process"):
        store.datasets.add(row(store), {event_id(2): "train"})
    assert store.datasets.images(1) == {event_id(1): "train"}


def test_a_weak_spot_without_a_batch_can_be_dropped_all_the_same(store):
    """A version that is self-taught for it does not keep it; its number is never given again."""
    filled(store)
    step = StepRow(
        at_ms=AT_MS, state="open", model="m", rate=None, low=None, high=None, against=None, missed=0, found=0
    )
    number = store.spots.open("dark", " dark ", manual=False, first=step)
    store.datasets.add(row(store, weak_spot_id=number), {event_id(1): "train"})
    store.spots.drop(number)
    assert store.datasets.one(1).weak_spot_id == number
    assert store.spots.open("tiny", " tiny ", manual=False, first=step) > number


def test_a_number_is_never_used_twice(store):
    """Nor is one whose folder a killed freeze has left."""
    filled(store)
    assert store.datasets.next_number() == 1
    people(store)
    (store.datasets.home / "datasets" / "2").mkdir()
    assert store.datasets.next_number() == 3
    assert people(store).number == 3
    assert store.datasets.next_number() == 4


def test_database_and_folders_move_together(store, tmp_path):
    filled(store)
    people(store)
    people(store).folder.exists()
    store.close()
    shutil.move(tmp_path / "hub", tmp_path / "moved")
    with Store.open(tmp_path / "moved" / "hub.db") as moved:
        assert moved.datasets.one(1).folder == tmp_path / "moved" / "datasets" / "1"
        assert check_lines(moved)[1]


def test_a_folder_of_ones_own_is_found(store, tmp_path):
    from hub.datasets.choice import Asked
    from hub.datasets.freeze import freeze as freeze_version
    from tests.hub.sighted import TAGGER

    filled(store)
    asked = Asked(self_taught=False, noise=False)
    done = freeze_version(store, asked, model=None, tagger=TAGGER, folder=tmp_path / "mine" / "first")
    assert store.datasets.one(done.number).folder == tmp_path / "mine" / "first"
    assert resolve_version(store, "1") == tmp_path / "mine" / "first"
    with pytest.raises(UnusableError, match="is there already"):
        freeze_version(store, asked, model=None, tagger=TAGGER, folder=tmp_path / "mine" / "first")


def test_a_version_is_named_by_number_or_folder(store, tmp_path, monkeypatch):
    filled(store)
    folder = people(store).folder
    database = tmp_path / "hub" / "hub.db"
    assert resolve_version(store, "1") == folder
    assert find_version("1", config=tmp_path / "none.toml", database=database) == folder
    assert find_version(str(folder), config=tmp_path / "none.toml", database=None) == folder
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "1", [member(1)])
    assert resolve_version(store, "./1").resolve() == tmp_path / "1"


WRONG = [
    ("7", "there is no dataset version 7: `hub dataset list` names"),
    ("nowhere", "nowhere is no dataset version, it is not there"),
    ("hub", r"hub is no dataset version, it has no version.json"),
    ("1", "the folder of dataset version 1 is gone"),
]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_what_is_no_version_is_named(store, tmp_path, monkeypatch, text, says):
    filled(store)
    shutil.rmtree(people(store).folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnusableError, match=says):
        resolve_version(store, text)
    if text.isdigit():
        with pytest.raises(UnusableError, match="name the database"):
            resolve_version(None, text)


def test_only_the_versions_with_its_pictures_are_held(store):
    filled(store)
    people(store)
    assert store.datasets.holding(NOWHERE) == []
    assert [one.id for one in store.datasets.holding(BOX)] == [1]
    assert store.datasets.event_ids(NOWHERE) == set()
    assert store.datasets.event_ids(BOX) == {event_id(1), event_id(2), event_id(3)}


def gone(folder):
    shutil.rmtree(folder)


def cut(folder):
    next((folder / "images").iterdir()).write_bytes(b"")


def exchanged(folder):
    shutil.rmtree(folder)
    written(folder, [member(1)])


def edited(folder):
    path = folder / "version.json"
    path.write_bytes(path.read_bytes().replace(b'"person"', b'"people"'))


BROKEN = [
    (gone, "dataset version 1: .* is no dataset version"),
    (cut, "dataset version 1: .* was changed after it was frozen"),
    (exchanged, "dataset version 1: .* holds another version"),
    (edited, "dataset version 1: .* was changed after it was frozen|is not valid"),
]


@pytest.mark.parametrize(("harm", "says"), BROKEN)
def test_check_sees_a_folder_that_is_not_what_was_frozen(store, harm, says):
    import re

    filled(store)
    done = people(store)
    assert check_lines(store)[1]
    harm(done.folder)
    lines, holds = check_lines(store)
    assert not holds
    assert any(re.search(says, line) for line in lines)


def test_check_sees_a_version_that_holds_what_was_forgotten(store):
    """As when the rows were forgotten and the folder was not, which `hub forget` never does."""
    filled(store)
    people(store)
    list(store.upkeep.forget(BOX, now_ms=10**15))
    lines, holds = check_lines(store)
    assert not holds
    assert any("a dataset version holds a picture of what was forgotten" in line for line in lines)


def test_a_folder_that_something_else_was_put_into_is_not_removed(store):
    """A version's place may have been used for something else since: `--out` names any folder."""
    filled(store)
    folder = people(store).folder
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UnusableError, match=r"holds what is of no dataset version, thesis\.txt: nothing is forgotten"):
        remove(store, holding(store, BOX), now_ms=1)
    assert (folder / "thesis.txt").exists()
    assert store.datasets.one(1).forgotten_at_ms is None
    (folder / "thesis.txt").unlink()
    remove(store, holding(store, BOX), now_ms=1)
    assert not folder.exists()
    assert store.datasets.one(1).forgotten_at_ms == 1


def test_a_folder_that_was_moved_behind_a_link_goes_too(store, tmp_path):
    filled(store)
    folder = people(store).folder
    folder.rename(tmp_path / "larger-disk")
    folder.symlink_to(tmp_path / "larger-disk")
    remove(store, holding(store, BOX), now_ms=1)
    assert not (tmp_path / "larger-disk").exists()
    assert not folder.is_symlink()
