"""Law of every format: `read_x(write_x(a)) == a`, and reading a written folder is reading the mapping."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.annotation import AnnotatedImage, Annotation, AnnotationSet
from hub.formats.coco import read_coco, write_coco
from hub.formats.cvat import read_cvat, write_cvat
from hub.formats.labelstudio import read_labelstudio, write_labelstudio
from hub.formats.voc import read_voc, write_voc
from hub.formats.yolo import read_yolo, write_yolo

PAIRS = {
    "cvat": (write_cvat, read_cvat),
    "coco": (write_coco, read_coco),
    "yolo": (write_yolo, read_yolo),
    "voc": (write_voc, read_voc),
    "labelstudio": (write_labelstudio, read_labelstudio),
}

printable = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=20)
labels = printable.map(str.strip).filter(bool) | st.sampled_from(
    ["traffic light", "a:b", "# c", "- d", "'e'", '"f"', "<&>", "g, h", "[i]", "0", "x: y", "# label:", "null", "\\n"]
)
sides = st.integers(3, 200) | st.sampled_from([1920, 4096, 65535])
stems = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,12}", fullmatch=True)
fractions = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5, 1 / 3])


@st.composite
def annotations_of(draw, names, width, height):
    x = sorted((draw(fractions) * (width - 3), draw(fractions) * (width - 3)))
    y = sorted((draw(fractions) * (height - 3), draw(fractions) * (height - 3)))
    return Annotation(
        (x[0], y[0], min(x[1] + 3.01, width), min(y[1] + 3.01, height)),
        draw(st.sampled_from(names)),
        draw(st.none() | st.floats(0, 1)),
        draw(st.none() | st.sampled_from(["detector", "gap", "candidate", "zoom", "a.b-c_1"])),
    )


@st.composite
def annotation_sets(draw):
    names = tuple(draw(st.lists(labels, min_size=1, max_size=4, unique=True)))
    images = []
    for stem in draw(st.lists(stems, max_size=4, unique_by=str.casefold)):
        width, height = draw(sides), draw(sides)
        boxes = draw(st.lists(annotations_of(names, width, height), max_size=4))
        images.append(AnnotatedImage(f"{stem}.jpg", width, height, tuple(boxes + draw(st.sampled_from([[], boxes])))))
    return AnnotationSet(names, tuple(images))


@pytest.mark.parametrize("name", sorted(PAIRS))
@settings(deadline=None)
@given(annotations=annotation_sets())
def test_reading_what_was_written_gives_the_same(name, annotations):
    write, read = PAIRS[name]
    if name == "voc" and not annotations.images:
        return  # a VOC folder without an annotation file is no VOC folder
    assert read(write(annotations)) == annotations


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_a_folder_reads_as_the_mapping(name, tmp_path: Path):
    write, read = PAIRS[name]
    boxes = (Annotation((1, 2, 30.25, 40.5), "person", 0.4321, "gap"), Annotation((5, 5, 9, 9), "car"))
    annotations = AnnotationSet(
        ("person", "car"), (AnnotatedImage("b.jpg", 64, 48, boxes), AnnotatedImage("a.jpg", 9, 9))
    )
    for path, content in write(annotations).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images" / "b.jpg").write_bytes(b"not read")
    assert read(tmp_path) == annotations


@pytest.mark.parametrize(
    ("name", "path"), [("cvat", "annotations.xml"), ("coco", "annotations/instances_default.json")]
)
def test_a_single_file_reads_as_a_folder_of_one(name, path, tmp_path: Path):
    write, read = PAIRS[name]
    annotations = AnnotationSet(
        ("person",), (AnnotatedImage("a.jpg", 64, 48, (Annotation((1, 2, 30, 40), "person"),)),)
    )
    answered = tmp_path / f"answer{Path(path).suffix}"
    answered.write_bytes(write(annotations)[path])
    assert read(answered) == annotations
