"""A repository in one tar, for a site without a network: all that devices need, and nothing else."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from edge.contract.errors import UnusableError
from edge.detector.written import flush_folder
from hub.repository import METADATA, read_repository, require_targets, target_path, writing


def bundle(folder: Path, out: Path, *, on_bytes: Callable[[int, int], None] = lambda *_: None) -> int:
    """Write all that devices need into a tar, in the order in which it may be copied; return the bytes.

    Unpacked over an older copy it leaves, whenever that stops, a repository that a client accepts, unless keys were
    replaced between the two: then it is to be unpacked again. The tar is whole or not there.

    Raises `UnusableError` when the repository is not whole or the tar cannot be written.
    """
    with writing(folder):
        repository = read_repository(folder)
        require_targets(repository)
        signed = repository.published.signed.targets
        roots = range(1, repository.root.signed.version + 1)
        names = [
            f"{repository.published.signed.version}.targets.json",
            f"{repository.snapshot.signed.version}.snapshot.json",
            *(f"{version}.root.json" for version in roots if (folder / METADATA / f"{version}.root.json").exists()),
            "root.json",
            "timestamp.json",
        ]
        paths = [target_path(folder, name, one.hashes["sha256"]) for name, one in sorted(signed.items())]
        paths += [folder / METADATA / name for name in names]
        total, done = sum(path.stat().st_size for path in paths), 0
        part = out.with_name(f".{out.name}.part")
        try:
            with part.open("wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                    for path in paths:
                        member = tarfile.TarInfo(path.relative_to(folder).as_posix())
                        member.size = path.stat().st_size
                        with path.open("rb") as content:
                            tar.addfile(member, content)
                        done += member.size
                        on_bytes(done, total)
                file.flush()
                os.fsync(file.fileno())
            part.replace(out)
            flush_folder(out.absolute().parent)
        except OSError as error:
            part.unlink(missing_ok=True)
            msg = f"cannot write {out}: {error.strerror}"
            raise UnusableError(msg) from error
        return out.stat().st_size
