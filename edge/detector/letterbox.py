"""A frame becomes the input tensor, and boxes find the exact way back.

Law: `to_frame(to_input(boxes)) == boxes` up to float32 rounding, for boxes inside the frame.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from edge.contract.card import InputSpec
from edge.detector.detections import Floats
from edge.frame import Image


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies in the input: its pixel (x, y) is the input's (x * scale_x + left, y * scale_y + top)."""

    frame_width: int
    frame_height: int
    width: int
    height: int
    left: int
    top: int

    @property
    def scale(self) -> Floats:
        """The two scales, repeated for the two corners: `[4]`."""
        x, y = self.width / self.frame_width, self.height / self.frame_height
        return np.array([x, y, x, y], np.float32)

    @property
    def offset(self) -> Floats:
        """The two offsets in input pixels, repeated for the two corners: `[4]`."""
        return np.array([self.left, self.top, self.left, self.top], np.float32)

    def to_input(self, xyxy: Floats) -> Floats:
        """Carry boxes `[n, 4]` from frame pixels to input pixels."""
        return xyxy * self.scale + self.offset

    def to_frame(self, xyxy: Floats) -> Floats:
        """Carry boxes `[n, 4]` from input pixels to frame pixels, clipped to the frame."""
        limit = np.array([self.frame_width, self.frame_height] * 2, np.float32)
        inside: Floats = np.clip((xyxy - self.offset) / self.scale, np.float32(0), limit)
        return inside


def place(spec: InputSpec, *, frame_size: tuple[int, int], input_size: tuple[int, int]) -> Placement:
    """Decide where a frame of (width, height) lies in an input of (width, height)."""
    (frame_width, frame_height), (input_width, input_height) = frame_size, input_size
    if spec.letterbox == "stretch":
        return Placement(frame_width, frame_height, input_width, input_height, 0, 0)
    scale = min(input_width / frame_width, input_height / frame_height)
    width = max(1, min(input_width, round(frame_width * scale)))
    height = max(1, min(input_height, round(frame_height * scale)))
    centered = spec.letterbox == "center"
    left = (input_width - width) // 2 if centered else 0
    top = (input_height - height) // 2 if centered else 0
    return Placement(frame_width, frame_height, width, height, left, top)


class Letterbox:
    """Frames to tensors of one size, through buffers that are made once.

    Owns its buffers: the tensor of one call is overwritten by the next, and one thread at a time may call.
    """

    def __init__(self, spec: InputSpec, *, input_size: tuple[int, int]) -> None:
        self.input_size = input_size
        self._spec = spec
        width, height = input_size
        self._canvas = np.empty((height, width, 3), np.uint8)
        self._planes = [np.empty((height, width), np.uint8) for _ in range(3)]
        self._tensor = np.empty((1, 3, height, width) if spec.layout == "nchw" else (1, height, width, 3), np.float32)
        self._placement: Placement | None = None

    def __call__(self, image: Image) -> tuple[Floats, Placement]:
        """Return the tensor of a BGR frame `[height, width, 3]` and where the frame lies in it.

        The tensor is float32, `[1, 3, h, w]` or `[1, h, w, 3]` as the card's layout says, `(pixel - mean) / std` in the
        card's colour order; around the frame lies the card's pad value, normalised like every pixel.
        """
        frame_size = (image.shape[1], image.shape[0])
        placement = self._place(frame_size)
        inside = self._canvas[
            placement.top : placement.top + placement.height, placement.left : placement.left + placement.width
        ]
        cv2.resize(image, (placement.width, placement.height), dst=inside, interpolation=cv2.INTER_LINEAR)
        cv2.split(self._canvas, self._planes)
        for channel in range(3):
            self._normalise(channel)
        return self._tensor, placement

    def _place(self, frame_size: tuple[int, int]) -> Placement:
        """Place the frame; a new frame size clears the canvas."""
        placement = self._placement
        if placement is None or (placement.frame_width, placement.frame_height) != frame_size:
            self._canvas[:] = self._spec.pad_value
            placement = self._placement = place(self._spec, frame_size=frame_size, input_size=self.input_size)
        return placement

    def _normalise(self, channel: int) -> None:
        """Fill one channel of the tensor, counted in the card's colour order, from its byte plane."""
        spec = self._spec
        plane = self._planes[channel if spec.color == "bgr" else 2 - channel]
        target = self._tensor[0, channel] if spec.layout == "nchw" else self._tensor[0, :, :, channel]
        mean, std = spec.mean[channel], spec.std[channel]
        if std == 1.0:
            np.copyto(target, plane)
        else:
            np.multiply(plane, np.float32(1.0 / std), out=target)
        if mean != 0.0:
            np.subtract(target, np.float32(mean / std), out=target)
