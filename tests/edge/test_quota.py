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
