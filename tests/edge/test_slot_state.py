"""The state of a device's models: laws 5, 6 and 7 of the house, whatever the hub orders and however often it starts."""

import msgspec
import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.contract.release import SignedRelease
from edge.contract.rollout import Assignment, RolloutReport, TrialPlan
from edge.contract.status import decode, encode
from edge.slot_state import (
    FACTORY,
    STARTS,
    Slots,
    Work,
    back_target,
    fall,
    faults,
    follow,
    forget,
    lose,
    may_activate,
    revert,
    settled,
    start,
    surplus,
)
from edge.slot_work import accept, advance, assign, begin_trial, confirm, hold, rename, report_of, roll_back

LINE, OTHER = "street", "parking"
NUMBERS = st.integers(1, 4)
ROLLOUTS = st.sampled_from(["r1", "r2"])


def signed(number: int, *, baseline: int | None = None, back: bool = False, model: str = LINE) -> SignedRelease:
    return SignedRelease(
        model=model,
        release=f"{model}-{number}",
        number=number,
        baseline=number - 1 if baseline is None else baseline,
        back=back,
        card_sha256=f"{number:064x}",
        input="320x192",
        score_threshold_permille=400,
        files=2,
        unpacked_bytes=100,
    )


def ordered(number: int, *, rollout: str = "r1", action: str = "install", model: str = LINE) -> Assignment:
    return Assignment(
        rollout=rollout,
        action=action,
        model=model,
        release=f"{model}-{number}" if number else "",
        number=number,
        target=f"{model}/{number:06d}.tar",
        at_ms=0,
    )


def to_phase(slots: Slots, release: SignedRelease, phase: str, *, rollout: str = "r1") -> Slots:
    """Assign a release and go the way, each step once, up to a phase."""
    slots = assign(slots, ordered(release.number, rollout=rollout), now_ms=1)
    steps = [
        ("downloading", lambda s: accept(s, release, now_ms=2)),
        ("verified", lambda s: advance(s, "verified", now_ms=3)),
        ("staged", lambda s: hold(s, now_ms=4)),
        ("golden", lambda s: advance(s, "golden", now_ms=5)),
        ("shadow", lambda s: advance(s, "shadow", now_ms=6)),
        ("trial", lambda s: begin_trial(s, now_ms=7)),
        ("confirmed", lambda s: confirm(s, now_ms=8)),
    ]
    for name, step in steps:
        if slots.work.phase == phase:
            return slots
        slots = step(slots)
        assert slots.work.phase == name
    return slots


def confirmed(*releases: SignedRelease) -> Slots:
    """Return a device that took the releases one after another."""
    slots = Slots(model=LINE)
    for release in releases:
        slots = to_phase(slots, release, "confirmed", rollout=f"r{release.number}")
    return slots


# One case each


def test_a_release_is_taken_step_by_step_and_the_old_one_serves_until_its_trial() -> None:
    slots = confirmed(signed(1))
    for phase in ("assigned", "downloading", "verified", "staged", "golden", "shadow"):
        assert to_phase(slots, signed(2), phase, rollout="r2").active == 1
    trial = to_phase(slots, signed(2), "trial", rollout="r2")
    assert (trial.active, trial.previous, trial.highest) == (2, 1, 1)
    done = confirm(trial, now_ms=9)
    assert (done.active, done.previous, done.highest, surplus(done)) == (2, 1, 2, ())


def test_a_failed_trial_leaves_all_as_it_was() -> None:
    before = confirmed(signed(1), signed(2))
    after = roll_back(to_phase(before, signed(3), "trial", rollout="r3"), "it is blind", now_ms=9)
    assert (after.active, after.previous, after.highest) == (before.active, before.previous, before.highest)
    assert surplus(after) == (3,)
    assert (after.work.phase, after.work.reason) == ("rolled_back", "it is blind")


@pytest.mark.parametrize("again", [1, 5])
def test_an_order_that_comes_again_changes_nothing(again: int) -> None:
    """A retained message comes with every connection, whatever became of the order."""
    for phase in ("assigned", "shadow", "trial", "confirmed"):
        slots = to_phase(confirmed(signed(1)), signed(2), phase, rollout="r2")
        for _ in range(again):
            assert assign(slots, ordered(2, rollout="r2"), now_ms=99) is slots


def test_what_failed_under_a_rollout_is_not_tried_again_under_it_but_under_another() -> None:
    failed = roll_back(to_phase(confirmed(signed(1)), signed(2), "shadow", rollout="r2"), "slow", now_ms=9)
    other = assign(failed, ordered(3, rollout="r3"), now_ms=10)
    again = assign(other, ordered(2, rollout="r2"), now_ms=11)
    assert (again.work.phase, again.work.reason) == ("rolled_back", "slow")
    assert assign(other, ordered(2, rollout="r9"), now_ms=11).work.phase == "assigned"


def test_a_newer_order_ends_a_trial_first() -> None:
    trial = to_phase(confirmed(signed(1)), signed(2), "trial", rollout="r2")
    newer = assign(trial, ordered(3, rollout="r3"), now_ms=9)
    assert (newer.active, newer.work.assignment.number, newer.work.phase) == (1, 3, "assigned")
    assert newer.refused == {}, "it did not fail"


def test_the_same_release_under_another_rollout_goes_on() -> None:
    trial = to_phase(confirmed(signed(1)), signed(2), "trial", rollout="r2")
    on = assign(trial, ordered(2, rollout="r3"), now_ms=9)
    assert (on.active, on.work.phase, on.work.assignment.rollout) == (2, "trial", "r3")


def test_a_withdrawn_order_is_undone_and_may_come_again() -> None:
    trial = to_phase(confirmed(signed(1)), signed(2), "trial", rollout="r2")
    nothing = assign(trial, ordered(0, rollout=""), now_ms=9)
    assert (nothing.active, nothing.work) == (1, None)
    assert assign(nothing, ordered(2, rollout="r2"), now_ms=10).work.phase == "assigned"


@pytest.mark.parametrize(
    ("slots", "number", "active", "phase"),
    [
        (confirmed(signed(1), signed(2)), 2, 1, "rolled_back"),  # to its signed baseline
        (confirmed(signed(1)), 1, 0, "rolled_back"),  # the first release names the factory's model
        (confirmed(signed(3, baseline=2)), 3, 3, "confirmed"),  # a late joiner has no 2, and nothing else is signed
        (confirmed(signed(1), signed(3, baseline=2)), 3, 3, "confirmed"),  # 1 is here and not named
        (confirmed(signed(1, back=True), signed(3, baseline=2)), 3, 1, "rolled_back"),  # 1 is signed for it
        (to_phase(confirmed(signed(1)), signed(3, baseline=2), "trial"), 3, 1, "rolled_back"),  # never confirmed
        (to_phase(confirmed(signed(1)), signed(2), "shadow"), 2, 1, "rolled_back"),  # never served
        (confirmed(signed(1)), 2, 1, "rolled_back"),  # never here
    ],
)
def test_the_hub_sends_back(slots: Slots, number: int, active: int, phase: str) -> None:
    back = assign(slots, ordered(number, rollout="r7", action="back"), now_ms=9)
    assert (back.active, back.work.phase) == (active, phase)
    assert assign(back, ordered(number, rollout="r7", action="back"), now_ms=10) is back


def test_an_order_below_the_highest_needs_a_signature() -> None:
    slots = confirmed(signed(1), signed(5, baseline=4))
    asked = assign(slots, ordered(3, rollout="r9"), now_ms=1)
    with pytest.raises(ValueError, match="3 is below 5"):
        accept(asked, signed(3), now_ms=2)
    assert accept(asked, signed(3, back=True), now_ms=2).work.phase == "downloading"


@pytest.mark.parametrize("wrong", [signed(3), signed(2, model=OTHER), msgspec.structs.replace(signed(2), release="x")])
def test_what_is_signed_must_be_what_was_ordered(wrong: SignedRelease) -> None:
    with pytest.raises(ValueError, match="was assigned"):
        accept(assign(Slots(model=LINE), ordered(2), now_ms=1), wrong, now_ms=2)


def test_another_line_is_refused_at_once() -> None:
    slots = assign(confirmed(signed(1)), ordered(1, rollout="r8", model=OTHER), now_ms=1)
    assert (slots.work.phase, slots.work.reason, slots.active) == ("rolled_back", "this device follows street", 1)


@pytest.mark.parametrize(
    ("slots", "target"),
    [
        (confirmed(signed(1), signed(2)), 1),
        (to_phase(confirmed(signed(1)), signed(2), "trial"), 1),
        (confirmed(signed(3, baseline=2)), FACTORY),  # nothing signed is here: the last resort
    ],
)
def test_three_failed_starts_revert_before_anything_is_loaded(slots: Slots, target: int) -> None:
    bad = slots.active
    for _ in range(STARTS):
        slots, number = start(slots, now_ms=1)
        assert number == bad
    slots, number = start(slots, now_ms=2)
    assert number == slots.active == target
    assert slots.work.phase == "rolled_back"
    assert slots.starts == (target != FACTORY)
    assert str(bad) in slots.refused


def test_good_starts_never_revert() -> None:
    slots = confirmed(signed(1))
    for _ in range(4 * STARTS):
        slots, number = start(slots, now_ms=1)
        assert number == 1
        slots = settled(slots)


def test_a_lost_folder_begins_anew_or_falls_back() -> None:
    shadow = to_phase(confirmed(signed(1)), signed(2), "shadow")
    anew = lose(shadow, 2, now_ms=9)
    assert (anew.active, anew.work.phase, anew.slot(2)) == (1, "downloading", None)
    back = lose(confirmed(signed(1), signed(2)), 2, now_ms=9)
    assert (back.active, back.slot(2), back.work.phase) == (1, None, "rolled_back")
    old = lose(confirmed(signed(1), signed(2)), 1, now_ms=9)
    assert (old.active, old.previous, back_target(old), faults(old)) == (2, FACTORY, None, [])


def test_by_hand() -> None:
    slots = confirmed(signed(1), signed(3, baseline=2))
    with pytest.raises(ValueError, match="nothing signed allows it"):
        revert(slots, to=1, why="a person went back", now_ms=9)
    with pytest.raises(ValueError, match="not held"):
        revert(slots, to=2, why="a person went back", now_ms=9)
    after = revert(slots, to=FACTORY, why="a person went back", now_ms=9)
    assert (after.active, after.below, after.work.phase) == (FACTORY, "a person went back", "rolled_back")
    staged = to_phase(confirmed(signed(1)), signed(2), "golden")
    with pytest.raises(ValueError, match="yet to prove"):
        revert(staged, to=2, why="a person went on", now_ms=9)


def test_the_highest_of_a_line_is_not_forgotten_with_the_line() -> None:
    slots = follow(follow(confirmed(signed(5)), OTHER), LINE)
    assert (slots.active, slots.held, slots.highest, faults(slots)) == (FACTORY, (), 5, [])
    with pytest.raises(ValueError, match="below 5"):
        accept(assign(slots, ordered(4), now_ms=1), signed(4), now_ms=2)


def test_a_report_says_what_is_and_what_changes_has_a_higher_sequence() -> None:
    assert report_of(Slots(model=LINE), boot_id="b", serving="starter", at_ms=1) is None
    slots = to_phase(confirmed(signed(1)), signed(2), "shadow", rollout="r2")
    told = report_of(slots, boot_id="b", serving="street-1", at_ms=1)
    more = report_of(advance(slots, "shadow", now_ms=9, frames=50), boot_id="b", serving="street-1", at_ms=2)
    assert (told.phase, told.frames, more.frames) == ("shadow", 0, 50)
    assert more.sequence > told.sequence
    assert decode(encode(more), RolloutReport) == more


def work(phase: str, number: int, *, word: bool = True) -> Work:
    return Work(assignment=ordered(number), phase=phase, signed=signed(2) if word else None, since_ms=1)


def said(slots: Slots) -> RolloutReport | None:
    """Return what a report says, but for its sequence."""
    return report_of(msgspec.structs.replace(slots, sequence=0), boot_id="b", serving=str(slots.active), at_ms=1)


GOOD = confirmed(signed(1), signed(2))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"active": 7}, "the active release 7 is not held"),
        ({"previous": 7}, "the previous release 7 is not held"),
        ({"previous": 2}, "its own previous"),
        ({"held": GOOD.held * 2}, "held twice"),
        ({"active": 1, "previous": 0}, "nothing says why"),
        ({"highest": 1}, "2 is active above 1 and not on trial"),
        ({"held": tuple(msgspec.structs.replace(one, proved=False) for one in GOOD.held)}, "was never confirmed"),
        ({"starts": STARTS + 1}, "3 are the most"),
        ({"work": work("golden", 3)}, "3 is golden and not held"),
        ({"work": work("verified", 3, word=False)}, "without a signed word"),
        ({"work": work("trial", 1)}, "1 is on trial and 2 is active"),
        ({"work": work("shadow", 2)}, "2 is active before its trial"),
    ],
)
def test_a_state_that_breaks_a_law_is_known(change: dict, fault: str) -> None:
    assert faults(GOOD) == []
    assert any(fault in one for one in faults(msgspec.structs.replace(GOOD, **change)))


# Whatever happens


class Device(RuleBasedStateMachine):
    """Orders, steps and accidents in any order. What is true is kept here a second time, by what was done."""

    @initialize(
        baselines=st.lists(st.integers(0, 6), min_size=6, max_size=6),
        backs=st.lists(st.booleans(), min_size=6, max_size=6),
    )
    def begin(self, baselines: list[int], backs: list[bool]) -> None:
        """A repository: each number's signature is the same for ever."""
        self.repository = {
            number: signed(number, baseline=min(baselines[number - 1], number - 1), back=backs[number - 1])
            for number in range(1, 7)
        }
        self.slots = Slots(model=LINE)
        self.ever_confirmed = {LINE: 0, OTHER: 0}
        self.verified: set[int] = set()
        self.unpacked: set[int] = set()
        self.proved: set[int] = set()
        self.before_trial = FACTORY
        self.failed: set[tuple[str, int]] = set()
        self.bad_starts = 0

    def move(self, after: Slots, *, by: str = "") -> None:
        """Take the next state. `by` is the accident or the person that may go to the factory's model."""
        before, self.slots = self.slots, after
        assert after.sequence >= before.sequence
        if said(after) != said(before):
            assert after.sequence > before.sequence, "what is told anew has a higher number"
        if after.active == before.active:
            return
        self.bad_starts = 0
        old, new = before.active, after.active
        if before.on_trial and new == self.before_trial:
            return  # the trial ended, and nothing was confirmed in it
        if new == FACTORY and by:
            return
        leaving = self.repository.get(old)
        allowed = (
            new >= self.ever_confirmed[LINE]
            or (leaving is not None and leaving.baseline == new)
            or (new in self.repository and self.repository[new].back)
        )
        assert allowed, f"law 6: from {old} to {new} below {self.ever_confirmed}"
        assert new == FACTORY or new in self.proved or by == "trial", f"law 7: {new} never proved itself"

    def phase(self) -> str | None:
        return None if self.slots.work is None else self.slots.work.phase

    def try_step(self, step, *, legal: bool, by: str = "") -> bool:
        """Take a step that is legal; one that is not raises, and changes nothing."""
        if not legal:
            with pytest.raises(ValueError, match=r"."):
                step()
            return False
        self.move(step(), by=by)
        return True

    @rule(number=NUMBERS, rollout=ROLLOUTS, steps=st.integers(0, 9))
    def install(self, number: int, rollout: str, steps: int) -> None:
        """Most often it goes its way; what can come between are the other rules."""
        self.order(number, rollout, LINE)
        self.go_on(steps)

    @rule(number=NUMBERS, rollout=ROLLOUTS)
    def install_another_line(self, number: int, rollout: str) -> None:
        self.order(number, rollout, OTHER)
        assert self.slots.work.ended

    def order(self, number: int, rollout: str, model: str) -> None:
        before = self.slots
        self.move(assign(before, ordered(number, rollout=rollout, model=model), now_ms=1))
        order = self.slots.work.assignment
        if self.slots is not before and order.action == "install" and (rollout, number) in self.failed:
            assert self.slots.work.ended, "what failed under a rollout is not tried again under it"

    @rule(number=NUMBERS, rollout=ROLLOUTS)
    def send_back(self, number: int, rollout: str) -> None:
        self.move(assign(self.slots, ordered(number, rollout=rollout, action="back"), now_ms=1))

    @rule()
    def withdraw(self) -> None:
        self.move(assign(self.slots, ordered(0, rollout=""), now_ms=1))

    @rule()
    def order_anew(self) -> None:
        """A hub that never heard the answer hears it now; nothing is done a second time."""
        before = self.slots
        if before.work is not None:
            order = msgspec.structs.replace(before.work.assignment, at_ms=before.work.assignment.at_ms + 1)
            self.move(assign(before, order, now_ms=5))
            assert self.slots.sequence == before.sequence + 1
            assert (self.phase(), self.slots.active) == (before.work.phase, before.active)

    @rule()
    def call_it_otherwise(self) -> None:
        """What is under way was ordered under the old name; what has ended, and what serves, stays."""
        work = self.slots.work
        if work is not None:
            named = msgspec.structs.replace(self.slots, work=msgspec.structs.replace(work, place="yard/gate"))
            assert rename(named, "yard/gate") is named
            self.move(rename(named, "yard/door"))
            assert (self.slots.work is None) == (not work.ended)

    @rule(plan=st.integers(1, 9))
    def change_plan(self, plan: int) -> None:
        """And the retained order comes again, at a new connection."""
        if self.slots.work is not None:
            assert assign(self.slots, self.slots.work.assignment, now_ms=5) is self.slots
            order = msgspec.structs.replace(self.slots.work.assignment, plan=TrialPlan(shadow_frames=plan))
            self.move(assign(self.slots, order, now_ms=5))

    def download(self) -> None:
        release = self.repository[max(1, self.slots.work.assignment.number)] if self.slots.work else self.repository[1]
        legal = self.phase() == "assigned" and not may_activate(self.slots, release.number, back=release.back)
        self.try_step(lambda: accept(self.slots, release, now_ms=2), legal=legal)

    def download_again(self) -> None:
        again = self.phase() in {"downloading", "verified"}
        self.try_step(lambda: advance(self.slots, "downloading", now_ms=2), legal=again)

    def verify(self) -> None:
        if self.try_step(lambda: advance(self.slots, "verified", now_ms=3), legal=self.phase() == "downloading"):
            self.verified.add(self.slots.work.assignment.number)

    def stage(self) -> None:
        if self.try_step(lambda: hold(self.slots, now_ms=4), legal=self.phase() == "verified"):
            assert self.slots.work.assignment.number in self.verified
            self.unpacked.add(self.slots.work.assignment.number)

    def hold_golden(self) -> None:
        self.try_step(lambda: advance(self.slots, "golden", now_ms=5), legal=self.phase() in {"staged", "golden"})

    def look(self, frames: int = 9) -> None:
        self.try_step(
            lambda: advance(self.slots, "shadow", now_ms=6, frames=frames), legal=self.phase() in {"golden", "shadow"}
        )

    def try_it(self) -> None:
        serving = self.slots.active
        shown = self.phase() == "shadow"
        number = self.slots.work.assignment.number if shown else 1
        legal = shown and not may_activate(self.slots, number, back=self.repository[number].back)
        if self.try_step(lambda: begin_trial(self.slots, now_ms=7), legal=legal, by="trial"):
            self.before_trial = serving

    @rule(
        step=st.sampled_from(
            ["download", "download_again", "verify", "stage", "hold_golden", "look", "try_it", "trust"]
        )
    )
    def step_out_of_turn(self, step: str) -> None:
        """Each knows when it is legal."""
        getattr(self, step)()

    @rule(steps=st.integers(1, 9))
    def go_on(self, steps: int) -> None:
        """As a device does where nothing comes between."""
        ways = {
            "assigned": self.download,
            "downloading": self.verify,
            "verified": self.stage,
            "staged": self.hold_golden,
            "golden": self.look,
            "shadow": self.try_it,
            "trial": self.trust,
        }
        for _ in range(steps):
            phase = self.phase()
            if phase in ways:
                ways[phase]()
                event(f"{phase} -> {self.phase()}")

    def trust(self, frames: int = 9) -> None:
        number = self.slots.active
        if self.try_step(lambda: confirm(self.slots, now_ms=8, frames=frames), legal=self.phase() == "trial"):
            self.ever_confirmed[LINE] = max(self.ever_confirmed[LINE], number)
            self.proved.add(number)
            self.failed = {one for one in self.failed if one[1] != number}

    @rule()
    def fail(self) -> None:
        work, serving, trial = self.slots.work, self.slots.active, self.slots.on_trial
        legal = work is not None and not work.ended
        if self.try_step(lambda: roll_back(self.slots, "it is blind", now_ms=9), legal=legal):
            assert self.slots.active == (self.before_trial if trial else serving), "law 7"
            number = work.assignment.number
            self.failed = {one for one in self.failed if one[1] != number} | {(work.assignment.rollout, number)}

    @rule(to=st.integers(0, 6))
    def go_by_hand(self, to: int) -> None:
        try:
            after = revert(self.slots, to=to, why="a person went back", now_ms=9)
        except ValueError:
            return
        assert to in {FACTORY, *self.unpacked}
        self.move(after, by="a person")

    @rule(times=st.integers(1, 4))
    def crash_and_start(self, times: int) -> None:
        """Starts that come to no good; the one after three of them loads another."""
        for _ in range(times):
            self.crash()

    def crash(self) -> None:
        serving = self.slots.active
        after, number = start(msgspec.json.decode(msgspec.json.encode(self.slots), type=Slots), now_ms=9)
        assert number == after.active
        if serving != FACTORY and self.bad_starts >= STARTS:
            assert number != serving, "law 5: it reverts before anything is loaded"
        else:
            assert number == serving
        bad_starts = self.bad_starts
        self.move(after, by="a crash")
        self.bad_starts = 1 if number != serving else bad_starts + 1

    @rule()
    def start_well(self) -> None:
        self.move(settled(self.slots))
        self.bad_starts = 0

    @rule(place=st.integers(0, 3))
    def lose_a_folder(self, place: int) -> None:
        if not self.slots.held:
            return
        number = self.slots.held[place % len(self.slots.held)].number
        self.move(lose(self.slots, number, now_ms=9), by="a lost folder")
        self.unpacked.discard(number)
        if number == self.before_trial:
            self.before_trial = FACTORY

    @rule()
    def prune(self) -> None:
        gone = surplus(self.slots)
        assert not {self.slots.active, self.slots.previous} & set(gone), "two are kept"
        for number in gone:
            self.move(forget(self.slots, number))
            self.unpacked.discard(number)

    @rule()
    def change_the_line_and_back(self) -> None:
        """A person names another line's model in edge.toml, and thinks better of it."""
        after = follow(follow(self.slots, OTHER), LINE)
        self.slots, self.bad_starts = after, 0
        self.unpacked.clear()
        self.proved.clear()
        self.failed.clear()
        self.before_trial = FACTORY
        assert (after.active, after.held) == (FACTORY, ())

    @rule()
    def give_up(self) -> None:
        """A release cannot be taken up again by a running daemon."""
        if self.slots.active != FACTORY:
            self.move(fall(self.slots, "it cannot be opened", now_ms=9), by="a crash")

    @invariant()
    def laws_hold(self) -> None:
        slots = self.slots
        assert faults(slots) == []
        held = {slot.number for slot in slots.held}
        assert held <= self.unpacked, "law 5: what is held was verified and unpacked"
        assert slots.active == FACTORY or slots.active in held, "law 5"
        assert slots.highest == self.ever_confirmed[LINE], "law 6"
        assert slots.starts <= STARTS
        target = back_target(slots)
        assert target is None or slots.has(target)
        if slots.active != FACTORY and not slots.on_trial:
            assert slots.active in self.proved, "law 7"
        assert msgspec.json.decode(msgspec.json.encode(slots), type=Slots) == slots


TestDevice = Device.TestCase
TestDevice.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
