"""A model opens as its `tuned.json` says, where that holds.

For devices only: what a hub evaluates is what was named, so `open_detector` follows nothing. The laws stand in
edge.detector.tuned.
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from edge.contract.errors import UnusableError
from edge.detector.detector import Detector, open_detector
from edge.detector.letterbox import Size
from edge.detector.opening import choose_size, guess_input, read_model
from edge.detector.tuned import TUNED_NAME, read_tuned, why_not

_LOG = logging.getLogger(__name__)


def open_tuned(
    model: Path | None = None,
    *,
    runtime: str = "auto",
    input_size: Size | None = None,
    threads: int | None = None,
    providers: Sequence[str] = (),
    cache_dir: Path | None = None,
    tuned: Path | None = None,
) -> Detector:
    """Open a model as `edge tune` chose, or as `open_detector` does, whose arguments and errors these are.

    `tuned` is where the `tuned.json` stands, None is beside the model. It is not read where a runtime, threads or
    providers are named: they win.
    """
    if (runtime, threads, tuple(providers)) == ("auto", None, ()):
        followed = _follow(tuned, model, input_size=input_size, cache_dir=cache_dir)
        if followed is not None:
            return followed
    return open_detector(
        model, runtime=runtime, input_size=input_size, threads=threads, providers=providers, cache_dir=cache_dir
    )


def _follow(
    path: Path | None, model: Path | None, *, input_size: Size | None, cache_dir: Path | None
) -> Detector | None:
    """Return the detector that `tuned.json` asks for; None where there is none or it does not hold, which is told."""
    found = read_model(model)
    path = found.path.parent / TUNED_NAME if path is None else path
    size = choose_size(found, input_size, guess_input(found))
    try:
        tuned = read_tuned(path)
        if tuned is None:
            return None
        reason = why_not(tuned, model=found, size=size)
        if not reason:
            choice = tuned.choice
            detector = open_detector(
                found.path,
                variant=choice.variant,
                runtime=choice.runtime,
                precision=choice.precision,
                threads=choice.threads,
                input_size=size,
                cache_dir=cache_dir,
            )
            if detector.runtime.version == tuned.runtime_version:
                return detector
            reason = f"it was measured with {choice.runtime} {tuned.runtime_version}, not {detector.runtime.version}"
    except UnusableError as error:
        reason = str(error)
    _warn_once(f"{path} is not followed: {reason}; `edge tune` measures anew")
    return None


@functools.cache
def _warn_once(message: str) -> None:
    """Log a warning; the same one is not repeated in this process."""
    _LOG.warning("%s", message)
