"""Readers are strict and kind: a fault is named with file and place, and nothing but `UnusableError` comes out."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from hub import formats
from hub.annotation import AnnotatedImage, Annotation, AnnotationSet
from hub.formats.coco import read_coco, write_coco
from hub.formats.cvat import read_cvat, write_cvat
from hub.formats.labelstudio import read_labelstudio, write_labelstudio
from hub.formats.voc import read_voc, write_voc
from hub.formats.yolo import read_yolo, write_yolo

BOXES = (Annotation((10, 20, 30, 40), "person", 0.5, "gap"), Annotation((1, 2, 63, 40), "dog"))
ANNOTATIONS = AnnotationSet(
    ("person", "dog"), (AnnotatedImage("a.jpg", 64, 48, BOXES), AnnotatedImage("b.jpg", 64, 48))
)
CVAT, COCO, TASKS = "annotations.xml", "annotations/instances_default.json", "tasks.json"
PAIRS = {
    "cvat": (write_cvat, read_cvat),
    "coco": (write_coco, read_coco),
    "yolo": (write_yolo, read_yolo),
    "voc": (write_voc, read_voc),
    "labelstudio": (write_labelstudio, read_labelstudio),
}


def changed(name, path, *replacements):
    files = dict(PAIRS[name][0](ANNOTATIONS))
    for old, new in replacements:
        assert files[path].count(old) >= 1, (old, files[path])
        files[path] = files[path].replace(old, new, 1)
    return files


@pytest.mark.parametrize(
    ("name", "path", "old", "new", "says"),
    [
        # CVAT says file, line and image
        ("cvat", CVAT, b'label="person"', b'label="cat"', "annotations.xml: line 31, image a.jpg: label 'cat'"),
        ("cvat", CVAT, b'xtl="10.00"', b"", "line 31, image a.jpg: <box> has no xtl"),
        ("cvat", CVAT, b'xtl="10.00"', b'xtl="ten"', "xtl is 'ten', expected a number"),
        ("cvat", CVAT, b'xtl="10.00"', b'xtl="nan"', "not four finite numbers"),
        (
            "cvat",
            CVAT,
            b'xbr="30.00"',
            b'xbr="64.5"',
            "line 31, image a.jpg: person at (10, 20, 64.5, 40) lies outside",
        ),
        ("cvat", CVAT, b'xbr="30.00"', b'xbr="12.99"', "person at (10, 20, 12.99, 40) is 2.99 x 20 px"),
        ("cvat", CVAT, b'z_order="0"', b'rotation="12.5"', "person is rotated"),
        ("cvat", CVAT, b'name="b.jpg"', b'name="A.jpg"', "image a.jpg occurs twice"),
        ("cvat", CVAT, b'name="b.jpg"', b'name="b.png"', "image 'b.png': the name"),
        ("cvat", CVAT, b'width="64"', b'width="wide"', "line 30: the size is 'wide' x '48'"),
        ("cvat", CVAT, b">0.5<", b">1.5<", "has the score 1.5"),
        ("cvat", CVAT, b"</meta>", b"", "annotations.xml, line 40: not well-formed XML"),
        ("cvat", CVAT, b"<annotations>", b'<!DOCTYPE a [<!ENTITY b "c">]><annotations>', "cannot be trusted"),
        ("cvat", CVAT, b"</annotations>", b'<track id="0" label="dog"/></annotations>', "a track; export the task as"),
        ("cvat", CVAT, b"<box", b'<polygon label="dog" points="1,2"/><box', "a polygon; only boxes"),
        ("cvat", CVAT, b"<labels>", b"<names>", "not well-formed XML"),
        ("cvat", CVAT, b"<meta>", b"<meta/><other>", "not well-formed XML"),
        # COCO says annotation and image
        ("coco", COCO, b'"category_id": 1', b'"category_id": 7', "annotation 1, image a.jpg: no category 7"),
        ("coco", COCO, b'"image_id": 1', b'"image_id": 9', "annotation 1, image 9: no such image"),
        ("coco", COCO, b'"iscrowd": 0', b'"iscrowd": 1', "annotation 1, image a.jpg: a crowd region"),
        ("coco", COCO, b'"file_name"', b'"filename"', "missing required field `file_name`"),
        ("coco", COCO, b"10.0,", b"NaN,", "instances_default.json: not a COCO detection file"),
        ("coco", COCO, b'"id": 2,', b'"id": 1,', "category id 1 occurs twice"),
        ("coco", COCO, b'"name": "dog"', b'"name": "person"', "instances_default.json: category person occurs twice"),
        # YOLO says file and line
        (
            "yolo",
            "labels/train/a.txt",
            b"0 0.",
            b"2 0.",
            "labels/train/a.txt: line 1, image a.jpg: class '2', expected 0 to 1",
        ),
        ("yolo", "labels/train/a.txt", b"\n", b" 3\n", "line 1, image a.jpg: 6 columns, expected 5"),
        ("yolo", "labels/train/a.txt", b"0 0.3125", b"0 0.9", "lies outside the image of 64 x 48"),
        ("yolo", "labels/train/a.txt", b"0 0.3", b"0 x0.3", "a coordinate is 'x0.3125000000', expected a number"),
        ("yolo", "labels/train/a.txt", b"0 0.", b"\xff 0.", "labels/train/a.txt: not UTF-8"),
        ("yolo", "data.yaml", b"names:", b"classes:", "data.yaml: no names: in it"),
        ("yolo", "data.yaml", b"  1:", b"  2:", "classes must count from 0"),
        ("yolo", "weakspot.json", b'"name"', b'"nome"', "weakspot.json: Object missing required field `name`"),
        ("yolo", "weakspot.json", b'"a.jpg"', b'"c.jpg"', "labels/train/a.txt: the size of a.jpg is not known"),
        # VOC says file, line and image
        (
            "voc",
            "Annotations/a.xml",
            b"<xmin>10.00</xmin>",
            b"",
            "a.xml: line 6, image a.jpg: <object> has no <bndbox/xmin>",
        ),
        (
            "voc",
            "Annotations/a.xml",
            b"person",
            b"cat",
            "Annotations/a.xml: line 6, image a.jpg: label 'cat' is not one of person, dog",
        ),
        ("voc", "Annotations/a.xml", b"a.jpg", b"c.jpg", "Annotations/a.xml: holds the boxes of c.jpg"),
        (
            "voc",
            "Annotations/a.xml",
            b"<width>64",
            b"<width>20",
            "person at (10, 20, 30, 40) lies outside the image of 20",
        ),
        ("voc", "ImageSets/Main/default.txt", b"b\n", b"a\n", "default.txt: a is listed twice"),
        # more digits than int() takes
        ("yolo", "labels/train/a.txt", b"0 ", b"9" * 5000 + b" ", "a.txt: line 1, image a.jpg: class '999"),
        ("yolo", "data.yaml", b"  0: ", b"  " + b"1" * 5000 + b": ", "class '0', expected 0 to -1"),
        # Label Studio says task, image and region
        (
            "labelstudio",
            TASKS,
            b'"person"',
            b'"cat"',
            "tasks.json: task 1, region 1, image a.jpg: label 'cat' is not one of",
        ),
        (
            "labelstudio",
            TASKS,
            b'"rectanglelabels",',
            b'"brushlabels",',
            "task 1, region 1, image a.jpg: a region of type",
        ),
        (
            "labelstudio",
            TASKS,
            b'"rotation": 0,',
            b'"rotation": 5,',
            "task 1, region 1, image a.jpg: person is rotated",
        ),
        ("labelstudio", TASKS, b'"original_width": 64', b'"original_width": 63', "its size is not plain"),
        (
            "labelstudio",
            TASKS,
            b'"predictions"',
            b'"predictions": [], "predicted"',
            "tasks.json: task 1: 0 predictions, expected one",
        ),
        ("labelstudio", "config.xml", b"Label value=", b"Label name=", "config.xml: <Label> has no value"),
    ],
)
def test_a_fault_is_named_with_its_place(name, path, old, new, says):
    with pytest.raises(UnusableError) as error:
        PAIRS[name][1](changed(name, path, (old, new)))
    assert says in str(error.value)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_an_empty_folder_is_refused(name, tmp_path):
    with pytest.raises(UnusableError):
        PAIRS[name][1](tmp_path)
    with pytest.raises(UnusableError, match="no such file or folder"):
        PAIRS[name][1](tmp_path / "nothing")


@pytest.mark.parametrize("name", sorted(PAIRS))
@settings(deadline=None)
@given(spoil=st.data())
def test_spoiled_files_raise_nothing_else(name, spoil):
    write, read = PAIRS[name]
    files = dict(write(ANNOTATIONS))
    path = spoil.draw(st.sampled_from(sorted(files)))
    at = spoil.draw(st.integers(0, len(files[path])))
    cut = spoil.draw(st.integers(0, 12))
    junk = spoil.draw(
        st.binary(max_size=3)
        | st.sampled_from([b"1e400", b"-1", b"null", b"[" * 5000, b"\x00", b"9" * 400, b'"', b"<a>"])
    )
    files[path] = files[path][:at] + junk + files[path][at + cut :]
    try:
        read(files)
    except UnusableError as error:
        assert str(error)  # noqa: PT017


def test_what_people_send_back_is_understood():
    """Tools add folders and their own keys; a new box has neither score nor origin."""
    cvat = changed("cvat", CVAT, (b'name="a.jpg"', b'name="images/a.jpg"'), (b">0.5<", b"><"), (b">gap<", b"><"))
    assert read_cvat(cvat).images[0].annotations[0] == Annotation((10, 20, 30, 40), "person")
    job = changed("cvat", CVAT, (b"<task>", b"<job>"), (b"</task>", b"</job>"))
    assert read_cvat(job) == ANNOTATIONS
    attributes = b'"attributes": {"occluded": false, "score": "0.25", "origin": "zoom", "rotation": 0.0}'
    coco = changed("coco", COCO, (b'"score": 0.5,\n   "origin": "gap"', attributes))
    assert read_coco(coco).images[0].annotations[0] == Annotation((10, 20, 30, 40), "person", 0.25, "zoom")


def test_label_studio_prefers_what_people_drew():
    files = write_labelstudio(ANNOTATIONS, images_at="/data/upload/7/0badc0de-")
    tasks = json.loads(files["tasks.json"])
    for task in tasks:
        del task["data"]["name"]
        drawn = [task["predictions"][0]["result"][0] | {"origin": "manual"}] if task["predictions"][0]["result"] else []
        if drawn:
            del drawn[0]["score"], drawn[0]["meta"]
        task["annotations"] = [{"id": 1, "result": drawn, "lead_time": 3.5}, {"result": [], "was_cancelled": True}]
    read = read_labelstudio({"export.json": json.dumps(tasks).encode()})
    assert read.labels == ("person",)
    assert [image.name for image in read.images] == ["a.jpg", "b.jpg"]
    assert read.images[0].annotations == (Annotation((10, 20, 30, 40), "person"),)


def test_label_studio_finds_the_name_in_a_local_address():
    files = write_labelstudio(ANNOTATIONS)
    tasks = json.loads(files["tasks.json"])
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=images/a.jpg"
    for task in tasks:
        del task["data"]["name"]
    files["tasks.json"] = json.dumps(tasks).encode()
    assert read_labelstudio(files) == ANNOTATIONS


def test_a_moved_yolo_box_loses_score_and_origin():
    files = changed("yolo", "labels/train/a.txt", (b"0 0.3125000000", b"0 0.32"))
    first, second = read_yolo(files).images[0].annotations
    assert (first.score, first.origin) == (None, None)
    assert second == BOXES[1]
    six_digits = b"0 0.312500 0.625000 0.312500 0.416667\n"
    assert read_yolo(files | {"labels/train/a.txt": six_digits}).images[0].annotations == BOXES[:1]


@pytest.mark.parametrize(
    "names",
    [
        b"names: [person, 'dog']\n",
        b'nc: 2\nnames: ["person", dog]\n',
        b"names:\n- person\n- dog\nnc: 2\n",
        b"names:\n  0: person  # the first\n  1: 'dog'\npath: x\n",
    ],
)
def test_yolo_names_in_the_ways_tools_write_them(names):
    assert read_yolo(write_yolo(ANNOTATIONS) | {"data.yaml": names}) == ANNOTATIONS


def test_yolo_without_the_sidecar_needs_sizes_or_images():
    files = write_yolo(ANNOTATIONS)
    del files["weakspot.json"], files["data.yaml"]
    files["classes.txt"] = b"person\ndog\n"
    with pytest.raises(UnusableError, match=r"labels/train/a\.txt: the size of a\.jpg is not known"):
        read_yolo(files)
    bare = tuple(Annotation(box.xyxy, box.label) for box in BOXES)
    wanted = AnnotationSet(ANNOTATIONS.labels, (AnnotatedImage("a.jpg", 64, 48, bare), ANNOTATIONS.images[1]))
    assert read_yolo(files, sizes={"a.jpg": (64, 48), "b.jpg": (64, 48)}) == wanted
    jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    assert read_yolo(files | {"images/a.jpg": jpeg, "images/b.jpg": jpeg}) == wanted
    with pytest.raises(UnusableError, match=r"images/a\.jpg: the JPEG has no end"):
        read_yolo(files | {"images/a.jpg": jpeg[:40], "images/b.jpg": jpeg})


def test_voc_without_lists_takes_the_alphabet():
    files = write_voc(ANNOTATIONS)
    del files["labelmap.txt"], files["ImageSets/Main/default.txt"]
    assert read_voc(files) == AnnotationSet(("dog", "person"), ANNOTATIONS.images)


def test_an_address_that_is_none_is_a_fault():
    task = {"data": {"image": "http://[::1/a.jpg"}, "annotations": [{"result": []}]}
    with pytest.raises(UnusableError, match=r"task 1: its image 'http://\[::1/a\.jpg' is no address"):
        read_labelstudio({"export.json": json.dumps([task]).encode()})


def test_xml_of_very_many_elements_is_not_built(monkeypatch):
    """A small ZIP can hold half a gigabyte of them, and each takes more room in memory than in the file."""
    monkeypatch.setattr(formats, "MAX_ELEMENTS", 10)
    with pytest.raises(UnusableError, match="more than 10 elements"):
        read_voc(write_voc(ANNOTATIONS) | {"Annotations/c.xml": b"<a>" + b"<b/>" * 10 + b"</a>"})
