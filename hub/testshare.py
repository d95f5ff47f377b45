"""Which images are kept for measuring, and never trained on: the test share, and what was drawn at random.

The test share measures what a training brought. Images that were drawn at random (`BatchRow.random`) measure how often
a machine's labels are wrong: of a model that was trained on them they tell nothing.

Law: what is of the test share depends on the camera and the time of the picture and on nothing else. So no image ever
changes sides, whatever batch it is in, whoever chose it, and however many others there are.

A camera's time is cut into blocks of `BLOCK_MS`, and `SHARE` of the blocks are test, by a hash: pictures of one moment
stand on one side together. Two pictures on either side of a block's edge look alike; so what is not test and lies
within `APART_MS` of a test block gets into no batch.
"""

import hashlib
from typing import Final, Protocol

BLOCK_MS: Final = 20_000
SHARE: Final = 0.2
APART_MS: Final = 3_000  # pictures of one camera nearer to each other show one moment


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
    return _is_test_block(f"{site}/{device}/{camera}", captured_at_ms // BLOCK_MS)


def is_beside_test(*, site: str, device: str, camera: str, captured_at_ms: int) -> bool:
    """Whether the picture is not of the test share, and less than `APART_MS` from a time that is."""
    of, block, into_ms = f"{site}/{device}/{camera}", captured_at_ms // BLOCK_MS, captured_at_ms % BLOCK_MS
    before, after = into_ms < APART_MS, into_ms >= BLOCK_MS - APART_MS
    if not (before or after) or _is_test_block(of, block):
        return False
    return (before and _is_test_block(of, block - 1)) or (after and _is_test_block(of, block + 1))


def _is_test_block(camera: str, block: int) -> bool:
    drawn = hashlib.blake2b(f"{camera}/{block}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") < SHARE * 2**64
