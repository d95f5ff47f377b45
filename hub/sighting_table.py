"""The sightings of the last weeks as columns: who has which tag, what runs now, and the rates of any part of them.

Laws:

1. A rate is of rows of the same releases as the base rate it is counted with.
2. A column is what `Tagger.tags` and `Where.holds` say of each row.
3. No rate counts a row of a camera that has no object of a control frame under that release: all of its objects would
   seem missed.
4. Cameras are compared as if all had drawn their control frames equally often.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from hub.slices import Rate, measure
from hub.store_sightings import SightingRow
from hub.tags import Tagger, Where

MIN_OBJECTS: Final = 25
"""Objects of control frames from which on there is a base rate."""
_Z: Final = 1.959964  # 95 %
_SCATTER: Final = 2654435761  # Knuth's multiplicative hash
_SCATTERED: Final = 2**32
_BELIEF: Final = 50  # objects: by this much the base rate of a short time is drawn to that of the whole
Mask = NDArray[np.bool_]
Camera = tuple[str, str, str]
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Base:
    """What two looks at control frames have found: `found` by the detector, `overlooked` by the second look alone."""

    found: int
    overlooked: int

    @property
    def objects(self) -> int:
        """All that was found."""
        return self.found + self.overlooked

    @property
    def is_enough(self) -> bool:
        """Whether there is a base miss rate."""
        return self.objects >= MIN_OBJECTS and 0 < self.overlooked < self.objects

    @property
    def rate(self) -> float:
        """The share that the detector overlooked, 0..1."""
        return self.overlooked / self.objects


class SightingTable:
    """Sightings, newest first, as arrays of n rows.

    Attributes:
        zone: of the hours.
        rows: as they were read.
        missed: `[n]`, the cases.
        counted: `[n]`, `missed`, `found` and `seen`: what rates are counted over, see law 3.
        found, overlooked: `[n]`, of two looks: what gives the base rate.
        present: `[n]`, of the release that the row's device runs now: that of its newest sighting.
        at_ms: `[n]`, when captured.
        names: of the t tags.
        has: `[n, t]`, whether a row has a tag.
    """

    def __init__(self, rows: Iterable[SightingRow], tagger: Tagger) -> None:
        """`rows`: newest first."""
        self.zone = tagger.zone
        self.rows: Sequence[SightingRow] = list(rows)
        kinds = np.array([row.kind for row in self.rows], "U10")
        self.missed: Mask = kinds == "missed"
        self.found: Mask = kinds == "found"
        self.overlooked: Mask = kinds == "overlooked"
        self.at_ms = np.array([row.captured_at_ms for row in self.rows], np.int64)
        self.models, self._model = _coded([row.model for row in self.rows])
        self.cameras, self._camera = _coded([(row.site, row.device, row.camera) for row in self.rows])
        self.present = self._present()
        self.counted: Mask = ~self.overlooked & self._compared() & self._alike()
        self._tags = [tagger.tags(row) for row in self.rows]
        self.names, self.has = _matrix(self._tags)
        self._column = {name: at for at, name in enumerate(self.names)}

    def _present(self) -> Mask:
        _, device = _coded([row[3:5] for row in self.rows])
        _, newest = np.unique(device, return_index=True)  # of each device its first row, the newest
        present: Mask = self._model == self._model[newest][device]
        return present

    def _compared(self) -> Mask:
        """Return the rows `[n]` of cameras that have an object of a control frame under the row's release."""
        pair = self._camera * len(self.models) + self._model
        compared: Mask = np.isin(pair, np.unique(pair[~self.missed]))
        return compared

    def _alike(self) -> Mask:
        """Return the rows `[n]` that are left when all cameras have drawn as often: law 4.

        Of a camera that draws more often than the median one its objects are thinned, of one that draws less often its
        missed events. A frame's objects go or stay together, and the same ones at every naming.
        """
        drawn = np.array([row.drawn_per_hour for row in self.rows], np.float64)
        known = drawn > 0
        if not known.any() or drawn[known].min() == drawn[known].max():
            return np.ones(len(self.rows), bool)
        objects = np.bincount(self._camera[known], minlength=len(self.cameras))
        rates = np.bincount(self._camera[known], weights=drawn[known], minlength=len(self.cameras))
        rates = np.where(objects > 0, rates / np.maximum(objects, 1), 0.0)
        common = float(np.median(rates[objects > 0]))
        of_camera = np.where(rates > 0, np.minimum(1.0, rates / common), 1.0)
        share = np.where(self.missed, of_camera[self._camera], common / np.where(known, drawn, common))
        finding = np.array([row.finding_id for row in self.rows], np.uint64)
        alike: Mask = (finding * np.uint64(_SCATTER) & np.uint64(_SCATTERED - 1)) < share * _SCATTERED
        return alike

    def of_models(self, models: Iterable[str]) -> Mask:
        """Return the rows `[n]` of these releases."""
        wanted = set(models)
        mask: Mask = np.array([model in wanted for model in self.models], bool)[self._model]
        return mask

    def models_of(self, among: Mask) -> list[str]:
        """Return the releases of these rows, in order of name."""
        return sorted(self.models[code] for code in np.unique(self._model[among]).tolist())

    def cameras_of(self, among: Mask) -> dict[Camera, int]:
        """Return the cameras of these rows, each with its number of rows, the most first."""
        codes, counts = np.unique(self._camera[among], return_counts=True)
        pairs = [(self.cameras[code], count) for code, count in zip(codes.tolist(), counts.tolist(), strict=True)]
        return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))

    def inside(self, tags: Iterable[str]) -> Mask:
        """Return the rows `[n]` that have all of the tags."""
        mask: Mask = np.ones(len(self.rows), bool)
        for tag in tags:
            column = self._column.get(tag)
            mask = mask & self.has[:, column] if column is not None else np.zeros_like(mask)
        return mask

    def where(self, where: Where) -> Mask:
        """Return the rows `[n]` that the rule holds of."""
        holds = (where.holds(row, tags) for row, tags in zip(self.rows, self._tags, strict=True))
        return np.fromiter(holds, bool, len(self.rows))

    def base(self, among: Mask) -> Base:
        """Return what two looks have found among the rows."""
        return Base(int((among & self.found).sum()), int((among & self.overlooked).sum()))

    def rate(self, inside: Mask, among: Mask) -> Rate | None:
        """Return the rate of those inside, over the rows `among`; None without a base rate, or missed, or inside."""
        base = self.base(among)
        if not base.is_enough:
            return None
        return self._rate(inside, among, base.rate, error=math.sqrt(1 / base.found + 1 / base.overlooked))

    def _rate(self, inside: Mask, among: Mask, base_rate: float, *, error: float) -> Rate | None:
        rows = among & self.counted
        if not (rows & self.missed).any() or not (rows & inside).any():
            return None
        return _widened(measure(inside[rows], self.missed[rows], base_rate=base_rate), error)

    def over_time(self, inside: Mask, step_ms: int) -> list[tuple[int, Rate | None]]:
        """Return the rate of each span of time, oldest first, with its first millisecond; None where nothing says it.

        The base rate of a span with few objects is drawn to that of all.
        """
        if not len(self.rows):
            return []
        span = self.at_ms // step_ms
        whole = self.base(np.ones(len(self.rows), bool))
        return [
            (at * step_ms, self._rate_of_span(inside, span == at, whole))
            for at in range(int(span.min()), int(span.max()) + 1)
        ]

    def _rate_of_span(self, inside: Mask, among: Mask, whole: Base) -> Rate | None:
        base = self.base(among)
        if not whole.is_enough or not (inside & among & self.counted).any() or not base.found:
            return None
        overlooked = base.overlooked + _BELIEF * whole.rate
        share = overlooked / (base.objects + _BELIEF)
        error = math.sqrt(1 / overlooked + 1 / (base.objects + _BELIEF - overlooked))
        return self._rate(inside, among, share, error=error)


def _widened(rate: Rate, error: float) -> Rate:
    """Return the rate with an interval that the error of the base rate, in log odds, is in too."""

    def ends(end: float, sign: int) -> float:
        if not 0 < rate.rate < 1 or not 0 < end < 1:
            return end
        half = math.hypot(_logit(end) - _logit(rate.rate), _Z * error)
        return 1 / (1 + math.exp(-(_logit(rate.rate) + sign * half)))

    return replace(rate, low=ends(rate.low, -1), high=ends(rate.high, 1))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _coded(values: Sequence[_Key]) -> tuple[list[_Key], NDArray[np.int64]]:
    """Return the distinct values and which of them each is `[n]`."""
    codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
    return list(codes), np.fromiter(map(codes.__getitem__, values), np.int64, len(values))


def _matrix(tags: Sequence[tuple[str, ...]]) -> tuple[list[str], Mask]:
    """Return the names of all tags, and which row has which `[n, t]`."""
    columns = {tag: column for column, tag in enumerate(dict.fromkeys(chain.from_iterable(tags)))}
    row_ids = np.repeat(np.arange(len(tags)), np.fromiter(map(len, tags), np.int64, len(tags)))
    ids = np.fromiter(map(columns.__getitem__, chain.from_iterable(tags)), np.int64, len(row_ids))
    has: Mask = np.zeros((len(tags), len(columns)), bool)
    has[row_ids, ids] = True
    return list(columns), has
