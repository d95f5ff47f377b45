from hypothesis import given
from hypothesis import strategies as st

from edge.config import QuotaConfig
from edge.contract.samples import Reason
from edge.quota import Quota


@given(
    burst=st.integers(1, 5),
    per_hour=st.floats(0, 7200),
    steps=st.lists(st.floats(0, 60), min_size=1, max_size=80),
)
def test_no_span_admits_more_than_burst_and_rate(burst: int, per_hour: float, steps: list[float]) -> None:
    quota = Quota(QuotaConfig(burst=burst, missed=per_hour))
    now_s, admitted = 0.0, []
    for step in steps:
        now_s += step
        if quota.admit("front", Reason.MISSED, now_s=now_s):
            admitted.append(now_s)
    for i, first in enumerate(admitted):
        for n, last in enumerate(admitted[i:], start=1):
            assert n <= burst + per_hour / 3600 * (last - first) + 1e-6


def test_the_rate_is_reached() -> None:
    quota = Quota(QuotaConfig(burst=1, control=60))
    assert sum(quota.admit("front", Reason.CONTROL, now_s=float(s)) for s in range(3600)) >= 59


def test_buckets_do_not_share_tokens() -> None:
    quota = Quota(QuotaConfig(burst=1))
    assert quota.admit("front", Reason.MISSED, now_s=0.0)
    assert not quota.admit("front", Reason.MISSED, now_s=0.0)
    assert quota.admit("back", Reason.MISSED, now_s=0.0)
    assert quota.admit("front", Reason.SUSPECT, now_s=0.0)


def test_a_rate_of_nothing_admits_nothing() -> None:
    quota = Quota(QuotaConfig(burst=3, suspect=0))
    assert not quota.admit("front", Reason.SUSPECT, now_s=0.0)
    assert not quota.admit("front", Reason.SUSPECT, now_s=1e9)


def test_a_clock_that_runs_backwards_fills_no_bucket() -> None:
    quota = Quota(QuotaConfig(burst=1, missed=3600))
    assert quota.admit("front", Reason.MISSED, now_s=100.0)
    assert not quota.admit("front", Reason.MISSED, now_s=0.0)
    assert not quota.admit("front", Reason.MISSED, now_s=100.5)
    assert quota.admit("front", Reason.MISSED, now_s=101.0)


@given(
    limits=st.lists(st.tuples(st.integers(1, 5), st.floats(0, 7200)), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.floats(0, 60), st.integers(0, 3)), min_size=1, max_size=60),
)
def test_no_span_admits_more_however_often_the_limits_change(limits, steps) -> None:
    quota = Quota(QuotaConfig(burst=limits[0][0], missed=limits[0][1]))
    now_s, earned, rate = 0.0, 0.0, limits[0][1] / 3600
    admitted: list[float] = []  # what the rates had earned by then
    for step, which in steps:
        now_s += step
        earned += rate * step
        if which < len(limits):
            burst, per_hour = limits[which]
            quota.adopt(QuotaConfig(burst=burst, missed=per_hour), now_s=now_s)
            rate = per_hour / 3600
        if quota.admit("front", Reason.MISSED, now_s=now_s):
            admitted.append(earned)
    for i, first in enumerate(admitted):
        for n, last in enumerate(admitted[i:], start=1):
            assert n <= max(burst for burst, _ in limits) + (last - first) + 1e-6


def test_other_limits_keep_the_tokens_up_to_the_new_burst() -> None:
    quota = Quota(QuotaConfig(burst=5, missed=60))
    assert quota.admit("front", Reason.MISSED, now_s=0.0)
    quota.adopt(QuotaConfig(burst=2, missed=60), now_s=0.0)
    assert [quota.admit("front", Reason.MISSED, now_s=0.0) for _ in range(3)] == [True, True, False]
    quota.adopt(QuotaConfig(burst=9, missed=60), now_s=0.0)
    assert not quota.admit("front", Reason.MISSED, now_s=0.0), "a larger burst is no gift of tokens"


def test_a_new_rate_counts_from_the_moment_it_is_adopted() -> None:
    quota = Quota(QuotaConfig(burst=1, missed=1))
    assert quota.admit("front", Reason.MISSED, now_s=0.0)
    quota.adopt(QuotaConfig(burst=1, missed=3600), now_s=60.0)
    assert not quota.admit("front", Reason.MISSED, now_s=60.0)
    assert quota.admit("front", Reason.MISSED, now_s=61.0)


def test_a_rate_that_becomes_nothing_leaves_no_token() -> None:
    quota = Quota(QuotaConfig(burst=3, missed=60))
    assert quota.admit("front", Reason.MISSED, now_s=0.0)
    quota.adopt(QuotaConfig(burst=3, missed=0), now_s=0.0)
    assert not quota.admit("front", Reason.MISSED, now_s=9.0)
