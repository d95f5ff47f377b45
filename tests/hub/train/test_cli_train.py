"""`hub train` as it is typed: what it prints, what it refuses, and what a killed one goes on with."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import hub.cli
from edge.contract.errors import UnusableError
from edge.detector.opening import find_starter, read_model
from hub.store import Store
from hub.train.asked import find_unfinished, remember
from hub.train.candidate import candidate_folder, folder_name
from hub.train.checkpoint import CHECKPOINT
from hub.train.training import read_training
from tests.brokers import wait_until
from tests.hub.train.street_versions import street_version

SPLITS = ("train", "train", "train", None, None, None, "test", "test")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(hub.cli.__file__).parents[1])}
TINY = ("--input", "64x64", "--batch", "3", "--steps", "5", "--threads", "1")


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("versions") / "4"
    street_version(folder, splits=SPLITS)
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `hub train ...` in an empty folder; return its status, what it printed, what it said of errors."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hub", "train", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


def in_a_process(cwd: Path, *words: object) -> "subprocess.Popen[str]":
    whole = [sys.executable, "-m", "hub", "train", *map(str, words)]
    return subprocess.Popen(whole, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()


def test_a_training_says_what_went_in_what_it_cost_and_what_comes_next(run, version, tmp_path) -> None:
    status, printed, said = run("--dataset", version, *TINY)
    assert status == 0, said
    lines = printed.splitlines()
    release = read_training(tmp_path / "candidates" / "starter-4").release
    assert lines[0] == f"candidate {release} in candidates/starter-4"
    assert lines[1] == "from      starter-1, trained at 64x64"
    assert "pictures  3 people" in lines
    assert any(line.startswith("training  5 steps, ") and line.endswith("1 thread") for line in lines)
    assert any(line.startswith("test: 2 images, ") for line in lines)
    for title in ("  AP50 ", "  recall at score 0.30 ", "  precision at score 0.30 "):
        assert any(line.startswith(title) for line in lines)
    assert any(line.startswith("  hub gate candidates/starter-4") for line in lines)
    assert all(len(line) <= 80 for line in lines if str(version) not in line)
    assert "3 steps to go: about " in said
    status, printed, said = run("--dataset", version, *TINY)
    assert (status, printed) == (2, "")
    assert said.splitlines() == ["hub: candidates/starter-4 is there already; name another folder with --out"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "hub: name what to train on: --weakspot ID, --self-taught, --people-only or --dataset VERSION"),
        (("--dataset", "V", "--weakspot", "1"), "hub: --dataset is frozen already"),
        (("--dataset", "V", "--no-noise"), "hub: --teacher, --replay and --no-noise are for freezing"),
        (("--self-taught", "--people-only"), "hub: --self-taught is without people's boxes"),
        (("--dataset", "nowhere"), "hub: nowhere is no dataset version, it is not there"),
        (("--dataset", "V", "--input", "65x64"), "hub: {starter} takes sides that are multiples of 32: not 65x64"),
        (("--dataset", "V", "--batch", "2"), "hub: a step needs at least 3 pictures"),
        (("--dataset", "V", "--new-label", "person"), "hub: the model has the label person already"),
        (("--dataset", "V", "--model", "none.onnx"), "hub: there is no model none.onnx"),
        (("--weakspot", "1", "--config", "none.toml"), "hub: "),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(run, version, tmp_path, words, says) -> None:
    status, printed, said = run(*(version if word == "V" else word for word in words))
    assert (status, printed) == (2, "")
    (line,) = said.splitlines()
    assert line.startswith(says.format(starter=find_starter() / "starter.onnx"))
    assert [path for path in tmp_path.rglob("*") if path.name != "candidates"] == []


def test_an_operator_that_cannot_be_trained_through_is_named(run, version, tmp_path) -> None:
    model = onnx.load(find_starter() / "starter.onnx")
    output = model.graph.output[0].name
    node = next(one for one in model.graph.node if output in one.output)
    node.output[list(node.output).index(output)] = "before"
    model.graph.node.append(onnx.helper.make_node("Celu", ["before"], [output], name="odd"))
    names = {"names": str(dict(enumerate(read_model(None).card.labels)))}
    onnx.helper.set_model_props(model, names)
    onnx.save(model, tmp_path / "odd.onnx")
    status, printed, said = run("--dataset", version, *TINY, "--model", "odd.onnx")
    assert (status, printed) == (2, "")
    (line,) = said.splitlines()
    assert "Celu" in line
    assert [path.name for path in tmp_path.rglob("*") if path.name != "candidates"] == ["odd.onnx"]


def test_a_weak_spot_that_is_not_there_freezes_nothing(run, tmp_path) -> None:
    Store.open(tmp_path / "hub.db", create=True).close()
    status, printed, said = run("--weakspot", "7", "-d", "hub.db")
    assert (status, printed) == (2, "")
    assert said.startswith("hub: there is no weak spot 7")
    assert not (tmp_path / "datasets").exists()
    assert not (tmp_path / "candidates").exists()


def test_the_same_words_find_what_they_began(tmp_path) -> None:
    asked = {"weak_spot": "3", "seed": "0"}
    version = tmp_path / "datasets" / "5"
    street_version(version, splits=SPLITS)
    out = tmp_path / "candidates" / "starter-5"
    remember(out, asked, version)
    found = find_unfinished(asked, out=None, candidates=out.parent)
    assert (found.out, found.folder) == (out, version)
    assert find_unfinished(asked, out=out, candidates=out.parent) == found
    assert find_unfinished(asked, out=tmp_path / "other", candidates=out.parent) is None
    assert find_unfinished({**asked, "seed": "1"}, out=None, candidates=out.parent) is None
    (version / "version.json").unlink()  # it was removed, something in it was forgotten
    assert find_unfinished(asked, out=None, candidates=out.parent) is None


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
sys.argv = ["hub", "train", "--dataset", sys.argv[1]]
import hub.cli
hub.cli.main()
"""


def test_without_torch_it_says_what_to_install(version, tmp_path) -> None:
    words = [sys.executable, "-c", WITHOUT_TORCH, str(version)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'hub: torch is not installed; run: pip install "weakspot[train]"\n'
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_opens_without_torch() -> None:
    program = "import sys, hub.cli; print([name for name in ('torch', 'onnx', 'nncf') if name in sys.modules])"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_killed_and_terminated_ends_as_if_it_never_was(version, tmp_path) -> None:
    words = ("--dataset", version, *TINY[:-4], "--steps", "60", "--threads", "1", "--json")
    part = tmp_path / "candidates" / "starter-4.part"
    killed = in_a_process(tmp_path, *words)
    wait_until((part / CHECKPOINT).exists, deadline_s=300)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "candidates" / "starter-4").exists()
    ended = in_a_process(tmp_path, *words)
    for line in ended.stderr:
        if "to go: about" in line:
            break
    ended.send_signal(signal.SIGTERM)
    said = ended.communicate(timeout=300)[1]
    assert ended.returncode == 2
    assert "of 60: the same command goes on from there" in said
    last = in_a_process(tmp_path, *words)
    printed, said = last.communicate(timeout=300)
    assert last.returncode == 0, said
    told = json.loads(printed)
    assert told["candidate"] == "candidates/starter-4"
    assert told["training"]["resumed"] == 2
    assert told["comparison"]["images"] == 2
    assert not part.exists()
    whole = in_a_process(tmp_path, *words, "--out", "whole")
    printed, said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    assert json.loads(printed)["training"]["resumed"] == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "candidates" / "starter-4")


REFUSED = [
    (("--out", "."), ". is there already"),
    (("--out", "dangling"), "dangling is there already"),  # a link to nothing
    (("--out", "c", "--new-label", "a\nb"), "cannot be a label"),
    (("--out", "c", "--new-label", ""), "cannot be a label"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED)
def test_what_would_fail_after_the_training_is_refused_before_it(run, version, tmp_path, words, says) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    for source in (("--dataset", version), ("--self-taught",)):
        status, printed, said = run(*source, *words, *TINY)
        assert (status, printed, len(said.splitlines())) == (2, "", 1), said
        assert says in said
    assert {path.name for path in tmp_path.iterdir()} == {"dangling"}


@pytest.mark.parametrize(
    ("name", "folder"), [("../../elsewhere", "elsewhere"), ("/etc/x", "etc-x"), ("..", "model"), ("ok-1", "ok-1")]
)
def test_a_name_from_elsewhere_leads_nowhere_else(name, folder) -> None:
    assert folder_name(name) == folder


def test_what_a_killed_process_wrote_of_a_candidate_goes_with_its_part(tmp_path) -> None:
    part = tmp_path / "c.part"
    (part / "candidate").mkdir(parents=True)
    (part / "candidate" / "half.onnx").write_bytes(b"half")
    with candidate_folder(tmp_path / "c", part=part) as folder:
        (folder / "model.onnx").write_bytes(b"whole")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["model.onnx"]
    with pytest.raises(UnusableError, match="is there already"), candidate_folder(tmp_path / "c", part=part):
        pass
    assert not list(part.iterdir())
