"""`hub evaluate` on pictures of the bundled clip: what it prints and writes, and what it refuses."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import cv2
import msgspec
import pytest

import hub.cli
from edge.detector.detector import open_detector
from edge.detector.opening import find_starter
from hub.datasets.version import Member, MemberBox, make_version, read_version, write_version
from hub.evaluation.report import read_report
from tests.hub.evaluation.scenes import START_MS

CLIP = Path(__file__).resolve().parents[3] / "deploy" / "demo" / "street.mp4"
PICTURES = 8


def frames():
    video = cv2.VideoCapture(str(CLIP))
    for _ in range(PICTURES):
        for _ in range(30):
            done, frame = video.read()
            assert done
        yield frame


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """What the starter sees at 320 pixels is taken for the truth; of the last picture only cars were looked for."""
    detector = open_detector(threads=1, input_size=(320, 320))
    members, jpegs = [], {}
    for at, frame in enumerate(frames()):
        found = detector.detect(frame, score_threshold=0.4).detections
        jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
        looked_for = ("car",) if at == PICTURES - 1 else ("person", "kangaroo")
        boxes = [
            MemberBox(xyxy=tuple(xyxy), label=detector.labels[code], origin="person")
            for xyxy, code in zip(found.xyxy.tolist(), found.class_id, strict=True)
            if detector.labels[code] in looked_for
        ]
        name = f"frame-{at}"
        jpegs[name] = jpeg
        members.append(
            Member(
                name=name,
                sha256=hashlib.sha256(jpeg).hexdigest(),
                width=frame.shape[1],
                height=frame.shape[0],
                split="test",
                labels=looked_for,
                boxes=tuple(boxes),
                by="person",
                camera="town/box/street",
                captured_at_ms=START_MS + at * 60_000,
                tags=("dark",) if at % 2 else (),
                weak_spots=(4,),
            )
        )
    folder = tmp_path_factory.mktemp("versions") / "street"
    made = make_version(members, labels=("car", "kangaroo", "person"), recipe={}, created_at_ms=0)
    write_version(made, folder, jpeg_of=lambda member: jpegs[member.name])
    return folder


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """The starter, said to be a release of its own whose input is 256 pixels."""
    folder = tmp_path_factory.mktemp("models") / "larger"
    shutil.copytree(find_starter(), folder)
    card = json.loads((folder / "model.json").read_bytes())
    card["release"] = "larger-1"
    card["input"] |= {"width": 256, "height": 256}
    (folder / "model.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `hub`: exit status, output, errors."""

    def hub_with(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hub", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return hub_with


def test_a_candidate_against_its_baseline(run, version, larger, tmp_path):
    smaller = tmp_path / "smaller"
    shutil.copytree(larger, smaller)
    card = json.loads((smaller / "model.json").read_bytes())
    card["release"] = "smaller-1"
    card["input"] |= {"width": 128, "height": 128}
    (smaller / "model.json").write_text(json.dumps(card))
    out = tmp_path / "out"
    code, printed, errors = run("evaluate", larger, "--against", smaller, "--dataset", version, "--out", out)
    assert (code, errors) == (0, "")
    lines = printed.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[0].startswith("larger-1 at 256x256")
    assert lines[1].startswith("against smaller-1 at 128x128")
    assert "left out, the model cannot tell: kangaroo" in lines
    recall = next(line for line in lines if line.startswith("recall"))
    assert recall.endswith("better")
    assert any(line.startswith("person") and "*" in line for line in lines)
    report = read_report(out / "evaluation.json")
    assert report.dataset == read_version(version).digest
    assert report.comparison.find("weak spot", "4").recall.is_better
    assert report.comparison.left_out == ("kangaroo",)
    assert report.model.evaluation.overall.recall.value == report.comparison.overall.recall.candidate
    assert report.baseline.evaluation.overall.recall.value == report.comparison.overall.recall.baseline
    for size in report.comparison.of("size"):  # the sizes of both are told by the candidate's input
        for one in (report.model, report.baseline):
            assert one.evaluation.find("size", size.name).objects == size.objects
    drawn = {path.name for path in out.iterdir()} - {"evaluation.json"}
    assert drawn == {"precision-recall.png", "groups.png", "calibration.png", "errors.png"}
    for name in drawn:
        picture = cv2.imread(str(out / name))
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 10


def test_one_model_as_json(run, version, larger):
    code, printed, errors = run(
        "evaluate", larger, "--dataset", version, "--input", "192x192", "--score-threshold", "0.5", "--json"
    )
    assert (code, errors) == (0, "")
    told = json.loads(printed)
    assert told["comparison"] is None
    assert told["model"]["release"] == "larger-1"
    evaluation = told["model"]["evaluation"]
    assert (evaluation["input"], evaluation["score_threshold"], evaluation["images"]) == ("192x192", 0.5, PICTURES)
    assert evaluation["lacking"] == ["kangaroo"]
    assert evaluation["groups"][0]["kind"] == "overall"


def test_one_model_as_lines(run, version, larger):
    code, printed, errors = run("evaluate", larger, "--dataset", version)
    assert (code, errors) == (0, "")
    assert max(map(len, printed.splitlines())) <= 80
    for part in ("label", "size", "camera", "weak spot", "errors (TIDE)", "calibration", "intervals: 95 %"):
        assert f"\n{part}" in printed


def broken(version, folder):
    """A picture that is whole as a file, but no image."""
    read = read_version(version)
    member = msgspec.structs.replace(read.members[0], sha256=hashlib.sha256(b"nothing").hexdigest())
    made = make_version([member], labels=read.labels, recipe={}, created_at_ms=0)
    write_version(made, folder, jpeg_of=lambda _: b"nothing")


def changed(version, folder):
    """A picture that is not the one that was frozen."""
    shutil.copytree(version, folder)
    (folder / "images" / "frame-0.jpg").write_bytes((folder / "images" / "frame-1.jpg").read_bytes())


def altered(version, folder):
    """A manifest that was written to."""
    shutil.copytree(version, folder)
    manifest = folder / "version.json"
    manifest.write_text(manifest.read_text().replace('"kangaroo"', '"wallaby"', 1))


def unlabelled(version, folder):
    """Pictures for replay, and a noisy copy: nothing to test on."""
    read = read_version(version)
    first, second = read.members[:2]
    members = [msgspec.structs.replace(first, labels=(), boxes=(), by="")]
    members.append(msgspec.structs.replace(second, copy_of=first.name))
    made = make_version(members, labels=read.labels, recipe={}, created_at_ms=0)
    write_version(made, folder, jpeg_of=lambda member: (version / "images" / f"{member.name}.jpg").read_bytes())


def strange(version, folder):
    """Only what the model cannot tell was looked for."""
    read = read_version(version)
    member = msgspec.structs.replace(read.members[0], labels=("kangaroo",), boxes=())
    made = make_version([member], labels=read.labels, recipe={}, created_at_ms=0)
    write_version(made, folder, jpeg_of=lambda member: (version / "images" / f"{member.name}.jpg").read_bytes())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (broken, "frame-0 of {folder} cannot be used: not a JPEG"),
        (changed, "frame-0.jpg was changed after it was frozen"),
        (altered, "version.json was changed after it was frozen"),
        (unlabelled, "freeze a version with labelled images of the test share"),
        (strange, "can tell none of the labels that were looked for: kangaroo"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_measured_is_one_line_and_2(run, version, larger, tmp_path, make, says):
    folder = tmp_path / "other"
    make(version, folder)
    out = tmp_path / "out"
    code, printed, errors = run("evaluate", larger, "--dataset", folder, "--out", out)
    assert (code, printed) == (2, "")
    assert says.format(folder=folder) in errors
    assert errors.count("\n") == 1
    assert not out.exists()


def test_a_split_without_labelled_images_is_refused(run, version, larger):
    code, _, errors = run("evaluate", larger, "--dataset", version, "--split", "train")
    assert code == 2
    assert "no labelled image in its split 'train'" in errors


def test_there_must_be_such_a_version(run, larger, tmp_path):
    code, _, errors = run("evaluate", larger, "--dataset", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere is no dataset version" in errors
