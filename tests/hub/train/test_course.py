"""A whole training, in small: what is released, what goes on after a stop, and what is never released."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from edge.contract.errors import UnusableError
from edge.detector.detector import open_detector
from edge.detector.golden import read_golden
from edge.detector.opening import read_model
from hub.datasets.version import read_version
from hub.lines import spell_seconds
from hub.train.batch import batch_of, with_batch
from hub.train.checkpoint import CHECKPOINT, part_of
from hub.train.course import StoppedError, Watch, train
from hub.train.estimate import free_bytes, require_memory
from hub.train.recipe import Recipe
from hub.train.stopping import Stop
from hub.train.training import read_training
from tests.hub.train.street_versions import street_version

SIZE = (64, 64)
RECIPE = with_batch(Recipe(steps=5, seed=7), 3)
SPLITS = ("train", "train", "train", None, "val", None, "test", None)


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("versions") / "1"
    street_version(folder, splits=SPLITS)
    return folder


def run(version, out, **more):
    return train(version, model=None, out=out, input_size=SIZE, recipe=RECIPE, threads=1, **more)


@pytest.fixture(scope="module")
def whole(version, tmp_path_factory) -> Path:
    """A candidate of a training that was never stopped."""
    out = tmp_path_factory.mktemp("whole") / "starter-1"
    run(version, out)
    return out


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()


def test_a_candidate_is_a_model_folder_with_its_story(whole, version) -> None:
    card, told = read_model(whole).card, read_training(whole)
    starter = read_model(None).card
    assert card.release == told.release == f"starter-{weights(whole)[:8]}"
    assert card.sha256 == weights(whole) != starter.sha256
    assert (card.input.width, card.input.height) == SIZE
    assert (card.labels, card.head, card.score_threshold) == (starter.labels, starter.head, starter.score_threshold)
    assert (card.accuracy, card.variants) == ((), ())  # they were measured on other weights
    assert card.source == f"trained from starter-1 on dataset {read_version(version).digest[:12]}"
    assert (told.parent, told.parent_sha256) == ("starter-1", starter.sha256)
    assert (told.pictures, told.steps, told.planned, told.seed, told.threads) == ({"people": 3}, 5, 5, 7, 1)
    assert [loss.step for loss in told.losses] == [1, 2, 3, 4, 5]
    assert told.recipe["steps"] == 5
    assert told.versions["torch"] == torch.__version__
    assert 1e8 < told.peak_bytes < 1e10
    assert told.seconds > 0
    assert set(read_golden(whole).images) == {"street-000", "street-020", "street-040", "street-150"}
    assert not part_of(whole).exists()
    open_detector(whole, runtime="onnxruntime")


def test_what_was_stopped_goes_on_to_the_very_same_weights(whole, version, tmp_path) -> None:
    out, stop, seen = tmp_path / "c", Stop(), []

    def stepped(done, steps, parts) -> None:
        seen.append(done)
        stop.asked = done == 3

    with pytest.raises(StoppedError, match="stopped at step 3 of 5: the same command goes on from there"):
        run(version, out, watch=Watch(stepped=stepped, stop=stop))
    assert not out.exists()
    with pytest.raises(UnusableError, match=r"begun on other terms: seed 7, now 8\. --anew drops it"):
        train(
            version,
            model=None,
            out=out,
            input_size=SIZE,
            recipe=msgspec.structs.replace(RECIPE, seed=8),
            threads=1,
        )
    estimates = []
    stop.asked = False
    told = run(version, out, watch=Watch(stepped=lambda done, *_: seen.append(done), estimated=estimates.append))
    assert seen == [1, 2, 3, 4, 5]
    assert weights(out) == weights(whole)
    assert told.resumed == 1
    assert [loss.step for loss in told.losses] == [1, 2, 3, 4, 5]
    assert told.losses == read_training(whole).losses
    assert [estimate.steps for estimate in estimates] == [0]


def test_a_loss_that_is_no_number_ends_it_and_nothing_stays(version, tmp_path) -> None:
    recipe = msgspec.structs.replace(RECIPE, rate=1e30, steps=20)
    with pytest.raises(UnusableError, match=r"^the loss is not a number at step \d+ \(.*\): nothing is released"):
        train(version, model=None, out=tmp_path / "c", input_size=SIZE, recipe=recipe, threads=1)
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from edge.contract.errors import UnusableError
from hub.train.batch import with_batch
from hub.train.course import Watch, train
from hub.train.recipe import Recipe

version, out, side, batch, when, spare = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])

def limit():
    held = int(next(x for x in open("/proc/self/status") if x.startswith("VmSize")).split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (held + spare * 2**20, -1))

watch = Watch(said=lambda text: when == 0 and "measuring" in text and limit(),
              stepped=lambda done, steps, parts: done == when and limit())
try:
    train(version, model=None, out=out, input_size=(side, side), recipe=with_batch(Recipe(steps=6), batch), threads=1,
          watch=watch)
except UnusableError as error:
    print(error)
    sys.exit(2)
"""


def limited(version, out, *, side: int, batch: int, when: int, spare: int) -> str:
    """Train in a process whose address space is limited after step `when`; return the only line that it says."""
    words = [sys.executable, "-c", LIMITED, str(version), str(out), *map(str, (side, batch, when, spare))]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path.cwd(), timeout=500, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout.count("\n") == 1
    return done.stdout.rstrip()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_out_of_memory_is_one_line_and_the_checkpoint_stays_whole(version, tmp_path) -> None:
    said = limited(version, tmp_path / "c", side=384, batch=3, when=3, spare=1)
    assert re.match(r"out of memory after step 3; .* was the most it held: .* a smaller --batch or --input", said)
    assert [path.name for path in tmp_path.iterdir()] == ["c.part"]
    assert {path.name for path in (tmp_path / "c.part").iterdir()} == {"terms.json", "lock", CHECKPOINT}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_cannot_fit_is_refused_before_it_starts(version, tmp_path) -> None:
    said = limited(version, tmp_path / "c", side=128, batch=300, when=0, spare=400)
    assert re.match(r"the training needs about .* GB and \d+ MB are free: try --batch \d+ or --input 96x96", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("needed", "free", "batch", "says"),
    [
        (4e9, 3.9e9, 8, r"needs about 4\.0 GB and 3\.9 GB are free: try --batch 7 or --input 128x128"),
        (8e9, 1e9, 8, r"and 1\.0 GB are free: try --batch 3 or"),  # never fewer than a step needs
        (4e9, 0.5e9, 3, r"and 500 MB are free: try --input 128x128, or end"),  # no smaller batch
        (4e9, 4.3e9, 8, None),  # enough, with something for the system
        (4e9, None, 8, None),  # the system does not tell
    ],
)
def test_memory_that_is_short_says_what_to_do(needed, free, batch, says) -> None:
    if says is None:
        require_memory(needed, free, batch=batch, input_size=(192, 192))
        return
    with pytest.raises(UnusableError, match=says):
        require_memory(needed, free, batch=batch, input_size=(192, 192))


def test_free_memory_is_known_here() -> None:
    assert 1e6 < free_bytes() < 1e15


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 second"), (40, "40 seconds"), (100, "2 minutes"), (240, "4 minutes"), (9000, "2.5 hours")],
)
def test_seconds_in_words(seconds, text) -> None:
    assert spell_seconds(seconds) == text


@pytest.mark.parametrize("batch", [3, 4, 8, 20, 31])
def test_a_batch_is_shared_out_as_before(batch) -> None:
    whole = Recipe()
    made = with_batch(whole, batch)
    assert batch_of(made) == batch
    for place in ("people", "machine", "replay"):
        assert abs(getattr(made, place) - getattr(whole, place) * batch / batch_of(whole)) <= 1
        assert getattr(made, place) >= 1


def test_a_batch_that_is_too_small_says_which_is_not() -> None:
    with pytest.raises(UnusableError, match="--batch 3"):
        with_batch(Recipe(), 2)


def test_another_name_and_a_second_training_of_one_place(whole, version) -> None:
    with pytest.raises(UnusableError, match="is there already; name another folder with --out"):
        run(version, whole)
    assert weights(whole) == read_model(whole).card.sha256


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"label": "forklift"},
            r"the model has no label 'forklift': `hub train \.\.\. --new-label forklift` adds a row",
        ),
        ({"boxes": False}, "has a box: there is nothing to learn"),  # looked for, nothing found
        ({"splits": (None,) * 6 + ("test", "test")}, "has no picture to train on"),  # the test share alone
    ],
)
def test_a_version_that_teaches_nothing_is_refused(tmp_path, changes, says) -> None:
    street_version(tmp_path / "v", **changes)
    with pytest.raises(UnusableError, match=says):
        run(tmp_path / "v", tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_label_gets_a_row_that_is_taught(tmp_path) -> None:
    street_version(tmp_path / "v", label="forklift", splits=SPLITS)
    told = run(tmp_path / "v", tmp_path / "c", new_labels=("forklift",))
    card = read_model(tmp_path / "c").card
    assert card.labels == (*read_model(None).card.labels, "forklift")
    assert (told.new_labels, told.parent_sha256) == (("forklift",), read_model(None).sha256)
    assert {path.name for path in tmp_path.iterdir()} == {"v", "c"}
    open_detector(tmp_path / "c", runtime="onnxruntime")


def test_a_weight_that_is_no_number_is_not_released(whole, version, tmp_path) -> None:
    from hub.train.course import _Subject, _Writer

    parent = read_model(None)
    subject = _Subject(read_version(version), version, parent, SIZE, RECIPE, 1, "starter", tmp_path / "c", ())
    writer = _Writer(subject, parent)
    state = writer._graph.state()
    name = next(iter(state))
    state[name] = state[name] * float("nan")
    with pytest.raises(UnusableError, match="are not numbers any more: nothing is released"):
        writer.write(tmp_path / "trial", state)
