"""What is wanting for a training, in one sentence that says what to do."""

from collections.abc import Sequence

from edge.contract.errors import UnusableError
from hub.datasets.sources import Shot
from hub.datasets.version import Member
from hub.store import Store
from hub.store_rows import BatchRow

_SELF_TAUGHT = "or let the model learn from its own second look: --self-taught"


def require_labelled(store: Store, known: Sequence[Shot], *, weak_spot: int | None) -> None:
    """Raise `UnusableError` when nothing that people's boxes are asked of is labelled."""
    if weak_spot is not None:
        if not any(weak_spot in shot.weak_spots for shot in known):
            msg = f"weak spot {weak_spot} has no labelled image: {_next_step(store, weak_spot)}, {_SELF_TAUGHT}"
            raise UnusableError(msg)
    elif not known:
        lost = sum(row.forgotten for row in store.batches())
        why = f" ({lost} images of batches were forgotten)" if lost else ""
        msg = f"no image is labelled{why}: `hub batch new`, annotate, `hub labels import`; {_SELF_TAUGHT}"
        raise UnusableError(msg)


def require_trainable(members: Sequence[Member], *, weak_spot: int | None, people: bool) -> None:
    """Raise `UnusableError` when there is nothing to train on of what was asked for."""
    train = [member for member in members if member.split == "train"]
    if not people:
        if not train:
            msg = "there is no unlabelled frame to learn from: run `hub serve`, it asks the devices for frames"
            raise UnusableError(msg)
        return
    told = [member for member in train if member.by not in {"", "self"}]
    if not told:
        msg = f"every labelled image is kept for measuring, none is left to train on: label more, {_SELF_TAUGHT}"
        raise UnusableError(msg)
    if weak_spot is not None and not any(weak_spot in member.weak_spots for member in told):
        msg = (
            f"every labelled image of weak spot {weak_spot} is kept for measuring, none is left to train on: make it"
            f" another batch (hub batch new --weakspot {weak_spot}), {_SELF_TAUGHT}"
        )
        raise UnusableError(msg)


def _next_step(store: Store, weak_spot: int) -> str:
    own = [row for row in store.batches() if row.weak_spot_id == weak_spot]
    if not own:
        return f"make it a batch (hub batch new --weakspot {weak_spot}), annotate, import"
    newest = own[-1]
    if _is_forgotten(newest):
        return f"every image of batch {newest.id} was forgotten, make it another (hub batch new --weakspot {weak_spot})"
    return f"export batch {newest.id} (hub batch export {newest.id}), annotate, hub labels import"


def _is_forgotten(row: BatchRow) -> bool:
    return row.forgotten >= row.size
