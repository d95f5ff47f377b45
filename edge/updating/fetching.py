"""Signed releases of a repository, fetched and verified: the one door through which bytes of a release come in.

Owns, below a folder of its own choosing: `tuf/` (metadata that was accepted, and the time floor) and `downloads/`. What
is verified here is who signed the bytes; whether the release may be taken is decided by edge.contract.release and
edge.slot_state.

Laws:

1. Nothing is handed out whose every byte the keys of the given root did not sign: edge.updating.trust, .download.
2. Time is judged by edge.updating.time_floor, not by the clock alone.
3. A failure changes nothing that serves: whatever is wrong here, the model that runs goes on running.
4. The extra `ota` is needed only where a `Fetcher` is made.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge.config import UpdatesConfig
from edge.contract.errors import UnusableError
from edge.contract.release import MOST_BYTES, MOST_FILES, SignedRelease, from_custom, target_name
from edge.updating.time_floor import ExpiredError, TimeFloor

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

    from edge.updating.trust import Trusted

_DOWNLOADS: Final = "downloads"
_MOST_ARCHIVE_BYTES: Final = MOST_BYTES + MOST_FILES * 1024 + 10240


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """A release that a repository has.

    Attributes:
        signed: what is signed of it.
        archive_bytes: to be fetched for it.
    """

    signed: SignedRelease
    archive_bytes: int


def open_fetcher(folder: Path, updates: UpdatesConfig | None) -> "Fetcher":
    """Return what fetches for a device, by its configuration. Raises `UnusableError`."""
    if updates is None:
        msg = "edge.toml has no [updates] any more"
        raise UnusableError(msg)
    try:
        root = updates.root.read_bytes()
    except OSError as error:
        msg = f"cannot read the trusted root {updates.root}: {error.strerror}"
        raise UnusableError(msg) from error
    return Fetcher(folder, updates.url, root)


def clear_downloads(folder: Path) -> None:
    """Remove what a `Fetcher` of this folder has fetched, whole or not: no release is under way any more.

    Raises `UnusableError`.
    """
    if (folder / _DOWNLOADS).is_dir():
        _keep_only(folder / _DOWNLOADS, "")


class Fetcher:
    """Fetches releases of one repository. For one thread, and one process a folder.

    Args:
        folder: where `tuf/` and `downloads/` are kept.
        url: of the repository, see `UpdatesConfig`.
        root: bytes of the `root.json` that this device trusts.
        clock: seconds since 1970, as the device believes.

    Raises:
        UnusableError: the extra `ota` is not installed.
    """

    def __init__(self, folder: Path, url: str, root: bytes, *, clock: Callable[[], float] = time.time) -> None:
        try:
            from edge.updating import download, transport, trust
        except ModuleNotFoundError as error:
            msg = f'updates need {(error.name or "tuf").partition(".")[0]}: pip install "weakspot[ota]"'
            raise UnusableError(msg) from error
        self._trust, self._download, self._transport = trust.Trusted, download.download, transport.Transport()
        self._metadata, self._downloads = folder / "tuf", folder / _DOWNLOADS
        self._url, self._root, self._clock = url.rstrip("/"), root, clock
        self._floor: TimeFloor | None = None
        self._trusted: Trusted | None = None

    def refresh(self) -> None:
        """Learn what the repository has signed by now.

        Raises:
            ExpiredError: (an `UnusableError`) what is signed has run out, or the clock is wrong; ask again later.
            UnusableError: forged, altered, older than what was seen before, or the disk does not take it.
            UnreachableError: it does not answer; ask again later.
        """
        self._trusted = None
        self._trusted = self._refreshed()

    def release(self, target: str) -> Offered:
        """Return what is signed of a release by its target's name. Refreshes if that was not done. Raises as that."""
        return self._offered(target)[0]

    def fetch(
        self,
        target: str,
        *,
        require_room: Callable[[int], None] = lambda _: None,
        on_bytes: Callable[[int, int], None] = lambda _, __: None,
    ) -> Path:
        """Return the archive of a release, verified, in `downloads/`. One that was begun is gone on with.

        Other archives in `downloads/` are removed first. Between refreshes nothing signed is read anew.

        Args:
            target: its name, as for `release`.
            require_room: given the bytes that are still to come; raises when the disk has no room for them.
            on_bytes: given the bytes that are here and those of the whole, after each piece of at most 64 KB; what it
                raises ends the download, which is gone on with at the next call.

        Raises:
            UnusableError, UnreachableError: as for `refresh`.
        """
        offered, signed_file, trusted = self._offered(target)
        name = f"{offered.signed.number:06d}-{signed_file.hashes['sha256'][:16]}.tar"
        _keep_only(self._downloads, name)
        return self._download(
            self._transport,
            f"{self._url}/targets/{trusted.target_path(signed_file)}",
            signed_file,
            into=self._downloads / name,
            require_room=require_room,
            on_bytes=on_bytes,
        )

    def clear(self) -> None:
        """Remove what was fetched: it was staged, or is not wanted any more. Raises `UnusableError`."""
        _keep_only(self._downloads, "")

    def _refreshed(self) -> "Trusted":
        if self._floor is None:
            self._floor = TimeFloor(self._metadata / "newest-time", clock=self._clock)
        now_s = self._floor.now_s()
        try:
            trusted = self._trust(
                self._metadata, f"{self._url}/metadata", root=self._root, transport=self._transport, at_s=now_s
            )
        except ExpiredError as error:
            behind = "its clock is behind, " if self._floor.clock_is_behind() else ""
            msg = f"{error}: {behind}is this device's clock right, and was `hub repository refresh` run?"
            raise ExpiredError(msg) from error
        self._floor.accept(now_s)
        return trusted

    def _offered(self, target: str) -> "tuple[Offered, TargetFile, Trusted]":
        if self._trusted is None:
            self.refresh()
        assert self._trusted is not None
        found = self._trusted.target(target)
        if found is None:
            msg = f"no release {target!r} is signed at {self._url}"
            raise UnusableError(msg)
        signed = from_custom(found.custom)
        if target != target_name(signed.model, signed.number):
            msg = f"{target!r} is signed as {signed.model} {signed.number}: not the release that was asked for"
            raise UnusableError(msg)
        if found.length > _MOST_ARCHIVE_BYTES or "sha256" not in found.hashes:
            msg = f"{target!r} is signed without a sha256, or larger than {MOST_BYTES} bytes"
            raise UnusableError(msg)
        return Offered(signed=signed, archive_bytes=found.length), found, self._trusted


def _keep_only(downloads: Path, name: str) -> None:
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        for path in downloads.iterdir():
            if path.name not in {name, f"{name}.part"}:
                path.unlink()
    except OSError as error:
        msg = f"cannot clear {downloads}: {error.strerror}"
        raise UnusableError(msg) from error
