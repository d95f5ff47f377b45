"""The rules of CVAT's importer, checked on what we write by code that shares nothing with the writer."""

import json
import re

import pytest
from defusedxml.ElementTree import fromstring

from hub.annotation import AnnotatedImage, Annotation, AnnotationSet
from hub.formats.cvat import ANNOTATIONS, LABELS, write_cvat

ANNOTATED = AnnotationSet(
    ("person", 'a "quoted" & <odd> one'),
    (
        AnnotatedImage("b-2.jpg", 64, 48, (Annotation((1, 2, 30, 40), "person", 0.5, "gap"),)),
        AnnotatedImage("B-10.jpg", 64, 48, (Annotation((1, 2, 30, 40), 'a "quoted" & <odd> one'),)),
        AnnotatedImage("a-1.jpg", 64, 48),
    ),
)


def broken_rules(files):
    """Every rule of CVAT's importer that the export breaks, in words."""
    root = fromstring(files[ANNOTATIONS])
    broken = []
    declared = {
        label.findtext("name"): {one.findtext("name") for one in label.iterfind("attributes/attribute")}
        for holder in ("task", "job", "project")
        for label in root.iterfind(f"meta/{holder}/labels/label")
    }
    images = root.findall("image")
    names = [image.get("name") for image in images]
    stems = [name.rsplit(".", 1)[0].casefold() for name in names]
    if len(set(stems)) != len(stems):
        broken.append("stems are not unique")
    frames = {name: str(frame) for frame, name in enumerate(sorted(names))}  # how a task numbers its frames
    for image in images:
        if frames[image.get("name")] != image.get("id"):
            broken.append(f"{image.get('name')} has the id of another frame")
        if not re.fullmatch(r"[\w-]+\.jpg", image.get("name"), re.ASCII):
            broken.append(f"{image.get('name')} has a dot or a space in its stem")
        for box in image.iterfind("box"):
            try:
                x1, y1, x2, y2 = (float(box.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
            except KeyError as error:
                broken.append(f"a box has no {error}")
                continue
            if x2 - x1 < 3 or y2 - y1 < 3:
                broken.append("a box cannot be drawn")
            if x1 < 0 or y1 < 0 or x2 > float(image.get("width")) or y2 > float(image.get("height")):
                broken.append("a box leaves its image")
            if box.get("label") not in declared:
                broken.append(f"unknown label {box.get('label')}")
            for attribute in box.iterfind("attribute"):
                if attribute.get("name") not in declared.get(box.get("label"), ()):
                    broken.append(f"undeclared attribute {attribute.get('name')}")
    return broken


def broken_label_rules(files):
    """Every rule of the raw tab of CVAT's label constructor that `labels.json` breaks."""
    broken = []
    for label in json.loads(files[LABELS]):
        if not label["name"].strip() or label["type"] != "rectangle" or not isinstance(label["attributes"], list):
            broken.append(f"label {label}")
        for one in label["attributes"]:
            values = one["values"]
            if not (isinstance(values, list) and values and all(isinstance(value, str) for value in values)):
                broken.append(f"values of {one['name']}")
            if len({value.strip() for value in values}) != len(values):
                broken.append(f"doubled values of {one['name']}")
            if one["input_type"] not in {"checkbox", "number", "text", "radio", "select"} or one["mutable"] is not True:
                broken.append(f"kind of {one['name']}")
    return broken


def test_the_export_keeps_every_rule():
    files = write_cvat(ANNOTATED)
    assert broken_rules(files) == []
    assert broken_label_rules(files) == []
    assert [label["name"] for label in json.loads(files[LABELS])] == list(ANNOTATED.labels)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (b' xtl="1.00"', b"", "a box has no 'xtl'"),
        (b'label="person"', b'label="Person"', "unknown label Person"),
        (b'<attribute name="score">', b'<attribute name="Score">', "undeclared attribute Score"),
        (b'xbr="30.00"', b'xbr="3.90"', "a box cannot be drawn"),
        (b'name="b-2.jpg"', b'name="b-10.jpg"', "stems are not unique"),
        (b'id="0"', b'id="1"', "B-10.jpg has the id of another frame"),
    ],
)
def test_the_checker_sees_each_fault(old, new, rule):
    files = write_cvat(ANNOTATED)
    files[ANNOTATIONS] = files[ANNOTATIONS].replace(old, new, 1)
    assert rule in broken_rules(files)
