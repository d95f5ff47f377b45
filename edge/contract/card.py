"""The model card (`model.json` beside the ONNX file): what the file cannot say of itself."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import SCHEMA, Label, Pixels, Score

HeadName = Literal["centernet", "yolox", "yolo", "detr"]
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


class ModelCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model line's release. `head` is None when it should be recognised from the outputs."""

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
