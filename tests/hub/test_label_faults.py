"""Every fault is named with its place, in every format; none is half imported; what is safe is repaired and told."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from hub.annotation import AnnotatedImage, Annotation
from hub.drawn import DrawnBox, DrawnImage
from hub.label_faults import Asked, judge
from hub.labeling import FaultsError
from hub.store import Store
from tests.hub.labelled import event_id, made_batch, person
from tests.hub.returned import LABELS, as_folder, files_of, names_of, stored, take

CVAT, COCO, TASKS = "annotations.xml", "annotations/instances_default.json", "tasks.json"
HEAD = Annotation((40, 20, 60, 40), "head")
DRAWN = {1: [Annotation((10, 20, 30, 40), "person"), HEAD], 2: []}
XML, TXT = "Annotations/{1s}.xml", "labels/{t}/{1s}.txt"
LINE_31, LINE_6, LINE_1 = (f"{{0}}: line {line}, image {{1}}" for line in (31, 6, 1))
ANNOTATION_1, REGION_1 = "{0}: annotation 1, image {1}", "{0}: task 1, region 1, image {1}"
NO_NUMBER = "is not four finite numbers"
TOO_SMALL = "dropped, under 3 x 3 px inside the image (line 31)"
CORNERS = 'xtl="10.00" ytl="20.00" xbr="30.00" ybr="40.00"'
FORMATS = ("cvat", "coco", "yolo", "voc", "labelstudio")


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def spoiled(files, path, *replacements):
    """The files with the first of each text replaced; `{1}` in a path or text is the stem of image 1."""
    for old, new in replacements:
        assert old in files[path], (old, files[path])
        files[path] = files[path].replace(old, new, 1)
    return files


@pytest.mark.parametrize(
    ("fmt", "path", "old", "new", "place", "says"),
    [
        # the lines of CVAT
        ("cvat", CVAT, 'label="person"', 'label="persn"', LINE_31, "not one of person, head; did you mean 'person'?"),
        ("cvat", CVAT, 'label="person"', 'label="Person"', LINE_31, "did you mean 'person'?"),
        ("cvat", CVAT, 'xtl="10.00"', 'xtl="nan"', LINE_31, NO_NUMBER),
        ("cvat", CVAT, 'xtl="10.00"', 'xtl="-inf"', LINE_31, NO_NUMBER),
        ("cvat", CVAT, 'xtl="10.00"', 'xtl="1e400"', LINE_31, NO_NUMBER),
        ("cvat", CVAT, 'xtl="10.00"', 'xtl="-5"', LINE_31, "lies outside the image of 64 x 48"),
        ("cvat", CVAT, 'xbr="30.00"', 'xbr="12.9"', LINE_31, "is 2.9 x 20 px, the least is 3 x 3"),
        ("cvat", CVAT, 'xbr="30.00"', 'xbr="3"', LINE_31, "is -7 x 20 px"),
        ("cvat", CVAT, 'xtl="10.00" ', "", LINE_31, "<box> has no xtl"),
        ("cvat", CVAT, "<box ", '<box rotation="30" ', LINE_31, "person is rotated"),
        ("cvat", CVAT, "<box ", '<polygon label="person" points="1,2"/><box ', LINE_31, "a polygon"),
        ("cvat", CVAT, 'width="64"', 'width="640"', "{0}: line 30, image {1}", "says 640 x 48, the image is 64 x 48"),
        ("cvat", CVAT, 'name="0001-01', 'name="0001-07', "{0}: line 30", "is no image of batch 1; did you mean {1}?"),
        ("cvat", CVAT, 'name="0001-01', 'name="0002-01', "{0}: line 30", "is of batch 2, this is batch 1"),
        ("cvat", CVAT, 'name="{2}"', 'name="images/{1}"', "{0}: line 36, image {1}", "was there before: {0}: line 30"),
        # the annotations of COCO
        ("coco", COCO, '"category_id": 1', '"category_id": 9', ANNOTATION_1, "no category 9"),
        ("coco", COCO, '"image_id": 1', '"image_id": 9', "{0}: annotation 1, image 9", "no such image"),
        ("coco", COCO, "    10.0,", "    60.0,", ANNOTATION_1, "lies outside the image of 64 x 48"),
        ("coco", COCO, "    20.0,\n    20.0\n", "    1.5,\n    20.0\n", ANNOTATION_1, "is 1.5 x 20 px"),
        ("coco", COCO, '"iscrowd": 0', '"iscrowd": 1', ANNOTATION_1, "a crowd region"),
        ("coco", COCO, '"height": 48', '"height": 96', "{0}: image 1, image {1}", "the file says 64 x 96"),
        ("coco", COCO, "{1}", "c.jpg", "{0}: image 1", "c.jpg is no image of batch 1"),
        # the lines of YOLO
        ("yolo", TXT, "0 0.3", "7 0.3", LINE_1, "class '7', expected 0 to 1"),
        ("yolo", TXT, "0 0.3125000000", "0 nan", LINE_1, NO_NUMBER),
        ("yolo", TXT, "0 0.3", "0 0.9", LINE_1, "lies outside"),
        ("yolo", TXT, "\n", " 0.5\n", LINE_1, "6 columns, expected 5"),
        ("yolo", "weakspot.json", '"width": 64', '"width": 60', TXT + ", image {1}", "the file says 60 x 48"),
        # the lines of VOC
        ("voc", XML, "person", "cat", LINE_6, "label 'cat' is not one of person, head"),
        ("voc", XML, "10.00", "NaN", LINE_6, NO_NUMBER),
        ("voc", XML, "30.00", "64.2", LINE_6, "lies outside"),
        ("voc", XML, "<xmin>10.00</xmin>", "", LINE_6, "<object> has no <bndbox/xmin>"),
        ("voc", XML, "<width>64", "<width>63", "{0}, image {1}", "the file says 63 x 48"),
        ("voc", XML, "{1}", "d.jpg", "{0}", "holds the boxes of d.jpg"),
        # the tasks and regions of Label Studio
        ("labelstudio", TASKS, '"person"', '"cat"', REGION_1, "label 'cat' is not one of"),
        ("labelstudio", TASKS, '"x": 15.625', '"x": 95', REGION_1, "lies outside"),
        ("labelstudio", TASKS, '"width": 31.25', '"width": 1', REGION_1, "is 0.64 x 20 px"),
        ("labelstudio", TASKS, '"rotation": 0,', '"rotation": 9,', REGION_1, "is rotated"),
        ("labelstudio", TASKS, '"x": 15.625', '"x": "left"', REGION_1, "not a labelled rectangle"),
        ("labelstudio", TASKS, '"type": "rectanglelabels"', '"type": "choices"', REGION_1, "of type choices"),
        ("labelstudio", TASKS, '"name": "{1}"', '"name": "e.jpg"', "{0}: task 1", "e.jpg is no image of batch 1"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_place(store, fmt, path, old, new, place, says) -> None:
    batch = made_batch(store, 2)
    names = names_of(store, batch)
    first, second = names[event_id(1)], names[event_id(2)]

    def filled(text: str) -> str:
        side = "test" if "-test-" in first else "train"
        texts = {"{1}": first, "{2}": second, "{1s}": first.removesuffix(".jpg"), "{t}": side}
        for mark, meant in texts.items():
            text = text.replace(mark, meant)
        return text

    path = filled(path)
    files = spoiled(files_of(store, batch, DRAWN, fmt=fmt), path, (filled(old).encode(), filled(new).encode()))
    with pytest.raises(FaultsError) as error:
        take(store, batch, files)
    fault = str(error.value.faults[0])
    assert fault.startswith(filled(place).replace("{0}", path) + ": "), fault
    assert filled(says).replace("{0}", path) in fault
    assert store.labels.sets() == []


def test_all_faults_are_named_in_the_order_of_the_file(store) -> None:
    batch = made_batch(store, 2)
    files = files_of(store, batch, {1: [person(1), person(20)], 2: [person(30)]})
    spoiled(files, CVAT, (b'xtl="1.00"', b'xtl="one"'), (b'xtl="20.00"', b'xtl="-20"'), (b'xtl="30.00"', b'xtl="nan"'))
    with pytest.raises(FaultsError) as error:
        take(store, batch, files)
    assert len(error.value.faults) == 3
    assert [re.findall(r"line (\d+)", line) for line in str(error.value).splitlines()] == [["31"], ["33"], ["37"]]
    assert store.labels.sets() == []


def test_the_first_twenty_are_told_and_the_rest_counted(store) -> None:
    batch = made_batch(store, 1)
    boxes = [Annotation((x, y, x + 4, y + 4), "person") for x in range(0, 50, 7) for y in range(0, 40, 7)]
    files = files_of(store, batch, {1: boxes})
    files[CVAT] = files[CVAT].replace(b'label="person"', b'label="cat"')
    with pytest.raises(FaultsError) as error:
        take(store, batch, files)
    lines = str(error.value).splitlines()
    assert (len(lines), lines[-1]) == (21, f"and {len(boxes) - 20} more")
    assert len(error.value.faults) == len(boxes)


# Repairs


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_doubled_box_is_a_fault_and_can_be_dropped(store, fmt) -> None:
    batch = made_batch(store, 1)
    first, near = Annotation((10, 10, 40, 40), "person"), Annotation((10, 10, 40.4, 40), "person")
    other, apart = Annotation((10, 10, 40, 40), "head"), Annotation((10, 10, 38, 38), "person")
    files = files_of(store, batch, {1: [first, other, near, apart]}, fmt=fmt)
    with pytest.raises(FaultsError, match="is drawn twice; the first is at") as error:
        take(store, batch, files)
    assert [fault.fixable for fault in error.value.faults] == [True]
    report = take(store, batch, files, fix=True)
    assert stored(store, batch) == {event_id(1): (first, other, apart)}
    (line,) = report.fixed
    assert line.startswith(f"{names_of(store, batch)[event_id(1)]}: double dropped (")


@pytest.mark.parametrize(
    ("old", "new", "becomes", "told"),
    [
        # what lies outside is cut
        ('xtl="10.00"', 'xtl="-7.5"', (0, 20, 30, 40), "cut at the border (line 31)"),
        ('xbr="30.00"', 'xbr="700"', (10, 20, 64, 40), "cut at the border (line 31)"),
        # drawn from the lower right corner
        (CORNERS, 'xtl="30" ytl="40" xbr="10" ybr="20"', (10, 20, 30, 40), "corners put in order (line 31)"),
        # a click by mistake: nobody sees it
        ('xbr="30.00"', 'xbr="10.5"', None, TOO_SMALL),
        # all but a sliver lies outside
        (CORNERS, 'xtl="-50" ytl="20" xbr="2" ybr="40"', None, TOO_SMALL),
    ],
)  # fmt: skip
def test_what_is_safe_is_repaired_and_told(store, old, new, becomes, told) -> None:
    batch = made_batch(store, 2)
    files = spoiled(files_of(store, batch, DRAWN), CVAT, (old.encode(), new.encode()))
    with pytest.raises(FaultsError) as error:
        take(store, batch, files)
    assert all(fault.fixable for fault in error.value.faults)
    report = take(store, batch, files, fix=True)
    left = (Annotation(becomes, "person"), HEAD) if becomes else (HEAD,)
    assert stored(store, batch)[event_id(1)] == left
    assert report.fixed == (f"{names_of(store, batch)[event_id(1)]}: {told}",)
    assert list(store.violations()) == []


def test_what_rounding_puts_outside_is_no_fault(store) -> None:
    batch = made_batch(store, 2)
    files = spoiled(
        files_of(store, batch, DRAWN), CVAT, (b'xtl="10.00"', b'xtl="-0.04"'), (b'ybr="40.00"', b'ybr="48.09"')
    )
    report = take(store, batch, files)
    assert stored(store, batch)[event_id(1)][0] == Annotation((0, 20, 30, 48), "person")
    assert report.fixed == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'label="person"', b'label="Person"'),  # whatever it is near to
        (b'xtl="10.00"', b'xtl="nan"'),
        (b'xtl="10.00"', b'xtl="ten"'),
        (b'width="64"', b'width="128"'),
        (b'name="0001-01', b'name="0001-09'),
        (b"<box ", b'<box rotation="1" '),
    ],
)
def test_what_would_be_a_guess_stays_a_fault(store, old, new) -> None:
    batch = made_batch(store, 2)
    files = spoiled(files_of(store, batch, DRAWN), CVAT, (old, new), (b'xtl="40.00"', b'xtl="-40"'))
    with pytest.raises(FaultsError) as error:
        take(store, batch, files, fix=True)
    assert [fault.fixable for fault in error.value.faults] == [False]
    assert store.labels.sets() == []


coordinates = st.floats(-20, 80) | st.floats() | st.sampled_from([0.0, 64.0, 48.0, 61.0, -0.05, 64.05])
raw_boxes = st.builds(
    DrawnBox,
    st.tuples(coordinates, coordinates, coordinates, coordinates),
    st.sampled_from(["person", "person", "head", "dog", ""]),
    st.just("f.xml: line 1"),
    st.none() | st.floats(),
    st.sampled_from([None, "context", "?"]),
)


@given(boxes=st.lists(raw_boxes, max_size=6), fix=st.booleans(), shown=st.booleans())
def test_what_is_found_right_is_right_and_stays_so(boxes, fix, shown) -> None:
    """No box of any numbers stops the judge; what it lets through keeps the laws of an annotation and is no double."""
    context = {"a.jpg": [Annotation((1, 2, 30, 40), "dog")]} if shown else {}
    asked = Asked(batch_id=1, sizes={"a.jpg": (64, 48)}, labels=LABELS, context=context)
    judged, faults = judge([DrawnImage("a.jpg", "f.xml", 64, 48, tuple(boxes))], asked, fix=fix)
    right = judged.boxes["a.jpg"]
    image = AnnotatedImage("a.jpg", 64, 48, right)  # raises where a box is outside
    assert len(right) + len(faults) <= len(boxes)
    assert not any(fault.fixable for fault in faults if fix)
    again = tuple(DrawnBox(box.xyxy, box.label, "f.xml: line 1") for box in image.annotations)
    judged, faults = judge([DrawnImage("a.jpg", "f.xml", 64, 48, again)], asked, fix=False)
    assert (judged.boxes["a.jpg"], faults) == (right, [])


# Files that are not whole, or not what they seem


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_truncated_file_is_refused_as_a_whole(store, fmt) -> None:
    batch = made_batch(store, 2)
    files = files_of(store, batch, DRAWN, fmt=fmt)
    path = max(files, key=lambda path: len(files[path]))
    files[path] = files[path][: len(files[path]) * 2 // 3]
    with pytest.raises(UnusableError) as error:
        take(store, batch, files)
    assert path in str(error.value)
    assert store.labels.sets() == []


@pytest.mark.parametrize(
    "attack",
    [
        # a billion laughs
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;&l;">]><annotations>&m;</annotations>',
        # a file of this machine
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>',
    ],
)
def test_entities_are_refused(store, attack) -> None:
    batch = made_batch(store, 1)
    with pytest.raises(UnusableError, match="XML that cannot be trusted"):
        take(store, batch, {CVAT: attack})


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no annotations in a known format here, only nothing"),
        ({"a.jpg": b"x", "b.jpg": b"x"}, "only a.jpg, b.jpg: cvat, coco, yolo, voc, labelstudio can be read"),
        ({"a.xml": b"<annotations/>", "b.json": b"{}"}, "the files could be coco or cvat: say which with --format"),
        ({"a.xml": b"<svg/>"}, "no annotations in a known format here, only a.xml"),
    ],
)
def test_a_format_that_cannot_be_told_is_asked_for(store, files, says) -> None:
    batch = made_batch(store, 1)
    with pytest.raises(UnusableError) as error:
        take(store, batch, files)
    assert says in str(error.value)


def test_a_folder_on_disk_names_its_files_as_the_mapping_does(store, tmp_path) -> None:
    batch = made_batch(store, 2)
    files = spoiled(files_of(store, batch, DRAWN), CVAT, (b'xtl="10.00"', b'xtl="ten"'))
    with pytest.raises(FaultsError, match=r"^annotations\.xml: line 31, image 0001-01"):
        take(store, batch, as_folder(files, tmp_path / "answer"))
