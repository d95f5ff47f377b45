"""The model card (`model.json` beside the ONNX file): what the file cannot say of itself."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import SCHEMA, Label, Pixels, Score

HeadName = Literal["centernet", "yolox", "yolo", "detr"]
Precision = Literal["f32", "bf16", "f16", "int8"]
Spread = Annotated[float, msgspec.Meta(gt=0)]


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a frame becomes the input tensor. `mean` and `std` are in the units of 0..255, in the order of `color`.

    `letterbox` says where the scaled frame lies among `pad_value`; "stretch" fills the input and gives up the ratio of
    the sides.
    """

    width: Pixels
    height: Pixels
    layout: Literal["nchw", "nhwc"] = "nchw"
    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[Spread, Spread, Spread] = (1.0, 1.0, 1.0)
    multiple: Annotated[int, msgspec.Meta(ge=1)] = 32
    pad_value: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    letterbox: Literal["top_left", "center", "stretch"] = "top_left"


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """One measured accuracy; `input` is WIDTHxHEIGHT, `label` is "all" for the mean over labels."""

    dataset: str
    input: str
    label: str
    ap: float
    ap50: float


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way of running the release: a file of its own, or the card's file at another precision.

    Attributes:
        name: what it is called, as in "int8".
        file: beside the card; it may be the card's own.
        sha256: of the file.
        precision: of the numbers that are multiplied. `bf16` and `f16` of a float32 file are the runtime's to do.
        runtimes: those on which it was measured and is as good as the budget asks.
        input: WIDTHxHEIGHT; "" is the card's.
    """

    name: Label
    file: str
    sha256: str
    precision: Precision
    runtimes: tuple[Literal["openvino", "onnxruntime"], ...]
    input: str = ""


class ModelCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model line's release.

    Attributes:
        file: the ONNX file in float32, beside the card.
        head: None when it should be recognised from the outputs.
        variants: other ways of running it; a device measures which is the fastest that gives the same boxes.
        golden: the folder, beside the card, of pictures with the boxes that every variant must give; "" has none.
    """

    schema: int = SCHEMA
    name: Label
    release: Label
    file: str
    sha256: str
    head: HeadName | None
    input: InputSpec
    labels: tuple[Label, ...]
    score_threshold: Score
    license: str = ""
    source: str = ""
    accuracy: tuple[Accuracy, ...] = ()
    variants: tuple[Variant, ...] = ()
    golden: str = ""


class _Peek(msgspec.Struct):
    schema: int = SCHEMA


def read_card(path: Path) -> ModelCard:
    """Read a `model.json`. Raises `UnusableError` with the field that is wrong."""
    try:
        content = path.read_bytes()
        schema = msgspec.json.decode(content, type=_Peek).schema
        if schema != SCHEMA:
            msg = f"the model card {path} has the schema {schema}, this side reads {SCHEMA}"
            raise UnusableError(msg)
        return msgspec.json.decode(content, type=ModelCard)
    except OSError as error:
        msg = f"cannot read the model card {path}: {error.strerror}"
        raise UnusableError(msg) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the model card {path} is not valid: {error}"
        raise UnusableError(msg) from error
