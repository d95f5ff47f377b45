"""Which images are kept for measuring, and never trained on: the test share, and what was drawn at random.

The test share measures what a training brought. Images that were drawn at random (`BatchRow.random`) measure how often
a machine's labels are wrong: of a model that was trained on them they tell nothing.

Law: what is of the test share depends on the camera and the time of the picture and on nothing else. So no image ever
changes sides, whatever batch it is in, whoever chose it, and however many others there are.

A camera's time is cut into blocks of `BLOCK_MS`, and `SHARE` of the blocks are test, by a hash: pictures of one moment
stand on one side together. Two pictures on either side of a block's edge may look alike; a block is long against the
few seconds that one object stays in view, so these are few.
"""

import hashlib
from typing import Final, Protocol

BLOCK_MS: Final = 20_000
SHARE: Final = 0.2


class _Batch(Protocol):
    @property
    def random(self) -> bool: ...


class _Member(Protocol):
    @property
    def test(self) -> bool: ...


def may_train(batch: _Batch, member: _Member) -> bool:
    """Whether a model may be trained on this image of this batch; the one rule of all who choose what to train on."""
    return not (batch.random or member.test)


def is_test(*, site: str, device: str, camera: str, captured_at_ms: int) -> bool:
    """Whether the picture of this camera and time is of the test share. The names contain no `/`."""
    block = f"{site}/{device}/{camera}/{captured_at_ms // BLOCK_MS}"
    drawn = hashlib.blake2b(block.encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") < SHARE * 2**64
