"""Model folders made of the starter model: as good as it, or bad in a known way."""

import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from edge.contract.card import ModelCard, read_card
from edge.contract.release import SignedRelease
from edge.detector.opening import find_starter


def empty_release(folder: Path, release: str) -> Path:
    """Write a model folder that can be signed, carried and unpacked, but not opened."""
    content = release.encode() * 10_000
    card = read_card(find_starter() / "model.json")
    card = msgspec.structs.replace(card, release=release, sha256=hashlib.sha256(content).hexdigest())
    folder.mkdir(parents=True)
    (folder / card.file).write_bytes(content)
    (folder / "model.json").write_bytes(msgspec.json.encode(card))
    return folder


def made_release(folder: Path, release: str, **changes) -> Path:
    """Write a model folder: the starter's file under a card of its own, with `changes` to the card."""
    starter = find_starter()
    card = msgspec.structs.replace(read_card(starter / "model.json"), release=release, **changes)
    folder.mkdir(parents=True)
    try:
        os.link(starter / card.file, folder / card.file)
    except OSError:
        shutil.copy(starter / card.file, folder / card.file)
    (folder / "model.json").write_bytes(msgspec.json.encode(card))
    return folder


def reordered(card: ModelCard) -> tuple[str, ...]:
    """Return the labels of a card, two of them gone and the rest turned round: the ids mean something else."""
    return (*[f"other_{i}" for i in range(2)], *card.labels[2:][::-1])


def signed_of(folder: Path, number: int, **more) -> SignedRelease:
    """Return what would be signed of a folder."""
    card = read_card(folder / "model.json")
    files = [path for path in folder.rglob("*") if path.is_file()]
    return SignedRelease(
        model=card.name,
        release=card.release,
        number=number,
        card_sha256=hashlib.sha256((folder / "model.json").read_bytes()).hexdigest(),
        input=f"{card.input.width}x{card.input.height}",
        score_threshold_permille=round(card.score_threshold * 1000),
        files=len(files),
        unpacked_bytes=sum(path.stat().st_size for path in files),
        **more,
    )
