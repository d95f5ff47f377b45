"""Signing keys: made, kept in files, found again. Knows no repository: hub.repository says what they sign.

A key is one PEM file (Ed25519, PKCS #8), with a passphrase or without, headed by lines that say whose it is:

    offline/root-1.pem root-2.pem root-3.pem targets.pem    away from every server; two of the root keys are enough
    online/snapshot.pem timestamp.pem                       where `hub repository refresh` runs

Laws:

1. A folder of keys is whole or not there, and no key is ever overwritten.
2. Only the owner may read a file; one without a passphrase that others may read is not used.
3. A file that says one key and holds another is refused.
4. A passphrase is asked for only when its key is needed, and is written nowhere. What locks the file is its scrypt:
   PKCS #8 alone stretches it so little that a short one is soon guessed.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge.contract.errors import UnusableError
from edge.detector.written import flush_folder, write_flushed

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
except ModuleNotFoundError:  # a device's tests sign with keys of their own; who reads key files is told
    Ed25519PrivateKey = None  # type: ignore[assignment, misc]
try:
    from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey
except ModuleNotFoundError as missing:
    _MSG = f'{missing.name} is not installed; run: pip install "weakspot[ota]"'
    raise UnusableError(_MSG) from None

OFFLINE: Final = ("root-1", "root-2", "root-3", "targets")
ONLINE: Final = ("snapshot", "timestamp")
THRESHOLDS: Final = {"root": 2, "targets": 1, "snapshot": 1, "timestamp": 1}
_HEAD: Final = "weakspot signing key"
_BEGIN: Final = "-----BEGIN "

Roles = Mapping[str, Sequence[Key]]
"""The public keys of each of the four roles."""
Ask = Callable[[str], bytes]
"""Gets a key's name and returns its passphrase."""


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a key file says of itself.

    Attributes:
        name: as in "root-1".
        key: its id in the metadata.
        public: in hexadecimal.
        development: made for trials.
        encrypted: it has a passphrase.
        open_to: "" or who else may read it.
    """

    path: Path
    name: str
    key: str
    public: str
    development: bool
    encrypted: bool
    open_to: str

    @property
    def role(self) -> str:
        """The role that it was made for."""
        return self.name.split("-", maxsplit=1)[0]


@dataclass(frozen=True, slots=True)
class Ring:
    """Keys that can be signed with: how each is opened, by its id; and where they were looked for, in words."""

    openers: Mapping[str, Callable[[], Signer]]
    where: str

    def signers(self, keys: Iterable[str], *, enough: int) -> list[Signer]:
        """Return signers of these keys, `enough` at the most, fewer where they are not here.

        Raises `UnusableError` when a key that is here cannot be opened.
        """
        held = [key for key in keys if key in self.openers]
        return [self.openers[key]() for key in held[:enough]]

    def __or__(self, other: "Ring") -> "Ring":
        where = self.where if self.where == other.where else f"{self.where} and {other.where}"
        return Ring({**self.openers, **other.openers}, where)


def make_keys(folder: Path, *, passphrase: bytes, development: bool) -> None:
    """Make a folder with all keys.

    Args:
        folder: it must not be there yet.
        passphrase: of the offline keys; empty for none. Online keys have none: nobody is there to type it.
        development: mark them as made for trials.

    Raises `UnusableError` when the folder is there or cannot be written.
    """
    _require_cryptography()
    if folder.exists():
        msg = f"{folder} is there already; keys are never overwritten"
        raise UnusableError(msg)
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        for below, names, secret in (("offline", OFFLINE, passphrase), ("online", ONLINE, b"")):
            (part / below).mkdir(parents=True)
            for name in names:
                content = _make_key(name, passphrase=secret, development=development)
                (part / below / f"{name}.pem").touch(mode=0o600)
                write_flushed(part / below / f"{name}.pem", content)
            flush_folder(part / below)
        part.chmod(0o700)
        flush_folder(part)
        part.rename(folder)
        flush_folder(folder.absolute().parent)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        msg = f"cannot write keys into {folder}: {error.strerror}"
        raise UnusableError(msg) from error


def read_keys(folders: Sequence[Path]) -> list[KeyFile]:
    """Return the key files of some folders and those below them, by name. Other files are passed over.

    Raises `UnusableError` when a folder is not there or one of our files cannot be read.
    """
    found: dict[str, KeyFile] = {}
    for folder in folders:
        if not folder.is_dir():
            msg = f"the folder of keys {folder} is not there; `hub keys init` makes one, --keys names one"
            raise UnusableError(msg)
        for path in sorted(folder.rglob("*.pem")):
            one = _read_key(path)
            if one is not None:
                found.setdefault(one.key, one)
    return sorted(found.values(), key=lambda one: one.name)


def roles_of(files: Sequence[KeyFile]) -> dict[str, list[Key]]:
    """Return the public keys of a whole folder by role. Raises `UnusableError` when one is missing."""
    by_name = {one.name: one for one in files}
    missing = [name for name in (*OFFLINE, *ONLINE) if name not in by_name]
    if missing:
        msg = f"the keys {', '.join(missing)} are missing"
        raise UnusableError(msg)
    roles: dict[str, list[Key]] = {role: [] for role in THRESHOLDS}
    for name in (*OFFLINE, *ONLINE):
        roles[by_name[name].role].append(_public(by_name[name]))
    return roles


def open_ring(files: Sequence[KeyFile], *, ask: Ask) -> Ring:
    """Return the ring of some key files; passphrases are asked for as keys are used, each once."""
    opened: dict[str, Signer] = {}
    known: list[bytes] = []

    def opener(one: KeyFile) -> Callable[[], Signer]:
        def open_once() -> Signer:
            if one.key not in opened:
                opened[one.key] = _open(one, known=known, ask=ask)
            return opened[one.key]

        return open_once

    places = sorted({str(one.path.parent) for one in files})
    return Ring({one.key: opener(one) for one in files}, " and ".join(places) or "no folder")


def _make_key(name: str, *, passphrase: bytes, development: bool) -> bytes:
    private = Ed25519PrivateKey.generate()
    public = CryptoSigner(private).public_key
    secret = _stretched(passphrase, public.keyval["public"]) if passphrase else b""
    cipher = BestAvailableEncryption(secret) if secret else NoEncryption()
    block = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher)
    head = {"name": name, "key": public.keyid, "public": public.keyval["public"]}
    lines = [_HEAD, *(f"{word}: {value}" for word, value in head.items())]
    if development:
        lines.append("development: yes")
    return ("\n".join(lines) + "\n").encode() + block


def _read_key(path: Path) -> KeyFile | None:
    """Read a file's head; None where it is none of ours."""
    try:
        text = path.read_text("ascii")
        mode = path.stat().st_mode
    except UnicodeDecodeError:
        return None
    except OSError as error:
        msg = f"cannot read the key {path}: {error.strerror}"
        raise UnusableError(msg) from error
    head, found, block = text.partition(_BEGIN)
    if not found or not head.startswith(_HEAD):
        return None
    told = dict(line.split(": ", maxsplit=1) for line in head.splitlines() if ": " in line)
    try:
        return KeyFile(
            path=path,
            name=told["name"],
            key=told["key"],
            public=told["public"],
            development=told.get("development") == "yes",
            encrypted=block.startswith("ENCRYPTED"),
            open_to="others" if mode & 0o007 else "its group" if mode & 0o070 else "",
        )
    except KeyError as error:
        msg = f"the key {path} has no line {error.args[0]!r} at its head"
        raise UnusableError(msg) from error


def _open(one: KeyFile, *, known: list[bytes], ask: Ask) -> Signer:
    """Open a key file with a passphrase that is known already, else with the one asked for."""
    _require_cryptography()
    if one.open_to and not one.encrypted:
        msg = f"{one.path} has no passphrase and {one.open_to} may read it; run: chmod 600 {one.path}"
        raise UnusableError(msg)
    try:
        pem = one.path.read_bytes()
    except OSError as error:
        msg = f"cannot read the key {one.path}: {error.strerror}"
        raise UnusableError(msg) from error
    block = pem[pem.index(_BEGIN.encode()) :]
    signer = None
    for passphrase in known if one.encrypted else [b""]:
        signer = signer or _unlock(one, block, passphrase)
    if signer is None and one.encrypted:
        passphrase = ask(one.name)
        signer = _unlock(one, block, passphrase)
        if signer is None:
            msg = f"this is not the passphrase of {one.path}"
            raise UnusableError(msg)
        known.append(passphrase)
    if signer is None:
        msg = f"{one.path} holds no key that can be read"
        raise UnusableError(msg)
    return signer


def _unlock(one: KeyFile, block: bytes, passphrase: bytes) -> Signer | None:
    """Return the signer; None when the passphrase is another or the block no key."""
    if one.encrypted and not passphrase:
        return None
    try:
        private = load_pem_private_key(block, _stretched(passphrase, one.public) if one.encrypted else None)
    except ValueError:
        return None
    if not isinstance(private, Ed25519PrivateKey) or private.public_key().public_bytes_raw().hex() != one.public:
        msg = f"{one.path} says the key {one.key[:8]} and holds another"
        raise UnusableError(msg)
    return CryptoSigner(private, _public(one))


def _stretched(passphrase: bytes, public: str) -> bytes:
    """Return what a key file is locked with: about .1 s and 32 MB of work for each guess."""
    return hashlib.scrypt(passphrase, salt=public.encode(), n=2**15, r=8, p=1, maxmem=64 << 20, dklen=32).hex().encode()


def _public(one: KeyFile) -> SSlibKey:
    return SSlibKey(one.key, "ed25519", "ed25519", {"public": one.public})


def _require_cryptography() -> None:
    if Ed25519PrivateKey is None:
        msg = 'cryptography is not installed; run: pip install "weakspot[ota]"'
        raise UnusableError(msg)
