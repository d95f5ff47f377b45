"""`hub keys`: what signs the releases. Exit status as in hub.cli."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge.contract.errors import UnusableError
from hub.cli_options import (
    Config,
    Json,
    KeyFolders,
    PassphraseFile,
    RepositoryFolder,
    find_keys,
    find_repository,
    passphrase_from,
)

keys = typer.Typer(
    no_args_is_help=True,
    help="The keys that sign releases: devices take nothing that these have not signed.\n\n"
    "Two of three root keys say which other keys count; the key of targets signs releases; both stay offline. The keys"
    " of snapshot and timestamp are online: they say what is newest, and cannot sign a release.",
)


@keys.command("init")
def keys_init(
    repository: RepositoryFolder = None,
    keys: KeyFolders = None,
    development: Annotated[
        bool, typer.Option("--development", help="Keys for trials, without a passphrase; marked as such everywhere.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Real keys in plain files: for a disk that is encrypted itself.")
    ] = False,
    config: Config = Path("hub.toml"),
) -> None:
    """Make the keys and an empty signed repository. Run once.

    Makes keys/offline (root-1, root-2, root-3, targets), with a passphrase,
    keys/online (snapshot, timestamp) without, and the repository, whose
    metadata/root.json each device is given. Keys are never overwritten; where
    they are there and the repository is not, it goes on with them.

    To try it: hub keys init --development
    """
    from hub.keys import make_keys, open_ring, read_keys, roles_of
    from hub.release_lines import made_lines
    from hub.repository import is_repository, make_repository

    folder, places = find_repository(config=config, repository=repository), find_keys(config=config, keys=keys)
    if is_repository(folder):
        msg = f"{folder} is a repository already; `hub keys list` shows its keys"
        raise UnusableError(msg)
    if len(places) != 1:
        msg = "name one folder for the new keys: --keys once"
        raise UnusableError(msg)
    _require_choice(development=development, no_passphrase=no_passphrase, file=passphrase_file)
    plain = development or no_passphrase
    ask = passphrase_from(passphrase_file)
    if not places[0].exists():
        secret = b"" if plain else passphrase_from(passphrase_file, again=True)("the offline keys")
        make_keys(places[0], passphrase=secret, development=development)
        ask = (lambda _: secret) if secret else ask
    files = read_keys(places)
    if any(one.development != development for one in files):
        msg = f"{places[0]} holds {'real' if development else 'development'} keys; --keys names another folder"
        raise UnusableError(msg)
    ring = open_ring(files, ask=ask)
    made = make_repository(folder, roles_of(files), ring, development=development, now=datetime.now(UTC))
    print("\n".join(made_lines(made, places)))


@keys.command("list")
def keys_list(
    repository: RepositoryFolder = None,
    keys: KeyFolders = None,
    config: Config = Path("hub.toml"),
    json: Json = False,
) -> None:
    """Show which keys sign, which of them are here, and until when what they signed holds."""
    from hub.keys import read_keys
    from hub.release_lines import keys_lines, standing, warning_lines
    from hub.repository import read_repository

    found = read_repository(find_repository(config=config, repository=repository))
    places = [place for place in find_keys(config=config, keys=keys) if keys or place.is_dir()]
    told = standing(found, read_keys(places))
    print(msgspec.json.encode(told).decode() if json else "\n".join(keys_lines(told)))
    print("".join(f"hub: {line}\n" for line in warning_lines(found, now=datetime.now(UTC))), end="", file=sys.stderr)


@keys.command("promote")
def keys_promote(
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="Where the new keys are made.", show_default=False)
    ],
    repository: RepositoryFolder = None,
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its first line is the passphrase of the new offline keys.")
    ] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="New keys in plain files: for a disk that is encrypted itself.")
    ] = False,
    config: Config = Path("hub.toml"),
) -> None:
    """Replace all keys by new, real ones: development keys, or lost or stolen ones.

    The old keys sign a new root that names the new ones, so devices that
    trust the old root follow by themselves. What it cannot mend: whoever had
    copied the old root keys could have led devices elsewhere before. Give the
    new metadata/root.json to every device that is set up from now on.

    Two of the old root keys must be here: --keys, more than once where keys
    lie apart. All others may be lost; with two root keys lost nothing can be
    signed, and every device needs a new root.json by hand. Stopped half way,
    it goes on with the keys in --to.
    """
    from hub.keys import make_keys, open_ring, read_keys, roles_of
    from hub.release_lines import made_lines
    from hub.repository import read_repository, replace_keys

    folder = find_repository(config=config, repository=repository)
    _require_choice(
        development=False, no_passphrase=no_passphrase, file=new_passphrase_file, option="--new-passphrase-file"
    )
    read_repository(folder)
    old = open_ring(read_keys(find_keys(config=config, keys=keys)), ask=passphrase_from(passphrase_file))
    ask = passphrase_from(new_passphrase_file)
    if not to.exists():
        secret = b"" if no_passphrase else passphrase_from(new_passphrase_file, again=True)("the new offline keys")
        make_keys(to, passphrase=secret, development=False)
        ask = (lambda _: secret) if secret else ask
    files = read_keys([to])
    if any(one.development for one in files):
        msg = f"{to} holds development keys; --to names a folder for real ones"
        raise UnusableError(msg)
    made = replace_keys(folder, roles_of(files), old | open_ring(files, ask=ask), now=datetime.now(UTC))
    print("\n".join(made_lines(made, [to], replaced=True)))


@keys.command("renew")
def keys_renew(
    repository: RepositoryFolder = None,
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    config: Config = Path("hub.toml"),
) -> None:
    """Sign root and targets anew with the same keys, before they end.

    A root holds for two years, targets for one; `hub keys list` and `hub
    repository refresh` say when it is time. Needs two root keys and targets.
    """
    from hub.keys import open_ring, read_keys
    from hub.release_lines import development_lines, refreshed_lines
    from hub.repository import renew

    folder = find_repository(config=config, repository=repository)
    ring = open_ring(read_keys(find_keys(config=config, keys=keys)), ask=passphrase_from(passphrase_file))
    renewed = renew(folder, ring, now=datetime.now(UTC))
    lines = [f"{role:9} until {renewed.expiries[role]:%Y-%m-%d}" for role in ("root", "targets")]
    print("\n".join([*development_lines(renewed), *lines, *refreshed_lines(renewed)]))


def _require_choice(*, development: bool, no_passphrase: bool, file: Path | None, option: str = "") -> None:
    """Raise `UnusableError` unless it is said where a passphrase comes from, before any key is made."""
    if (development or no_passphrase) and file is not None:
        msg = f"{option or '--passphrase-file'} and keys without a passphrase are two ways: give one"
        raise UnusableError(msg)
    if not (development or no_passphrase or file is not None or sys.stdin.isatty()):
        told = "" if option else "; to try it: --development"
        msg = f"new keys need a passphrase: run it in a terminal, or give {option or '--passphrase-file'}{told}"
        raise UnusableError(msg)
