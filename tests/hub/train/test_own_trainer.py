"""Somebody's own trainer: real commands, what they get, what is taken from them, and that nothing of them stays."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.detector.opening import find_starter
from hub.datasets.layouts import Layout
from hub.train.own_trainer import LOG, OwnTrainer, last_line, run_command, train_by_command
from hub.train.training import read_training
from tests.brokers import wait_until
from tests.hub.train.street_versions import street_version

STARTER = find_starter() / "starter.onnx"
COPY = 'echo epoch 1; cp "$WEAKSPOT_MODEL" "$WEAKSPOT_OUT/model.onnx"'
SIZE = (96, 96)


@pytest.fixture
def version(tmp_path) -> Path:
    street_version(tmp_path / "dataset")
    return tmp_path / "dataset"


def trained(tmp_path, version, command, *, layout=Layout.YOLO, **more):
    return train_by_command(
        version, OwnTrainer(command, layout), model=None, out=tmp_path / "c", input_size=SIZE, **more
    )


def python(program: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"


def left(tmp_path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()} - {"dataset"}


@pytest.mark.parametrize("layout", list(Layout))
def test_what_a_command_leaves_becomes_a_candidate(tmp_path, version, layout) -> None:
    listing = tmp_path / "seen.json"
    program = (
        "import json, os, pathlib; root = pathlib.Path(os.environ['WEAKSPOT_DATASET'])\n"
        "files = sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())\n"
        "text = {path: (root / path).read_text() for path in files if not path.endswith('.jpg')}\n"
        f"json.dump([files, text, os.environ['WEAKSPOT_INPUT']], open({str(listing)!r}, 'w'))\n"
    )
    training = trained(tmp_path, version, f"{python(program)} && {COPY}", layout=layout, name="mine")
    files, text, size = json.loads(listing.read_text())
    assert size == "96x96"
    assert {f"images/train/street-{n:03d}.jpg" for n in (0, 20, 40, 60)} < set(files)
    if layout is Layout.YOLO:
        assert '0: "person"' in text["data.yaml"]
        assert '79: "toothbrush"' in text["data.yaml"]  # the model's class numbers, whatever the version holds
    else:
        assert len(json.loads(text["annotations/instances_train.json"])["categories"]) == 80
    card = read_card(tmp_path / "c" / "model.json")
    assert (card.name, card.labels[0], card.input.width, card.head) == ("mine", "person", 96, "centernet")
    assert card.release == training.release == f"mine-{card.sha256[:8]}"
    assert read_training(tmp_path / "c") == training
    assert (training.parent, training.pictures) == ("starter-1", {"people": 4})
    assert "epoch 1" in (tmp_path / "c" / LOG).read_text()
    assert left(tmp_path) == {"c", "seen.json"}


def with_three_classes(path: Path) -> None:
    """Write a model that is no detector of the card's: its heat map has three classes."""
    model = onnx.load(STARTER)
    heat = next(one for one in model.graph.output if one.type.tensor_type.shape.dim[1].dim_value == 80)
    node = next(one for one in model.graph.node if heat.name in one.output)
    node.output[list(node.output).index(heat.name)] = "all_classes"
    for name, value in (("starts", [0]), ("ends", [3]), ("axes", [1])):
        model.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], value))
    model.graph.node.append(onnx.helper.make_node("Slice", ["all_classes", "starts", "ends", "axes"], [heat.name]))
    heat.type.tensor_type.shape.dim[1].dim_value = 3
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo no card; exit 3", r"the command ended with status 3; its output: .*c\.log; its last line: no card$"),
        ("kill -9 $$", r"the command was killed by SIGKILL; its output: .*c\.log$"),
        ("no-such-trainer", r"ended with status 127; .*; its last line: .*no-such-trainer.*not found"),
        ("true", r"left no model\.onnx in \$WEAKSPOT_OUT; its output: .*c\.log$"),
        ('echo text > "$WEAKSPOT_OUT/model.onnx"', r"cannot be used, nothing is released: .*model\.onnx"),
        ('cp three.onnx "$WEAKSPOT_OUT/model.onnx"', r"nothing is released: .*3 classes apart, but has 80 labels"),
    ],
)
def test_what_fails_is_one_line_and_leaves_its_log_only(tmp_path, version, monkeypatch, command, says) -> None:
    with_three_classes(tmp_path / "three.onnx")
    monkeypatch.chdir(tmp_path)  # a command runs where hub is called
    with pytest.raises(UnusableError, match=says) as caught:
        trained(tmp_path, version, command)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) - {"three.onnx"} <= {"c.log"}


def test_no_process_of_a_command_outlives_it(tmp_path) -> None:
    pid = tmp_path / "pid"
    run_command(f"sleep 600 & echo $! > {pid}", environment={}, log=tmp_path / "log")
    wait_until(lambda: not alive(int(pid.read_text())))


def test_a_command_that_removes_its_log_is_its_own_affair(tmp_path) -> None:
    log = tmp_path / "log"
    with pytest.raises(UnusableError, match=f"ended with status 3; its output: {log}$"):
        run_command(f"rm {shlex.quote(str(log))}; exit 3", environment={}, log=log)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("times", [1, 2])  # whoever does not want to wait for it presses again
def test_ctrl_c_ends_a_command_with_its_children(tmp_path, version, times) -> None:
    pids = tmp_path / "pids"
    # A child that does not mind SIGTERM: it takes SIGKILL.
    program = (
        f"trap 'touch {pids}.asked' TERM; sh -c 'trap \"\" TERM; echo $$ >> {pids}; while :; do sleep 1; done' &"
        f" echo $$ >> {pids}; while :; do wait; done"
    )
    words = ["--dataset", str(version), "--command", program, "--input", "96x96", "--out", str(tmp_path / "c")]
    hub = subprocess.Popen([sys.executable, "-m", "hub", "train", *words], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, deadline_s=60)
        hub.send_signal(signal.SIGINT)
        if times == 2:
            wait_until((tmp_path / "pids.asked").exists, deadline_s=60)
            hub.send_signal(signal.SIGINT)
        said = hub.communicate(timeout=60)[1]
    finally:
        hub.kill()
    assert hub.returncode == 2
    assert "stopped" in said.splitlines()[-1]
    assert not any(alive(int(pid)) for pid in pids.read_text().split())
    assert not (tmp_path / "c").exists()
    assert not (tmp_path / "c.part").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", ""),
        (b"one\ntwo\n\n", "two"),
        (b" 10%\r 20%\r", "20%"),  # a bar of another program
        (b"\x1b[31mred\xff\n", "[31mred\ufffd"),  # no terminal obeys it
    ],
)
def test_the_last_line_of_a_log(tmp_path, content, line) -> None:
    (tmp_path / "log").write_bytes(content)
    assert last_line(tmp_path / "log") == line


def alive(pid: int) -> bool:
    """Whether a process runs: what is dead and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
