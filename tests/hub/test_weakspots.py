"""Weak spots on a real database: named, kept under one number, taken through their lives."""

import logging
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from hub.naming import DAY_MS, UNSEEN_MS, open_by_hand, rate_at_batching, refresh, trained_models
from hub.slices import Rate
from hub.store import Store
from hub.store_weakspots import Move, NamingRecord
from hub.tags import Tagger, TagsConfig
from hub.weakspots import MEASURED, NEXT, SpotState, advance, belongs, step_of, weak_spot, weak_spots
from tests.hub.sighted import NOW, TAGGER, curator, mended, sight, weak

HOUR_MS = 3_600_000
S = SpotState


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def name(store: Store, now_ms: int = NOW + HOUR_MS) -> list[tuple[int, str, str]]:
    """Name anew; return number, name and state of each weak spot."""
    refresh(store, TAGGER, now_ms)
    return [(spot.id, spot.name, spot.state.value) for spot in weak_spots(store)]


def told(store: Store, number: int) -> list[str]:
    """Return the states of a life; mere measurements are left out."""
    return [step.state for step in store.spots.steps(number) if not step.measured]


def train(store: Store, number: int, release: str, *, now_ms: int) -> None:
    advance(store, number, S.BATCHED, now_ms=now_ms)
    advance(store, number, S.ANNOTATED, now_ms=now_ms)
    advance(store, number, S.TRAINED, now_ms=now_ms, release=release)


# Naming.


def test_what_is_missed_more_is_named_with_its_rate(store) -> None:
    weak(store)
    assert name(store) == [(1, "dark + small", "open")]
    (spot,) = weak_spots(store)
    assert (spot.tags, spot.manual) == (("dark", "small"), False)
    assert (spot.rate.missed, spot.rate.found) == (60, 20)
    # odds 30/290 * (60/150) / (20/290) = 0.6
    assert spot.rate.rate == pytest.approx(0.375, abs=0.01)
    assert spot.rate.low < 0.3 < 0.45 < spot.rate.high  # wider than with a base rate that is known
    assert spot.rate.against < 0.1


def test_numbers_and_names_stay(store) -> None:
    """Law 3: naming anew, with more sightings, finds the known ones again."""
    weak(store)
    before = name(store)
    for turn in range(1, 4):
        weak(store, at_ms=NOW + turn * 2 * HOUR_MS)
        assert name(store, NOW + turn * 3 * HOUR_MS) == before


def test_the_same_thing_under_another_name_is_the_known_one(store) -> None:
    """Nearly all that is missed small in the dark is noisy, too: one thing, whichever name is clearer today."""
    weak(store)
    before = name(store)
    sight(store, missed=[("dark small noisy", 100)], at_ms=NOW + HOUR_MS)
    sight(store, found=[("dark small", 60)], at_ms=NOW + 2 * HOUR_MS)
    assert name(store, NOW + 3 * HOUR_MS) == before


def test_a_new_release_is_named_on_its_own_sightings(store) -> None:
    weak(store, model="old")
    mended(store, at_ms=NOW + DAY_MS, model="new")
    assert name(store, NOW + 2 * DAY_MS) == []


def test_what_is_not_found_any_more_is_removed_after_a_week(store) -> None:
    weak(store)
    name(store)
    mended(store, at_ms=NOW + DAY_MS, model="new")
    assert len(name(store, NOW + HOUR_MS + UNSEEN_MS - 1)) == 1
    assert name(store, NOW + HOUR_MS + UNSEEN_MS) == []


@pytest.mark.parametrize("how", ["batched", "manual"])
def test_what_was_batched_or_asked_for_stays(store, how) -> None:
    weak(store)
    if how == "manual":
        open_by_hand(store, TAGGER, "dark and small", NOW + HOUR_MS)
    else:
        name(store)
        advance(store, 1, S.BATCHED, now_ms=NOW + HOUR_MS)
    mended(store, at_ms=NOW + DAY_MS, model="new")
    assert [number for number, *_ in name(store, NOW + 2 * UNSEEN_MS)] == [1]


def test_measurements_stay_few(store) -> None:
    weak(store)
    for minute in range(0, 180, 10):
        name(store, NOW + HOUR_MS + minute * 60_000)
    steps = store.spots.steps(1)
    assert len([step for step in steps if step.measured]) <= 4  # one an hour
    assert steps[-1].at_ms == NOW + HOUR_MS + 170 * 60_000  # the newest stays


def test_the_last_naming_wins_over_one_that_read_before(store, tmp_path, monkeypatch) -> None:
    """A step that another process takes meanwhile is kept, and naming reads again."""
    weak(store)
    name(store)
    with Store.open(tmp_path / "hub.db") as other:
        record, spots = type(store.spots).record, type(store.spots)

        def late(self, *args, **words):
            monkeypatch.setattr(spots, "record", record)
            advance(other, 1, S.BATCHED, now_ms=NOW + HOUR_MS)
            return record(self, *args, **words)

        monkeypatch.setattr(spots, "record", late)
        assert name(store, NOW + 2 * HOUR_MS) == [(1, "dark + small", "batched")]
    assert told(store, 1) == ["open", "batched"]


# By hand.


def test_by_hand(store) -> None:
    weak(store)
    spot = open_by_hand(store, TAGGER, "dark  and not medium", NOW + HOUR_MS)
    assert (spot.where, spot.manual, spot.rate.missed) == ("dark and not medium", True, 60)


@pytest.mark.parametrize("where", ["small and dark", "dark and small", " dark  and small "])
@pytest.mark.parametrize("how", ["named", "manual"])
def test_a_second_one_of_the_same_meaning_is_refused(store, where, how) -> None:
    weak(store)
    if how == "manual":
        open_by_hand(store, TAGGER, "dark and small", NOW)
    else:
        name(store)
    with pytest.raises(UnusableError, match=r"weak spot 1, .* already means that"):
        open_by_hand(store, TAGGER, where, NOW)


def test_a_rule_in_local_hours_is_measured_as_it_is_told(store) -> None:
    """`belongs` and the table agree, whatever the zone."""
    tagger = Tagger(TagsConfig(timezone="Asia/Kolkata", rules={"mine": "small and hour < 12"}))
    sight(
        store, missed=[("small", 30), ("medium", 30)], found=[("small", 30)], overlooked=[("small", 2)], step_ms=10**6
    )
    where = "mine and hour >= 3"
    spot = open_by_hand(store, tagger, where, NOW + DAY_MS)
    rows = list(store.sightings(since_ms=0, until_ms=10**15, limit=1000))
    missed = sum(row.kind == "missed" and belongs(spot, row, tagger) for row in rows)
    assert spot.rate.missed == missed > 0


# The life.


def test_a_spot_is_fixed_by_the_release_trained_for_it(store) -> None:
    weak(store, model="old")
    name(store)
    train(store, 1, "new", now_ms=NOW + 2 * HOUR_MS)
    weak(store, at_ms=NOW + 3 * HOUR_MS, model="old")  # the old one goes on for a while
    assert name(store, NOW + 4 * HOUR_MS)[0][2] == "trained"
    mended(store, at_ms=NOW + DAY_MS, model="new")
    assert name(store, NOW + DAY_MS + HOUR_MS)[0][2] == "fixed"
    assert told(store, 1) == ["open", "batched", "annotated", "trained", "fixed"]
    assert store.spots.steps(1)[-1].model == "new"


def test_a_spot_that_the_release_does_not_mend_is_not_fixed(store) -> None:
    weak(store, model="old")
    name(store)
    train(store, 1, "new", now_ms=NOW + 2 * HOUR_MS)
    weak(store, at_ms=NOW + DAY_MS, model="new", times=3)
    assert name(store, NOW + DAY_MS + HOUR_MS)[0][2] == "not_fixed"
    advance(store, 1, S.BATCHED, now_ms=NOW + DAY_MS + HOUR_MS)


def test_without_a_release_it_is_judged_on_those_first_seen_after_the_annotation(store) -> None:
    weak(store, model="old")
    name(store)
    train(store, 1, "", now_ms=NOW + 2 * HOUR_MS)
    weak(store, at_ms=NOW + 3 * HOUR_MS, model="old", device="other")
    mended(store, at_ms=NOW + DAY_MS, model="new")
    assert name(store, NOW + DAY_MS + HOUR_MS)[0][2] == "fixed"


def test_too_few_sightings_decide_nothing(store) -> None:
    weak(store, model="old")
    name(store)
    train(store, 1, "new", now_ms=NOW + 2 * HOUR_MS)
    sight(
        store,
        missed=[("medium", 9)],
        found=[("dark small", 2), ("medium", 60)],
        overlooked=[("medium", 6)],
        at_ms=NOW + DAY_MS,
        model="new",
    )
    assert name(store, NOW + DAY_MS + HOUR_MS)[0][2] == "trained"


def fixed(store: Store) -> None:
    weak(store, model="old")
    name(store)
    train(store, 1, "new", now_ms=NOW + 2 * HOUR_MS)
    mended(store, at_ms=NOW + DAY_MS, model="new")
    assert name(store, NOW + DAY_MS + HOUR_MS)[0][2] == "fixed"


def test_a_later_release_cannot_reopen_it_unnoticed(store, caplog) -> None:
    """It regresses, stays one spot, stands first, and the hub's log says so once."""
    fixed(store)
    weak(store, at_ms=NOW + 2 * DAY_MS, model="newer")
    now = curator(store, name_pace_s=0)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            now.step(NOW + 3 * DAY_MS)
            sight(store, found=[("medium", 1)], at_ms=NOW + 3 * DAY_MS, model="newer")
            now._name_from_s = 0.0
    assert [record.getMessage() for record in caplog.records] == [
        "weak spot 1, dark + small, had been fixed and came back"
    ]
    assert name(store, NOW + 3 * DAY_MS) == [(1, "dark + small", "regressed")]
    assert store.status(now_ms=NOW).regressed == ["1, dark + small"]
    advance(store, 1, S.BATCHED, now_ms=NOW + 4 * DAY_MS)


def test_devices_that_still_run_the_old_release_do_not_reopen_it(store) -> None:
    fixed(store)
    weak(store, at_ms=NOW + 2 * DAY_MS, model="old", device="slow")
    assert name(store, NOW + 3 * DAY_MS)[0][2] == "fixed"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("annotated", "weak spot 1 is `open`, so it cannot be `annotated` now: first"),
        ("trained", "cannot be `trained` now: first comes a batch: hub batch new --weakspot 1"),
        ("fixed", "`fixed` is measured, not told"),
        ("open", "`open` is measured, not told"),
    ],
)
def test_a_step_that_may_not_follow_is_refused(store, state, message) -> None:
    weak(store)
    name(store)
    with pytest.raises(UnusableError) as caught:
        advance(store, 1, state, now_ms=NOW)
    assert message in str(caught.value)
    assert told(store, 1) == ["open"]


def test_a_release_that_was_at_work_before_is_refused(store) -> None:
    weak(store, model="old")
    name(store)
    with pytest.raises(UnusableError, match="release old was at work before the batch was made"):
        train(store, 1, "old", now_ms=NOW + 2 * HOUR_MS)


ACTIONS = st.lists(
    st.sampled_from(["batched", "annotated", "trained", "fixed", "regressed", "weak", "mended", "name"]), max_size=12
)


@settings(max_examples=10, deadline=None)
@given(actions=ACTIONS)
def test_no_illegal_step_is_ever_stored(tmp_path_factory, actions) -> None:
    """Laws 1 and 3, whatever is told and sighted in whatever order."""
    with Store.open(tmp_path_factory.mktemp("life") / "hub.db") as store:
        weak(store, model="release-0")
        assert name(store) == [(1, "dark + small", "open")]
        now_ms, release = NOW + HOUR_MS, 0
        for action in actions:
            now_ms += HOUR_MS
            if action in ("weak", "mended"):
                release += 1
                (weak if action == "weak" else mended)(store, at_ms=now_ms, model=f"release-{release}", times=3)
            elif action == "name":
                refresh(store, TAGGER, now_ms)
            else:
                try:
                    advance(store, 1, action, now_ms=now_ms)
                except UnusableError:
                    assert SpotState(action) in MEASURED or SpotState(action) not in NEXT[weak_spot(store, 1).state]
        life = [SpotState(state) for state in told(store, 1)]
        assert life[0] is S.OPEN
        assert all(after in NEXT[before] for before, after in pairwise(life))
        assert weak_spot(store, 1).state is life[-1]
        assert [spot.id for spot in weak_spots(store)] == [1]


def test_the_number_of_a_dropped_one_is_not_given_again(store) -> None:
    weak(store)
    first = open_by_hand(store, TAGGER, "dark", NOW + HOUR_MS).id
    newest = max(spot.id for spot in weak_spots(store))
    store.spots.drop(newest)
    assert open_by_hand(store, TAGGER, "medium", NOW + HOUR_MS).id > newest >= first


def test_one_that_is_dropped_while_another_process_names_stays_dropped(store, tmp_path) -> None:
    """The other process has read it, and wants to note its measurement."""
    weak(store)
    number = open_by_hand(store, TAGGER, "dark", NOW + HOUR_MS).id
    kept = store.spots.open("small", "small", manual=True, first=step_of(S.OPEN, None, now_ms=NOW))
    last, step = store.spots.last_step(), step_of(S.OPEN, None, now_ms=NOW + 2 * HOUR_MS, measured=True)
    with Store.open(tmp_path / "hub.db") as other:
        other.spots.drop(number)
    measured = ((number, step), (kept, step))
    record = NamingRecord(NOW, measured=measured, moves=(Move(number, step),), found=frozenset({number}))
    assert store.spots.record(record, last=last, forgettings=store.upkeep.forgettings())
    assert len(store.spots.steps(kept)) == 2
    assert number not in {spot.id for spot in weak_spots(store)}
    assert store.spots.steps(number) == []


def test_a_trained_one_can_get_another_batch(store) -> None:
    """Before it is judged: the first batch may have been too small to see anything."""
    weak(store, model="old")
    name(store)
    train(store, 1, "new", now_ms=NOW + 2 * HOUR_MS)
    assert advance(store, 1, S.BATCHED, now_ms=NOW + 3 * HOUR_MS).state is S.BATCHED


def test_a_release_of_between_two_batches_may_have_been_trained_on_the_first(store) -> None:
    weak(store, model="old")
    name(store)
    advance(store, 1, S.BATCHED, now_ms=NOW + 2 * HOUR_MS)
    weak(store, model="between", at_ms=NOW + 3 * HOUR_MS)
    train(store, 1, "between", now_ms=NOW + 5 * HOUR_MS)
    assert weak_spot(store, 1).state is S.TRAINED


def test_one_that_shares_less_than_half_of_the_missed_is_another(store) -> None:
    """Of 210 missed of either, 60 are of both: a camera where it is seen, too."""
    weak(store, device="a")
    weak(store, device="b")
    open_by_hand(store, TAGGER, "camera:lab/b/door", NOW + HOUR_MS)
    assert "dark + small" in [spot for _, spot, _ in name(store)]


def test_nothing_is_forgotten_while_nothing_can_be_named(store) -> None:
    """The control frames have stopped, so there is no base rate: that a spot is not found says nothing."""
    weak(store)
    assert name(store) == [(1, "dark + small", "open")]
    sight(store, missed=[("dark small", 5)], model="other", at_ms=NOW + UNSEEN_MS)
    assert name(store, NOW + UNSEEN_MS + DAY_MS) == [(1, "dark + small", "open")]


def test_a_release_that_nobody_runs_any_more_does_not_reopen_it(store) -> None:
    """It was rolled back before anybody looked."""
    fixed(store)
    weak(store, at_ms=NOW + 2 * DAY_MS, model="bad")
    mended(store, at_ms=NOW + 3 * DAY_MS, model="good")
    assert name(store, NOW + 4 * DAY_MS)[0][2] == "fixed"


def test_what_a_training_is_held_against_is_the_rate_of_its_own_batch() -> None:
    """Of two batches the newest counts; a measurement after it only where it had no rate."""

    def step(state, rate, *, measured=False):
        told = Rate(missed=9, found=9, rate=rate, low=0.0, high=1.0, against=0.1) if rate else None
        return step_of(state, told, now_ms=NOW, measured=measured)

    batched = [step(S.OPEN, 0.5), step(S.BATCHED, 0.4), step(S.BATCHED, 0.4, measured=True), step(S.BATCHED, 0.3)]
    later = step(S.BATCHED, 0.2, measured=True)
    assert rate_at_batching([*batched, later]).rate == 0.3
    assert rate_at_batching([*batched[:-1], step(S.BATCHED, None), later]).rate == 0.2


def test_without_a_release_it_is_judged_on_those_of_after_its_newest_annotation(store) -> None:
    weak(store, model="old")
    name(store)
    for number, at_ms in enumerate((NOW + DAY_MS, NOW + 3 * DAY_MS), start=1):
        train(store, 1, "", now_ms=at_ms)
        weak(store, model=f"round-{number}", at_ms=at_ms + DAY_MS)
    table = refresh(store, TAGGER, NOW + 5 * DAY_MS).table
    assert trained_models(store, table, store.spots.steps(1)) == ["round-2"]


def test_each_device_has_a_release_of_its_own(store) -> None:
    weak(store, device="slow", model="old")
    weak(store, device="quick", model="old")
    weak(store, device="quick", model="new", at_ms=NOW + HOUR_MS)
    table = refresh(store, TAGGER, NOW + 2 * HOUR_MS).table
    assert table.models_of(table.present) == ["new", "old"]
    assert {row.device for row, now in zip(table.rows, table.present, strict=True) if now and row.model == "old"} == {
        "slow"
    }
