"""What a gate said of a model folder, read for a release. hub.gate judges and writes it.

Law: it counts only for what it judged: the file of the model and of each variant, by their sha256, and the input and
the threshold at which it ran them.
"""

from pathlib import Path
from typing import Final

import msgspec

from edge.contract.card import ModelCard
from edge.contract.errors import UnusableError

GATE: Final = "gate.json"


class Gated(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a `gate.json`."""

    class Check(msgspec.Struct, frozen=True):
        """One check of the gate."""

        name: str
        outcome: str

    class Compared(msgspec.Struct, frozen=True):
        """How the candidate was run."""

        input: str
        score_threshold: float

    sha256: str
    variants: dict[str, str]
    baseline: str
    passed: bool
    checks: tuple[Check, ...]
    comparison: Compared


def require_gate(folder: Path, card: ModelCard) -> str:
    """Return what the gate held a model folder against. Raises `UnusableError` unless a gate passed what it holds."""
    path = folder / GATE
    without = '; `hub gate` judges it, --ungated "why" releases it without'
    try:
        gated = msgspec.json.decode(path.read_bytes(), type=Gated)
    except FileNotFoundError:
        msg = f"{folder} has no {GATE}: no gate has judged it{without}"
        raise UnusableError(msg) from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"cannot read {path}: {error}{without}"
        raise UnusableError(msg) from error
    passed = {check.name for check in gated.checks if check.outcome == "pass"}
    unjudged = [one.name for one in card.variants if f"variant {one.name}" not in passed]
    other = [one.name for one in card.variants if gated.variants.get(one.name) != one.sha256]
    run_at = (gated.comparison.input, gated.comparison.score_threshold)
    fault = ""
    if gated.sha256 != card.sha256:
        fault = f"{path} is of another file than {card.file}"
    elif not gated.passed:
        fault = f"{card.release} did not pass the gate against {gated.baseline}"
    elif unjudged:
        fault = f"the gate has not passed the variants {', '.join(unjudged)}"
    elif other:
        fault = f"{path} is of other files than those of the variants {', '.join(other)}"
    elif run_at != (f"{card.input.width}x{card.input.height}", card.score_threshold):
        fault = f"model.json was changed after the gate, which ran {run_at[0]} with the threshold {run_at[1]:g}"
    if fault:
        msg = f"{fault}{without}"
        raise UnusableError(msg)
    return gated.baseline
