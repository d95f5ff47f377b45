"""The test share: by camera and time alone, a fifth, and neighbours in time on one side."""

from hypothesis import given
from hypothesis import strategies as st

from hub.store import BatchMember, BatchRow
from hub.testshare import APART_MS, BLOCK_MS, SHARE, is_beside_test, is_test, may_train

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,20}", fullmatch=True)


@given(NAMES, NAMES, NAMES, st.integers(0, 2**50), st.integers(0, BLOCK_MS - 1), st.integers(0, BLOCK_MS - 1))
def test_a_block_is_on_one_side(site, device, camera, block, a_ms, b_ms):
    where = {"site": site, "device": device, "camera": camera}
    first = is_test(**where, captured_at_ms=block * BLOCK_MS + a_ms)
    assert first == is_test(**where, captured_at_ms=block * BLOCK_MS + b_ms)


def test_it_is_a_fifth_of_the_blocks_of_every_camera():
    for camera in "abc":
        drawn = [
            is_test(site="s", device="d", camera=camera, captured_at_ms=block * BLOCK_MS) for block in range(10_000)
        ]
        assert abs(sum(drawn) / len(drawn) - SHARE) < 0.015  # three sigmas


def test_cameras_and_devices_are_drawn_apart():
    # the parts of the name are kept apart, too
    sides = {
        tuple(is_test(site=s, device=d, camera=c, captured_at_ms=n * BLOCK_MS) for n in range(200))
        for s, d, c in (("a", "b", "c"), ("a", "b", "d"), ("a", "d", "c"), ("d", "b", "c"), ("ab", "b", "c"))
    }
    assert len(sides) == 5


def test_no_image_ever_changes_sides():
    # frozen: a change here moves images that were trained on into the test share
    start = 1_700_000_000_000
    sides = [is_test(site="lab", device="box", camera="door", captured_at_ms=start + n * BLOCK_MS) for n in range(40)]
    assert [n for n, test in enumerate(sides) if test] == [1, 5, 7, 9, 11, 12, 20, 39]


def test_what_was_drawn_at_random_and_the_test_share_are_never_trained_on():
    batches = [BatchRow(1, 0, 1, "t", None, "m", random=drawn) for drawn in (False, True)]
    members = [BatchMember("e", 1, "w", 0.0, test=test) for test in (False, True)]
    assert [may_train(batch, member) for batch in batches for member in members] == [True, False, False, False]


def test_a_block_begins_and_ends_at_its_millisecond():
    # this block is test, those beside it are not: who moves the edge moves images
    start = 1_700_000_100_000
    at = (start - 1, start, start + BLOCK_MS - 1, start + BLOCK_MS)
    sides = [is_test(site="plant7", device="cam1", camera="gate", captured_at_ms=at_ms) for at_ms in at]
    assert sides == [False, True, True, False]


@given(NAMES, NAMES, NAMES, st.integers(2**20, 2**50), st.integers(0, 2 * APART_MS))
def test_what_lies_near_a_test_picture_and_is_none_is_beside_it(site, device, camera, at_ms, apart_ms):
    """No two pictures within `APART_MS` are one of the test share and one that a batch would take to train on."""
    where = {"site": site, "device": device, "camera": camera}
    for one_ms, other_ms in ((at_ms, at_ms + apart_ms), (at_ms + apart_ms, at_ms)):
        if is_test(**where, captured_at_ms=one_ms):
            other = is_test(**where, captured_at_ms=other_ms) or is_beside_test(**where, captured_at_ms=other_ms)
            assert other or apart_ms > APART_MS
        assert not (is_test(**where, captured_at_ms=one_ms) and is_beside_test(**where, captured_at_ms=one_ms))


def test_what_is_beside_a_test_block_begins_and_ends_at_its_millisecond():
    # the block of the test above: 3 s before it and after it are nobody's
    start = 1_700_000_100_000
    at = (start - APART_MS - 1, start - APART_MS, start - 1, start, start + BLOCK_MS, start + BLOCK_MS + APART_MS - 1)
    where = {"site": "plant7", "device": "cam1", "camera": "gate"}
    beside = [is_beside_test(**where, captured_at_ms=at_ms) for at_ms in (*at, start + BLOCK_MS + APART_MS)]
    assert beside == [False, True, True, False, True, True, False]
