"""What was measured: what `quantization.json` holds."""

from pathlib import Path
from typing import Final, Literal

import msgspec

from edge.contract.card import Precision
from edge.contract.errors import UnusableError

REPORT: Final = "quantization.json"
SCHEMA: Final = 1
Runtime = Literal["openvino", "onnxruntime"]


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """One figure before and after.

    Attributes:
        group: "all", or a size as hub.evaluation names it.
        measure: AP50, or recall at the working threshold.
        objects: true boxes.
        before, after: of float32 and of this one, 0..1.
        judged: whether there are enough objects for a budget in points.
        least: what was lost at the least, in points, by the 95 % interval over the same pictures; None where it was not
            asked or cannot be told.
    """

    group: str
    measure: Literal["ap50", "recall"]
    objects: int
    before: float
    after: float
    judged: bool
    least: float | None = None

    @property
    def points(self) -> float:
        """What was lost, in points of 100; negative where it gained."""
        return (self.before - self.after) * 100

    def misses(self, budget: float) -> bool:
        """Whether more than the budget was lost: by enough objects, or by few beyond all chance."""
        return (self.judged and self.points > budget) or (self.least is not None and self.least > budget)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One look at pictures.

    Attributes:
        of: which pictures.
        truth: people's and machines' labels, or the float32 model's own boxes where there are too few labels.
        images: how many.
    """

    of: str
    truth: Literal["labels", "float32"]
    images: int
    losses: tuple[Loss, ...]

    @property
    def worst(self) -> float:
        """The most points that a judged figure lost."""
        return max((loss.points for loss in self.losses if loss.judged), default=0.0)

    def missed(self, budget: float) -> Loss | None:
        """Return the figure that lost the most of those that miss the budget; None where all keep it."""
        return max((one for one in self.losses if one.misses(budget)), key=lambda one: one.points, default=None)

    def find(self, group: str, measure: str) -> Loss | None:
        """Return one figure."""
        return next((one for one in self.losses if (one.group, one.measure) == (group, measure)), None)


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One way of running the model.

    Attributes:
        name: of the variant.
        method: what made the file; "" for the card's own.
        file, sha256: of the variant's file; "" when it was not kept.
        layers: how many were in 8 bits at first.
        float_layers: those that were put back to float, the worst first.
        aware: whether its weights were fine-tuned for 8 bits.
        chosen: on what the layers were chosen; None where nothing had to be chosen.
        verdict: on what it was judged; None where it was given up before.
        parity: why the golden set speaks against it; "" when nothing does.
        ms, float_ms: of a whole detection, lower quartiles, taken in turn; the latter is of float32.
        fast: whether it is faster than float32 by what is asked.
        kept: whether it is within the budget, on every set that was looked at.
        released: whether the card lists it.
        why: of that, one sentence.
    """

    name: str
    runtime: Runtime
    precision: Precision
    method: str = ""
    file: str = ""
    sha256: str = ""
    layers: int = 0
    float_layers: tuple[str, ...] = ()
    aware: bool = False
    chosen: Judged | None = None
    verdict: Judged | None = None
    parity: str = ""
    ms: float = 0.0
    float_ms: float = 0.0
    fast: bool = False
    kept: bool = False
    released: bool = False
    why: str = ""

    @property
    def ratio(self) -> float:
        """Time over that of float32."""
        return self.ms / self.float_ms if self.float_ms else 0.0


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured.

    Attributes:
        model_sha256: of the float32 file.
        dataset: the digest of the dataset version.
        input: WIDTHxHEIGHT.
        budget: points of 100 that may be lost.
        calibrated: how many pictures gave the ranges.
        cpu: its name, and which 8-bit and 16-bit instructions it has.
        versions: of vendors.
        tried: every way, in the order in which it was tried.
    """

    schema: int = SCHEMA
    release: str
    model_sha256: str
    dataset: str
    input: str
    score_threshold: float
    budget: float
    calibrated: int
    cpu: str
    threads: int
    versions: dict[str, str]
    tried: tuple[Tried, ...]

    @property
    def released(self) -> tuple[Tried, ...]:
        """Return what the card lists."""
        return tuple(one for one in self.tried if one.released)


def read_quantization(folder: Path) -> Quantization:
    """Read what was measured of a model folder. Raises `UnusableError`."""
    path = folder / REPORT
    try:
        return msgspec.json.decode(path.read_bytes(), type=Quantization)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not valid: {error}"
        raise UnusableError(msg) from error
