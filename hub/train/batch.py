"""How many pictures a step sees, and a recipe with fewer of them."""

from typing import Final

import msgspec

from edge.contract.errors import UnusableError
from hub.train.recipe import Recipe

LEAST: Final = 3  # one of people's, one of the machine's, one for replay
_PLACES: Final = ("people", "machine", "replay")


def batch_of(recipe: Recipe) -> int:
    """Return how many pictures a step sees."""
    return sum(getattr(recipe, place) for place in _PLACES)


def with_batch(recipe: Recipe, batch: int) -> Recipe:
    """Return a recipe of `batch` pictures a step, shared out as before, no less than one of each that there was.

    Raises `UnusableError` for fewer than there are kinds.
    """
    places = [place for place in _PLACES if getattr(recipe, place)]
    if batch < len(places):
        msg = f"a step needs at least {len(places)} pictures, one each of {', '.join(places)}: --batch {len(places)}"
        raise UnusableError(msg)
    counts = dict.fromkeys(places, 1)
    whole = batch_of(recipe)
    for _ in range(batch - len(places)):
        short = max(places, key=lambda place: getattr(recipe, place) * batch / whole - counts[place])
        counts[short] += 1
    return msgspec.structs.replace(recipe, **counts)
