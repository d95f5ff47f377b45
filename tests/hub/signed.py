"""Signed repositories in one call, with keys in memory.

They sign with the reference Ed25519 of securesystemslib's own tests: slow and open to an eavesdropper beside it, so
good for tests only. Files of keys, with passphrases, are tests/hub/test_keys.py's.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib._vendor.ed25519.ed25519 import publickey_unsafe, signature_unsafe
from securesystemslib.signer import Signature, Signer, SSlibKey
from securesystemslib.signer._utils import compute_default_keyid

from edge.contract.card import InputSpec, ModelCard
from edge.detector.written import write_card
from hub.keys import Ring
from hub.release import Release, create_release
from hub.repository import make_repository

NAMES = {"root": ("root-1", "root-2", "root-3")} | {role: (role,) for role in ("targets", "snapshot", "timestamp")}


class MadeSigner(Signer):
    """A key made of its name: the same name is the same key."""

    def __init__(self, name: str) -> None:
        self.secret = hashlib.sha256(name.encode()).digest()
        self.public = publickey_unsafe(self.secret)
        keyval = {"public": self.public.hex()}
        self._key = SSlibKey(compute_default_keyid("ed25519", "ed25519", keyval), "ed25519", "ed25519", keyval)

    @property
    def public_key(self):
        return self._key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri, public_key, secrets_handler=None):
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._key.keyid, signature_unsafe(payload, self.secret, self.public).hex())


@dataclass(frozen=True)
class MadeRepository:
    """A repository, the keys that sign it, and the root that a device trusts from the start."""

    folder: Path
    ring: Ring
    root: bytes


def made_keys(prefix: str = "", *, without: tuple[str, ...] = ()):
    """Return public keys by role, and the ring of the secret ones but for those named (as in "root-1")."""
    signers = {name: MadeSigner(prefix + name) for names in NAMES.values() for name in names}
    roles = {role: [signers[name].public_key for name in names] for role, names in NAMES.items()}
    held = {one.public_key.keyid: one for name, one in signers.items() if name not in without}
    return roles, Ring({key: (lambda one=one: one) for key, one in held.items()}, "memory")


def made_repository(
    folder: Path, *models: Path, now: datetime | None = None, development: bool = False, prefix: str = ""
) -> MadeRepository:
    """Make a signed repository that releases these model folders, ungated, from number 1 on."""
    roles, ring = made_keys(prefix)
    now = now or datetime.now(UTC)
    make_repository(folder, roles, ring, development=development, now=now)
    repository = MadeRepository(folder, ring, (folder / "metadata" / "1.root.json").read_bytes())
    for model in models:
        add_release(repository, model, now=now)
    return repository


def add_release(repository: MadeRepository, model: Path, *, now: datetime | None = None, **more) -> Release:
    """Release a model folder, ungated, and publish it."""
    more.setdefault("ungated", "a test")
    now = now or datetime.now(UTC)
    release, new = create_release(repository.folder, repository.ring, model_folder=model, now=now, **more)
    assert new
    assert release.published
    return release


def small_model(folder: Path, *, name: str = "yard", release: str = "yard-1", content: str = "") -> Path:
    """Make a model folder of some hundred bytes whose file can be told from others by `content`; it detects nothing."""
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, [1, 3, 32, 32])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["same"])], "small", [image], [same])
    model = helper.make_model(graph, doc_string=content, opset_imports=[helper.make_opsetid("", 17)])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    card = ModelCard(
        name=name,
        release=release,
        file=f"{name}.onnx",
        sha256=hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest(),
        head="centernet",
        input=InputSpec(width=32, height=32),
        labels=("person",),
        score_threshold=0.3,
    )
    write_card(folder / "model.json", card)
    return folder
