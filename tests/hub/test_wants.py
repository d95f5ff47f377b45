"""The wants rule: a budget that holds, a share for `control`, the severe first."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hub.wants import DeviceSpend, OpenFinding, Pooled, WantRule, choose

NOW = 1_700_000_000_000
RULE = WantRule(
    bytes_per_day_per_device=1000, control_share=0.1, outstanding_per_device=5, pool=1000, max_age_ms=3_600_000
)


def opened(name: str, *, size: int = 100, severity: float = 0.5, control: bool = False, **changes) -> OpenFinding:
    reason = "control" if control else "missed"
    return OpenFinding(name, "lab", "box", reason, severity, size, NOW, name.encode())._replace(**changes)


def pooled_group(severity: float = 0.1, **changes) -> Pooled:
    return Pooled("lab", "box", "missed", severity, asked=True)._replace(**changes)


LIVING = {("lab", device) for device in ("box", "other")}


def wanted(findings, spent=None, rule=RULE, pooled=(), living=frozenset(LIVING)) -> list[str]:
    choice = choose(findings, spent or {}, pooled=pooled, living=living, now_ms=NOW, rule=rule)
    return [f.event_id for f in choice.want]


def test_the_severe_go_first():
    findings = [opened("a", severity=0.1), opened("b", severity=0.9), opened("c", severity=0.5)]
    assert wanted(findings) == ["b", "c", "a"]


def test_the_budget_leaves_room_for_control():
    findings = [opened(f"n{i}", size=300, severity=0.9) for i in range(4)] + [opened("c", control=True, severity=0.0)]
    assert wanted(findings) == ["n0", "n1", "n2", "c"]


def test_control_does_not_take_more_than_its_share():
    assert wanted([opened("a", control=True, size=60), opened("b", control=True, size=60)]) == ["a"]


def test_a_smaller_frame_still_fits_when_a_larger_does_not():
    findings = [opened("large", size=2000, severity=0.9), opened("small", size=10, severity=0.1)]
    assert wanted(findings) == ["small"]


def test_what_was_asked_before_counts():
    spent = {("lab", "box"): DeviceSpend(bytes=850, outstanding=1)}
    assert wanted([opened("a", size=100), opened("b", size=50)], spent) == ["b"]


def test_each_device_has_its_own_budget():
    assert sorted(wanted([opened("a", size=900), opened("b", size=900, device="other")])) == ["a", "b"]


def test_few_wants_wait_at_once():
    assert len(wanted([opened(f"n{i}", size=1) for i in range(9)])) == 5


def test_what_is_too_old_is_closed():
    old = opened("old", received_at_ms=NOW - 3_600_001)
    choice = choose([old], {}, pooled=[], living=set(), now_ms=NOW, rule=RULE)
    assert ([f.event_id for f in choice.want], [f.event_id for f in choice.expired]) == ([], ["old"])


def test_a_budget_of_nothing_asks_for_nothing():
    assert wanted([opened("a", size=1)], rule=msgspec.structs.replace(RULE, bytes_per_day_per_device=0)) == []


SMALL = msgspec.structs.replace(RULE, bytes_per_day_per_device=10**9, outstanding_per_device=1000, pool=20)


ALONE = {("lab", "box")}


def test_a_full_pool_asks_for_control_only():
    findings = [opened("n", severity=1.0), opened("c", control=True)]
    assert wanted(findings, rule=SMALL, pooled=[pooled_group()] * 20) == ["c"]


def test_what_is_asked_for_fills_the_pool():
    assert len(wanted([opened(f"n{i}") for i in range(30)], rule=SMALL, living=ALONE)) == 20


def test_the_fuller_the_pool_the_more_severe_a_finding_must_be():
    pooled = [pooled_group(i / 10) for i in range(10)]  # half full, severities 0.0 to 0.9
    assert wanted([opened("low", severity=0.2)], rule=SMALL, pooled=pooled, living=ALONE) == []
    assert wanted([opened("high", severity=0.8)], rule=SMALL, pooled=pooled, living=ALONE) == ["high"]


def test_a_reason_that_is_never_severe_is_not_starved_by_another():
    pooled = [pooled_group(0.9)] * 10
    assert wanted([opened("unsure", severity=0.3, reason="low_confidence")], rule=SMALL, pooled=pooled) == ["unsure"]


def test_an_empty_pool_takes_what_comes():
    assert len(wanted([opened(f"n{i}", severity=0.5) for i in range(15)], rule=SMALL)) == 15


def test_a_device_that_is_not_alive_is_not_asked():
    assert wanted([opened("a"), opened("b", device="dead"), opened("c", control=True, device="dead")]) == ["a"]


def test_no_device_takes_the_part_of_another():
    # 20 places, two devices: 5 for each, 10 for whoever asks first
    loud = [opened(f"n{i}", severity=0.9) for i in range(100)]
    assert len(wanted(loud, rule=SMALL)) == 15
    late = [opened(f"l{i}", device="other", severity=0.1 + i / 100) for i in range(9)]
    assert wanted([*loud, *late], rule=SMALL, pooled=[pooled_group()] * 15)[0] == "l8"
    assert len(wanted([opened("l", device="other")] * 9, rule=SMALL, pooled=[pooled_group()] * 15)) == 1  # one picture
    alike = [opened(f"l{i}", device="other") for i in range(9)]
    assert len(wanted(alike, rule=SMALL, pooled=[pooled_group()] * 15)) == 5


def test_frames_that_nobody_asked_for_fill_the_part_of_their_device_only():
    unasked = [pooled_group(asked=False)] * 500
    assert len(wanted([opened(f"n{i}", device="other") for i in range(30)], rule=SMALL, pooled=unasked)) == 15
    # a device that has gone has no part, but what it was asked for is here
    gone = [pooled_group(device="gone"), *[pooled_group(device="gone", asked=False)] * 500]
    assert len(wanted([opened(f"n{i}") for i in range(30)], rule=SMALL, pooled=gone, living=ALONE)) == 19


def test_a_picture_is_asked_for_once_but_for_control():
    findings = [opened(name, frame_sha256=b"same", severity=0.9) for name in "ab"]
    findings += [opened("c", frame_sha256=b"same", device="other"), opened("d", frame_sha256=b"same", control=True)]
    assert wanted(findings) == ["a", "c", "d"]


findings_of_any_kind = st.lists(
    st.builds(
        lambda n, device, reason, severity, size: OpenFinding(
            str(n), "lab", device, reason, severity, size, NOW, n.bytes[:1]
        ),
        st.uuids(),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["control", "missed", "suspect"]),
        st.floats(0, 1),
        st.integers(1, 700),
    ),
    max_size=60,
)


groups = st.builds(
    Pooled,
    st.just("lab"),
    st.sampled_from(["a", "b", "dead"]),
    st.sampled_from(["missed", "suspect"]),
    st.floats(0, 1),
    st.booleans(),
)
A_AND_B = {("lab", "a"), ("lab", "b")}


@given(findings_of_any_kind, st.lists(groups, max_size=40))
def test_what_is_asked_for_is_never_over_the_limit(findings, pooled):
    """Law 3, whatever was asked for before."""
    taken = choose(findings, {}, pooled=pooled, living=A_AND_B, now_ms=NOW, rule=SMALL).want
    asked, more = sum(group.asked for group in pooled), sum(not finding.control for finding in taken)
    assert not more or asked + more <= 20


@given(findings_of_any_kind, findings_of_any_kind)
def test_the_part_of_each_device_stays_free_for_it(first, then):
    """Law 4: whatever came before, the most severe finding of a device with less than its part is asked for."""
    before = choose(first, {}, pooled=[], living=A_AND_B, now_ms=NOW, rule=SMALL).want
    pooled = [Pooled(f.site, f.device, f.reason, f.severity, asked=True) for f in before if not f.control]
    taken = choose(then, {}, pooled=pooled, living=A_AND_B, now_ms=NOW, rule=SMALL).want
    for device in A_AND_B:
        severities = [group.severity for group in pooled if group.of == device]
        mine = [f for f in then if f.of == device and not f.control and f.severity > max(severities, default=-1)]
        if len(severities) < 5 and mine:
            assert any(f.of == device and not f.control for f in taken)


@given(findings_of_any_kind, st.integers(0, 3))
def test_the_laws_hold_over_a_day_of_calls(findings, spent_calls):
    """Law 1 and 2, also when one day's findings come in several calls."""
    spent: dict[tuple[str, str], DeviceSpend] = {}
    for _ in range(spent_calls + 1):
        for finding in choose(findings, spent, pooled=[], living=A_AND_B, now_ms=NOW, rule=RULE).want:
            findings = [f for f in findings if f is not finding]
            device = (finding.site, finding.device)
            total, control, waiting = spent.get(device, DeviceSpend())
            control += finding.frame_bytes if finding.control else 0
            spent[device] = DeviceSpend(total + finding.frame_bytes, control, waiting + 1)
    for total, control, waiting in spent.values():
        assert total - control <= 900
        assert control <= 100
        assert waiting <= 5
