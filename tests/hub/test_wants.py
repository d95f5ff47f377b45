"""The wants rule: a budget that holds, a share for `control`, the severe first."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hub.wants import DeviceSpend, OpenFinding, WantRule, choose

NOW = 1_700_000_000_000
RULE = WantRule(
    bytes_per_day_per_device=1000, control_share=0.1, outstanding_per_device=5, pool=1000, max_age_ms=3_600_000
)


def opened(name: str, *, size: int = 100, severity: float = 0.5, control: bool = False, **changes) -> OpenFinding:
    reason = "control" if control else "missed"
    return OpenFinding(name, "lab", "box", reason, severity, size, NOW)._replace(**changes)


def wanted(findings, spent=None, rule=RULE, pooled=()) -> list[str]:
    return [f.event_id for f in choose(findings, spent or {}, pooled=pooled, now_ms=NOW, rule=rule).want]


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
    choice = choose([opened("old", received_at_ms=NOW - 3_600_001)], {}, pooled=[], now_ms=NOW, rule=RULE)
    assert ([f.event_id for f in choice.want], [f.event_id for f in choice.expired]) == ([], ["old"])


def test_a_budget_of_nothing_asks_for_nothing():
    assert wanted([opened("a", size=1)], rule=msgspec.structs.replace(RULE, bytes_per_day_per_device=0)) == []


SMALL = msgspec.structs.replace(RULE, bytes_per_day_per_device=10**9, outstanding_per_device=1000, pool=20)


def test_a_full_pool_asks_for_control_only():
    pooled = [opened(f"p{i}", severity=0.1) for i in range(20)]
    assert wanted([opened("n", severity=1.0), opened("c", control=True)], rule=SMALL, pooled=pooled) == ["c"]


def test_the_fuller_the_pool_the_more_severe_a_finding_must_be():
    pooled = [opened(f"p{i}", severity=i / 10) for i in range(10)]  # half full, severities 0.0 to 0.9
    assert wanted([opened("low", severity=0.2)], rule=SMALL, pooled=pooled) == []
    assert wanted([opened("high", severity=0.8)], rule=SMALL, pooled=pooled) == ["high"]


def test_a_reason_that_is_never_severe_is_not_starved_by_another():
    pooled = [opened(f"p{i}", severity=0.9) for i in range(10)]
    assert wanted([opened("unsure", severity=0.3, reason="low_confidence")], rule=SMALL, pooled=pooled) == ["unsure"]


def test_an_empty_pool_takes_what_comes():
    assert len(wanted([opened(f"n{i}", severity=0.5) for i in range(15)], rule=SMALL)) == 15


findings_of_any_kind = st.lists(
    st.builds(
        lambda n, device, reason, severity, size: OpenFinding(n, "lab", device, reason, severity, size, NOW),
        st.uuids().map(str),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["control", "missed", "suspect"]),
        st.floats(0, 1),
        st.integers(1, 700),
    ),
    max_size=60,
)


@given(findings_of_any_kind, findings_of_any_kind)
def test_the_pool_is_never_over_its_limit(findings, pooled):
    pooled = [finding for finding in pooled if not finding.control][:20]
    taken = choose(findings, {}, pooled=pooled, now_ms=NOW, rule=SMALL).want
    assert len(pooled) + sum(not finding.control for finding in taken) <= 20


@given(findings_of_any_kind, st.integers(0, 3))
def test_the_laws_hold_over_a_day_of_calls(findings, spent_calls):
    """Law 1 and 2, also when one day's findings come in several calls."""
    spent: dict[tuple[str, str], DeviceSpend] = {}
    for _ in range(spent_calls + 1):
        for finding in choose(findings, spent, pooled=[], now_ms=NOW, rule=RULE).want:
            findings = [f for f in findings if f is not finding]
            device = (finding.site, finding.device)
            total, control, waiting = spent.get(device, DeviceSpend())
            control += finding.frame_bytes if finding.control else 0
            spent[device] = DeviceSpend(total + finding.frame_bytes, control, waiting + 1)
    for total, control, waiting in spent.values():
        assert total - control <= 900
        assert control <= 100
        assert waiting <= 5
