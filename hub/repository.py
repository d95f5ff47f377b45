"""The signed repository of The Update Framework: a plain folder that any web server, S3 or a USB stick can carry.

    metadata/   N.root.json, root.json (the newest), N.targets.json, N.snapshot.json, timestamp.json
    targets/    MODEL/SHA256.000012.tar: see hub.release

Laws:

1. Whenever it stops, a client accepts what lies there: targets first, then metadata that has its version in its name,
   `timestamp.json` last. What a stop left over is taken in, or replaced, by the next writing.
2. Nothing is signed over that is not signed itself: all that is read is verified against the newest root.
3. A version is never below the time of its signing in seconds since 1970 (a root's counts from 1): a repository that
   was put back from an older copy goes on above all that devices have seen.
4. New keys come in two roots: the first, signed by two of the old root keys, lets old and new keys sign; the second,
   which comes when all is signed anew, the new ones only. So a lost key is replaced, unless two root keys are.
5. One command at a time writes.
6. A clock before `EARLIEST` signs nothing: what it signed would have ended on every device.
"""

import fcntl
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from edge.contract.errors import UnusableError
from edge.detector.written import write_whole
from hub.keys import THRESHOLDS, Ring, Roles

try:
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, Targets, Timestamp
    from tuf.api.serialization import DeserializationError
except ModuleNotFoundError as missing:
    _MSG = f'{missing.name} is not installed; run: pip install "weakspot[ota]"'
    raise UnusableError(_MSG) from None

DEVELOPMENT: Final = "x-weakspot-development"
"""A signed field of a root whose keys are for trials."""
DAYS: Final = {"root": 730, "targets": 365, "snapshot": 7, "timestamp": 7}
SOON_DAYS: Final = {"root": 60, "targets": 60, "snapshot": 2, "timestamp": 2}
"""Days before the end from which on one is warned."""
EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
METADATA: Final = "metadata"
TARGETS: Final = "targets"
_VERSIONED: Final = re.compile(r"([1-9][0-9]{0,17})\.(root|targets|snapshot)\.json")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository that was read and verified.

    Attributes:
        root: the newest.
        targets: the newest that is signed, published or not yet.
        published: those that devices see.
        timestamp, snapshot: what devices see.
    """

    folder: Path
    root: Metadata[Root]
    targets: Metadata[Targets]
    published: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    @property
    def development(self) -> bool:
        """Whether it is signed with keys for trials."""
        return bool(self.root.signed.unrecognized_fields.get(DEVELOPMENT))

    @property
    def expiries(self) -> dict[str, datetime]:
        """When each role's metadata ends, UTC."""
        told: dict[str, Metadata[Any]] = {"root": self.root, "targets": self.targets}
        told |= {"snapshot": self.snapshot, "timestamp": self.timestamp}
        return {name: one.signed.expires for name, one in told.items()}


def make_repository(folder: Path, roles: Roles, ring: Ring, *, development: bool, now: datetime) -> Repository:
    """Make a repository without releases. Raises `UnusableError` when there is one, or keys are missing."""
    if is_repository(folder):
        msg = f"{folder} is a repository already; `hub keys list` shows its keys"
        raise UnusableError(msg)
    try:
        for below in (METADATA, TARGETS):
            (folder / below).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make a repository in {folder}: {error.strerror}"
        raise UnusableError(msg) from error
    with writing(folder):
        root = _new_root(roles, version=1, development=development, now=now)
        last = _sign(root, [root], ring)
        targets = Targets(version=next_version(0, now), expires=_expiry("targets", now))
        content = _write_targets(folder, targets, roots=[root], ring=ring)
        _write_online(folder, (targets.version, content), roots=[root], ring=ring, before=(0, 0), now=now)
        _write_root(folder, root.version, last)
    return read_repository(folder)


def is_repository(folder: Path) -> bool:
    """Whether a repository was made here; its root was the last that was written."""
    return bool(_versions(folder / METADATA)["root"])


def read_repository(folder: Path) -> Repository:
    """Read and verify a repository; that something has ended is no fault here.

    Raises `UnusableError` when there is none, or a file is missing, damaged or not signed as the root asks.
    """
    metadata = folder / METADATA
    versions = _versions(metadata)
    if not versions["root"]:
        msg = f"there is no repository in {folder}; `hub keys init` makes one, --repository names one"
        raise UnusableError(msg)
    root: Metadata[Root] = _read(metadata / f"{max(versions['root'])}.root.json", "root", None)
    timestamp: Metadata[Timestamp] = _read(metadata / "timestamp.json", "timestamp", root)
    at = timestamp.signed.snapshot_meta
    snapshot: Metadata[Snapshot] = _read(metadata / f"{at.version}.snapshot.json", "snapshot", root, at)
    at = snapshot.signed.meta["targets.json"]
    published: Metadata[Targets] = _read(metadata / f"{at.version}.targets.json", "targets", root, at)
    newest: Metadata[Targets] = _read(metadata / f"{max(versions['targets'])}.targets.json", "targets", root)
    return Repository(folder, root, newest, published, snapshot, timestamp)


def refresh(folder: Path, ring: Ring, *, now: datetime) -> Repository:
    """Sign timestamp and snapshot anew, over the newest targets; what cron runs. Needs the online keys.

    Raises `UnusableError` as `read_repository`, when a key is missing, and when a target's file is not as signed.
    """
    with writing(folder):
        repository = read_repository(folder)
        require_targets(repository)
        version = repository.targets.signed.version
        content = (folder / METADATA / f"{version}.targets.json").read_bytes()
        _write_online(
            folder, (version, content), roots=[repository.root.signed], ring=ring, before=_seen(repository), now=now
        )
        return read_repository(folder)


def publish(repository: Repository, targets: Targets, ring: Ring, *, now: datetime) -> bool:
    """Sign targets, inside `writing`, and publish them; False where the online keys are not here to publish them with.

    Their version and end are set here. Raises `UnusableError` when the targets' key is missing.
    """
    targets.version = next_version(repository.targets.signed.version, now)
    targets.expires = _expiry("targets", now)
    root = repository.root.signed
    content = _write_targets(repository.folder, targets, roots=[root], ring=ring)
    if not {key for role in ("snapshot", "timestamp") for key in root.roles[role].keyids} & set(ring.openers):
        return False
    before = _seen(repository)
    _write_online(repository.folder, (targets.version, content), roots=[root], ring=ring, before=before, now=now)
    return True


def unlock(folder: Path, ring: Ring, *roles: str) -> None:
    """Open the keys of these roles now, so that nobody waits to write while a person types a passphrase.

    Raises `UnusableError` as `read_repository`, and when a key that is here cannot be opened.
    """
    root = read_repository(folder).root.signed
    for role in roles:
        ring.signers(root.roles[role].keyids, enough=root.roles[role].threshold)


def is_signed(repository: Repository, version: int) -> bool:
    """Whether targets of this version lie there, published or not."""
    return (repository.folder / METADATA / f"{version}.targets.json").exists()


def renew(folder: Path, ring: Ring, *, now: datetime) -> Repository:
    """Sign root and targets anew with the keys there are, before they end. Raises `UnusableError` as `refresh`."""
    unlock(folder, ring, "root", "targets")
    with writing(folder):
        repository = read_repository(folder)
        root = Root.from_dict(repository.root.signed.to_dict())
        root.version += 1
        root.expires = _expiry("root", now)
        last = _sign(root, [repository.root.signed, root], ring)
        publish(repository, repository.targets.signed, ring, now=now)
        _write_root(folder, root.version, last)
        return read_repository(folder)


def replace_keys(folder: Path, roles: Roles, ring: Ring, *, now: datetime) -> Repository:
    """Replace all keys by real ones (law 4).

    `ring` holds the new ones and two of the old root keys; where other old ones are in it, they sign once more, so that
    who reads just now is not told of a key that it does not know yet.

    Raises `UnusableError` as `refresh`.
    """
    unlock(folder, ring, "root", "targets")
    with writing(folder):
        repository = read_repository(folder)
        require_targets(repository)
        old = repository.root.signed
        both = _new_root(roles, version=old.version + 1, development=repository.development, now=now)
        for name in ("targets", "snapshot", "timestamp"):
            for key in old.roles[name].keyids:
                both.add_key(old.keys[key], name)
        root = _new_root(roles, version=old.version + 2, development=False, now=now)
        first, last = _sign(both, [old, both], ring), _sign(root, [both, root], ring)
        targets = repository.targets.signed
        targets.version = next_version(targets.version, now)
        targets.expires = _expiry("targets", now)
        _write_root(folder, both.version, first)
        content = _write_targets(folder, targets, roots=[both, root], ring=ring)
        before = _seen(repository)
        _write_online(folder, (targets.version, content), roots=[both, root], ring=ring, before=before, now=now)
        _write_root(folder, root.version, last)
        return read_repository(folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only one that writes, and begin by removing what a stop left half written. Raises `UnusableError`."""
    if not (folder / METADATA).is_dir():
        msg = f"there is no repository in {folder}; `hub keys init` makes one, --repository names one"
        raise UnusableError(msg)
    try:
        with (folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                msg = f"another command writes to {folder}; wait until it has ended"
                raise UnusableError(msg) from None
            for path in [*(folder / METADATA).glob(".*.part"), *(folder / TARGETS).glob("*/.*.part")]:
                path.unlink()
            newest = max(_versions(folder / METADATA)["root"], default=0)
            if newest:  # a stop between the two left root.json behind
                _write_newest_root(folder, (folder / METADATA / f"{newest}.root.json").read_bytes())
            yield
    except OSError as error:
        msg = f"cannot write to {folder}: {error.strerror or error}"
        raise UnusableError(msg) from error


def require_targets(repository: Repository) -> None:
    """Raise `UnusableError` unless every target's file is there; those not published yet are hashed, too."""
    seen: Mapping[str, Any] = repository.published.signed.targets
    for name, target in repository.targets.signed.targets.items():
        path = target_path(repository.folder, name, target.hashes["sha256"])
        try:
            whole = path.stat().st_size == target.length
            if whole and name not in seen:
                whole = sha256_of(path) == target.hashes["sha256"]
        except OSError as error:
            msg = f"the file of the release {name} is not there, {path}: {error.strerror}"
            raise UnusableError(msg) from error
        if not whole:
            msg = f"{path} is not the file that was signed; copy it again"
            raise UnusableError(msg)


def target_path(folder: Path, name: str, sha256: str) -> Path:
    """Return where the file of a target lies."""
    above, _, last = name.rpartition("/")
    return folder / TARGETS / above / f"{sha256}.{last}"


def next_version(before: int, now: datetime) -> int:
    """Return a version above the one before, and not below the time (law 3)."""
    return max(before + 1, int(now.timestamp()))


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hexadecimal. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_ends(repository: Repository, *, now: datetime) -> dict[str, int]:
    """Return the roles whose metadata ends soon, with the whole days left; negative where it has ended."""
    left = {name: (end - now) / timedelta(days=1) for name, end in repository.expiries.items()}
    return {name: int(days // 1) for name, days in left.items() if days < SOON_DAYS[name]}


def clock_faults(repository: Repository, *, now: datetime) -> dict[str, int]:
    """Return the roles that were signed a day or more from now, with the days: a clock was ahead, or this is behind."""
    ahead = {name: end - timedelta(days=DAYS[name]) - now for name, end in repository.expiries.items()}
    return {name: by.days for name, by in ahead.items() if by >= timedelta(days=1)}


def _seen(repository: Repository) -> tuple[int, int]:
    return repository.snapshot.signed.version, repository.timestamp.signed.version


def _write_targets(folder: Path, targets: Targets, *, roots: Sequence[Root], ring: Ring) -> bytes:
    content = _sign(targets, roots, ring)
    write_whole(folder / METADATA / f"{targets.version}.targets.json", content)
    return content


def _write_online(
    folder: Path,
    targets: tuple[int, bytes],
    *,
    roots: Sequence[Root],
    ring: Ring,
    before: tuple[int, int],
    now: datetime,
) -> None:
    """Write snapshot and timestamp, whose last versions were `before`, over targets of this version and content."""
    versions = [next_version(version, now) for version in before]
    meta = {"targets.json": _meta(*targets)}
    snapshot = Snapshot(version=versions[0], expires=_expiry("snapshot", now), meta=meta)
    content = _sign(snapshot, roots, ring)
    at = _meta(snapshot.version, content)
    timestamp = Timestamp(version=versions[1], expires=_expiry("timestamp", now), snapshot_meta=at)
    last = _sign(timestamp, roots, ring)
    write_whole(folder / METADATA / f"{snapshot.version}.snapshot.json", content)
    write_whole(folder / METADATA / "timestamp.json", last)


def _sign(signed: Any, roots: Sequence[Root], ring: Ring) -> bytes:
    """Sign the metadata of a role as all of the roots ask."""
    metadata: Metadata[Any] = Metadata(signed)
    for root in roots:
        role = root.roles[signed.type]
        for signer in ring.signers(role.keyids, enough=role.threshold):
            metadata.sign(signer, append=True)
        result = root.get_verification_result(signed.type, metadata.signed_bytes, metadata.signatures)
        if not result.verified:
            short = ", ".join(sorted(key[:8] for key in result.unsigned))
            some = f"{result.missing} more of the keys {short}" if len(result.unsigned) > 1 else f"the key {short}"
            msg = f"to sign {signed.type}, {some} is needed: not in {ring.where}; --keys names another folder"
            raise UnusableError(msg)
    return metadata.to_bytes()


def _new_root(roles: Roles, *, version: int, development: bool, now: datetime) -> Root:
    return Root(
        version=version,
        expires=_expiry("root", now),
        keys={key.keyid: key for keys in roles.values() for key in keys},
        roles={name: Role([key.keyid for key in keys], THRESHOLDS[name]) for name, keys in roles.items()},
        consistent_snapshot=True,
        unrecognized_fields={DEVELOPMENT: True} if development else {},
    )


def _write_root(folder: Path, version: int, content: bytes) -> None:
    write_whole(folder / METADATA / f"{version}.root.json", content)
    _write_newest_root(folder, content)


def _write_newest_root(folder: Path, content: bytes) -> None:
    path = folder / METADATA / "root.json"
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content)


def _read(path: Path, role: str, root: Metadata[Root] | None, told: MetaFile | None = None) -> Metadata[Any]:
    """Read one file of metadata and verify it; a root verifies itself."""
    try:
        content = path.read_bytes()
        if told is not None:
            told.verify_length_and_hashes(content)
        metadata: Metadata[Any] = Metadata.from_bytes(content)
        signer = metadata.signed if root is None else root.signed
        if metadata.signed.type != role:
            msg = f"{path} is the metadata of {metadata.signed.type}, not of {role}"
            raise UnusableError(msg)
        signer.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error
    except (RepositoryError, DeserializationError, ValueError, KeyError) as error:
        msg = f"{path} is damaged or not signed with the repository's keys: {error}"
        raise UnusableError(msg) from error
    return metadata


def _versions(metadata: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {"root": [], "targets": [], "snapshot": []}
    names = [path.name for path in metadata.iterdir()] if metadata.is_dir() else []
    for name in names:
        match = _VERSIONED.fullmatch(name)
        if match:
            found[match[2]].append(int(match[1]))
    return found


def _meta(version: int, content: bytes) -> MetaFile:
    return MetaFile(version, len(content), {"sha256": hashlib.sha256(content).hexdigest()})


def _expiry(role: str, now: datetime) -> datetime:
    if now < EARLIEST:
        msg = f"the clock of this machine says {now:%Y-%m-%d %H:%M} UTC; set it: devices would take nothing signed now"
        raise UnusableError(msg)
    return (now.astimezone(UTC) + timedelta(days=DAYS[role])).replace(microsecond=0)
