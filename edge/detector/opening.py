"""A path becomes a model: the ONNX file, what its graph says, and its card, written or made.

Owns the choice of card, variant and input size. Runs nothing.
"""

import ast
import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edge.contract.card import InputSpec, ModelCard, Precision, Variant, read_card
from edge.contract.errors import UnusableError
from edge.contract.samples import plain_text
from edge.detector.graph import Graph, Port, read_graph
from edge.detector.heads.head import Head
from edge.detector.letterbox import Size

CARD_NAME = "model.json"
_DEFAULT_SIDE = 640
_DEFAULT_MULTIPLE = 32
_MADE_SCORE_THRESHOLD = 0.3
_STARTER = Path("models") / "starter"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """An ONNX file that was read once.

    Attributes:
        path: the ONNX file.
        sha256: of its bytes, in hexadecimal.
        graph: what it says of itself.
        image: the graph's image input, four-dimensional.
        card: the card that stands beside it and names it, None when there is none. Of a variant its input is the
            variant's.
        variant: the name of the variant that this is; "" for the card's own file.
        precision: the variant's; `f32` for the card's own file.
        runtimes: those on which the variant was measured; () where any will do.
    """

    path: Path
    sha256: str
    graph: Graph
    image: Port
    card: ModelCard | None
    variant: str = ""
    precision: Precision = "f32"
    runtimes: tuple[str, ...] = ()


def find_starter() -> Path:
    """Return the folder of the starter model: the checkout's, else the one that pip installed."""
    places = [Path(__file__).resolve().parents[2] / _STARTER, Path(sys.prefix) / "share" / "weakspot" / _STARTER]
    for place in places:
        if (place / CARD_NAME).is_file():
            return place
    msg = f"the starter model is not in {' nor in '.join(map(str, places))}; name a model of your own"
    raise UnusableError(msg)


def read_model(model: Path | None, *, variant: str = "") -> ModelFile:
    """Read a model: an ONNX file, a folder with a card, or None for the starter; or a variant that its card lists.

    Raises `UnusableError` when there is no such file or variant, when it is no ONNX model that takes one image, or when
    its sha256 is not the one that its card states.
    """
    path = _onnx_file(find_starter() if model is None else model)
    if variant:
        return _read_variant(path, variant)
    content = _content(path)
    graph = read_graph(path, content)
    sha256 = hashlib.sha256(content).hexdigest()
    return ModelFile(path, sha256, graph, _image_input(path, graph), _card_beside(path, sha256))


def find_variant(card: ModelCard, name: str) -> Variant:
    """Return the variant of a name. Raises `UnusableError`, naming those there are, when the card has none such."""
    for one in card.variants:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in card.variants) or "none"
    msg = f"{card.release} has no variant {name!r}; it has: {known}"
    raise UnusableError(msg)


def choose_size(model: ModelFile, wanted: Size | None, default: InputSpec) -> Size:
    """Return the input's (width, height): the wanted one, else the card's, else what the graph asks for.

    Raises `UnusableError` with what is valid when the model cannot take the wanted size.
    """
    spec = model.card.input if model.card is not None else default
    width, height = wanted or (spec.width, spec.height)
    fixed_width, fixed_height = _fixed_size(model.image, spec.layout)
    if (fixed_width or width, fixed_height or height) != (width, height):
        msg = f"{model.path} takes {fixed_width or 'any'}x{fixed_height or 'any'} only, not {width}x{height}"
        raise UnusableError(msg)
    if width < 1 or height < 1 or width % spec.multiple or height % spec.multiple:
        nearest = "x".join(str(max(1, round(side / spec.multiple)) * spec.multiple) for side in (width, height))
        msg = f"{model.path} takes sides that are multiples of {spec.multiple}: not {width}x{height}, but {nearest}"
        raise UnusableError(msg)
    return width, height


def parse_size(text: str) -> Size:
    """Read WIDTHxHEIGHT, as in 320x192. Raises `UnusableError`."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if match is None:
        msg = f"an input size is WIDTHxHEIGHT, as in 320x192, not {text!r}"
        raise UnusableError(msg)
    return int(match[1]), int(match[2])


def guess_input(model: ModelFile) -> InputSpec:
    """Return layout and size of a model without a card, as its graph has them; colours are the head's to say."""
    shape = model.image.shape
    layout: Literal["nchw", "nhwc"] = "nhwc" if shape[3] == 3 and shape[1] != 3 else "nchw"
    fixed = _fixed_size(model.image, layout)
    stated = _stated_size(model.graph.metadata)
    width, height = (fixed[i] or (stated[i] if stated else _DEFAULT_SIDE) for i in range(2))
    whole = width % _DEFAULT_MULTIPLE == 0 and height % _DEFAULT_MULTIPLE == 0
    return InputSpec(width=width, height=height, layout=layout, multiple=_DEFAULT_MULTIPLE if whole else 1)


def make_card(model: ModelFile, *, head: Head, guessed: InputSpec, class_count: int | None) -> ModelCard:
    """Write the card of a model that has none. Raises `UnusableError` when nothing tells its labels."""
    labels = _stated_labels(model.graph.metadata)
    if labels is None and class_count is None:
        msg = f'{model.path}: nothing tells how many classes there are; write their "labels" in a {CARD_NAME} beside it'
        raise UnusableError(msg)
    spec = msgspec.structs.replace(
        head.INPUT, width=guessed.width, height=guessed.height, layout=guessed.layout, multiple=guessed.multiple
    )
    name = plain_text(model.path.stem, most=50) or "model"
    return ModelCard(
        name=name,
        release=f"{name}-{model.sha256[:8]}",
        file=model.path.name,
        sha256=model.sha256,
        head=head.NAME,
        input=spec,
        labels=labels or tuple(f"class_{i}" for i in range(class_count or 0)),
        score_threshold=_MADE_SCORE_THRESHOLD,
        license=model.graph.metadata.get("license", ""),
    )


def _onnx_file(model: Path) -> Path:
    """Return the ONNX file that a path means."""
    if not model.exists():
        msg = f"there is no model {model}"
        raise UnusableError(msg)
    if not model.is_dir():
        return model
    card = model / CARD_NAME
    if card.is_file():
        file = read_card(card).file
        if Path(file).name != file:
            msg = f"{card} names the file {file!r}; it must stand beside the card"
            raise UnusableError(msg)
        return model / file
    found = sorted(model.glob("*.onnx"))
    if len(found) != 1:
        msg = f"the folder {model} holds no {CARD_NAME} and {len(found)} ONNX files; name the file"
        raise UnusableError(msg)
    return found[0]


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            msg = f"the model {path} is no file"
            raise UnusableError(msg)
        return path.read_bytes()
    except OSError as error:
        msg = f"cannot read the model {path}: {error.strerror}"
        raise UnusableError(msg) from error


def _read_variant(path: Path, name: str) -> ModelFile:
    """Read a variant of the card that names the file at `path`."""
    beside = path.parent / CARD_NAME
    card = read_card(beside) if beside.is_file() else None
    if card is None or card.file != path.name:
        msg = f"{path} has no {CARD_NAME} beside it that could list a variant {name!r}"
        raise UnusableError(msg)
    variant = find_variant(card, name)
    if Path(variant.file).name != variant.file:
        msg = f"{beside} names the file {variant.file!r} for the variant {name}; it must stand beside the card"
        raise UnusableError(msg)
    file = path.parent / variant.file
    content = _content(file)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != variant.sha256:
        hashes = f"its sha256 is {sha256[:12]}..., not {variant.sha256[:12]}..."
        msg = f"{file} is not the variant {name} that {beside} describes: {hashes}"
        raise UnusableError(msg)
    if variant.input:
        width, height = parse_size(variant.input)
        card = msgspec.structs.replace(card, input=msgspec.structs.replace(card.input, width=width, height=height))
    graph = read_graph(file, content)
    image = _image_input(file, graph)
    return ModelFile(file, sha256, graph, image, card, name, variant.precision, variant.runtimes)


def _card_beside(path: Path, sha256: str) -> ModelCard | None:
    """Read the card in the file's folder when it is this file's."""
    beside = path.parent / CARD_NAME
    if not beside.is_file():
        return None
    card = read_card(beside)
    if card.file != path.name:
        return None
    if card.sha256 != sha256:
        msg = (
            f"{path} is not the file that {beside} describes: its sha256 is {sha256[:12]}..., not {card.sha256[:12]}..."
        )
        raise UnusableError(msg)
    return card


def _image_input(path: Path, graph: Graph) -> Port:
    """Return the only four-dimensional input."""
    images = [port for port in graph.inputs if len(port.shape) == 4]
    if len(images) != 1:
        seen = ", ".join(f"{port.name} {list(port.shape)}" for port in graph.inputs)
        msg = f"{path} needs one image input [1, 3, height, width]; its inputs are {seen}"
        raise UnusableError(msg)
    image = images[0]
    if image.shape[0] not in {1, None} or 3 not in {image.shape[1] or 3, image.shape[3]}:
        msg = f"{path} needs an image input [1, 3, height, width]; {image.name} is {list(image.shape)}"
        raise UnusableError(msg)
    if image.element not in {"float32", "float16"}:
        msg = f"{path} takes {image.element} images; export it with a float32 or float16 input"
        raise UnusableError(msg)
    return image


def _fixed_size(image: Port, layout: str) -> tuple[int | None, int | None]:
    """Return width and height where the graph fixes them."""
    _, first, second, third = image.shape
    return (third, second) if layout == "nchw" else (second, first)


def _stated_size(metadata: dict[str, str]) -> Size | None:
    """Return the (width, height) that Ultralytics writes as `imgsz`, `[height, width]`."""
    match = re.fullmatch(r"[\[(]\s*(\d+)\s*,\s*(\d+)\s*[\])]", metadata.get("imgsz", ""))
    return (int(match[2]), int(match[1])) if match else None


def _stated_labels(metadata: dict[str, str]) -> tuple[str, ...] | None:
    """Return the labels that Ultralytics writes as `names`, a Python dictionary by class."""
    try:
        names = ast.literal_eval(metadata.get("names", ""))
    except (ValueError, SyntaxError):
        return None
    if not isinstance(names, dict) or sorted(names) != list(range(len(names))):
        return None
    return tuple(plain_text(str(names[i])) or f"class_{i}" for i in range(len(names)))
