"""CVAT for images 1.1: one `annotations.xml`, and `labels.json` for the raw tab of CVAT's label constructor.

Facts of CVAT's importer (cvat/apps/dataset_manager, formats/cvat.py and bindings.py) that shape this file:

- A box needs label, xtl, ytl, xbr, ybr. An unknown label fails the import; an undeclared attribute is lost silently.
  So score and origin are attributes declared for every label, mutable text with an empty default: a box that a person
  draws has neither.
- `source` is overwritten on import.
- Neither a lock nor a colour can be imported with a box; an order and a colour of its label can. So context of an
  earlier pass lies under all other boxes (z_order -1), and its label is grey.
- An image's `subset` is how a project's export says `train` or `test`; importing into a task passes it by.
- A frame is matched by its name; when the name is unknown but the id is a frame's number, the boxes land on that frame
  silently. So ids count the names in lexicographic order, in which CVAT numbers the frames of a task.

The reader ignores what the neutral form does not carry (occluded, z_order, group, other attributes) and refuses what
would be lost in meaning: rotated boxes, tracks, other shapes.
"""

import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from edge.contract.errors import UnusableError
from hub.annotation import CONTEXT, Annotation, AnnotationSet, named
from hub.drawn import DrawnBox, DrawnImage, DrawnSet, Faults
from hub.formats import Element, Source, escape, find_file, image_name, number, open_files, parse_xml, size_of
from hub.label_faults import strict

IMAGES: Final = "images"
ANNOTATIONS: Final = "annotations.xml"
LABELS: Final = "labels.json"

HOW_TO_OPEN: Final = """\
1. In CVAT, "Tasks", "+", "Create a new task". Give it a name.
2. Under "Labels" choose "Raw", delete what stands there, paste the content of labels.json, press "Done".
3. Under "Select files" add every file of the folder images/. Under "Advanced configuration" set "Image quality" to 100
   and leave the sorting method "Lexicographical". Press "Submit & Open".
4. In the task's menu "Actions" choose "Upload annotations", format "CVAT 1.1", file annotations.xml.
5. When done: "Actions", "Export task dataset", format "CVAT for images 1.1", without the images.

The same from a command line (pip install cvat-cli):
   cvat-cli task create "NAME" local images/* --labels labels.json --image_quality 100 \\
       --annotation_path annotations.xml --annotation_format "CVAT 1.1"
"""
HOW_TO_SEE_CONTEXT: Final = """
The boxes of the passes before are grey and lie under all others. CVAT cannot import a lock: to lock those of an image,
press the padlock of their label in the tab "Labels" of the panel on the right. One that was moved or deleted all the
same does no harm: context is not read back.
"""

_ATTRIBUTES: Final = ("score", "origin")
_GREY: Final = "#9e9e9e"
_OTHER_SHAPES: Final = frozenset({"polygon", "polyline", "points", "cuboid", "ellipse", "skeleton", "mask", "tag"})


def write_cvat(
    annotations: AnnotationSet, *, task: str = "weakspot", test: AbstractSet[str] = frozenset()
) -> dict[str, bytes]:
    """Return `annotations.xml` and `labels.json`.

    `task` is the task's name; `test` has the names of the images that are never trained on.
    """
    return {ANNOTATIONS: "".join(_xml(annotations, task, test)).encode(), LABELS: _raw_labels(annotations)}


def read_cvat(source: Source) -> AnnotationSet:
    """Return the boxes of an `annotations.xml` that this module or CVAT wrote. Raises `UnusableError` for any fault."""
    return strict(parse_cvat(source))


def parse_cvat(source: Source) -> DrawnSet:
    """Return what stands in an `annotations.xml` that this module or CVAT wrote, of a task, a job or a project.

    Raises `UnusableError` when it is no such file.
    """
    files = open_files(source)
    path = find_file(files, name=ANNOTATIONS, suffix=".xml")
    root = parse_xml(files, path)
    faults = Faults()
    with named(path):
        if root.tag != "annotations":
            msg = f"the root is <{root.tag}>, expected <annotations>"
            raise UnusableError(msg)
        labels = tuple(label.need_text("name") for label in _declared_labels(root))
        if tracks := root.all("track"):
            msg = f"line {tracks[0].line}: a track; export the task as 'CVAT for images 1.1'"
            raise UnusableError(msg)
    images = []
    for element in root.all("image"):
        with faults.at(f"{path}: line {element.line}"):
            images.append(_image(element, path, faults))
    return DrawnSet(tuple(images), labels, tuple(faults))


def _xml(annotations: AnnotationSet, task: str, test: AbstractSet[str]) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
    yield f"      <name>{escape(task)}</name>\n      <size>{len(annotations.images)}</size>\n"
    yield "      <mode>annotation</mode>\n      <overlap>0</overlap>\n      <labels>\n"
    for label in annotations.labels:
        yield f"        <label>\n          <name>{escape(label)}</name>\n          <type>rectangle</type>\n"
        yield "          <attributes>\n"
        for name in _ATTRIBUTES:
            yield f"            <attribute><name>{name}</name><mutable>True</mutable><input_type>text</input_type>"
            yield "<default_value></default_value><values></values></attribute>\n"
        yield "          </attributes>\n        </label>\n"
    yield "      </labels>\n    </task>\n  </meta>\n"
    frames = {name: frame for frame, name in enumerate(sorted(image.name for image in annotations.images))}
    for image in annotations.images:
        subset = "test" if image.name in test else "train"
        yield f'  <image id="{frames[image.name]}" name="{escape(image.name)}" subset="{subset}" '
        yield f'width="{image.width}" height="{image.height}">\n'
        for box in image.annotations:
            yield from _box_xml(box)
        yield "  </image>\n"
    yield "</annotations>\n"


def _box_xml(box: Annotation) -> Iterator[str]:
    corners = zip(("xtl", "ytl", "xbr", "ybr"), box.xyxy, strict=True)
    yield f'    <box label="{escape(box.label)}" source="file" occluded="0" z_order="{-(box.origin == CONTEXT)}"'
    yield from (f' {name}="{value:.2f}"' for name, value in corners)
    yield ">\n"
    if box.score is not None:
        yield f'      <attribute name="score">{box.score!r}</attribute>\n'
    if box.origin is not None:
        yield f'      <attribute name="origin">{escape(box.origin)}</attribute>\n'
    yield "    </box>\n"


def _raw_labels(annotations: AnnotationSet) -> bytes:
    context = {box.label for image in annotations.images for box in image.annotations if box.origin == CONTEXT}
    attributes = [
        {"name": name, "input_type": "text", "mutable": True, "values": [""], "default_value": ""}
        for name in _ATTRIBUTES
    ]
    raw = [
        {"name": label, "type": "rectangle", "attributes": attributes} | ({"color": _GREY} if label in context else {})
        for label in annotations.labels
    ]
    return (json.dumps(raw, indent=2, ensure_ascii=False) + "\n").encode()


def _declared_labels(root: Element) -> list[Element]:
    for holder in ("task", "job", "project"):
        if labels := root.all("meta", holder, "labels", "label"):
            return labels
    msg = "no labels are declared in <meta>"
    raise UnusableError(msg)


def _image(element: Element, path: str, faults: Faults) -> DrawnImage:
    name = image_name(element.need("name"))
    width, height = size_of(element.need("width"), element.need("height"))
    boxes = []
    for child in element.children:
        place = f"{path}: line {child.line}"
        with faults.at(place, name):
            if child.tag in _OTHER_SHAPES:
                msg = f"a {child.tag}; only boxes can be used"
                raise UnusableError(msg)
            if child.tag == "box":
                boxes.append(_box(child, place))
    return DrawnImage(name, f"{path}: line {element.line}", width, height, tuple(boxes))


def _box(element: Element, place: str) -> DrawnBox:
    label = element.need("label")
    if number(element.attributes.get("rotation", "0"), "rotation") % 360:
        msg = f"{label} is rotated; draw it upright"
        raise UnusableError(msg)
    x1, y1, x2, y2 = (number(element.need(name), name) for name in ("xtl", "ytl", "xbr", "ybr"))
    extra = {attribute.need("name"): attribute.text.strip() for attribute in element.all("attribute")}
    score = number(extra["score"], "score") if extra.get("score") else None
    return DrawnBox((x1, y1, x2, y2), label, place, score, extra.get("origin") or None)
