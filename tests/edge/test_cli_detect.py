"""`edge detect` and `edge model check`, as a user runs them."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.cli import main
from edge.detector.pictures import read_picture
from edge.draw import draw_boxes, save_drawn
from tests.edge.detector.made_graphs import save_graph, yolo_cells
from tests.edge.detector.test_heads import SIZE, YOLO_BOXES

CLIP = Path(__file__).parents[2] / "deploy" / "demo" / "street.mp4"


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


@pytest.fixture
def street(tmp_path):
    capture = cv2.VideoCapture(str(CLIP))
    _, frame = capture.read()
    capture.release()
    path = tmp_path / "street.png"
    cv2.imwrite(str(path), frame)
    return path


def test_detect_prints_and_draws(edge, street, tmp_path):
    status, out, err = edge("detect", "street.png", "--input", "768x576")
    assert (status, err) == (0, "")
    first, *rows = out.splitlines()
    assert first.startswith("street.png: 768x576, ")
    assert first.endswith("drawn in detections/street-detected.jpg")
    assert any(row.split()[0] == "person" for row in rows)
    assert all(len(row) <= 80 for row in rows)
    drawn = read_picture(tmp_path / "detections" / "street-detected.jpg")
    assert drawn.shape == read_picture(street).shape
    assert np.abs(drawn.astype(int) - read_picture(street)).max() > 100


def test_detect_json_prints_a_line_an_image_and_nothing_else(edge, street, tmp_path):
    status, out, err = edge("detect", street, "street.png", "--json", "--input", "320x256", "--score-threshold", "0.3")
    assert (status, err) == (0, "")
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["image"] == str(street)
    assert second["image"] == "street.png"
    assert first["boxes"] == second["boxes"]
    assert set(first["boxes"][0]) == {"xyxy", "label", "score"}
    scores = [box["score"] for box in first["boxes"]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 0.3
    assert not (tmp_path / "detections").exists()


def test_detect_goes_on_after_an_image_it_cannot_read(edge, street, tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    status, out, err = edge("detect", "missing.jpg", "text.jpg", "empty.jpg", tmp_path, "street.png", "--json")
    assert status == 2
    assert [json.loads(line)["image"] for line in out.splitlines()] == ["street.png"]
    assert err.splitlines() == [
        "edge: cannot read missing.jpg: No such file or directory",
        "edge: cannot read text.jpg: it is not an image, or it is cut short",
        "edge: cannot read empty.jpg: it is not an image, or it is cut short",
        f"edge: cannot read {tmp_path}: Is a directory",
    ]


def test_pictures_of_one_name_do_not_replace_each_other(edge, street, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "street.png").write_bytes(street.read_bytes())
    status, _, _ = edge("detect", "street.png", "other/street.png", "--out", ".", "--input", "64x64")
    assert status == 0
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == ["street-2-detected.jpg", "street-detected.jpg"]
    assert street.exists()


REFUSED = [
    # a size that is none
    (["detect", "x.png", "--input", "320"], "edge: an input size is WIDTHxHEIGHT, as in 320x192, not '320'"),
    # a side that is no multiple of 32
    (["detect", "x.png", "--input", "320x200"], "not 320x200, but 320x192"),
    # no such file
    (["detect", "x.png", "--model", "missing.onnx"], "edge: there is no model missing.onnx"),
    (["model", "check", "missing.onnx"], "edge: there is no model missing.onnx"),
    # a file that is no model
    (["model", "check", "notes.txt"], "edge: notes.txt is not an ONNX model, or it is cut short"),
    # a runtime that is none
    (["detect", "x.png", "--runtime", "tflite"], "edge: there is no runtime 'tflite'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_done_is_one_line_and_exit_status_2(edge, tmp_path, arguments, message):
    (tmp_path / "notes.txt").write_text("remember the milk")
    status, out, err = edge(*arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err


def test_model_check_of_a_model_without_a_card(edge, tmp_path):
    save_graph(tmp_path / "made.onnx", {"output0": yolo_cells(SIZE, YOLO_BOXES)})
    status, out, err = edge("model", "check", "made.onnx")
    assert (status, err) == (0, "")
    assert "head      yolo" in out
    assert "labels    4: class_0, class_1, class_2, class_3" in out
    assert "input     96x64" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_model_check_as_json(edge, tmp_path):
    save_graph(tmp_path / "made.onnx", {"output0": yolo_cells(SIZE, YOLO_BOXES)})
    status, out, err = edge("model", "check", "made.onnx", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["head"], report["input_size"], report["carded"]) == ("yolo", [96, 64], False)
    assert all(runtime["infer_ms"] > 0 for runtime in report["runtimes"])


def test_drawing_leaves_the_picture_as_it_was(tmp_path):
    picture = np.zeros((50, 60, 3), np.uint8)
    drawn = draw_boxes(picture, [], region=(10, 10, 20, 20))
    assert picture.max() == 0
    assert drawn[10, 10].tolist() == [0, 0, 255]
    assert save_drawn(drawn, tmp_path / "new", name="a") == tmp_path / "new" / "a-detected.jpg"
