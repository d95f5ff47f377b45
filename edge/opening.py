"""What a device opens by its configuration: the detector and the spool. And its own version."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from edge.config import EdgeConfig
from edge.contract.card import read_card
from edge.contract.samples import plain_text
from edge.detector.detector import Detector
from edge.detector.following import open_tuned
from edge.detector.opening import CARD_NAME, find_starter
from edge.detector.tuned import TUNED_NAME
from edge.slots import active_model, models_folder
from edge.spool import Spool


def open_configured(config: EdgeConfig, *, cached: bool = True) -> Detector:
    """Open the model that is to serve: the active release, else that of `[model]`. See `open_slot`."""
    return open_slot(config, active_release(config), cached=cached)


def open_slot(config: EdgeConfig, release: Path | None, *, cached: bool = True) -> Detector:
    """Open a release's folder, None for the model of `[model]`, as `edge tune` chose, where it did.

    What else `[model]` says holds for either. `cached` may write compiled graphs to disk. Raises `UnusableError`.
    """
    model = config.model
    chosen = tuned_path(config, release)
    return open_tuned(
        model.path if release is None else release,
        runtime=model.runtime,
        input_size=model.input_size,
        threads=model.threads,
        providers=model.providers,
        cache_dir=cache_path(config, release) if cached else None,
        tuned=chosen if chosen.is_file() else None,
    )


def active_release(config: EdgeConfig) -> Path | None:
    """Return the folder of the release that is to serve; None is the model of `[model]`. Raises `UnusableError`."""
    folder = models_folder(config.data_dir)
    return active_model(folder, factory_line(config)) if folder.is_dir() else None


def factory_line(config: EdgeConfig) -> str:
    """Return the line of the model of `[model]`: its card's name, or its file's. Raises `UnusableError` without one."""
    path = config.model.path or find_starter()
    beside = (path if path.is_dir() else path.parent) / CARD_NAME
    if beside.is_file():
        card = read_card(beside)
        if path.is_dir() or card.file == path.name:
            return card.name
    file = next(iter(sorted(path.glob("*.onnx"))), path) if path.is_dir() else path
    return plain_text(file.stem, most=50) or "model"


def tuned_path(config: EdgeConfig, release: Path | None = None) -> Path:
    """Return where the device keeps what `edge tune --config` chose for a release, None for the model of `[model]`."""
    return (config.data_dir if release is None else release) / TUNED_NAME


def cache_path(config: EdgeConfig, release: Path | None = None) -> Path:
    """Return where compiled graphs of a release are kept, None for the model of `[model]`. They go with the release."""
    return (config.data_dir if release is None else release) / "model-cache"


def open_spool(config: EdgeConfig) -> Spool:
    """Open the spool of the data folder. Raises `UnusableError`."""
    return Spool(
        spool_path(config),
        limit_bytes=int(config.spool.limit_mb * 1e6),
        reserve_bytes=int(config.spool.reserve_mb * 1e6),
    )


def spool_path(config: EdgeConfig) -> Path:
    """Return where the spool stands."""
    return config.data_dir / "spool.db"


def version() -> str:
    """Return the installed version of weakspot, `0` where it runs without being installed."""
    try:
        return installed_version("weakspot")
    except PackageNotFoundError:
        return "0"
