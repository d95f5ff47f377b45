"""Tags that a device can measure on a finding: few, each by one rule."""

from typing import Final

from edge.contract.samples import Light, Xyxy

TINY_PX: Final = 8.0
SMALL_PX: Final = 16.0
DARK: Final = 50.0
BRIGHT: Final = 205.0
FLAT: Final = 12.0
NOISY: Final = 6.0
CROWDED: Final = 5
BORDER_PX: Final = 2.0


def finding_tags(
    region: Xyxy,
    light: Light,
    *,
    frame_size: tuple[int, int],
    input_scale: float,
    detected: int,
) -> tuple[str, ...]:
    """Return the tags of a region, in a fixed order.

    Args:
        region: `xyxy` pixels of the frame.
        light: measured at the region, grey levels of 0..255.
        frame_size: width and height of the frame in pixels.
        input_scale: model input pixels per frame pixel.
        detected: number of boxes at or above the threshold in the frame.

    `tiny` and `small`: the shorter side is under 8 or 16 model input pixels. `border`: the region touches the frame's
    border. `dark`, `bright`: mean grey under 50 or over 205. `flat`: contrast under 12. `noisy`: noise sigma over 6.
    `crowded`: at least 5 boxes.
    """
    x1, y1, x2, y2 = region
    side = min(x2 - x1, y2 - y1) * input_scale
    width, height = frame_size
    cut = x1 < BORDER_PX or y1 < BORDER_PX or x2 > width - BORDER_PX or y2 > height - BORDER_PX
    rules = (
        ("tiny", side < TINY_PX),
        ("small", TINY_PX <= side < SMALL_PX),
        ("border", cut),
        ("dark", light.brightness < DARK),
        ("bright", light.brightness > BRIGHT),
        ("flat", light.contrast < FLAT),
        ("noisy", light.noise > NOISY),
        ("crowded", detected >= CROWDED),
    )
    return tuple(tag for tag, holds in rules if holds)
