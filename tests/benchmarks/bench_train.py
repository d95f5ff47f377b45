"""What a training on fifty frames of one camera brings there, what it costs elsewhere, and what it takes.

The starter at 192x192 on `vtest.avi`: trained on the 20 annotated frames of its first part (people), on every third
frame of that part as the starter's own second look labels it (self-taught), and on both; tested on the annotated frames
after it. COCO's pictures are coco128: the odd ones for replay without their labels, the even ones to test on.

Then the same number of annotated frames, chosen in three ways. Only 20 of the pool are annotated, so half of them are
chosen; nothing is self-taught there. How much the choice matters can be read against the spread of the random ones.

The data is not part of the project; without it the benchmark says so.

    python -m tests.benchmarks.bench_train [seeds]
"""

import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import street
from tests.benchmarks.taught_street import (
    EVERY,
    Figures,
    Run,
    Tests,
    at_random,
    least_sure,
    ours,
    self_taught,
    train,
    train_part,
    write_train_version,
)

SEEDS = (0, 1, 2)
CHOSEN = 10


def print_head() -> None:
    print(
        f"  {'trained on':26} {'AP50':>5} {'recall':>6} {'prec.':>5} {'COCO person':>11} {'changed by':>14} {'all':>5}"
        f" {'new':>4} {'min':>5} {'CPU s':>5} {'GB':>4}"
    )


def print_figures(name: str, one: Figures, took: str = "") -> None:
    print(
        f"  {name:26} {one.street:5.3f} {one.recall:6.3f} {one.precision:5.3f}"
        f" {one.people:11.3f} {f'{one.people_low:+.3f} {one.people_high:+.3f}':>14} {one.labels:5.3f} {took}",
        flush=True,
    )


def print_runs(name: str, runs: list[Run]) -> None:
    """Print each seed, and the mean of several."""
    for seed, one in enumerate(runs):
        took = f"{one.alpha:4.2f} {one.clock_s / 60:5.1f} {one.processor_s:5.0f} {one.memory_gb:4.1f}"
        print_figures(f"{name}, seed {seed}" if len(runs) > 1 else name, one.figures, took)
    if len(runs) > 1:
        fields = Figures.__dataclass_fields__
        mean = {field: statistics.fmean(getattr(one.figures, field) for one in runs) for field in fields}
        print_figures(f"{name}, mean", Figures(**mean))


def print_kinds(folder: Path, tests: Tests, seeds: tuple[int, ...]) -> None:
    annotated = street.split()[0]
    machine, teaching_s = self_taught(number for number in train_part() if number % EVERY == 0)
    print(
        f"\n{len(annotated)} annotated frames; {len(machine)} self-taught, {teaching_s:.0f} s of the processor for them"
    )
    print_head()
    print_figures("the starter", tests.of(None))
    kinds = {"people": (annotated, {}), "self-taught": ([], machine), "both": (annotated, machine)}
    for name, (people, taught) in kinds.items():
        version = folder / f"version-{name}"
        write_train_version(version, people=people, machine=taught)
        print_runs(name, [train(version, folder / f"{name}-{seed}", tests, seed=seed) for seed in seeds])


def print_choices(folder: Path, tests: Tests) -> None:
    print(f"\n{CHOSEN} of the {len(street.split()[0])} annotated frames, chosen in three ways, people's labels alone")
    print_head()
    choices = {f"random {seed}": at_random(CHOSEN, seed=seed) for seed in SEEDS}
    choices |= {"lowest confidence": least_sure(CHOSEN), "hub batch new": ours(CHOSEN)}
    for name, chosen in choices.items():
        version = folder / f"version-{name}"
        write_train_version(version, people=chosen, machine={})
        print_runs(name, [train(version, folder / f"chosen-{name}", tests)])


def main() -> None:
    """Print every figure; with the word `seeds` the first table three times over, with the mean."""
    if not (street.DATA / "vtest.avi").is_file():
        print(f"skipped: no vtest.avi in {street.DATA}")
        return
    seeds = SEEDS if sys.argv[-1] == "seeds" else SEEDS[:1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests = Tests(folder)
        print_kinds(folder, tests, seeds)
        print_choices(folder, tests)


if __name__ == "__main__":
    main()
