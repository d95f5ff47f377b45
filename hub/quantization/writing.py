"""A quantized release on disk: variant files, `quantization.json`, golden set, card.

Laws:

1. Files first, card last: whatever the card names is there before it, and what it no longer names goes after it.
2. Variants of another input size stay; those of this one are replaced.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge.contract.card import Variant, read_card
from edge.contract.errors import UnusableError
from edge.detector.golden import read_golden, write_golden
from edge.detector.opening import CARD_NAME, parse_size
from edge.detector.written import write_card, write_whole
from hub.quantization.report import REPORT, Quantization, Tried


def write_release(
    folder: Path, report: Quantization, *, contents: Mapping[str, bytes], golden: Mapping[str, bytes]
) -> None:
    """Write what is released, and what was measured; `contents` are the files, `golden` the JPEGs for a golden set.

    Raises `UnusableError` when the folder cannot be written or is another model by now; its card is as it was then.
    """
    if read_card(folder / CARD_NAME).sha256 != report.model_sha256:
        msg = f"{folder} holds another model than the one that was quantized: run it again"
        raise UnusableError(msg)
    known = read_golden(folder)
    if known is None or report.input not in known.golden.inputs:
        sizes = () if known is None else known.golden.inputs
        write_golden(folder, golden, sizes=[*map(parse_size, sizes), parse_size(report.input)])
    card = read_card(folder / CARD_NAME)
    here, own = report.input, f"{card.input.width}x{card.input.height}"
    before = card.variants
    others = tuple(one for one in before if (one.input or own) != here)
    listed = tuple(_variant(one, input_size="" if here == own else here) for one in report.released)
    for name, content in contents.items():
        write_whole(folder / name, content)
    write_whole(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=1))
    write_card(folder / CARD_NAME, msgspec.structs.replace(card, variants=(*others, *listed)))
    kept = {card.file, *(one.file for one in (*others, *listed))}
    for one in before:
        if one.file not in kept and Path(one.file).name == one.file:
            with contextlib.suppress(OSError):
                (folder / one.file).unlink()


def _variant(tried: Tried, *, input_size: str) -> Variant:
    return Variant(
        name=tried.name,
        file=tried.file,
        sha256=tried.sha256,
        precision=tried.precision,
        runtimes=(tried.runtime,),
        input=input_size,
    )
