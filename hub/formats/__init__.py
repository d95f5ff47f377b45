"""What the formats share: the files they read, and where in a file something stands.

Each module beside this one has three pure functions: `write_x`; `parse_x`, which returns what stands in a file without
judging it; and `read_x`, which takes no fault, with the law `read_x(write_x(a)) == a`. `write_x` returns the annotation
files by their relative path; the images are written by `hub.export`, into the folder that the format names in `IMAGES`.
`parse_x` and `read_x` take a folder, a ZIP, a single file, or such a mapping. The modules do not know each other.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final
from xml.sax import SAXParseException  # the parser itself is defusedxml's
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl, Locator

from edge.contract.errors import UnusableError
from hub.archive import ZipFiles, is_junk, is_zip

Files = Mapping[str, bytes]
Source = Path | Files

MAX_ELEMENTS: Final = 3_000_000  # of an XML file, about 1 GB in memory
_ABSENT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def open_files(source: Source) -> Files:
    """Return the files of a folder or ZIP by relative path, read when asked for; a single file is a folder of one.

    Raises `UnusableError` when there is neither file nor folder, or the ZIP cannot be trusted.
    """
    if not isinstance(source, Path):
        return source
    if source.is_file():
        return ZipFiles(source) if is_zip(source) else _Folder(source.parent, (source.name,))
    if source.is_dir():
        paths = (path for path in source.rglob("*") if path.is_file() and not path.is_symlink())
        names = sorted(path.relative_to(source).as_posix() for path in paths)
        return _Folder(source, tuple(name for name in names if not is_junk(name)))
    msg = f"{source}: no such file or folder"
    raise UnusableError(msg)


def find_file(files: Files, *, name: str, suffix: str) -> str:
    """Return the path of the file called `name`, else of the only file with this suffix.

    Raises `UnusableError` that lists the candidates when it is not plain which file is meant.
    """
    candidates = [path for path in files if PurePosixPath(path).name == name]
    candidates = candidates or [path for path in files if path.endswith(suffix)]
    if len(candidates) == 1:
        return candidates[0]
    what = f"several files could be {name}: {', '.join(sorted(candidates)[:5])}" if candidates else f"no {name} here"
    raise UnusableError(what)


def text_of(files: Files, path: str) -> str:
    """Return the content of a text file; raises `UnusableError` unless it is UTF-8."""
    try:
        return files[path].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 text"
        raise UnusableError(msg) from error


def image_name(text: str) -> str:
    """Return the last part of a path or of a URL's path, as tools store names of images."""
    return re.split(r"[/\\]", text)[-1]


def number(text: str, what: str) -> float:
    """Return the number that `text` spells; raises `UnusableError` that says `what` was expected."""
    try:
        return float(text)
    except ValueError as error:
        msg = f"{what} is {text!r}, expected a number"
        raise UnusableError(msg) from error


def size_of(width: str, height: str) -> tuple[int, int]:
    """Return an image's size from two texts; raises `UnusableError` unless they spell whole numbers."""
    try:
        return int(width), int(height)
    except ValueError as error:
        msg = f"the size is {width!r} x {height!r}, expected whole numbers"
        raise UnusableError(msg) from error


def escape(text: str) -> str:
    """Return `text` for an XML element or attribute. Raises `UnusableError` for what XML cannot carry."""
    if _ABSENT_IN_XML.search(text):
        msg = f"{text!r} has characters that XML cannot carry"
        raise UnusableError(msg)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return text


def parse_xml(files: Files, path: str) -> "Element":
    """Return the root element. Raises `UnusableError` with file and line; refuses every DTD and entity."""
    from defusedxml import DefusedXmlException, sax

    tree = _TreeBuilder()
    try:
        sax.parseString(files[path], tree, forbid_dtd=True)
    except SAXParseException as error:
        msg = f"{path}, line {error.getLineNumber()}: not well-formed XML: {error.getMessage()}"
        raise UnusableError(msg) from error
    except (DefusedXmlException, ValueError, LookupError) as error:
        msg = f"{path}: XML that cannot be trusted: {error}"
        raise UnusableError(msg) from error
    return tree.top.children[0]


@dataclass(slots=True)
class Element:
    """One XML element and the line on which it starts."""

    tag: str
    line: int
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, *path: str) -> list["Element"]:
        """Return every element reached by going down this path of tags."""
        found = [self]
        for tag in path:
            found = [child for element in found for child in element.children if child.tag == tag]
        return found

    def text_at(self, *path: str) -> str | None:
        """Return the text of the first element at `path` without spaces around it, None when there is none."""
        found = self.all(*path)
        return found[0].text.strip() if found else None

    def need_text(self, *path: str) -> str:
        """Return the text at `path`; raises `UnusableError` when it is missing."""
        text = self.text_at(*path)
        if text is None:
            msg = f"<{self.tag}> has no <{'/'.join(path)}>"
            raise UnusableError(msg)
        return text

    def need(self, attribute: str) -> str:
        """Return an attribute; raises `UnusableError` when it is missing."""
        if attribute not in self.attributes:
            msg = f"<{self.tag}> has no {attribute}"
            raise UnusableError(msg)
        return self.attributes[attribute]


class _TreeBuilder(ContentHandler):
    def __init__(self) -> None:
        super().__init__()
        self.top = Element("", 0)
        self._open = [self.top]
        self._locator: Locator | None = None
        self._count = 0

    def setDocumentLocator(self, locator: Locator) -> None:  # noqa: N802 - SAX's own name
        self._locator = locator

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802
        self._count += 1
        if self._count > MAX_ELEMENTS:
            msg = f"it has more than {MAX_ELEMENTS:,} elements"
            raise ValueError(msg)
        line = self._locator.getLineNumber() if self._locator else None
        element = Element(name, line or 0, dict(attrs.items()))
        self._open[-1].children.append(element)
        self._open.append(element)

    def endElement(self, name: str) -> None:  # noqa: N802, ARG002
        self._open.pop()

    def characters(self, content: str) -> None:
        self._open[-1].text += content


class _Folder(Mapping[str, bytes]):
    """The named files of a folder, each read when it is asked for."""

    def __init__(self, root: Path, paths: tuple[str, ...]) -> None:
        self._root = root
        self._paths = dict.fromkeys(paths)

    def __getitem__(self, path: str) -> bytes:
        if path not in self._paths:
            raise KeyError(path)
        try:
            return (self._root / path).read_bytes()
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise UnusableError(msg) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
