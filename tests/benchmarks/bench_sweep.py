"""The input size as a dial, on the street recording: fine-tuned and small against untouched and large.

The starter is fine-tuned at 192x192 on at most 50 annotated frames of the street, with pictures of COCO for replay;
both are measured at several sizes on later frames of the street. Milliseconds are of processor time, one thread: what
else the machine does counts little. `python -m tests.benchmarks sweep` trains for minutes.
"""

import tempfile
import time
from pathlib import Path

from edge.detector.opening import find_starter
from hub.evaluation.report import Baseline
from hub.sweep import Running, sweep
from hub.sweep_lines import sweep_lines
from hub.sweep_sizes import parse_sizes
from hub.train.course import train
from hub.train.recipe import DEFAULT
from tests.benchmarks.street import DATA, Pictures, split, street_to_test

SIZES = "128,160,192,224,256,320,160x128,192x160,224x192,256x192,320x256"
TAUGHT_AT = (192, 192)
MOST_FRAMES = 50
VALIDATED = 5  # every so many-th frame to train on chooses the interpolation


def candidate(folder: Path) -> Path:
    """Fine-tune the starter on the street; return the model's folder."""
    pictures = Pictures()
    numbers = split()[0]
    for at, number in enumerate(numbers[:: -(-len(numbers) // MOST_FRAMES)]):
        pictures.add_frame(number, split="val" if at % VALIDATED == VALIDATED - 1 else "train")
    pictures.add_coco(replay=True, split="train")
    pictures.write(folder / "taught", of="street and coco128")
    train(folder / "taught", model=None, out=folder / "street", input_size=TAUGHT_AT, recipe=DEFAULT, threads=2)
    return folder / "street"


def main() -> None:
    if not DATA.is_dir():
        print(f"{DATA} is not here: skipped")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        street_to_test(folder / "test")
        model = candidate(folder)
        running = Running(threads=1, clock_ns=time.process_time_ns)
        sizes = parse_sizes(SIZES)
        done = sweep(folder / "test", model=model, against=Baseline(find_starter()), sizes=sizes, running=running)
    print("\n".join(sweep_lines(done)))
    small, large = done.model.at("192x192"), done.baseline and done.baseline.at("320x320")
    if small and large and small.ap50.value is not None and large.ap50.value is not None:
        print(
            f"fine-tuned at 192x192 against untouched at 320x320: AP50 {100 * small.ap50.value:.1f} against "
            f"{100 * large.ap50.value:.1f}, {small.ms:.1f} ms against {large.ms:.1f} ms"
        )


if __name__ == "__main__":
    main()
