"""`edge tune`, as a user runs it."""

import json
import sys

import pytest

from edge.cli import main
from edge.config import read_config
from edge.detector.runtimes import installed_runtimes
from edge.detector.tuned import Choice
from edge.opening import open_configured
from tests.edge.detector.golden_models import golden_folder, starter_folder


@pytest.fixture
def edge(monkeypatch, tmp_path, capsys):
    """Run `edge` in an empty folder; return exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edge", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def write_config(tmp_path, more=""):
    path = tmp_path / "edge.toml"
    path.write_text(f"""
        site = "home"
        device = "pi"
        data_dir = "data"
        [model]
        path = "{tmp_path / "model"}"
        input = "64x64"
        {more}
        [mqtt]
        host = "localhost"
        [[camera]]
        name = "door"
        source = "clip.mp4"
    """)
    return path


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_device_is_tuned_and_runs_as_it_was_told(edge, tmp_path):
    starter_folder(tmp_path / "model")
    config = write_config(tmp_path)
    status, out, err = edge("tune", "--config", "edge.toml", "--seconds", "1", "--json")
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert (answer["input"], answer["golden"]) == ("64x64", "")
    halves = [way for way in answer["ways"] if way["choice"]["precision"] in {"bf16", "f16"}]
    assert halves  # the boxes of these are unknown without a golden set
    assert all("parity unknown" in way["fault"] or "cannot multiply" in way["fault"] for way in halves)
    assert answer["picked"]["precision"] == "f32"
    assert answer["written"] == str(tmp_path / "data" / "tuned.json")
    written = json.loads((tmp_path / "data" / "tuned.json").read_text())
    assert written["choice"] == answer["picked"]
    detector = open_configured(read_config(config), cached=False)
    assert detector.runtime_name == Choice(**answer["picked"]).runtime
    assert detector.input_size == (64, 64)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_device_that_computes_other_boxes_is_told_so(edge, tmp_path):
    folder = golden_folder(tmp_path / "model", size=(192, 160), count=3)
    golden = next(folder.glob("golden-*/golden.json"))
    content = json.loads(golden.read_text())
    for picture in content["pictures"]:
        for box in picture["boxes"]["192x160"]:
            box[0] = [value + 300 for value in box[0]]
    golden.write_text(json.dumps(content))
    status, out, err = edge("tune", "model", "--seconds", "1")
    assert (status, err) == (1, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    rows = [line for line in out.splitlines() if line.startswith("(float32 file)")]
    assert len(rows) == len(installed_runtimes()) + 2 * ("openvino" in installed_runtimes())
    assert all(row.endswith(("  no", "  unusable")) for row in rows)
    assert "of the golden boxes again, not 98%" in " ".join(out.split())
    assert "do not run this model on this" in out
    assert not (folder / "tuned.json").exists()


REFUSED = [
    # what is named in edge.toml wins, so nothing would follow what is measured
    (["--config", "edge.toml"], 'runtime = "openvino"', "`model.runtime` is set"),
    (["--config", "edge.toml"], "threads = 1", "`model.threads` is set"),
    # two models
    (["model", "--config", "edge.toml"], "", "--config names the model already"),
    # before the measuring, not after it
    (["model", "--out", "/proc/tuned.json"], "", "cannot write /proc/tuned.json: "),
    (["model", "--out", "nowhere/tuned.json"], "", "--out FILE anywhere"),
    # no such model
    (["gone"], "", "there is no model gone"),
    # a size that the model cannot take
    (["model", "--input", "65x64"], "", "multiples of 32"),
]


@pytest.mark.parametrize(("arguments", "more", "message"), REFUSED)
def test_refused(edge, tmp_path, arguments, more, message):
    starter_folder(tmp_path / "model")
    write_config(tmp_path, more)
    status, out, err = edge("tune", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
