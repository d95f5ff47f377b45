"""What a device opens by its configuration: the detector and the spool. And its own version."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from edge.config import EdgeConfig
from edge.detector.detector import Detector
from edge.detector.following import open_tuned
from edge.detector.tuned import TUNED_NAME
from edge.spool import Spool


def open_configured(config: EdgeConfig, *, cached: bool = True) -> Detector:
    """Open the detector of `[model]` as `edge tune` chose, where it did; `cached` may write compiled graphs to disk.

    Raises `UnusableError`.
    """
    model = config.model
    chosen = tuned_path(config)
    return open_tuned(
        model.path,
        runtime=model.runtime,
        input_size=model.input_size,
        threads=model.threads,
        providers=model.providers,
        cache_dir=config.data_dir / "model-cache" if cached else None,
        tuned=chosen if chosen.is_file() else None,
    )


def tuned_path(config: EdgeConfig) -> Path:
    """Return where the device keeps what `edge tune --config` chose."""
    return config.data_dir / TUNED_NAME


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
