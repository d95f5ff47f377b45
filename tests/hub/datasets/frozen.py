"""A hub with labelled images and frames of the field, and versions made of them."""

import hashlib
from collections.abc import Sequence

from hub.datasets.choice import Asked
from hub.datasets.freeze import Frozen, freeze
from hub.datasets.splits import side
from hub.datasets.version import Member, MemberBox, Version, make_version, write_version
from hub.store import Store
from hub.testshare import is_beside_test, is_test
from tests.hub.labelled import draw, person, put
from tests.hub.labelled import freeze as freeze_batch
from tests.hub.made import jpeg
from tests.hub.sighted import TAGGER

AT_MS = 1_700_000_105_000  # well inside a block of 20 s
PEOPLE = Asked(self_taught=False, noise=False)


def times(split: str, count: int, *, camera: str = "lab/box/door", start: int = 0) -> list[int]:
    """So many moments, a minute or more apart, whose pictures are of a side."""
    found, at_ms = [], AT_MS + start * 60_000
    while len(found) < count:
        if _side(camera, at_ms) == split:
            found.append(at_ms)
        at_ms += 60_000
    return found


def _side(camera: str, at_ms: int) -> str | None:
    site, device, name = camera.split("/")
    where = {"site": site, "device": device, "camera": name, "captured_at_ms": at_ms}
    if is_test(**where):
        return "test"
    return None if is_beside_test(**where) else side(camera, at_ms, first_ms=AT_MS)


def put_at(store, numbers, moments, **changes):
    for number, at_ms in zip(numbers, moments, strict=True):
        put(store, number, captured_at_ms=at_ms, **changes)


def labelled(store, *, train=4, val=2, test=3, first=1, boxes=None, labels=("person", "head"), **changes) -> int:
    """Put images of each side from `first` on, in this order, label them all, and return their batch."""
    moments = times("train", train) + times("val", val) + times("test", test)
    numbers = range(first, first + len(moments))
    put_at(store, numbers, moments, **changes)
    batch = freeze_batch(store, *numbers)
    draw(store, batch, {number: boxes or [person(4)] for number in numbers}, labels=labels)
    return batch


def people(store: Store, **changes) -> Frozen:
    """Freeze what people have labelled, without self-taught frames and noise."""
    return freeze(store, PEOPLE._replace(**changes), model=None, tagger=TAGGER)


def member(number: int, **changes) -> Member:
    """A member about `jpeg(number)`."""
    box = MemberBox(xyxy=(4.0, 4.0, 20.0, 30.0), label="person", origin="person")
    made = {
        "name": f"m{number}",
        "sha256": hashlib.sha256(jpeg(number)).hexdigest(),
        "width": 64,
        "height": 48,
        "split": "train",
        "labels": ("person",),
        "boxes": (box,),
        "by": "person",
    }
    return Member(**made | changes)


def version_of(members: Sequence[Member], *, labels=("person", "head"), **recipe) -> Version:
    return make_version(members, labels=labels, recipe=recipe, created_at_ms=AT_MS)


def written(folder, members: Sequence[Member], **more) -> Version:
    """Write a version of `member`s."""
    version = version_of(members, **more)
    write_version(version, folder, jpeg_of=lambda one: jpeg(int(one.name.removeprefix("m"))))
    return version
