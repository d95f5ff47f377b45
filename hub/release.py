"""Releases: a gated model folder becomes a signed target of the repository, and is found there again.

A release is an uncompressed tar, `targets/MODEL/SHA256.000012.tar`, of what the card names: itself, the ONNX files and
the golden set; and of a licence and a README where they stand beside it. What else lies in the folder stays at home.

Laws:

1. The same folder gives the same bytes: names sorted, no times, no owners. A folder that is the newest release of its
   line already is not released twice.
2. A number is one more than the highest that was ever signed here for the line.
3. What no gate passed is not released, unless somebody says why; that is signed, too.
4. What is signed was read back out of the archive: it is what the card says, whatever happens to the folder meanwhile.
5. An archive that no targets were signed for does not stay.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from edge.contract.card import ModelCard, read_card
from edge.contract.errors import UnusableError
from edge.contract.release import MOST_BYTES, MOST_FILES, SignedRelease, from_custom, is_plain, target_name, to_custom
from edge.contract.samples import Label, Name
from edge.detector.golden import read_golden
from edge.detector.opening import CARD_NAME, read_model
from edge.detector.written import flush_folder
from hub.gated import require_gate
from hub.keys import Ring
from hub.repository import Repository, is_signed, publish, read_repository, sha256_of, target_path, unlock, writing

try:
    from tuf.api.metadata import TargetFile
except ModuleNotFoundError as missing:
    _MSG = f'{missing.name} is not installed; run: pip install "weakspot[ota]"'
    raise UnusableError(_MSG) from None

MADE: Final = "weakspot-made"
"""The key of `Made` in a target's custom metadata, beside what devices read."""
MOST_WHY: Final = 300
_CHANGED: Final = "the model folder was changed while it was read; run the command again"
_BESIDE: Final = ("LICENSE", "LICENSE.txt", "README.md")
OnBytes = Callable[[int, int], None]
"""Gets the bytes written and those to write."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """How a release came about.

    Attributes:
        at_ms: UTC milliseconds.
        baseline: the name of the release that the gate held it against; "" where no gate passed it.
        ungated: why it was released without; "" where a gate passed it.
    """

    at_ms: int
    baseline: str = ""
    ungated: str = ""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One release of the repository.

    Attributes:
        signed: what devices read.
        target: its name in the repository.
        length, sha256: of the file.
        published: devices can see it.
    """

    signed: SignedRelease
    made: Made
    target: str
    length: int
    sha256: str
    published: bool


def releases(repository: Repository) -> list[Release]:
    """Return all releases, by line and number. Raises `UnusableError` when a target is none."""
    seen = repository.published.signed.targets
    found = [_release(target, published=name in seen) for name, target in repository.targets.signed.targets.items()]
    return sorted(found, key=lambda one: (one.signed.model, one.signed.number))


def find_release(folder: Path, *, model: str = "", number: int = 0) -> Release:
    """Return a published release, verified.

    Args:
        folder: the repository.
        model: the line; "" where there is one only.
        number: 0 for the newest.

    Raises `UnusableError`, naming those there are, when there is none such.
    """
    found = [one for one in releases(read_repository(folder)) if one.published]
    return _find(found, model=model, number=number, where=folder)


def baseline_of(folder: Path, release: Release) -> SignedRelease | None:
    """Return what a release names as its baseline, where the repository has published it. Raises `UnusableError`."""
    signed = release.signed
    found = [one.signed for one in releases(read_repository(folder)) if one.published]
    return next((one for one in found if (one.model, one.number) == (signed.model, signed.baseline)), None)


def named_release(folder: Path, text: str, *, waiting: bool = False) -> Release:
    """Return the published release that a person means: MODEL/NUMBER, NUMBER, MODEL, its name, or "" for the newest.

    With `waiting` also one that is not published yet. Raises `UnusableError` as `find_release`.
    """
    found = [one for one in releases(read_repository(folder)) if waiting or one.published]
    named = [one for one in found if one.signed.release == text]
    if named:
        return named[-1]
    model, _, number = text.rpartition("/") if "/" in text else ("", "", text) if text.isdecimal() else (text, "", "")
    if number and not (number.isdecimal() and 0 < int(number) < 1_000_000):
        msg = f"a release is MODEL/NUMBER, as in starter/12, or its name, not {text!r}"
        raise UnusableError(msg)
    return _find(found, model=model, number=int(number or 0), where=folder)


def create_release(
    folder: Path,
    ring: Ring,
    *,
    model_folder: Path,
    now: datetime,
    baseline: int | None = None,
    ungated: str = "",
    back: bool = False,
    on_bytes: OnBytes = lambda *_: None,
) -> tuple[Release, bool]:
    """Release a model folder; return the release and whether it is new.

    It is published where the online keys are in the ring; else it waits for `hub repository refresh`.

    Args:
        folder: the repository.
        ring: with the key of targets.
        model_folder: with a card.
        now: of the signatures.
        baseline: the number that a device may go back to; None for the release before.
        ungated: why no gate is needed.
        back: devices that confirmed a higher number may take it.
        on_bytes: is told how far it is.

    Raises `UnusableError` when the folder is no model as its card says, no gate passed it, the baseline is not there or
    a key is missing.
    """
    if ungated and not (ungated.strip() and ungated.isprintable() and len(ungated) <= MOST_WHY):
        msg = f"--ungated says why in one line of at most {MOST_WHY} characters"
        raise UnusableError(msg)
    card, files = _contents(model_folder)
    gated = "" if ungated else require_gate(model_folder, card)
    unlock(folder, ring, "targets")
    with writing(folder):
        repository = read_repository(folder)
        earlier = [one.signed.number for one in releases(repository) if one.signed.model == card.name]
        number = max(earlier, default=0) + 1
        _require_own_name(repository, card, sha256_of(files[CARD_NAME]))
        if baseline is not None and baseline not in {0, *earlier}:
            known = ", ".join(map(str, sorted({0, *earlier})))
            msg = f"--baseline {baseline}: {card.name} has no such release; it has: {known}"
            raise UnusableError(msg)
        signed = SignedRelease(
            model=card.name,
            release=card.release,
            number=number,
            baseline=number - 1 if baseline is None else baseline,
            back=back,
            card_sha256=sha256_of(files[CARD_NAME]),
            input=f"{card.input.width}x{card.input.height}",
            score_threshold_permille=round(1000 * card.score_threshold),
            precisions=tuple(dict.fromkeys(["f32", *(one.precision for one in card.variants)])),
            files=len(files),
            unpacked_bytes=sum(path.stat().st_size for path in files.values()),
        )
        part, length, sha256 = _write_tar(folder, signed, card, files, on_bytes=on_bytes)
        same = _same(releases(repository), signed, sha256, baseline=baseline)
        if same is not None:
            part.unlink()
            published = same.published or publish(repository, repository.targets.signed, ring, now=now)
            return msgspec.structs.replace(same, published=published), False
        made = Made(at_ms=int(now.timestamp() * 1000), baseline=gated, ungated=ungated)
        custom = {**to_custom(signed), MADE: msgspec.to_builtins(made)}
        target = target_name(card.name, number)
        entry = TargetFile(length, {"sha256": sha256}, target, {"custom": custom})
        place = target_path(folder, target, sha256)
        for left_over in place.parent.glob(f"*.{place.name.partition('.')[2]}"):  # of a try that was stopped
            left_over.unlink()
        part.replace(place)
        flush_folder(place.parent)
        targets = repository.targets.signed
        targets.targets[target] = entry
        try:
            return _release(entry, published=publish(repository, targets, ring, now=now)), True
        except (OSError, UnusableError):
            if not is_signed(repository, targets.version):
                place.unlink()
            raise


def _require_own_name(repository: Repository, card: ModelCard, card_sha256: str) -> None:
    """Raise `UnusableError` when another model of the line has the name: what a device serves is known by it."""
    for one in releases(repository):
        same = (one.signed.model, one.signed.release) == (card.name, card.release)
        if same and one.signed.card_sha256 != card_sha256:
            msg = (
                f"{card.name}/{one.signed.number} is called {card.release}, too, and is another model;"
                f" give it a name of its own: `release` in {CARD_NAME}"
            )
            raise UnusableError(msg)


def _find(found: list[Release], *, model: str, number: int, where: Path) -> Release:
    lines = sorted({one.signed.model for one in found})
    if not model and len(lines) > 1:
        msg = f"name the line of the release, as in {lines[0]}/{number or 1}; there are: {', '.join(lines)}"
        raise UnusableError(msg)
    fitting = [one for one in found if model in {"", one.signed.model} and number in {0, one.signed.number}]
    if not fitting:
        known = ", ".join(f"{one.signed.model}/{one.signed.number}" for one in found) or "none yet"
        wanted = "/".join(word for word in (model, str(number) if number else "") if word)
        msg = f"{where} has no release {wanted}; it has: {known}".replace("release ;", "release;")
        raise UnusableError(msg)
    return fitting[-1]


def _same(found: list[Release], signed: SignedRelease, sha256: str, *, baseline: int | None) -> Release | None:
    """Return the line's newest release where it is the same bytes, to be signed alike."""
    for one in found:
        if one.signed.model == signed.model and one.signed.number == signed.number - 1:
            alike = one.signed.back == signed.back and baseline in {None, one.signed.baseline}
            return one if alike and one.sha256 == sha256 else None
    return None


def _contents(folder: Path) -> tuple[ModelCard, dict[str, Path]]:
    """Check a model folder as a device will, and return its card and the files of its release by their name."""
    if not (folder / CARD_NAME).is_file():
        msg = f"{folder} is no model folder: it has no {CARD_NAME}"
        raise UnusableError(msg)
    card = read_card(folder / CARD_NAME)
    read_model(folder)
    for one in card.variants:
        read_model(folder, variant=one.name)
    golden = read_golden(folder)
    try:
        msgspec.convert(card.name, Name)
        msgspec.convert(card.release, Label)
    except msgspec.ValidationError as error:
        msg = f"{folder / CARD_NAME}: the name {card.name!r} cannot name a line of releases: {error}"
        raise UnusableError(msg) from error
    names = {CARD_NAME, card.file, *(one.file for one in card.variants)}
    names |= {name for name in _BESIDE if (folder / name).is_file()}
    for name in sorted(names.intersection(_BESIDE)):  # nothing else says what they should hold
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            msg = f"{folder / name} is a link out of the folder: its content would be published; copy it, or remove it"
            raise UnusableError(msg)
    if golden is not None:
        names |= {f"{card.golden}/{path.name}" for path in (folder / card.golden).iterdir() if path.is_file()}
    for name in sorted(names):
        if not is_plain(name):
            msg = f"{folder}: devices refuse the name {name!r}; use ASCII letters, digits and ._ +-, no dot in front"
            raise UnusableError(msg)
    files = {name: folder / name for name in sorted(names)}
    total = sum(path.stat().st_size for path in files.values())
    if len(files) > MOST_FILES or total > MOST_BYTES:
        msg = f"{folder} has {len(files)} files of {total} bytes; a release has at most {MOST_FILES} of {MOST_BYTES}"
        raise UnusableError(msg)
    return card, files


def _write_tar(
    folder: Path, signed: SignedRelease, card: ModelCard, files: dict[str, Path], *, on_bytes: OnBytes
) -> tuple[Path, int, str]:
    """Write the archive beside its place; return where, its length and its sha256."""
    place = target_path(folder, target_name(signed.model, signed.number), "")
    place.parent.mkdir(parents=True, exist_ok=True)
    flush_folder(place.parent.parent)
    part = place.with_name(f".{signed.number:06d}.tar.part")
    try:
        with part.open("w+b") as out:
            _pack(out, signed, files, on_bytes=on_bytes)
            out.flush()
            os.fsync(out.fileno())
            out.seek(0)
            sha256 = hashlib.file_digest(out, "sha256").hexdigest()
            out.seek(0)
            _require_packed(out, signed, card)
    except (OSError, UnusableError):  # on a full disk the next command would need the room, too
        part.unlink(missing_ok=True)
        raise
    return part, part.stat().st_size, sha256


def _pack(out: IO[bytes], signed: SignedRelease, files: dict[str, Path], *, on_bytes: OnBytes) -> None:
    done = 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, path in files.items():
            try:
                file = path.open("rb")
            except OSError as error:
                msg = f"cannot read {path}: {error.strerror}"
                raise UnusableError(msg) from error
            with file:
                member = tarfile.TarInfo(name)
                member.size = os.fstat(file.fileno()).st_size
                member.mode = 0o644
                try:
                    tar.addfile(member, file)
                except OSError as error:
                    if error.errno is None:  # tarfile's own: the file has become shorter
                        raise UnusableError(_CHANGED) from error
                    raise
            done += member.size
            on_bytes(done, signed.unpacked_bytes)


def _require_packed(archive: IO[bytes], signed: SignedRelease, card: ModelCard) -> None:
    """Raise `UnusableError` when what went into the archive is not what was checked (law 4)."""
    wanted = {one.file: one.sha256 for one in card.variants}
    wanted |= {card.file: card.sha256, CARD_NAME: signed.card_sha256}
    unpacked_bytes = 0
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        for member in tar:
            unpacked_bytes += member.size
            sha256, content = wanted.pop(member.name, None), tar.extractfile(member)
            if sha256 is not None and (content is None or _sha256(content) != sha256):
                raise UnusableError(_CHANGED)
    if wanted or unpacked_bytes != signed.unpacked_bytes:
        raise UnusableError(_CHANGED)


def _sha256(file: Any) -> str:
    """Return the sha256 of an open file, whole, without reading all of it at once."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def _release(target: TargetFile, *, published: bool) -> Release:
    custom: Any = target.custom or {}
    try:
        made = msgspec.convert(custom.get(MADE), Made)
    except (msgspec.ValidationError, AttributeError) as error:
        msg = f"the target {target.path} is no release of this hub: {error}"
        raise UnusableError(msg) from error
    return Release(
        signed=from_custom(custom),
        made=made,
        target=target.path,
        length=target.length,
        sha256=target.hashes["sha256"],
        published=published,
    )
