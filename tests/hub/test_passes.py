"""One label at a time, in a fixed order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from hub.annotation import CONTEXT, Annotation
from hub.passes import find_pass

NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=5), min_size=1, max_size=6, unique=True)


@given(NAMES, st.data())
def test_passes_cover_the_labels_once_and_in_order(labels, data) -> None:
    turns = [find_pass(label, labels) for label in labels]
    assert [turn.number for turn in turns] == list(range(1, len(labels) + 1))
    assert all((*turn.before, turn.label, *turn.after) == tuple(labels) for turn in turns)
    assert {turn.count for turn in turns} == {len(labels)}
    drawn = [
        Annotation((0, 0, 10, 10), label, None, None)
        for label in data.draw(st.lists(st.sampled_from(labels), max_size=8))
    ]
    for turn in turns:
        shown = turn.context(drawn)
        assert [box.label for box in shown] == [box.label for box in drawn if box.label in turn.before]
        assert all((box.origin, box.score) == (CONTEXT, None) for box in shown)


def test_a_label_that_is_not_listed_is_refused_with_the_list() -> None:
    with pytest.raises(UnusableError, match=r"no pass 'dog': asked for: person, head; \[labels\] names in hub.toml"):
        find_pass("dog", ("person", "head"))
