"""How often the tags that can be wrong are right, on the 128 images of COCO, and what tags cost a device.

*Blur*: every annotated object of 96 pixels or more, blurred by a known amount: a Gaussian (`defocus`) or a straight
smear in one of four directions (`motion_blur`, which counts only with the right direction), pixels at the scale of
edge.detector.blur; with noise and with less light. *Noise*: the surroundings of every object, as they are and with
noise added.
*Grey*: every image as it is, and made grey as cameras do at night: with JPEG, with a weak tint, dark.

The smoothing of edge.detector.blur and the blocks of `noise_sigma` were chosen on the images of even number; what is
printed of blur and noise is of those of odd number. The thresholds are older, and some of their choice saw objects of
both.

    python -m tests.benchmarks.bench_tags
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from edge.detector.blur import MIN_SIDE_PX, edge_spreads
from edge.detector.light import is_grayscale, measure_light, noise_sigma
from edge.tags import NOISY, TALL, WIDE, object_tags, told_of_blur

COCO = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco128"
AROUND_PX = 32
CONDITIONS = ((0.0, 1.0), (8.0, 1.0), (20.0, 1.0), (0.0, 0.3))  # noise, grey levels; light
DIRECTIONS = {0: "motion_horizontal", 45: "motion_diagonal", 90: "motion_vertical", 135: "motion_diagonal"}
MIXED = ("untouched", "spread 2", "spread 3", "smear 10", "smear 16")


def images(*, held_out: bool = True) -> list[tuple[np.ndarray, list[tuple[float, ...]]]]:
    """Return the images of one half with their boxes, `xyxy` pixels."""
    found = []
    for path in sorted((COCO / "images").glob("*.jpg"))[int(held_out) :: 2]:
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        label = COCO / "labels" / f"{path.stem}.txt"
        rows = [list(map(float, line.split())) for line in label.read_text().splitlines()] if label.is_file() else []
        boxes = [
            ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            for _, x, y, w, h in rows
        ]
        found.append((image, boxes))
    return found


def crops(*, held_out: bool = True) -> Iterator[tuple[np.ndarray, float]]:
    """Give grey crops of objects with `AROUND_PX` around them, and their pixels to one at the scale of the measure."""
    for image, boxes in images(held_out=held_out):
        gray = cv2.copyMakeBorder(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), *(AROUND_PX,) * 4, cv2.BORDER_REFLECT)
        for box in boxes:
            x1, y1, x2, y2 = (max(0, round(edge)) for edge in box)
            if min(x2 - x1, y2 - y1) >= MIN_SIDE_PX and (x2 - x1) * (y2 - y1) < 0.8 * image.shape[0] * image.shape[1]:
                scale = min(x2 - x1, y2 - y1) / MIN_SIDE_PX
                yield gray[y1 : y2 + 2 * AROUND_PX, x1 : x2 + 2 * AROUND_PX].astype(np.float32), scale


def smear(length: float, degrees: float) -> np.ndarray:
    """Return the mask of a straight motion; degrees from the x axis to the y axis, which points down."""
    kernel = np.zeros((63, 63), np.float32)
    for t in np.linspace(-length / 2, length / 2, 400):
        x, y = 31 + t * math.cos(math.radians(degrees)), 31 + t * math.sin(math.radians(degrees))
        column, row = int(x), int(y)
        for i, j in itertools.product((0, 1), (0, 1)):
            kernel[row + i, column + j] += abs(1 - i - (y - row)) * abs(1 - j - (x - column))
    return kernel / kernel.sum()


def bell(sigma: float) -> np.ndarray:
    kernel = cv2.getGaussianKernel(63, sigma)
    return (kernel @ kernel.T).astype(np.float32)


def seen(
    picture: np.ndarray, *, mask: np.ndarray | None = None, noise: float = 0.0, gain: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Return the inner part of a picture after blur, light and noise, as a camera gives it."""
    if mask is not None:
        picture = cv2.filter2D(picture, -1, mask, borderType=cv2.BORDER_REFLECT)
    picture = picture[AROUND_PX:-AROUND_PX, AROUND_PX:-AROUND_PX] * gain
    noisy = picture + np.random.default_rng(seed).normal(0, noise, picture.shape)
    return np.clip(noisy, 0, 255).round().astype(np.uint8)


def masks(number: int, scale: float) -> Iterator[tuple[str, str, np.ndarray | None]]:
    """Give what is done to a crop: by which name, which tag is right, and the mask."""
    yield "untouched", "", None
    for spread in (1, 2, 3):
        yield f"spread {spread}", "defocus" if spread > 1 else "", bell(spread * scale)
    for length in (6, 10, 16):
        degrees = list(DIRECTIONS)[number % 4]
        yield f"smear {length}", DIRECTIONS[degrees], smear(min(60.0, length * scale), degrees)


def told(*, held_out: bool = True) -> Iterator[tuple[tuple[float, float], str, str, np.ndarray, float]]:
    """Give every blurred crop: condition, name, the right tag, the picture and the noise measured there."""
    for number, (crop, scale) in enumerate(crops(held_out=held_out)):
        for name, right, mask in masks(number, scale):
            for noise, gain in CONDITIONS:
                gray = seen(crop, mask=mask, noise=noise, gain=gain, seed=number)
                yield (noise, gain), name, right, gray, noise_sigma(gray[:256, :256])


def print_blur() -> None:
    rows = [
        (condition, name, right, told_of_blur(edge_spreads(gray, noise=noise)))
        for condition, name, right, gray, noise in told()
    ]
    names = list(dict.fromkeys(name for _, name, _, _ in rows))
    print(f"blur, {len(rows) // len(names) // len(CONDITIONS)} objects: the right tag (untouched, spread 1: any tag)")
    print("  noise light  " + "  ".join(f"{name:>9}" for name in names))
    for noise, gain in CONDITIONS:
        shares = []
        for name in names:
            here = [(right, tags) for at, one, right, tags in rows if at == (noise, gain) and one == name]
            shares.append(np.mean([right in tags if right else bool(tags) for right, tags in here]))
        print(f"  {noise:5.0f} {gain:5.1f}  " + "  ".join(f"{share:9.0%}" for share in shares))
    mixed = [(right, tags) for at, name, right, tags in rows if name in MIXED and at in CONDITIONS[:2]]
    for kind in ("defocus", "motion_blur"):
        said = [right in tags for right, tags in mixed if kind in tags]
        asked = [right in tags for right, tags in mixed if right and (right == "defocus") is (kind == "defocus")]
        print(f"  {kind}: precision {np.mean(said):.2f}, recall {np.mean(asked):.2f} ({', '.join(MIXED)}; noise 0, 8)")


def print_noise() -> None:
    levels = (0, 4, 6, 10, 12, 20)
    found: dict[int, list[float]] = {level: [] for level in levels}
    for number, (image, boxes) in enumerate(images()):
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        for level in levels:
            grain = np.random.default_rng(number).normal(0, level, gray.shape)
            noisy = np.clip(gray + grain, 0, 255).round().astype(np.uint8)
            found[level] += [measure_light(noisy, box).noise for box in boxes]
    shares = {level: float(np.mean(np.array(several) > NOISY)) for level, several in found.items()}
    print(f"noisy, {len(found[0])} objects: " + ", ".join(f"sigma {one}: {share:.0%}" for one, share in shares.items()))
    print(f"  precision {shares[10] / (shares[0] + shares[10]):.2f}, recall {shares[10]:.2f} (half sigma 10, half 0)")


def print_grey() -> None:
    def grey(image: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)

    def jpeg(image: np.ndarray) -> np.ndarray:
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)

    def tinted(image: np.ndarray) -> np.ndarray:
        return np.clip(grey(image) * np.array((1.08, 1.0, 0.94)), 0, 255).astype(np.uint8)

    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "in colour": lambda image: image,
        "in colour, 30 % of the light, JPEG": lambda image: jpeg((image * 0.3).astype(np.uint8)),
        "in colour, 10 % of the light, JPEG": lambda image: jpeg((image * 0.1).astype(np.uint8)),
        "grey": grey,
        "grey, JPEG": lambda image: jpeg(grey(image)),
        "grey, tint, JPEG": lambda image: jpeg(tinted(image)),
        "grey, 10 % of the light, JPEG": lambda image: jpeg((grey(image) * 0.1).astype(np.uint8)),
        "grey, tint, 30 % of the light, JPEG": lambda image: jpeg((tinted(image) * 0.3).astype(np.uint8)),
        "grey, tint, 10 % of the light, JPEG": lambda image: jpeg((tinted(image) * 0.1).astype(np.uint8)),
    }
    both = [image for half in (False, True) for image, _ in images(held_out=half)]
    colourless = sum(not np.ptp(image, axis=2).any() for image in both)
    print(f"grayscale, all {len(both)} images; {colourless} of them have no colours:")
    for name, way in ways.items():
        print(f"  {name}: {np.mean([is_grayscale(way(image)) for image in both]):.1%}")


def print_shapes() -> None:
    several = [boxes for half in (False, True) for _, boxes in images(held_out=half)]
    sides = [(x2 - x1, y2 - y1) for boxes in several for x1, y1, x2, y2 in boxes]
    wide, tall = np.mean([w >= WIDE * h for w, h in sides]), np.mean([h >= TALL * w for w, h in sides])
    print(f"shapes, {len(sides)} objects: wide {wide:.1%}, tall {tall:.1%}")


def print_cost() -> None:
    """Print the best of several: milliseconds of one core for one object."""
    cv2.setNumThreads(1)
    image = cv2.resize(images()[0][0], (768, 576))
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    for side in ((60, 150), (120, 220), (300, 400), (600, 500)):
        region = (100.0, 50.0, 100.0 + side[0], 50.0 + side[1])

        def once(region: tuple[float, ...] = region) -> None:
            light = measure_light(gray, region)
            object_tags(image, region, light=light, input_scale=0.4, others=[region] * 10)

        best = math.inf
        for _ in range(12):
            begun_s = time.process_time()
            for _ in range(30):
                once()
            best = min(best, (time.process_time() - begun_s) / 30 * 1000)
        print(f"cost at {side[0]}x{side[1]} of 768x576: {best:.2f} ms")


def main() -> None:
    if not COCO.is_dir():
        print(f"{COCO} is not here: skipped")
        return
    print_blur()
    print_noise()
    print_grey()
    print_shapes()
    print_cost()


if __name__ == "__main__":
    main()
