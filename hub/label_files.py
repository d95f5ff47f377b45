"""Which of the five formats an annotator's file, ZIP or folder is, told from what is in it, and what stands there."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from edge.contract.errors import UnusableError
from hub.drawn import DrawnSet
from hub.export import Format
from hub.formats import Files, coco, cvat, labelstudio, voc, yolo

_BESIDE: Final = frozenset({"batch.json", "labels.json", "weakspot.json", "config.xml"})  # what an export wrote with it
_ROOT: Final = re.compile(rb"<(annotations?)[\s>/]")
_XML: Final = {b"annotations": Format.CVAT, b"annotation": Format.VOC}
_JSON: Final = {b"[": Format.LABELSTUDIO, b"{": Format.COCO}
_CLASSES: Final = frozenset({"data.yaml", "obj.names", "classes.txt"})
_HEAD_BYTES: Final = 65_536


def read_drawn(files: Files, *, fmt: Format | None, sizes: Mapping[str, tuple[int, int]]) -> tuple[Format, DrawnSet]:
    """Return the format, recognised where it is None, and what stands in the file.

    `sizes` are those of the images by name, for the formats that do not tell them. Raises `UnusableError` when the
    format cannot be told or the file is not of it.
    """
    fmt = fmt or recognise(files)
    match fmt:
        case Format.CVAT:
            return fmt, cvat.parse_cvat(files)
        case Format.COCO:
            return fmt, coco.parse_coco(files)
        case Format.YOLO:
            return fmt, yolo.parse_yolo(files, sizes=sizes)
        case Format.VOC:
            return fmt, voc.parse_voc(files)
        case Format.LABELSTUDIO:
            return fmt, labelstudio.parse_labelstudio(files, sizes=sizes)


def recognise(files: Files) -> Format:
    """Return the format of these files. Raises `UnusableError` when it is none, or could be several."""
    found = {fmt for path in files if (fmt := _format_of(path, files)) is not None}
    if len(found) == 1:
        return found.pop()
    if found:
        could = " or ".join(sorted(found))
        msg = f"the files could be {could}: say which with --format, or hand over the one file"
        raise UnusableError(msg)
    here = ", ".join(sorted(files)[:3]) + ", ..." * (len(files) > 3)
    msg = f"no annotations in a known format here, only {here or 'nothing'}: {', '.join(Format)} can be read"
    raise UnusableError(msg)


def _format_of(path: str, files: Files) -> Format | None:
    name = PurePosixPath(path).name
    if name in _CLASSES:
        return Format.YOLO
    if name in _BESIDE:
        return None
    if name.endswith(".xml") and (root := _ROOT.search(files[path][:_HEAD_BYTES])):
        return _XML[root[1]]
    if name.endswith(".json"):
        return _JSON.get(files[path][:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()[:1])
    return None
