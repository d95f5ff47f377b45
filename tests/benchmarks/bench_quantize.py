"""8 bits against float32: points of AP50 lost and milliseconds, on OpenVINO and ONNX Runtime, at 192 and 320.

The street's annotated frames and COCO pictures of `street.py`. Layers are chosen on val: the last third of the street's
frames to train on and every second COCO picture for replay, with their labels. The other frames and pictures decide:
nothing was chosen on them.
"""

import shutil
import tempfile
from pathlib import Path

import msgspec

from edge.contract.card import read_card
from edge.detector.detector import open_detector
from edge.detector.opening import CARD_NAME, find_starter
from hub.datasets.version import Version
from hub.evaluation.ap import ap50_of
from hub.evaluation.seen import look, members_to_test
from hub.quantization.lines import quantization_lines
from hub.quantization.quantize import quantize
from hub.quantization.report import Tried
from hub.quantization.speed import cpu_name
from tests.benchmarks import street

SIZES = ((192, 192), (320, 320))


def choosing(folder: Path) -> Version:
    """Write the version that is calibrated and chosen on; it has no test split."""
    pictures = street.Pictures()
    numbers = street.split()[0]
    for number in numbers:
        pictures.add_frame(number, split="train" if number < numbers[len(numbers) * 2 // 3] else "val")
    pictures.add_coco(replay=True, split="val", labelled=True)
    return pictures.write(folder, of="street and coco128, to quantize")


def main() -> None:
    if not street.DATA.is_dir():
        print(f"{street.DATA} is not here: skipped")
        return
    print(cpu_name())
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        choosing(root / "choosing")
        tests = {"street": street.street_to_test(root / "street"), "coco128": street.coco_to_test(root / "coco128")}
        for size in SIZES:
            folder = root / f"starter-{size[0]}"
            shutil.copytree(find_starter(), folder)
            card = read_card(folder / CARD_NAME)
            spec = msgspec.structs.replace(card.input, width=size[0], height=size[1])
            (folder / CARD_NAME).write_bytes(msgspec.json.encode(msgspec.structs.replace(card, input=spec)))
            report = quantize(folder, root / "choosing")
            print("\n".join(quantization_lines(report)))
            for tried in report.released:
                for name, version in tests.items():
                    _print_verdict(folder, tried, name, version, root / name)


def _print_verdict(folder: Path, tried: Tried, name: str, version: Version, pictures: Path) -> None:
    members = members_to_test(version)
    float32 = look(open_detector(folder, runtime=tried.runtime), pictures, members)
    variant = look(open_detector(folder, runtime=tried.runtime, variant=tried.name), pictures, members)
    before, after = ap50_of(float32), ap50_of(variant)
    layers = f"{tried.layers - len(tried.float_layers)} of {tried.layers} layers in 8 bits" if tried.layers else ""
    print(
        f"  {tried.name} on {tried.runtime}, {name}: AP50 {before * 100:.1f} -> {after * 100:.1f}, "
        f"lost {(before - after) * 100:+.1f}; {tried.ratio:.2f} of float32's time {layers}"
    )


if __name__ == "__main__":
    main()
