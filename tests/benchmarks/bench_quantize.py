"""8 bits against float32: points of AP50 lost and milliseconds, on OpenVINO and ONNX Runtime, at 192 and 320.

The street's annotated frames and COCO pictures of `street.py`. Layers are chosen on val: the last third of the street's
frames to train on and every second COCO picture for replay, with their labels. The other frames and pictures are the
test split: nothing was chosen on them.
"""

import shutil
import tempfile
from pathlib import Path

import msgspec

from edge.contract.card import read_card
from edge.detector.opening import CARD_NAME, find_starter
from hub.datasets.version import Version
from hub.quantization.lines import quantization_lines
from hub.quantization.quantize import quantize
from hub.quantization.speed import cpu_name
from tests.benchmarks import street

SIZES = ((192, 192), (320, 320))


def pictures_of(folder: Path) -> Version:
    """Write the version."""
    pictures = street.Pictures()
    numbers = street.split()[0]
    for number in numbers:
        pictures.add_frame(number, split="train" if number < numbers[len(numbers) * 2 // 3] else "val")
    pictures.add_coco(replay=True, split="val", labelled=True)
    for number in street.split()[1]:
        pictures.add_frame(number, split="test")
    pictures.add_coco(replay=False, split="test", labelled=True)
    return pictures.write(folder, of="street and coco128, to quantize")


def main() -> None:
    if not street.DATA.is_dir():
        print(f"{street.DATA} is not here: skipped")
        return
    print(cpu_name())
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        pictures_of(root / "pictures")
        for size in SIZES:
            folder = root / f"starter-{size[0]}"
            shutil.copytree(find_starter(), folder)
            card = read_card(folder / CARD_NAME)
            spec = msgspec.structs.replace(card.input, width=size[0], height=size[1])
            (folder / CARD_NAME).write_bytes(msgspec.json.encode(msgspec.structs.replace(card, input=spec)))
            report = quantize(folder, root / "pictures")
            print("\n".join(quantization_lines(report)))


if __name__ == "__main__":
    main()
