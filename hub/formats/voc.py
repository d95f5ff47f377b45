"""Pascal VOC: one XML file an image, laid out as the VOC development kit does.

Coordinates are pixels of the image from 0, with digits after the point, not the kit's whole numbers from 1: this is how
CVAT, labelImg and the training frameworks read and write them. `score` and `origin` are further elements of an object.
The labels' order stands in `labelmap.txt`, as CVAT lays it out, the images' order in `ImageSets/Main/default.txt`;
without these files labels and images are taken in the order of the alphabet. `train.txt` and `test.txt` of
`ImageSets/Split/` have the images that may be trained on and those that never may; not of `Main`, where CVAT would
import every image once for each list that it is in.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import PurePosixPath
from typing import Final

from edge.contract.errors import UnusableError
from hub.annotation import AnnotatedImage, AnnotationSet, doubled
from hub.drawn import DrawnBox, DrawnImage, DrawnSet, Faults
from hub.formats import Element, Files, Source, escape, image_name, number, open_files, parse_xml, size_of, text_of
from hub.label_faults import strict

IMAGES: Final = "JPEGImages"
SPLIT: Final = "ImageSets/Split"
LABELS: Final = "labelmap.txt"
ORDER: Final = "ImageSets/Main/default.txt"

HOW_TO_OPEN: Final = """\
The images are in JPEGImages/, the boxes of each in the XML file of the same name in Annotations/ (pixels from 0). In
labelImg: "Open Dir" JPEGImages, "Change Save Dir" Annotations, format PascalVOC. For CVAT, create a task with the
labels listed above and the images, make a ZIP of Annotations/, ImageSets/ and labelmap.txt and upload it as
"PASCAL VOC 1.1". When done, export as Pascal VOC again. <score> and <origin> of each object say what proposed the box.
Train on ImageSets/Split/train.txt only: ImageSets/Main/default.txt lists all images, for CVAT.
"""
HOW_TO_SEE_CONTEXT: Final = """
The boxes of the passes before have the origin "context". Lock or hide their labels where the tool can, and leave them
as they are: one that comes back moved counts as a mistake.
"""

_HEADER: Final = "# label:color_rgb:parts:actions"


def write_voc(annotations: AnnotationSet, *, test: AbstractSet[str] = frozenset()) -> dict[str, bytes]:
    """Return `Annotations/*.xml`, the order of the images, their split and the label map.

    `test` has the names of the images that are never trained on.
    """
    files = {f"Annotations/{image.stem}.xml": "".join(_xml(image)).encode() for image in annotations.images}
    files[ORDER] = "".join(f"{image.stem}\n" for image in annotations.images).encode()
    for split, chosen in (("train", False), ("test", True)):
        stems = [image.stem for image in annotations.images if (image.name in test) is chosen]
        files[f"{SPLIT}/{split}.txt"] = "".join(f"{stem}\n" for stem in stems).encode()
    files[LABELS] = "".join(f"{line}\n" for line in (_HEADER, *(f"{name}:::" for name in annotations.labels))).encode()
    return files


def read_voc(source: Source) -> AnnotationSet:
    """Return the boxes of a VOC folder. Raises `UnusableError` for any fault."""
    return strict(parse_voc(source))


def parse_voc(source: Source) -> DrawnSet:
    """Return what stands in a VOC folder. Raises `UnusableError` when there is none or one is no XML."""
    files = open_files(source)
    paths = sorted(path for path in files if path.endswith(".xml"))
    if not paths:
        msg = "no annotation files (*.xml) here"
        raise UnusableError(msg)
    faults = Faults()
    images = []
    for path in paths:
        root = parse_xml(files, path)
        with faults.at(path):
            images.append(_image(root, path, faults))
    order = _order(files)
    first = len(order)
    images.sort(key=lambda image: (order.get(PurePosixPath(image.name).stem, first), image.name))
    found = {PurePosixPath(image.name).stem for image in images}
    unanswered = () if faults else tuple(f"{stem}.jpg" for stem in order if stem not in found)
    return DrawnSet(tuple(images), _labels(files), tuple(faults), unanswered)


def _xml(image: AnnotatedImage) -> Iterator[str]:
    yield f"<annotation>\n  <folder>{IMAGES}</folder>\n  <filename>{escape(image.name)}</filename>\n"
    yield f"  <size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>\n"
    yield "  <segmented>0</segmented>\n"
    for box in image.annotations:
        yield f"  <object>\n    <name>{escape(box.label)}</name>\n    <pose>Unspecified</pose>\n"
        yield "    <truncated>0</truncated>\n    <difficult>0</difficult>\n    <bndbox>"
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box.xyxy, strict=True)
        yield from (f"<{name}>{value:.2f}</{name}>" for name, value in corners)
        yield "</bndbox>\n"
        if box.score is not None:
            yield f"    <score>{box.score!r}</score>\n"
        if box.origin is not None:
            yield f"    <origin>{escape(box.origin)}</origin>\n"
        yield "  </object>\n"
    yield "</annotation>\n"


def _image(root: Element, path: str, faults: Faults) -> DrawnImage:
    if root.tag != "annotation":
        msg = f"the root is <{root.tag}>, expected <annotation>"
        raise UnusableError(msg)
    name = image_name(root.need_text("filename"))
    width, height = size_of(root.need_text("size", "width"), root.need_text("size", "height"))
    if PurePosixPath(path).stem != PurePosixPath(name).stem:
        msg = f"holds the boxes of {name}"
        raise UnusableError(msg)
    boxes = []
    for element in root.all("object"):
        place = f"{path}: line {element.line}"
        with faults.at(place, name):
            boxes.append(_box(element, place))
    return DrawnImage(name, path, width, height, tuple(boxes))


def _box(element: Element, place: str) -> DrawnBox:
    x1, y1, x2, y2 = (number(element.need_text("bndbox", name), name) for name in ("xmin", "ymin", "xmax", "ymax"))
    score = element.text_at("score")
    return DrawnBox(
        (x1, y1, x2, y2),
        element.need_text("name"),
        place,
        number(score, "score") if score else None,
        element.text_at("origin") or None,
    )


def _labels(files: Files) -> tuple[str, ...] | None:
    if LABELS not in files:
        return None
    lines = [line for line in text_of(files, LABELS).split("\n") if line.strip()]
    if lines and lines[0].startswith("# label:"):
        del lines[0]
    return tuple(line.rstrip("\r").rsplit(":", 3)[0] for line in lines)


def _order(files: Files) -> dict[str, int]:
    """Return the images' stems in the order of the list; empty where there is none."""
    if ORDER not in files:
        return {}
    stems = [PurePosixPath(line.strip()).name for line in text_of(files, ORDER).splitlines() if line.strip()]
    if twice := doubled(stems):
        msg = f"{ORDER}: {twice} is listed twice"
        raise UnusableError(msg)
    return {stem: at for at, stem in enumerate(stems)}
