"""The rules of a rollout: who is ordered what, and when. Pure: values and a `now_ms` in, a new rollout out.

A rollout brings one release of one model line to the devices in its scope, wave by wave: one device, then 5 %, 25 % and
all of them. hub.rollouts keeps it in the database and speaks with the devices; hub.simulate rehearses with it.

Laws:

1. A wave begins only after the one before it has at least 95 % of its devices confirmed; what is missing to that, once
   every device has ended, a person accepts (`resume`) or nobody. A device bakes before it confirms, not a wave after.
   A wave's share is of every device in scope, offline or not; drawn are those that are online.
2. A wave with `stop_at` failures stops the rollout: every device that has the release is ordered back, also of earlier
   waves, and nobody is ordered to install any more. A stopped rollout does not go on; a new one may.
3. A failure is a device that rolled back, one whose own figures are broken, or one that was online for the whole of
   `timeout_s` without an end. One that is offline, or whose cameras give no frame to judge by, does not fail; it does
   not confirm either, and half of a wave must have confirmed before the next.
4. A report counts for its own device, of this release and rollout, when it is newer than the last that counted: twice,
   late or out of order it changes nothing. A device that failed stays failed, whatever it says later. One that has no
   order and says that it serves the release was renamed: it is taken in as one that joined late, or ordered back where
   the others were. So a false report makes a device a member of what it says that it serves, and of nothing else.
5. Durations are sums of steps of at most `MAX_STEP_MS`: a hub that was down, or whose clock jumps, times nobody out.
6. What the devices counted is judged together at every step until the end, and after a halt: of those on trial, too, so
   that what is too little to show on one device stops the rollout before a wave has confirmed. If that fails, every
   device is ordered back.
7. A device that keeps the release, because nothing signed allows it the way back to what it had, is ordered to install
   the release's baseline, where the repository had that when the rollout began. No other device is.
8. An order that is newer than what is known of a device wins, whoever gave it: a hub that was replaced by an older
   backup takes it over, and halts.
9. Late is who gets the release after the last wave has begun, or had not ended when the rollout was complete. Of those
   no more are ordered while as many are under way as devices have confirmed, or twice as many and those that are away
   together. They stop a complete rollout, too: two failures of them or 5 % of all devices, or what is judged together.
   Of who confirmed before it was complete a failure is counted, and stops nothing.
10. Who has not ended in a rollout that a newer one replaces is ordered back: nobody watches it any more. Who has
   confirmed keeps it until the newer one comes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from edge.contract.errors import UnusableError
from edge.contract.judgement import judge_pool
from edge.contract.rollout import ENDED, Assignment, RolloutReport
from hub.rollout_state import (
    AWAY_MS,
    CANARY,
    OLDER_COPY,
    Heard,
    Member,
    Place,
    Rollout,
    count_wave,
    has_passed,
    is_undecided,
    keeps_it,
    ordered_release,
    standing,
    wave_name,
    why_stop,
)

MAX_STEP_MS: Final = 60_000
_SERVES: Final = frozenset({"trial", "confirmed"})


def hear(rollout: Rollout, place: Place, report: RolloutReport) -> Rollout:
    """Return the rollout after a device's report; the same object when the report does not count (law 4)."""
    member = rollout.members.get(place)
    after = None if member is None else told(rollout, member, report)
    return rollout if after is None or after is member else _with(rollout, [after])


def told(rollout: Rollout, member: Member, report: RolloutReport) -> Member:
    """Return a member after its device's report; the same object when the report does not count (law 4)."""
    of = ordered_release(rollout, member)
    about = (report.rollout, report.model, report.release, report.number)
    if about != (rollout.id, rollout.model, of.release, of.number):
        return member
    if not _is_newer(report, member) or not _can_be(report):
        return member
    return _told(member, report, late=rollout.state == "complete")


def turned_up(rollout: Rollout, place: Place, report: RolloutReport) -> Rollout:
    """Return it with a device that is no member and says that it serves the release: it was renamed (law 4).

    Where the rollout was stopped or rolled back it is ordered back, and its answer comes later than this report. Else
    it is a late one that was ordered when the rollout began: no order that was given since is older. The same object
    where the report says something else, or a newer rollout is on its way to all of them.
    """
    about = (report.rollout, report.model, report.release, report.number, report.serving)
    if about != (rollout.id, rollout.model, rollout.release, rollout.number, rollout.release):
        return rollout
    if report.phase not in _SERVES or rollout.state == "replaced" or place in rollout.members:
        return rollout
    found = Member(place=place, wave=rollout.plan.late_wave, ordered_at_ms=rollout.started_at_ms)
    if rollout.state not in {"stopped", "rolled_back"}:
        return _with(rollout, [_told(found, report, late=rollout.state == "complete")])
    ordered_at_ms = max(rollout.stepped_at_ms, rollout.started_at_ms + 1)
    back = replace(found, action="back", ordered_at_ms=ordered_at_ms, sequence=report.sequence, boot_id=report.boot_id)
    return _with(rollout, [back])


def adopt(rollout: Rollout, place: Place, order: Assignment) -> Rollout:
    """Return it with an order of it that is newer than what is known: this rollout is an older copy of itself.

    It goes on only by a person's word; where a device was ordered back, not at all.
    """
    member = rollout.members.get(place)
    known = member if member is not None else Member(place=place, wave=rollout.plan.late_wave, ordered_at_ms=0)
    action = "back" if order.number != rollout.number else order.action
    instead = rollout.baseline is not None and order.number == rollout.baseline.number
    turned = (known.action, known.instead) != (action, instead)
    adopted = replace(known, action=action, instead=instead, ordered_at_ms=order.at_ms, away_ms=0)
    adopted = replace(adopted, phase="", waited_ms=0) if turned else adopted
    after = replace(_with(rollout, [adopted]), reason=OLDER_COPY)
    if action == "back" and rollout.active:
        return replace(after, state="stopped")
    if action == "back" and rollout.state == "complete":
        return replace(after, state="rolled_back")
    return replace(after, state="halted") if rollout.state == "running" else after


def step(rollout: Rollout, fleet: Sequence[Heard], *, now_ms: int) -> Rollout:
    """Return the rollout after what time and reports have brought.

    `fleet`: the devices that this rollout may draw, and its members; those outside its scope are left out here. Of
    a complete rollout only late ones are ordered (law 9): call it for the newest complete one of a line. Of one that
    was stopped, rolled back or replaced only those that cannot go back are (law 7).
    """
    if rollout.state in {"stopped", "rolled_back", "replaced"}:
        return _follow_back(rollout, fleet, now_ms=now_ms)
    in_scope = [one for one in fleet if rollout.plan.covers(one)]
    after = _age(rollout, fleet, now_ms=now_ms)
    if fault := why_stop(after):
        return replace(_order_back(after, after.members.values(), now_ms=now_ms), state="stopped", reason=fault)
    if after.state == "running":
        after = _go_on(after, in_scope, now_ms=now_ms)
    if after.state == "complete" or (after.state == "running" and after.wave == after.plan.last_wave):
        after = _order_late(after, in_scope, now_ms=now_ms)
    return after


def halt(rollout: Rollout, *, reason: str) -> Rollout:
    """Return it halted: nobody else is ordered, and those under way go on. Raises `UnusableError` unless it runs."""
    if rollout.state != "running":
        msg = f"the rollout of {rollout.release} is {_word(rollout)}, it does not run"
        raise UnusableError(msg)
    return replace(rollout, state="halted", reason=reason)


def resume(rollout: Rollout) -> Rollout:
    """Return it running; the present wave passes with what it has confirmed. Raises `UnusableError` unless halted."""
    if rollout.state != "halted":
        more = "; start it anew" if rollout.state in {"stopped", "rolled_back", "replaced"} else ""
        msg = f"the rollout of {rollout.release} is {_word(rollout)}, not halted{more}"
        raise UnusableError(msg)
    accepts = is_undecided(rollout) or (rollout.wave > CANARY and not count_wave(rollout, rollout.wave).devices)
    accepted = rollout.wave if accepts else rollout.accepted
    return replace(rollout, state="running", reason="", accepted=accepted)


def roll_back(rollout: Rollout, *, now_ms: int) -> Rollout:
    """Return it with every device ordered back. Raises `UnusableError` when it was, or when a newer one replaced it."""
    if rollout.state in {"rolled_back", "replaced"}:
        msg = f"the rollout of {rollout.release} is {_word(rollout)} already"
        raise UnusableError(msg)
    back = _order_back(rollout, rollout.members.values(), now_ms=now_ms)
    return replace(back, state="rolled_back", reason="by hand")


def give_way(rollout: Rollout, *, now_ms: int) -> Rollout:
    """Return it replaced by a newer one of its line (law 10)."""
    members = rollout.members.values()
    left = [one for one in members if one.phase != "rolled_back" and standing(rollout, one) != "confirmed"]
    return replace(_order_back(rollout, left, now_ms=now_ms), state="replaced")


def _word(rollout: Rollout) -> str:
    return rollout.state.replace("_", " ")


# Reports


def _is_newer(report: RolloutReport, member: Member) -> bool:
    """A sequence that fell is a device that was set up anew, if its clock and its boot say so, too."""
    if report.sequence > member.sequence:
        return True
    return report.sequence < member.sequence and (
        report.boot_id != member.boot_id and report.at_ms > member.reported_at_ms
    )


def _can_be(report: RolloutReport) -> bool:
    """That it rolled back is always believed: the model of before, which it serves then, may have the same name."""
    return report.phase != "confirmed" or report.serving == report.release


def _told(member: Member, report: RolloutReport, *, late: bool) -> Member:
    reason = report.reason
    failed = member.action == "install" and report.phase == "rolled_back"
    counts = report.figures is not None and not member.instead
    if report.figures is not None and member.action == "install" and not failed:
        alone = judge_pool([report.figures])  # one device: only what is broken fails
        if alone.outcome == "fail":
            failed, reason = True, alone.reason
    return replace(
        member,
        phase=report.phase,
        sequence=report.sequence,
        boot_id=report.boot_id,
        reported_at_ms=report.at_ms,
        reason=member.reason if member.failed and not member.instead else reason,
        frames=report.frames,
        no_frames=report.no_frames,
        figures=report.figures if counts else member.figures,
        failed=member.failed or failed,
        failed_late=member.failed_late or (late and failed and not member.failed),
    )


# Time


def _age(rollout: Rollout, fleet: Sequence[Heard], *, now_ms: int) -> Rollout:
    spent_ms = min(max(0, now_ms - rollout.stepped_at_ms), MAX_STEP_MS) if rollout.stepped_at_ms else 0
    online = {one.place for one in fleet if one.online}
    changed = [
        aged
        for one in rollout.members.values()
        if (aged := _aged(rollout, one, spent_ms, online=one.place in online)) is not one
    ]
    return replace(_with(rollout, changed), stepped_at_ms=now_ms)


def _aged(rollout: Rollout, member: Member, spent_ms: int, *, online: bool) -> Member:
    """A clock that has run out stands: nothing is to be written of it."""
    if member.phase in ENDED or member.action == "back" or standing(rollout, member) == "timed_out":
        return member
    if online and not member.no_frames:
        return replace(member, waited_ms=member.waited_ms + spent_ms, away_ms=0)
    return member if member.away_ms >= AWAY_MS else replace(member, away_ms=member.away_ms + spent_ms)


# The waves


def _follow_back(rollout: Rollout, fleet: Sequence[Heard], *, now_ms: int) -> Rollout:
    """Return it with those that keep the release ordered to install its baseline; the same object while none does."""
    spent_ms = min(max(0, now_ms - rollout.stepped_at_ms), MAX_STEP_MS)
    online = {one.place for one in fleet if one.online}
    keeping = [
        one
        for one in rollout.members.values()
        if (one.action, one.instead, one.phase) == ("back", False, "confirmed") and one.place in online
    ]
    changed = [replace(one, waited_ms=one.waited_ms + spent_ms) for one in keeping if not keeps_it(one)]
    if rollout.baseline is not None:
        changed += [
            replace(one, instead=True, phase="", ordered_at_ms=max(now_ms, one.ordered_at_ms + 1))
            for one in keeping
            if keeps_it(one)
        ]
    return replace(_with(rollout, changed), stepped_at_ms=now_ms) if changed else rollout


def _go_on(rollout: Rollout, in_scope: Sequence[Heard], *, now_ms: int) -> Rollout:
    while has_passed(rollout):
        if rollout.wave == rollout.plan.last_wave:
            return _complete(rollout)
        following = _begin_wave(rollout, in_scope, now_ms=now_ms)
        if following is rollout:
            return rollout
        rollout = following
    if is_undecided(rollout):
        count = count_wave(rollout, rollout.wave)
        name = wave_name(rollout.plan, rollout.wave)
        return replace(rollout, state="halted", reason=f"{name}: only {count.confirmed} of {count.devices} confirmed")
    return _draw_for_lost(rollout, in_scope, now_ms=now_ms)


def _complete(rollout: Rollout) -> Rollout:
    """Return it complete; who has not ended by then is late (law 9)."""
    left = [one for one in rollout.members.values() if standing(rollout, one) in {"waiting", "away"}]
    late = _with(rollout, [replace(one, wave=rollout.plan.late_wave) for one in left])
    return replace(late, state="complete", reason="")


def _order_late(rollout: Rollout, in_scope: Sequence[Heard], *, now_ms: int) -> Rollout:
    """Return it with as many late ones ordered as may be under way (law 9); the same object for none."""
    free = _drawable(rollout, in_scope)
    if not free:
        return rollout
    late = count_wave(rollout, rollout.plan.late_wave)
    most = max(1, sum(standing(rollout, one) == "confirmed" for one in rollout.members.values()))
    room = min(most - late.waiting, 2 * most - late.waiting - late.away)
    drawn = free[: max(0, room)]
    return _order(rollout, drawn, wave=late.wave, now_ms=now_ms) if drawn else rollout


def _begin_wave(rollout: Rollout, in_scope: Sequence[Heard], *, now_ms: int) -> Rollout:
    """Return it with the next wave ordered; the same object while no canary can be drawn."""
    wave = rollout.wave + 1
    free = _drawable(rollout, in_scope)
    if wave == CANARY:
        named = [place for place in free if "/".join(place) == rollout.plan.canary]
        drawn = named if rollout.plan.canary else free[:1]
        if not drawn:
            return rollout
    else:
        reach = len(rollout.members.keys() | {one.place for one in in_scope})
        target = max(1, reach * rollout.plan.waves_permille[wave - 1] // 1000)
        drawn = free[: max(0, target - len(rollout.members))]
    begun = replace(rollout, wave=wave, sizes=(*rollout.sizes, len(drawn)))
    return _order(begun, drawn, wave=wave, now_ms=now_ms)


def _draw_for_lost(rollout: Rollout, in_scope: Sequence[Heard], *, now_ms: int) -> Rollout:
    """Draw others for those that went away or were forgotten, when the rest cannot be half of the wave.

    A wave gets at most twice its size.
    """
    if rollout.wave < 0:
        return rollout
    count = count_wave(rollout, rollout.wave)
    able = count.confirmed + count.waiting
    if 2 * able >= count.size or not (count.away or count.devices < count.size):
        return rollout
    room = min(count.size - able, 2 * count.size - count.devices)
    drawn = _drawable(rollout, in_scope)[: max(0, room)]
    return _order(rollout, drawn, wave=rollout.wave, now_ms=now_ms) if drawn else rollout


def _drawable(rollout: Rollout, in_scope: Sequence[Heard]) -> list[Place]:
    """Return the devices that are online and have no order of this rollout, in the rollout's own drawn order."""
    free = [one.place for one in in_scope if one.online and one.place not in rollout.members]
    return sorted(free, key=lambda place: hashlib.sha256("/".join((rollout.id, *place)).encode()).digest())


def _order(rollout: Rollout, places: Iterable[Place], *, wave: int, now_ms: int) -> Rollout:
    return _with(rollout, [Member(place=place, wave=wave, ordered_at_ms=now_ms) for place in places])


def _order_back(rollout: Rollout, members: Iterable[Member], *, now_ms: int) -> Rollout:
    """Order them back; one that rolled back by itself is back, and hears it all the same."""
    return _with(
        rollout,
        [
            replace(
                one,
                action="back",
                ordered_at_ms=max(now_ms, one.ordered_at_ms + 1),
                phase="rolled_back" if one.phase == "rolled_back" else "",
                waited_ms=0,
                failed=one.failed or standing(rollout, one) == "timed_out",
            )
            for one in members
            if one.action == "install"
        ],
    )


def _with(rollout: Rollout, members: Iterable[Member]) -> Rollout:
    changed = {one.place: one for one in members}
    return replace(rollout, members={**rollout.members, **changed}) if changed else rollout
