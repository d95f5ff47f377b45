import errno
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest

from edge.contract.errors import UnusableError
from edge.contract.samples import Box, WitnessKind
from edge.detector.pictures import decode_jpeg
from hub.annotation import Annotation
from hub.batch_view import BatchView, Member, image_names
from hub.export import Format, export_batch
from hub.formats.coco import read_coco
from hub.formats.cvat import read_cvat
from hub.formats.labelstudio import read_labelstudio
from hub.formats.voc import read_voc
from hub.formats.yolo import read_yolo
from hub.pre_labels import pre_labels

DATA = Path(__file__).parents[3] / "shared" / "data"
READERS = {
    Format.CVAT: read_cvat,
    Format.COCO: read_coco,
    Format.YOLO: read_yolo,
    Format.VOC: read_voc,
    Format.LABELSTUDIO: read_labelstudio,
}
IMAGES = dict.fromkeys(Format, "images") | {Format.VOC: "JPEGImages", Format.YOLO: "images/train"}


def jpeg_of(width, height, shade=90):
    return cv2.imencode(".jpg", np.full((height, width, 3), shade, np.uint8))[1].tobytes()


def member(rank=1, **changes):
    settings = {
        "event_id": f"{rank:032x}"[::-1],
        "site": "lab",
        "device": "dev-1",
        "camera": "north.gate",
        "captured_at_ms": 1_760_000_000_000,
        "reason": "missed",
        "severity": 0.75,
        "why": "far from all others chosen so far",
        "region": (10.0, 10.0, 40.0, 40.0),
        "label": "person",
        "boxes": (
            Box(xyxy=(10, 10, 40, 40), label="person", score=0.2, witness=WitnessKind.GAP),
            Box(xyxy=(50, 12, 60, 40), label="person", score=0.9),
        ),
        "jpeg": jpeg_of(64, 48),
        "width": 64,
        "height": 48,
        "rank": rank,
    }
    return Member(**(settings | changes))


def batch(*members, **changes):
    members = members or (member(),)
    settings = {"id": 7, "title": "persons in the dark", "model": "starter-1.0", "members": members}
    settings["size"] = max(one.rank for one in members)
    return BatchView(**(settings | changes))


def boxes_of(*boxes, labels=("person", "dog"), **changes):
    dropped = Counter()
    return pre_labels(member(boxes=boxes, **changes), labels=labels, dropped=dropped), dict(dropped)


@pytest.mark.parametrize("fmt", Format)
def test_an_export_loads_again(fmt, tmp_path):
    members = tuple(member(rank) for rank in (1, 2, 3))
    report = export_batch(batch(*members), fmt, tmp_path / "out")
    assert (report.images, dict(report.boxes), dict(report.dropped)) == (3, {"detector": 3, "gap": 3}, {})
    annotations = READERS[fmt](tmp_path / "out")
    assert annotations.labels == ("person",)
    assert [image.name for image in annotations.images] == list(image_names(batch(*members)))
    assert annotations.images[0].annotations == (  # one row, from right to left
        Annotation((50, 12, 60, 40), "person", 0.9, "detector"),
        Annotation((10, 10, 40, 40), "person", 0.2, "gap"),
    )
    for one, image in zip(members, annotations.images, strict=True):
        assert (tmp_path / "out" / IMAGES[fmt] / image.name).read_bytes() == one.jpeg


def test_names_are_unique_and_sort_by_rank():
    members = tuple(member(rank, camera="Ä.b c" * 30, event_id="0" * 32) for rank in range(1, 121))
    names = image_names(batch(*members))
    assert names[:2] == (f"0007-001-train-{'--b-c' * 8}-00000000.jpg", f"0007-002-train-{'--b-c' * 8}-00000000.jpg")
    assert list(names) == sorted(set(names))
    assert image_names(batch())[0] == f"0007-01-train-north-gate-{member().event_id[-8:]}.jpg"


def test_the_annotator_is_told_what_to_do(tmp_path):
    for fmt, tool in zip(Format, ("CVAT", "COCO", "YOLO", "VOC", "Label Studio"), strict=True):
        export_batch(batch(labels=("dog", "person")), fmt, tmp_path / fmt)
        text = (tmp_path / fmt / "README.txt").read_text()
        for words in ("persons in the dark", "starter-1.0", "can recognise", "3 x 3 pixels", "RIGHT to LEFT", tool):
            assert words in text
        assert "\n  dog\n  person\n" in text
        assert max(map(len, text.splitlines())) <= 120


def test_who_gets_random_images_is_told_that_they_are_for_measuring(tmp_path):
    drawn = batch(member(1, test=True), member(2, test=True), random=True)
    export_batch(drawn, Format.YOLO, tmp_path / "out")
    text = (tmp_path / "out" / "README.txt").read_text()
    assert "All of these images were drawn at random and are for measuring" in text
    assert "NEVER TRAIN ON THEM" in text
    assert "decided by camera and time" not in text


def test_the_manifest_ties_images_to_events(tmp_path):
    export_batch(batch(), Format.CVAT, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "batch.json").read_text())
    assert manifest["images"][0]["event_id"] == member().event_id
    assert manifest["images"][0]["name"] == image_names(batch())[0]
    written = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert written == {*manifest["files"], "batch.json"}


def test_boxes_that_do_not_reach_the_annotator_are_counted():
    kept, dropped = boxes_of(
        Box(xyxy=(0, 0, 20, 20), label="person", score=0.29),
        Box(xyxy=(30, 0, 40, 20), label="cat", score=0.9),
        Box(xyxy=(62, 0, 90, 20), label="person", score=0.9),  # 2 px of it lie in the frame
        Box(xyxy=(10, 30, 12.5, 40), label="dog", score=0.9),
        Box(xyxy=(40, 30, 60, 47), label="dog", score=0.9),
        Box(xyxy=(40, 30, 60, 46), label="dog", score=0.8),
        Box(xyxy=(40, 30, 60, 46), label="person", score=0.8),  # another label is no double
    )
    assert [(box.label, box.score) for box in kept] == [("person", 0.8), ("dog", 0.9)]
    assert dropped == {
        "under the pre-label score": 1,
        "label not asked for": 1,
        "under 3 x 3 px": 2,
        "near-identical to another": 1,
    }


def test_of_two_near_identical_boxes_the_surer_source_stays():
    gap = Box(xyxy=(10, 10, 30, 40), label="person", score=0.9, witness=WitnessKind.GAP)
    zoom = Box(xyxy=(11, 10, 31, 40), label="", score=0.5, witness=WitnessKind.ZOOM)
    found = Box(xyxy=(10, 11, 30, 41), label="person", score=0.4)
    assert boxes_of(gap, zoom, found)[0] == (Annotation((11, 10, 31, 40), "person", 0.5, "zoom"),)
    assert [box.origin for box in boxes_of(gap, found)[0]] == ["detector"]
    assert [box.origin for box in boxes_of(gap, zoom, replace_score(found, 0.2))[0]] == ["zoom"]
    assert [box.origin for box in boxes_of(gap)[0]] == ["gap"]


def replace_score(box, score):
    return Box(xyxy=box.xyxy, label=box.label, score=score, witness=box.witness)


def test_a_witness_takes_the_suspected_label_and_is_cut_at_the_border():
    moved = Box(xyxy=(-5, -5, 20, 60), label="", score=0.0, witness=WitnessKind.MOTION)
    assert boxes_of(moved)[0] == (Annotation((0, 0, 20, 48), "person", 0.0, "motion"),)
    assert boxes_of(moved, label="") == ((), {"label not asked for": 1})


def test_a_broken_image_is_left_out_and_reported(tmp_path):
    cut, wrong = member(2, jpeg=jpeg_of(64, 48)[:100]), member(3, width=60)
    report = export_batch(batch(member(1), cut, wrong), Format.COCO, tmp_path / "out")
    assert report.images == 1
    assert [event_id for event_id, _ in report.left_out] == [cut.event_id, wrong.event_id]
    assert report.left_out[1][1] == "the JPEG is 64 x 48, its event says 60 x 48"
    assert len(list((tmp_path / "out" / "images").iterdir())) == 1
    with pytest.raises(UnusableError, match="batch 7: none of its 1 images can be used"):
        export_batch(batch(cut), Format.COCO, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("fmt", Format)
def test_a_batch_without_any_label_asks_for_objects(fmt, tmp_path):
    nameless = Box(xyxy=(10, 10, 40, 40), label="", score=0.9, witness=WitnessKind.MOTION)
    for number, boxes in enumerate([(), (nameless,)]):
        out = tmp_path / str(number)
        assert export_batch(batch(member(label="", boxes=boxes)), fmt, out).images == 1
        assert "\n  object\n" in (out / "README.txt").read_text()
        assert READERS[fmt](out).images[0].annotations == ()


ODD_LABELS = ["person ", "traffic\u00a0light", "\x1b[31mperson", "a\x00b", "per\nson", "\u202ex", "x" * 65, "\ufffe"]


@pytest.mark.parametrize("fmt", Format)
def test_a_text_that_cannot_be_written_does_not_stop_the_batch(fmt, tmp_path):
    odd = [
        member(rank, label=label, boxes=(Box(xyxy=(1, 2, 30, 40), label=label, score=0.5),))
        for rank, label in enumerate(ODD_LABELS, 2)
    ]
    title, model = "missed \x1b[31mperson\x00,\n  mostly\u00a0dark", "m\x00\x1b1 \ufffe"
    report = export_batch(batch(member(1), *odd, title=title, model=model), fmt, tmp_path / "out")
    assert (report.images, report.left_out) == (1 + len(odd), ())
    assert dict(report.dropped) == {"label that cannot be written": len(odd)}
    annotations = READERS[fmt](tmp_path / "out")
    assert annotations.labels == ("person",)
    assert sum(len(image.annotations) for image in annotations.images) == 2
    text = (tmp_path / "out" / "README.txt").read_text()
    assert text.startswith("Batch 7: missed [31mperson , mostly dark\n")
    assert all(line.isprintable() for line in text.splitlines())


def turned(orientation, *, order="little"):
    """A JPEG whose EXIF says how the camera was held."""

    def number(value, size):
        return value.to_bytes(size, order)

    entry = number(0x112, 2) + number(3, 2) + number(1, 4) + number(orientation, 2) + b"\0\0"
    tiff = (b"II" if order == "little" else b"MM") + number(42, 2) + number(8, 4) + number(1, 2) + entry + bytes(4)
    exif = b"Exif\0\0" + tiff
    plain = jpeg_of(64, 48)
    return plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]


@pytest.mark.parametrize("order", ["little", "big"])
def test_an_image_that_a_tool_would_turn_is_left_out(order, tmp_path):
    members = [member(rank, jpeg=turned(rank, order=order)) for rank in range(1, 9)]
    assert cv2.imdecode(np.frombuffer(members[5].jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (
        64,
        48,
        3,
    )  # the EXIF is one
    report = export_batch(batch(*members), Format.COCO, tmp_path / "out")
    assert report.images == 1
    assert [event_id for event_id, _ in report.left_out] == [one.event_id for one in members[1:]]
    assert all("EXIF orientation" in why for _, why in report.left_out)


def test_an_untouched_export_of_the_same_batch_is_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export_batch(batch(member(1), member(2)), Format.YOLO, out)
    export_batch(batch(member(1)), Format.YOLO, out)
    assert len(list((out / "images" / "train").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def touch_label(out):
    next((out / "labels" / "train").iterdir()).write_text("")


def add_answer(out):
    (out / "answer.zip").write_bytes(b"work of a person")


@pytest.mark.parametrize(
    ("spoil", "again", "says"),
    [
        (touch_label, {}, "labels/.* was added or changed after the export"),
        (add_answer, {}, r"answer\.zip was added or changed"),
        (lambda out: None, {"id": 8}, "holds batch 7 as yolo; choose another folder"),
        (lambda out: (out / "batch.json").unlink(), {}, "is not empty and not an export"),
        (lambda out: (out / "batch.json").write_text("{"), {}, "is not empty and not an export"),
    ],
)
def test_nothing_else_is_ever_overwritten(spoil, again, says, tmp_path):
    out = tmp_path / "out"
    export_batch(batch(), Format.YOLO, out)
    spoil(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UnusableError, match=says):
        export_batch(replace(batch(), **again), Format.YOLO, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["README.txt", "added"])
@pytest.mark.parametrize(
    "put",
    [
        lambda path: path.symlink_to("/nonexistent"),
        lambda path: path.symlink_to("/dev/zero"),  # has no end
        lambda path: path.symlink_to("/tmp"),
        os.mkfifo,
    ],
)
def test_what_is_no_file_is_never_read(name, put, tmp_path):
    out = tmp_path / "out"
    export_batch(batch(), Format.YOLO, out)
    (out / name).unlink(missing_ok=True)
    put(out / name)
    with pytest.raises(UnusableError, match=f"{name} was added or changed"):
        export_batch(batch(), Format.YOLO, out)
    (out / "batch.json").unlink()
    put(out / "batch.json")
    with pytest.raises(UnusableError, match="is not empty and not an export"):
        export_batch(batch(), Format.YOLO, out)


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name, says in (("x" * 256, "name too long"), ("loop", "loop|symbolic")):
        with pytest.raises(UnusableError, match=f"(?i){says}"):
            export_batch(batch(), Format.CVAT, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]
    assert export_batch(batch(), Format.CVAT, tmp_path / ("x" * 255)).images == 1


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    out = tmp_path / "out"
    export_batch(batch(member(1), member(2)), Format.YOLO, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    rename = Path.rename

    def fail(self, target):
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UnusableError, match="cannot be written: Input/output error"):
        export_batch(batch(), Format.YOLO, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_every_file_is_on_the_disk_before_the_folder_appears(tmp_path, monkeypatch):
    synced = {}

    def fsync(number):
        assert not (tmp_path / "out").exists()
        synced[os.fstat(number).st_ino] = os.fstat(number).st_size

    monkeypatch.setattr(os, "fsync", fsync)
    export_batch(batch(), Format.CVAT, tmp_path / "out")
    written = [path.stat() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert synced == {file.st_ino: file.st_size for file in written}  # none of it waits in a buffer of ours


def test_another_format_or_a_file_in_the_way_is_refused(tmp_path):
    export_batch(batch(), Format.YOLO, tmp_path / "out")
    with pytest.raises(UnusableError, match="holds batch 7 as yolo"):
        export_batch(batch(), Format.CVAT, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableError, match="is not empty and not an export"):
        export_batch(batch(), Format.CVAT, tmp_path / "file")


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableError, match="cannot be written"):
        export_batch(batch(), Format.CVAT, tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_label_studio_points_into_the_folder(tmp_path):
    export_batch(batch(), Format.LABELSTUDIO, tmp_path / "batch 7")
    tasks = json.loads((tmp_path / "batch 7" / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == f"/data/local-files/?d=batch%207/images/{image_names(batch())[0]}"
    assert tasks[0]["predictions"][0]["model_version"] == "starter-1.0"


def said_to_be_test(out, fmt):
    """The images that the format itself sets apart."""
    match fmt:
        case Format.CVAT:
            return {one.get("name") for one in ET.parse(out / "annotations.xml").iterfind("image[@subset='test']")}
        case Format.COCO:
            images = json.loads((out / "annotations" / "instances_default.json").read_text())["images"]
            return {image["file_name"] for image in images if image["split"] == "test"}
        case Format.YOLO:
            assert "\ntest: images/test " in (out / "data.yaml").read_text()
            assert "train: images/train\n" in (out / "data.yaml").read_text()
            return {path.name for path in (out / "images" / "test").iterdir()}
        case Format.VOC:
            return {f"{stem}.jpg" for stem in (out / "ImageSets" / "Split" / "test.txt").read_text().split()}
        case Format.LABELSTUDIO:
            tasks = json.loads((out / "tasks.json").read_text())
            return {task["data"]["name"] for task in tasks if task["data"]["split"] == "test"}


@pytest.mark.parametrize("fmt", Format)
def test_the_test_share_cannot_be_mistaken(fmt, tmp_path):
    members = [member(rank, test=rank in {2, 5}) for rank in range(1, 7)]
    out = tmp_path / "out"
    report = export_batch(batch(*members), fmt, out)
    names = image_names(batch(*members))
    test = {names[1], names[4]}
    assert report.test == 2
    assert said_to_be_test(out, fmt) == test
    assert {name for name in names if "-test-" in name} == test
    assert {name for name in names if "-train-" in name} == set(names) - test
    manifest = json.loads((out / "batch.json").read_text())
    assert {image["name"] for image in manifest["images"] if image["test"]} == test
    readme = (out / "README.txt").read_text()
    assert "NEVER TRAIN ON THEM" in readme
    assert all(f"\n  {name}\n" in readme for name in test)
    # they are read back with all others, in their order
    assert [image.name for image in READERS[fmt](out).images] == list(names)


@pytest.mark.parametrize(
    ("test", "train_line", "test_line"),
    [
        ((), "train: images/train", "test:  # none here"),
        ((1, 2), "train:  # none here", "test: images/test  # never to be trained on"),
    ],
)
def test_a_yolo_split_without_images_is_not_named(test, train_line, test_line, tmp_path):
    export_batch(batch(*(member(rank, test=rank in test) for rank in (1, 2))), Format.YOLO, tmp_path / "out")
    lines = (tmp_path / "out" / "data.yaml").read_text().splitlines()
    assert (lines[0], lines[2]) == (train_line, test_line)
    assert ("NEVER TRAIN" in (tmp_path / "out" / "README.txt").read_text()) == bool(test)


@pytest.mark.parametrize("fmt", Format)
def test_real_frames_export_whole(fmt, tmp_path):
    video = DATA / "vtest.avi"
    if not video.exists():
        pytest.skip(f"no {video.name} here")
    capture = cv2.VideoCapture(str(video))
    members = []
    for rank in range(1, 13):
        _, frame = capture.read()
        jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
        members.append(member(rank, jpeg=jpeg, width=768, height=576, region=(400.0, 150.0, 460.0, 260.0)))
    report = export_batch(batch(*members), fmt, tmp_path / "out")
    assert report.images == 12
    assert len(READERS[fmt](tmp_path / "out").images) == 12
    for one in (tmp_path / "out" / IMAGES[fmt]).iterdir():
        assert decode_jpeg(one.read_bytes()).shape == (576, 768, 3)
    sheet = cv2.imread(str(tmp_path / "out" / "contact-sheet.png"))
    assert sheet.shape == (815, 2180, 3)
    assert sheet[74:254, 10:250].std() > 30  # the first tile shows a picture
