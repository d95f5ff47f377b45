"""The device's client as a command, for the public suite of The Update Framework (tuf-conformance).

    python -m edge.updating.conformance --metadata-dir DIR init ROOT
    python -m edge.updating.conformance --metadata-dir DIR --metadata-url URL refresh
    python -m edge.updating.conformance --metadata-dir DIR --metadata-url URL --target-name NAME
        --target-base-url URL --target-dir DIR download

`--target-name` may be given several times: all are fetched in this order after one refresh, up to the first that fails.
It ends with 0 when done and with 1 when anything failed. It is the client of a device but for two things that the suite
decides: the clock alone says what time it is (the suite sets it back to judge old recordings, which a time floor is
there to refuse), and any target may be fetched, not releases only.
"""

import argparse
import sys
import time
from pathlib import Path
from urllib.parse import quote

from edge.contract.errors import UnusableError, WeakspotError
from edge.detector.written import write_whole
from edge.updating.download import download
from edge.updating.transport import Transport
from edge.updating.trust import Trusted


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Return its exit status."""
    told = _parser().parse_args(arguments)
    try:
        if told.command == "init":
            write_whole(told.metadata_dir / "root.json", told.root.read_bytes())
        elif told.command == "refresh":
            _refresh(told)
        else:
            _download(told)
    except (WeakspotError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _refresh(told: argparse.Namespace) -> Trusted:
    return Trusted(
        told.metadata_dir,
        told.metadata_url,
        root=_first_root(told.metadata_dir),
        transport=Transport(),
        at_s=time.time(),
    )


def _first_root(folder: Path) -> bytes:
    """Return the root that `init` was given: the oldest one, once later ones stand beside it."""
    known = sorted((folder / "root_history").glob("*.root.json"), key=lambda path: int(path.name.split(".")[0]))
    return (known[0] if known else folder / "root.json").read_bytes()


def _download(told: argparse.Namespace) -> None:
    trusted = _refresh(told)
    for name in told.target_name:
        target = trusted.target(name)
        if target is None:
            msg = f"there is no target {name!r}"
            raise UnusableError(msg)
        download(
            Transport(),
            f"{told.target_base_url.rstrip('/')}/{trusted.target_path(target)}",
            target,
            into=told.target_dir / quote(name, ""),
            require_room=lambda _: None,
            on_bytes=lambda _, __: None,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge.updating.conformance", description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url", default="")
    parser.add_argument("--target-dir", type=Path, default=Path())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser


if __name__ == "__main__":
    sys.exit(main())
