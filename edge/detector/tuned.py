"""`tuned.json`: the way of running a model that was measured to be the fastest good one, on this machine.

Laws:

1. It is followed only by the model, input size, machine and version of the runtime that it was measured with.
2. It decides only what the caller left open.
3. One that is not followed is told once, and the model opens as it would without it.
"""

import hashlib
import os
import platform
import re
from pathlib import Path
from typing import Annotated, Final

import msgspec

from edge.contract.card import Precision
from edge.contract.errors import UnusableError
from edge.detector.letterbox import Size
from edge.detector.opening import CARD_NAME, ModelFile
from edge.detector.runtime import usable_cpus

TUNED_NAME: Final = "tuned.json"
SCHEMA: Final = 1
_CPU_INFO = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way of running a model.

    Attributes:
        variant: of its card; "" is the card's own file.
        threads: of one inference.
    """

    variant: str
    runtime: str
    precision: Precision
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)]

    def __str__(self) -> str:
        """Return it in words."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{self.variant or 'the float32 file'} on {self.runtime} in {self.precision}, {threads}"


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a measurement holds for: the processor's name, the usable cores, the architecture."""

    cpu: str
    cores: int
    architecture: str


class Tuned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `tuned.json` holds.

    Attributes:
        release: the model's, for people.
        card_sha256: of the `model.json`; "" where there was none.
        file_sha256: of the card's own file.
        golden: the digest of the golden set that the boxes were held against; "" where there was none.
        input: WIDTHxHEIGHT.
        runtime_version: of the chosen runtime.
        choice: what to run.
        median_ms: of the choice, a whole detection.
        default: what runs without this file.
        default_ms: of the default; None where it cannot be used here.
        at_ms: UTC milliseconds.
    """

    schema: int = SCHEMA
    release: str
    card_sha256: str
    file_sha256: str
    golden: str
    input: str
    machine: Machine
    runtime_version: str
    choice: Choice
    median_ms: float
    default: Choice
    default_ms: float | None
    at_ms: int


def read_tuned(path: Path) -> Tuned | None:
    """Return what a `tuned.json` says, None where there is none. Raises `UnusableError` when it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Tuned)
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is not valid: {error}"
        raise UnusableError(msg) from error


def why_not(tuned: Tuned, *, model: ModelFile, size: Size) -> str:
    """Return why a `tuned.json` does not hold for the card's own file `model` at `size` here; "" when it does."""
    here = this_machine()
    if tuned.schema != SCHEMA:
        return f"it has the schema {tuned.schema}, this side reads {SCHEMA}"
    if (tuned.file_sha256, tuned.card_sha256) != (model.sha256, card_sha256(model)):
        return f"it was measured with another model or card, of {tuned.release}"
    if tuned.input != f"{size[0]}x{size[1]}":
        return f"it was measured at {tuned.input}, not at {size[0]}x{size[1]}"
    if tuned.machine != here:
        return f"it was measured on {_words(tuned.machine)}, this is {_words(here)}"
    return ""


def card_sha256(model: ModelFile) -> str:
    """Return the sha256 of a model's `model.json`, "" where it has none."""
    if model.card is None:
        return ""
    return hashlib.sha256((model.path.parent / CARD_NAME).read_bytes()).hexdigest()


def this_machine() -> Machine:
    """Return what is known of the machine that this runs on."""
    return Machine(cpu=_cpu_name(), cores=usable_cpus(), architecture=platform.machine())


def _cpu_name() -> str:
    """Return the processor's name; on an ARM board the board's, whose processor has only numbers."""
    for path, pattern in ((_CPU_INFO, r"^model name\s*:\s*(.+)$"), (_BOARD, r"^([^\0]+)")):
        if path.is_file() and os.access(path, os.R_OK):
            found = re.search(pattern, path.read_text(errors="replace"), re.MULTILINE)
            if found is not None:
                return found[1].strip()
    return platform.processor() or platform.machine()


def _words(machine: Machine) -> str:
    return f"{machine.cpu} ({machine.architecture}), {machine.cores} cores"
