"""A finished track of Frigate and its snapshot become a finding and its frame.

The JPEG travels as it came: nothing is encoded anew. `features` are empty, since Frigate tells none. Where
other objects were in the same frame it does not tell, either: no finding is tagged `crowded` or `occluded`.
"""

import hashlib
import uuid
from typing import Final, NamedTuple

import cv2
import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.jpeg import jpeg_size
from edge.contract.samples import Box, Finding, Reason, plain_text
from edge.fingerprint import fingerprint
from edge.frame import Image
from edge.frigate import FrigateTrack, UnfitError, Verdict, is_at_border, place
from edge.frigate_tracks import Picture
from edge.tags import object_tags

MODEL: Final = "frigate"
INPUT_PX: Final = 320.0  # side of the input of Frigate's usual models
BROKEN: Final = "bad_snapshot"
_NAMESPACE: Final = uuid.UUID("5a2f0f0e-6b1d-4b8e-9a37-0d6c1f4b7e21")


class Origin(NamedTuple):
    """Where a sample comes from. `sequence`: of the camera's pictures, from 0."""

    site: str
    device: str
    sequence: int


def seal(
    track: FrigateTrack, picture: Picture, *, verdict: Verdict, detect: tuple[int, int] | None, origin: Origin
) -> Finding | None:
    """Return the finding whose frame is the picture; None for a suspect at the border, where things come and go.

    Args:
        track: as it ended.
        picture: whatever came as one, and where the track stands in it.
        verdict: why it is a finding.
        detect: width and height of the picture in whose pixels `picture.sight` is; None when it is the JPEG's own.
        origin: see `Origin`.

    Raises `UnfitError` for what cannot be decoded safely, and for a picture that does not show the track.
    """
    jpeg, sight = picture
    image = _decode(jpeg)
    size = (image.shape[1], image.shape[0])
    region = place(sight, picture=size, detect=detect)
    if verdict.reason is Reason.SUSPECT and is_at_border(region, size):
        return None
    print_ = fingerprint(image, region)
    witness = verdict.witnesses[0].kind if verdict.witnesses else None
    searched_px = sight.searched_px * size[0] / (detect or size)[0] or float(max(size))
    return Finding(
        event_id=event_id(track, origin),
        site=origin.site,
        device=origin.device,
        camera=track.camera,
        sequence=origin.sequence,
        captured_at_ms=int(sight.time_s * 1e3),
        reason=verdict.reason,
        severity=verdict.severity,
        region=region,
        label=track.label,
        boxes=(Box(region, track.label, round(track.score, 4), witness),),
        witnesses=verdict.witnesses,
        tags=object_tags(image, region, light=print_.light, input_scale=INPUT_PX / searched_px, others=()),
        track=plain_text(track.id),
        width=size[0],
        height=size[1],
        crop_hash=print_.crop_hash,
        frame_hash=print_.frame_hash,
        features=b"",
        light=print_.light,
        model=MODEL,
        frame_bytes=len(jpeg),
        frame_sha256=hashlib.sha256(jpeg).hexdigest(),
    )


def event_id(track: FrigateTrack, origin: Origin) -> str:
    """Return the track's event id: the same whenever and however often it is told of."""
    return uuid.uuid5(_NAMESPACE, f"{origin.site}/{origin.device}/{track.camera}/{track.id}").hex


def _decode(jpeg: bytes) -> Image:
    """Return the BGR picture `[height, width, 3]` in the pixels of the stored image."""
    try:
        width, height = jpeg_size(jpeg)
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except (UnusableError, cv2.error) as error:
        raise UnfitError(BROKEN, " ".join(str(error).split())) from error
    if image is None or image.shape[:2] != (height, width):
        msg = f"a JPEG of {len(jpeg)} bytes that cannot be decoded"
        raise UnfitError(BROKEN, msg)
    return np.asarray(image, np.uint8)
