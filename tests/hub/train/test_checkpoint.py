"""What an unfinished training leaves: whole, for the same terms only, for one process at a time."""

import signal
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge.contract.errors import UnusableError
from hub.train.checkpoint import (
    CHECKPOINT,
    Account,
    Checkpoint,
    Terms,
    opened,
    part_of,
    read_checkpoint,
    start_anew,
    write_checkpoint,
)
from hub.train.training import LossAt, thinned

TERMS = Terms(
    dataset="d" * 64,
    folder="datasets/3",
    model="a" * 64,
    input="192x192",
    recipe={"steps": 200, "seed": 0, "people": 3},
    threads=2,
    name="starter",
    new_labels=(),
    versions={"torch": "2.13.0"},
)


def changed(**changes) -> Terms:
    return msgspec.structs.replace(TERMS, **changes)


def leave(out, state) -> None:
    """Leave a training as a killed process does."""
    with opened(out, TERMS) as (part, _):
        write_checkpoint(part, Checkpoint(state), terms=TERMS)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
ARRAYS = arrays.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.bool_]), arrays.array_shapes(min_dims=0))
PLAIN = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False)  # the best loss before the first check is infinite


@settings(max_examples=40)
@given(st.dictionaries(NAMES, ARRAYS | PLAIN, max_size=5))
def test_a_state_comes_back_as_it_was_whatever_the_names(tmp_path_factory, state) -> None:
    part = tmp_path_factory.mktemp("part")
    account = Account(losses=[LossAt(step=1, parts={"find": 0.5})], seconds=2.5, resumed=1, peak_bytes=7)
    write_checkpoint(part, Checkpoint(state, account), terms=TERMS)
    found = read_checkpoint(part, TERMS)
    assert found.account == account
    assert set(found.state) == set(state)
    for name, value in state.items():
        assert type(found.state[name]) is type(value)
        if isinstance(value, np.ndarray):
            assert found.state[name].dtype == value.dtype
            np.testing.assert_array_equal(found.state[name], value)
        else:
            assert found.state[name] == value


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        (changed(dataset="e" * 64), "dataset dddddddddddd, now eeeeeeeeeeee"),  # another version
        (changed(model="b" * 64), "model aaaaaaaaaaaa, now bbbbbbbbbbbb"),  # another file was deployed
        (changed(input="96x96"), "input 192x192, now 96x96"),
        (changed(recipe={"steps": 100, "seed": 1, "people": 3}), "steps 200, now 100; seed 0, now 1"),
        (changed(recipe={"steps": 200, "seed": 0}), "people 3, now none"),  # a newer recipe
        (changed(threads=1), "threads 2, now 1"),  # sums in another order: other weights
        (changed(new_labels=("forklift",)), "new labels none, now forklift"),
        (changed(versions={"torch": "2.14.0"}), "torch 2.13.0, now 2.14.0"),
    ],
)
def test_other_terms_are_refused_and_what_differs_is_named(tmp_path, terms, says) -> None:
    leave(tmp_path / "c", {"step": 3})
    with pytest.raises(UnusableError, match="--anew drops it") as caught, opened(tmp_path / "c", terms):
        pass
    assert says in str(caught.value)
    assert (part_of(tmp_path / "c") / CHECKPOINT).exists()


def test_the_same_terms_go_on_wherever_the_version_lies(tmp_path) -> None:
    leave(tmp_path / "c", {"step": 3})
    with opened(tmp_path / "c", changed(folder="/elsewhere/3")) as (_, found):
        assert found.state == {"step": 3}


def test_without_a_checkpoint_nothing_is_left(tmp_path) -> None:
    with opened(tmp_path / "c", TERMS) as (part, found):
        assert found is None
        (part / "trial").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_anew_drops_what_was_left(tmp_path) -> None:
    leave(tmp_path / "c", {"step": 3})
    start_anew(tmp_path / "c")
    assert list(tmp_path.iterdir()) == []
    start_anew(tmp_path / "c")


def test_a_candidate_that_is_there_is_not_touched(tmp_path) -> None:
    (tmp_path / "c").mkdir()
    with pytest.raises(UnusableError, match="is there already"), opened(tmp_path / "c", TERMS):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_a_checkpoint_that_cannot_be_read_says_what_to_do(tmp_path, content) -> None:
    leave(tmp_path / "c", {"step": 3})
    (part_of(tmp_path / "c") / CHECKPOINT).write_bytes(content)
    with pytest.raises(UnusableError, match=r"cannot be read; --anew"), opened(tmp_path / "c", TERMS):
        pass


def test_nothing_in_a_checkpoint_is_executed(tmp_path) -> None:
    leave(tmp_path / "c", {"step": 3})
    path = part_of(tmp_path / "c") / CHECKPOINT
    np.savez(path, about=np.array([print], dtype=object))
    with pytest.raises(UnusableError, match="cannot be read"), opened(tmp_path / "c", TERMS):
        pass


def test_one_process_at_a_time(tmp_path) -> None:
    out = tmp_path / "c"
    program = (
        "import sys, pathlib; from hub.train.checkpoint import opened, part_of; import fcntl, os\n"
        "part = part_of(pathlib.Path(sys.argv[1])); part.mkdir()\n"
        "fd = os.open(part / 'lock', os.O_RDWR | os.O_CREAT); fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UnusableError, match="another training works in"), opened(out, TERMS):
            pass
        with pytest.raises(UnusableError, match="another training works in"):
            start_anew(out)
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    with opened(out, TERMS) as (_, found):  # a lock ends with its process
        assert found is None


@settings(max_examples=40)
@given(st.lists(st.floats(0, 100), max_size=400), st.integers(1, 50))
def test_thinned_losses_keep_the_mean_of_each_stretch(values, most) -> None:
    losses = [LossAt(step=i + 1, parts={"find": value}) for i, value in enumerate(values)]
    points = thinned(losses, most=most)
    assert len(points) <= most
    assert [point.step for point in points[-1:]] == [len(values)] * bool(values)
    stretches = zip((0, *(point.step for point in points)), points, strict=False)
    for start, point in stretches:
        assert point.parts["find"] == pytest.approx(sum(values[start : point.step]) / (point.step - start))
