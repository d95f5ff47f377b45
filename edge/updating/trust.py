"""What a repository has signed, by The Update Framework (tuf). Here stands what tuf leaves open.

Laws:

1. Trust begins at the root that this device was given, every time. The cache saves the way from there, no more.
2. Metadata that was accepted is on the disk before it is used (fsync, rename, fsync of the folder), so that a power
   cut does not make the device forget what it has seen and take an older state.
3. Metadata is read into memory, never into the system's temporary folder, and never more of it than tuf allows.
4. Every failure is one sentence: `ExpiredError` (what is signed has run out, or the clock is wrong: ask again later),
   another `UnusableError` (it is not what was signed), `UnreachableError` (it does not answer: ask again later).
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge.contract.errors import UnreachableError, UnusableError
from edge.detector.written import write_whole
from edge.updating.time_floor import ExpiredError
from edge.updating.transport import AnswerError, Transport

_CONFIG: Final = UpdaterConfig()
logging.getLogger("tuf").setLevel(logging.WARNING)  # at INFO it tells of every key that signed a root or did not


class Trusted:
    """The signed state of a repository, from one refresh on.

    Args:
        folder: of the cached metadata; made when it is not there.
        metadata_url: the folder that holds `timestamp.json`.
        root: bytes of the `root.json` that is trusted from the start.
        transport: opens the URLs.
        at_s: when expiry is judged at, seconds since 1970.

    Raises:
        ExpiredError: see the laws, as for all below.
        UnusableError: it is not signed as it must be, or it cannot be kept.
        UnreachableError: it does not answer.
    """

    def __init__(self, folder: Path, metadata_url: str, *, root: bytes, transport: Transport, at_s: float) -> None:
        self._url, self._at = metadata_url, datetime.fromtimestamp(at_s, UTC)
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)
            for unfinished in folder.rglob("*.part"):
                unfinished.unlink()
            self._updater = _DurableUpdater(
                str(folder), metadata_url, fetcher=_InMemory(transport), config=_CONFIG, bootstrap=root
            )
            self._updater._trusted_set.reference_time = self._at  # noqa: SLF001 - tuf has no other door for the time
            self._updater.refresh()

    def target(self, name: str) -> TargetFile | None:
        """Return what is signed of a target, None where there is none of this name. Raises as the construction does."""
        with self._told():
            return self._updater.get_targetinfo(name)

    def target_path(self, target: TargetFile) -> str:
        """Return where a target lies below the folder of targets: with its hash in the name, if the root says so."""
        folder, slash, name = target.path.rpartition("/")
        consistent = self._updater._trusted_set.root.consistent_snapshot  # noqa: SLF001 - as above
        return f"{folder}{slash}{next(iter(target.hashes.values()))}.{name}" if consistent else target.path

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except exceptions.ExpiredMetadataError as error:
            msg = f"{error} (it is {self._at:%Y-%m-%d %H:%M} UTC here) at {self._url}"
            raise ExpiredError(msg) from error
        except exceptions.DownloadLengthMismatchError as error:
            msg = f"more is sent than is signed: {error} at {self._url}"
            raise UnusableError(msg) from error
        except exceptions.DownloadError as error:
            raise UnreachableError(str(error)) from error
        except (exceptions.RepositoryError, ValueError, KeyError) as error:
            msg = f"not signed as it must be: {error} at {self._url}"
            raise UnusableError(msg) from error
        except OSError as error:
            msg = f"cannot keep the metadata of {self._url}: {error.strerror}"
            raise UnusableError(msg) from error


class _InMemory(FetcherInterface):
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with self._transport.open(url) as opened:
                yield from opened.chunks
        except AnswerError as error:
            raise exceptions.DownloadHTTPError(str(error), error.status) from error

    @contextlib.contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        content = io.BytesIO()
        for chunk in self.fetch(url):
            content.write(chunk)
            if content.tell() > max_length:
                msg = f"over {max_length} bytes of {url.rpartition('/')[2]}"
                raise exceptions.DownloadLengthMismatchError(msg)
        content.seek(0)
        yield content


class _DurableUpdater(Updater):
    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        with contextlib.suppress(OSError):
            if path.read_bytes() == data:
                return
        write_whole(path, data)
