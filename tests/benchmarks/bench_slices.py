"""Slices: whether planted weak points are named, whether noise is, whether intervals hold, and how long it takes.

The fleet is made: eight cameras (or 200) on three sites, each with its own mix of tags; size, place in the picture,
hours and label exclude each other; twenty-eight measured tags of 5 % to 50 % lean on the camera and on two hidden
causes (light and motion), so that they go together. About 60 tags, 15 to each row. Objects are drawn until there are as
many missed and found ones as asked; an object is missed with the base rate, in a planted slice with the slice's. What
is missed is shuffled, never the tags. Times are those of the CPU, of one thread if the caller says so.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hub.slices import Slice, find_slices, measure

CAMERAS = 8
MEASURED = 28
TRIALS = 200
SEED = 110_000  # from here on: nothing was tuned on these
EVENTS = 3000
PLACES = ("site:", "camera:", "hours:", "label:")
EFFECTS = ((0.09, 0.41), (0.09, 0.30), (0.20, 0.45), (0.05, 0.15), (0.40, 0.65))
"""Base miss rate and that of the planted slice."""


@dataclass(frozen=True)
class Fleet:
    """Names of the t tags, and objects `[n, t]`."""

    names: list[str]
    has: NDArray[np.bool_]


@dataclass(frozen=True)
class Demo:
    """The rows of the three demo cameras: (missed, found) of each."""

    day: tuple[int, int]
    dark: tuple[int, int]
    noisy: tuple[int, int]


def fleet(rng: np.random.Generator, objects: int, cameras: int = CAMERAS) -> Fleet:
    """Return a fleet and objects of it."""
    columns: dict[str, NDArray[np.bool_]] = {}
    camera = rng.choice(cameras, objects, p=rng.dirichlet(np.full(cameras, 4.0)))
    for number in range(cameras):
        columns[f"camera:site{number % 3}/box{number}/cam"] = camera == number
    for number in range(3):
        columns[f"site:site{number}"] = camera % 3 == number

    def exclusive(names: Sequence[str], evenness: float) -> None:
        shares = rng.dirichlet(np.full(len(names), evenness), cameras)
        edges = shares.cumsum(axis=1)[camera]
        drawn = (rng.random((objects, 1)) > edges[:, :-1]).sum(axis=1)
        columns.update({name: drawn == at for at, name in enumerate(names)})

    exclusive(("tiny", "small", "medium", "big"), 3.0)
    exclusive(("left", "middle", "right"), 5.0)
    exclusive(("top", "centre", "bottom"), 5.0)
    exclusive(tuple(f"hours:{hour:02}-{hour + 4:02}" for hour in range(0, 24, 4)), 2.0)
    exclusive(("label:person", "label:car", "label:bicycle"), 3.0)
    causes = rng.normal(size=(objects, 2))
    for number, share in enumerate(np.geomspace(0.05, 0.5, MEASURED)):
        weights = rng.normal(scale=0.6, size=2)
        pull = causes @ weights + rng.normal(scale=0.5, size=cameras)[camera] + rng.normal(size=objects)
        columns[f"tag{number}"] = pull > np.quantile(pull, 1 - share)
    return Fleet(list(columns), np.stack(list(columns.values()), axis=1))


def rows(
    rng: np.random.Generator,
    depth: int,
    planted: int,
    *,
    missed: int,
    found: int,
    rates: tuple[float, float],
    cameras: int = CAMERAS,
) -> tuple[Fleet, NDArray[np.bool_], list[tuple[str, ...]]]:
    """Return rows with planted slices of `depth` tags of at least 2 % of all objects that share no tag."""
    base, high = rates
    whole = fleet(rng, int(1.3 * max(missed / base, found / (1 - high), found / (1 - base))), cameras)
    chosen: list[tuple[int, ...]] = []
    weak = np.zeros(len(whole.has), bool)
    while len(chosen) < planted:
        tags = tuple(sorted(int(tag) for tag in rng.choice(len(whole.names), depth, replace=False)))
        inside = whole.has[:, tags].all(axis=1)
        fewer = [whole.has[:, [tag for tag in tags if tag != left]].all(axis=1).mean() for left in tags]
        own = not any(set(tags) & set(others) for others in chosen)
        if own and inside.mean() >= 0.02 and all(inside.mean() < 0.7 * wider for wider in fewer):
            chosen.append(tags)
            weak |= inside
    is_missed = rng.random(len(weak)) < np.where(weak, high, base)
    some = np.concatenate([np.flatnonzero(is_missed)[:missed], np.flatnonzero(~is_missed)[:found]])
    rng.shuffle(some)
    return (
        Fleet(whole.names, whole.has[some]),
        is_missed[some],
        [tuple(whole.names[tag] for tag in tags) for tags in chosen],
    )


def rank(slices: Sequence[Slice], tags: tuple[str, ...]) -> int | None:
    """Return where the very conjunction stands, from 0."""
    return next((at for at, one in enumerate(slices) if set(one.tags) == set(tags)), None)


def planted(depth: int, count: int, rates: tuple[float, float], *, missed: int, found: int, trials: int) -> str:
    """Return a line on planted slices."""
    first = top3 = more = 0
    for seed in range(SEED, SEED + trials):
        rng = np.random.default_rng([depth, count, missed, int(100 * rates[1]), seed])
        made, is_missed, truth = rows(rng, depth, count, missed=missed, found=found, rates=rates)
        slices = find_slices(made.names, made.has, is_missed, base_rate=rates[0])
        ranks = [rank(slices, tags) for tags in truth]
        first += sum(at == 0 for at in ranks)
        top3 += sum(at is not None and at < 3 for at in ranks)
        more += len(slices) > count
    return (
        f"{count} x {depth} tags, {rates[1]:.0%} against {rates[0]:.0%}, {missed} missed + {found} found:"
        f" in the top 3 {top3 / trials / count:.1%}, first {first / trials:.1%}, more than planted {more / trials:.1%}"
    )


def shuffled(missed: int, found: int, trials: int) -> str:
    """Return a line on shuffled rows."""
    named = 0
    for seed in range(SEED, SEED + trials):
        rng = np.random.default_rng([missed, found, seed])
        made = fleet(rng, missed + found)
        is_missed = rng.permutation(np.arange(missed + found) < missed)
        named += bool(find_slices(made.names, made.has, is_missed, base_rate=0.1))
    return f"shuffled, {missed} missed + {found} found: anything named in {named / trials:.1%} of {trials} data sets"


def beside(depth: int, missed: int, found: int, trials: int) -> str:
    """Return a line on what is named where what is missed is shuffled outside a planted slice."""
    planted_named = anything = elsewhere = 0
    for seed in range(SEED, SEED + trials):
        rng = np.random.default_rng([depth, missed, found, seed])
        made, is_missed, (truth,) = rows(rng, depth, 1, missed=missed, found=found, rates=EFFECTS[0])
        inside = made.has[:, [made.names.index(tag) for tag in truth]].all(axis=1)
        is_missed[~inside] = rng.permutation(is_missed[~inside])
        slices = find_slices(made.names, made.has, is_missed, base_rate=EFFECTS[0][0])
        planted_named += rank(slices, truth) is not None
        others = [one for one in slices if set(one.tags) != set(truth)]
        anything += bool(others)
        elsewhere += any(not set(truth) & set(one.tags) for one in others)
    return (
        f"shuffled outside one of {depth} tags, {missed} missed + {found} found: it is named in"
        f" {planted_named / trials:.1%}, anything else in {anything / trials:.1%}, without a tag of it in"
        f" {elsewhere / trials:.1%} of {trials} data sets"
    )


def coverage(base: float, high: float, share: float, missed: int, found: int, trials: int = 20_000) -> str:
    """Return a line on the interval of a slice with a share of all objects."""
    rng = np.random.default_rng([int(1000 * share), missed, int(100 * high)])
    prevalence = share * high + (1 - share) * base
    m = rng.binomial(missed, share * high / prevalence, trials)
    d = rng.binomial(found, share * (1 - high) / (1 - prevalence), trials)
    is_missed = np.arange(missed + found) < missed
    held = 0
    known: dict[tuple[int, int], bool] = {}
    for pair in zip(m.tolist(), d.tolist(), strict=True):
        if pair not in known:
            inside = np.zeros(missed + found, bool)
            inside[: pair[0]] = inside[missed : missed + pair[1]] = True
            rate = measure(inside, is_missed, base_rate=prevalence)
            known[pair] = rate.low <= high <= rate.high
        held += known[pair]
    return f"interval of {high:.0%} in {share:.0%} of objects, {missed} + {found} rows: held in {held / trials:.1%}"


def demo(counts: Demo, trials: int = 100) -> str:
    """Return how often `dark` and `noisy` are named, each alone."""
    both = other = dark = noisy = 0
    for seed in range(SEED, SEED + trials):
        rng = np.random.default_rng(seed)
        names, has, is_missed = demo_rows(rng, counts)
        named = [set(one.tags) for one in find_slices(names, has, is_missed, base_rate=0.65)]
        dark += {"dark"} in named
        noisy += {"noisy"} in named
        both += {"dark"} in named and {"noisy"} in named
        other += any(tags not in ({"dark"}, {"noisy"}) for tags in named)
    return (
        f"demo, day {counts.day} dark {counts.dark} noisy {counts.noisy}: dark {dark / trials:.0%},"
        f" noisy {noisy / trials:.0%}, both {both / trials:.0%}, anything else {other / trials:.0%}"
    )


def demo_rows(rng: np.random.Generator, counts: Demo) -> tuple[list[str], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return rows of three cameras that look at equal scenes."""
    camera = np.repeat([0, 0, 1, 1, 2, 2], [*counts.day, *counts.dark, *counts.noisy])
    is_missed = np.repeat([1, 0, 1, 0, 1, 0], [*counts.day, *counts.dark, *counts.noisy]).astype(bool)
    n = len(camera)
    size = rng.choice(4, n, p=(0.1, 0.4, 0.4, 0.1))
    side = rng.choice(3, n, p=(0.3, 0.4, 0.3))
    columns = {
        **{name: size == at for at, name in enumerate(("tiny", "small", "medium", "big"))},
        **{name: side == at for at, name in enumerate(("left", "middle", "right"))},
        "dark": camera == 1,
        "noisy": camera == 2,
        "flat": rng.random(n) < np.where(camera == 1, 0.5, 0.05),
        "crowded": rng.random(n) < 0.4,
        "border": rng.random(n) < 0.1,
        "occluded": rng.random(n) < 0.2,
        "camera:demo/box/day": camera == 0,
        "camera:demo/box/dark": camera == 1,
        "camera:demo/box/noisy": camera == 2,
        "site:demo": np.ones(n, bool),
        "label:person": np.ones(n, bool),
        "hours:08-12": np.ones(n, bool),
    }
    return list(columns), np.stack(list(columns.values()), axis=1), is_missed


def duration(events: int, cameras: int) -> str:
    """Return a line on the time of a search."""
    rng = np.random.default_rng(events)
    made, is_missed, _ = rows(rng, 2, 2, missed=events // 2, found=events // 2, rates=EFFECTS[0], cameras=cameras)
    times = []
    for _ in range(7):
        start = time.process_time()
        named = find_slices(made.names, made.has, is_missed, base_rate=EFFECTS[0][0])
        times.append(time.process_time() - start)
    return (
        f"{events} rows x {len(made.names)} tags ({made.has.sum(axis=1).mean():.1f} a row), {len(named)} named:"
        f" median {1000 * sorted(times)[3]:.0f} ms, best {1000 * min(times):.0f} ms of the CPU"
    )


def main() -> None:
    """Print all of it."""
    for depth in (2, 3):
        for rates in EFFECTS:
            print(planted(depth, 1, rates, missed=EVENTS // 2, found=EVENTS // 2, trials=TRIALS), flush=True)
        for missed in (500, 2500):
            print(planted(depth, 1, EFFECTS[0], missed=missed, found=EVENTS - missed, trials=TRIALS), flush=True)
        print(planted(depth, 2, EFFECTS[0], missed=EVENTS // 2, found=EVENTS // 2, trials=TRIALS), flush=True)
    for missed, found in ((150, 120), (1500, 1500), (600, 2400), (5000, 5000)):
        print(shuffled(missed, found, 500 if missed < 5000 else 200), flush=True)
    for depth in (1, 2, 3):
        print(beside(depth, 1500, 1500, 300), flush=True)
    for share, high, missed, found in (
        (0.02, 0.41, 1500, 1500),
        (0.05, 0.25, 500, 500),
        (0.1, 0.41, 150, 120),
        (0.4, 0.7, 150, 120),
        (0.02, 0.15, 3000, 600),
    ):
        print(coverage(0.09, high, share, missed, found), flush=True)
    for factor in (1, 1.5, 2, 3, 4):
        day, dark, noisy = ((round(factor * m), round(factor * d)) for m, d in ((60, 75), (45, 20), (50, 25)))
        print(demo(Demo(day, dark, noisy)), flush=True)
    for cameras in (CAMERAS, 200):
        for events in (EVENTS, 10_000, 200_000):
            print(duration(events, cameras), flush=True)


if __name__ == "__main__":
    main()
