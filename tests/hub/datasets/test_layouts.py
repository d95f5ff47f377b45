"""Versions in the layout of other trainers, there and back."""

import json

import cv2
import numpy as np
import pytest

from edge.contract.errors import UnusableError
from hub.datasets.layouts import Layout, export_version
from hub.datasets.taking import take_folder
from hub.datasets.version import MemberBox, read_jpeg, read_version
from hub.formats.coco import read_coco
from hub.formats.yolo import read_yolo
from tests.hub.datasets.frozen import member, written
from tests.hub.made import jpeg

HEAD = MemberBox(xyxy=(10.5, 3.25, 20.0, 12.0), label="head", origin="self", score=0.7)
UNSURE = MemberBox(xyxy=(40.0, 3.0, 50.0, 30.0), label="person", origin="self", ignored=True)
SMALL = MemberBox(xyxy=(40.0, 3.0, 41.0, 5.0), label="person", origin="self")
BOTH = ("person", "head")
PLAIN = [
    member(1, labels=BOTH, boxes=(*member(1).boxes, HEAD)),
    member(2, labels=BOTH, boxes=()),
    member(3, labels=BOTH, split="val"),
    member(4, labels=BOTH, split="test"),
]


def boxes_of(members):
    return {one.name: sorted((box.label, box.xyxy, box.ignored) for box in one.boxes) for one in members}


@pytest.mark.parametrize("layout", Layout)
def test_what_is_exported_is_taken_back(tmp_path, layout):
    version = written(tmp_path / "v", PLAIN)
    done = export_version(tmp_path / "v", version, layout=layout, out=tmp_path / "out")
    assert done == ({"train": 2, "val": 1, "test": 1}, ())
    took = take_folder(tmp_path / "out", layout=layout, split="test", out=tmp_path / "back")
    back = read_version(tmp_path / "back")
    assert back == took.version
    assert took.notes == ()
    assert boxes_of(back.members) == boxes_of(version.members)
    assert back.labels == ("person", "head")
    assert {one.split for one in back.members} == {"test"}
    for one in version.members:
        assert read_jpeg(tmp_path / "back", one) == jpeg(int(one.name[1:]))


def test_yolo_has_three_folders_and_their_names(tmp_path):
    version = written(tmp_path / "v", PLAIN)
    export_version(tmp_path / "v", version, layout=Layout.YOLO, out=tmp_path / "out")
    assert (tmp_path / "out" / "data.yaml").read_text() == (
        'train: images/train\nval: images/val\ntest: images/test\nnames:\n  0: "person"\n  1: "head"\n'
    )
    found = sorted(str(one.relative_to(tmp_path / "out")) for one in (tmp_path / "out").rglob("*.txt"))
    assert found == ["labels/test/m4.txt", "labels/train/m1.txt", "labels/train/m2.txt", "labels/val/m3.txt"]
    assert (tmp_path / "out" / "labels" / "train" / "m2.txt").read_text() == ""
    assert len(read_yolo(tmp_path / "out").images) == 4


def test_coco_has_a_file_a_split_that_other_readers_read(tmp_path, capsys):
    from pycocotools.coco import COCO

    version = written(tmp_path / "v", [*PLAIN, member(5, labels=BOTH, boxes=(UNSURE,))])
    export_version(tmp_path / "v", version, layout=Layout.COCO, out=tmp_path / "out")
    names = sorted(one.name for one in (tmp_path / "out" / "annotations").iterdir())
    assert names == ["instances_test.json", "instances_train.json", "instances_val.json"]
    read = COCO(str(tmp_path / "out" / "annotations" / "instances_train.json"))
    capsys.readouterr()
    assert len(read.getImgIds()) == 3
    crowd = [one for one in read.loadAnns(read.getAnnIds()) if one["iscrowd"]]
    assert [one["bbox"] for one in crowd] == [[40.0, 3.0, 10.0, 27.0]]
    assert len(
        read_coco({"instances_default.json": (tmp_path / "out/annotations/instances_val.json").read_bytes()}).images
    )


def test_coco_keeps_what_is_ignored_there_and_back(tmp_path):
    version = written(tmp_path / "v", [member(5, labels=BOTH, boxes=(UNSURE, HEAD))])
    export_version(tmp_path / "v", version, layout=Layout.COCO, out=tmp_path / "out")
    took = take_folder(tmp_path / "out", layout=Layout.COCO, split="val", out=tmp_path / "back")
    assert boxes_of(took.version.members) == boxes_of(version.members)


def test_what_a_layout_cannot_say_is_said(tmp_path):
    members = [member(1, boxes=(UNSURE, SMALL)), member(2, labels=(), boxes=(), by="")]
    version = written(tmp_path / "v", members)
    done = export_version(tmp_path / "v", version, layout=Layout.YOLO, out=tmp_path / "out")
    assert [note[0] for note in done.notes] == ["1"] * 4
    for what in ("replay", "uncertain", "under 3 px", "not looked at for every label"):
        assert any(what in note for note in done.notes)
    assert not (tmp_path / "out" / "images" / "train" / "m2.jpg").exists()
    assert (tmp_path / "out" / "labels" / "train" / "m1.txt").read_text() == ""


def test_an_export_is_whole_or_not_there(tmp_path):
    version = written(tmp_path / "v", PLAIN)
    (tmp_path / "v" / "images" / "m3.jpg").write_bytes(b"changed")
    with pytest.raises(UnusableError, match="was changed after it was frozen"):
        export_version(tmp_path / "v", version, layout=Layout.YOLO, out=tmp_path / "out")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["v"]
    with pytest.raises(UnusableError, match="is there already"):
        export_version(tmp_path / "v", version, layout=Layout.YOLO, out=tmp_path / "v")
    replay = written(tmp_path / "r", [member(2, labels=(), boxes=(), by="")])
    with pytest.raises(UnusableError, match="for replay only"):
        export_version(tmp_path / "r", replay, layout=Layout.YOLO, out=tmp_path / "out")


# Folders from elsewhere


def yolo_folder(folder, *, rows="0 0.5 0.5 0.25 0.5\n", picture=None, name="a b.c.jpg"):
    """As other tools lay it out: any names, class names in a list."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "images" / name).write_bytes(jpeg(1) if picture is None else picture)
    (folder / "labels" / f"{name.rpartition('.')[0]}.txt").write_text(rows)
    (folder / "data.yaml").write_text("path: ../x\ntrain: images\nnames: [person, head]\n")
    return folder


def take(source, tmp_path, layout=Layout.YOLO):
    return take_folder(source, layout=layout, split="test", out=tmp_path / "taken")


def test_names_and_pngs_of_other_tools_are_taken(tmp_path):
    picture = cv2.imencode(".png", np.zeros((40, 80, 3), np.uint8))[1].tobytes()
    source = yolo_folder(tmp_path / "y", picture=picture, name="a b.c.png")
    (member_taken,) = take(source, tmp_path).version.members
    assert (member_taken.name, member_taken.width, member_taken.height) == ("a-b-c", 80, 40)
    assert member_taken.boxes[0].xyxy == (30.0, 10.0, 50.0, 30.0)
    assert member_taken.labels == ("person", "head")


def test_a_picture_without_annotations_is_left_out_and_said(tmp_path):
    source = yolo_folder(tmp_path / "y")
    (source / "images" / "other.jpg").write_bytes(jpeg(2))
    took = take(source, tmp_path)
    assert len(took.version.members) == 1
    assert took.notes == ("1 x picture without annotations left out: nobody says that nothing is on it",)


def test_boxes_are_cut_at_the_border_and_those_outside_are_said(tmp_path):
    took = take(yolo_folder(tmp_path / "y", rows="0 0.0 0.5 0.5 0.5\n1 1.5 0.5 0.25 0.25\n"), tmp_path)
    assert took.version.members[0].boxes[0].xyxy == (0.0, 12.0, 16.0, 36.0)
    assert took.notes == ("1 x box without area in its picture left out",)


def coco_folder(folder, **changes):
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(jpeg(1))
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 0}],
        "categories": [{"id": 3, "name": "person"}],
    }
    (folder / "labels.json").write_text(json.dumps(content | changes))
    return folder


def with_annotation(**changes):
    one = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 0}
    return {"annotations": [one | changes]}


HOSTILE = [
    ({"images": [{"id": 1, "file_name": "gone.jpg", "width": 64, "height": 48}]}, "there is no such picture"),
    ({"images": [{"id": 1, "file_name": "1.jpg", "width": 640, "height": 480}]}, "the picture is 64 x 48"),
    (with_annotation(category_id=9), "no category 9"),
    (with_annotation(iscrowd=1, category_id=9), "not a COCO detection file"),
    (with_annotation(image_id=7, iscrowd=1), "not a COCO detection file"),
    (with_annotation(iscrowd=1, bbox="wide"), "not a COCO detection file"),
    ({"annotations": [7]}, "not a COCO detection file"),
    ({"images": []}, "no such image"),
    ({"images": [], "annotations": []}, "no image is annotated"),
    ({"categories": [{"id": 3, "name": "\n"}]}, "a label cannot be used"),
]


@pytest.mark.parametrize(("changes", "says"), HOSTILE)
def test_what_is_wrong_is_named_and_nothing_is_written(tmp_path, changes, says):
    with pytest.raises(UnusableError, match=says):
        take(coco_folder(tmp_path / "c", **changes), tmp_path, Layout.COCO)
    assert not (tmp_path / "taken").exists()


def broken_picture(folder):
    (folder / "images" / "a b.c.jpg").write_bytes(jpeg(1)[:100])


def doubled_picture(folder):
    (folder / "a b.c.jpeg").write_bytes(jpeg(2))


def no_names(folder):
    (folder / "data.yaml").unlink()


def bad_row(folder):
    (folder / "labels" / "a b.c.txt").write_text("0 nan 0.5 0.1 0.1\n")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (broken_picture, "a b.c.jpg: the JPEG has no end"),
        (doubled_picture, "have one name"),
        (no_names, "no names of classes here"),
        (bad_row, "is not four finite numbers"),
    ],
)
def test_a_broken_yolo_folder_is_named(tmp_path, harm, says):
    source = yolo_folder(tmp_path / "y")
    harm(source)
    with pytest.raises(UnusableError, match=says):
        take(source, tmp_path)
    assert not (tmp_path / "taken").exists()


def test_nothing_to_take(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, says in ((tmp_path / "none", "there is no folder"), (tmp_path / "empty", "no JPEG or PNG")):
        with pytest.raises(UnusableError, match=says):
            take(source, tmp_path)
