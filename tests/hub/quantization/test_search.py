"""The search: the fewest layers in float that hold the budget, and none where it would be slow."""

import pytest

from hub.quantization.layers import Layer
from hub.quantization.report import Judged, Loss
from hub.quantization.search import Opened, fewest

LAYERS = tuple(Layer(f"layer-{at}", (f"node-{at}",)) for at in range(20))


def lost(points: float) -> Judged:
    loss = Loss(group="all", measure="ap50", objects=1000, before=1.0, after=1.0 - points / 100, judged=True)
    return Judged(of="val", truth="labels", images=1, losses=(loss,))


def ways(tries: list[int], *, harmful: int, slow_from: int, golden_from: int = 0):
    """Open files of which the first `harmful` layers cost a point each; with `slow_from` layers in float it is slow."""

    def opened(nodes: frozenset[str]) -> Opened:
        tries.append(len(nodes))
        left = sum(f"node-{at}" not in nodes for at in range(harmful))
        return Opened(
            infer=lambda _: {},
            judge=lambda: lost(left),
            fault=lambda: "other boxes" if len(nodes) < golden_from else "",
            ratio=lambda: 1.0 if len(nodes) >= slow_from else 0.7,
        )

    return opened


@pytest.mark.parametrize(
    ("harmful", "slow_from", "floats", "holds"),
    [
        (0, 99, 0, True),  # nothing to put back
        (1, 99, 1, True),
        (5, 99, 5, True),  # 4 is too few and 8 more than needed
        (8, 99, 8, True),
        (5, 5, 4, False),  # what would hold is slow: the best of the fast ones, which does not hold
        (5, 0, 0, False),  # slow from the first: no search at all
        (20, 99, 19, False),  # one layer at least is in 8 bits, or there is nothing to release
    ],
)
def test_the_fewest_that_hold(harmful, slow_from, floats, holds):
    tries: list[int] = []
    way = ways(tries, harmful=harmful, slow_from=slow_from)
    found = fewest(lambda: LAYERS, way=way, budget=0.5, slowest=0.95)
    assert (len(found.float_layers), found.holds) == (floats, holds)
    assert len(tries) <= 10


def test_without_need_nothing_is_ranked():
    def never() -> tuple[Layer, ...]:
        raise AssertionError

    assert fewest(never, way=ways([], harmful=0, slow_from=99), budget=0.5, slowest=0.95).holds
    assert not fewest(never, way=ways([], harmful=9, slow_from=0), budget=0.5, slowest=0.95).holds


def test_the_golden_set_has_a_word():
    """Within the budget with 2 layers in float, but the golden set asks for 6."""
    found = fewest(lambda: LAYERS, way=ways([], harmful=2, slow_from=99, golden_from=6), budget=0.5, slowest=0.95)
    assert (len(found.float_layers), found.holds) == (6, True)


def test_what_does_not_hold_is_at_least_without_fault():
    """2 layers in float would lose the same as 4 and more; only from 4 on the golden set agrees, and 8 are slow."""
    way = ways([], harmful=20, slow_from=8, golden_from=4)
    found = fewest(lambda: LAYERS, way=way, budget=0.5, slowest=0.95)
    assert (len(found.float_layers), found.fault, found.holds) == (4, "", False)


@pytest.mark.parametrize(
    ("points", "judged", "least", "missed"),
    [
        (0.9, True, None, False),
        (1.1, True, None, True),  # many boxes: the figure itself counts
        (1.1, True, -2.0, True),
        (11.0, False, None, False),  # few boxes, and nothing said of chance
        (11.0, False, -3.0, False),  # few boxes, and chance may do it
        (11.0, False, 4.0, True),  # few boxes, and chance does not
        (0.9, True, 1.5, True),
    ],
)
def test_what_misses_the_budget(points, judged, least, missed):
    loss = Loss(group="all", measure="ap50", objects=50, before=1, after=1 - points / 100, judged=judged, least=least)
    assert loss.misses(1.0) is missed
    look = Judged(of="test", truth="labels", images=1, losses=(loss,))
    assert (look.missed(1.0) is loss) is missed
