"""The recipe: every figure of a training, with its default and why it is so.

Chosen with the starter at 192x192 on the training part of the street recording in two folds by time, and on coco128's
odd pictures, half for replay and half to see what is forgotten; never on what is tested. hub.train.fit says how the
figures are used.
"""

from typing import Annotated, Final

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Places = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Weight = Annotated[float, msgspec.Meta(ge=0)]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is taught.

    Attributes:
        seed: of the order of the pictures and of what is varied on them.
        steps: planned; early stop may take fewer.
        people, machine, replay: the places in a batch of pictures that people labelled, that the model labelled itself,
            and of those for replay: half, for what is to be kept is more varied than what is to be learned.
        rate: the largest step, as a share of a tensor's size.
        doubt: how far the gradients of a weight must agree before it moves; see hub.train.descent. Plain Adam (0) at
            its best rate, .003, found as much of the camera's people, and three quarters of its weights lost .05 AP50
            of all COCO labels; with the doubt these were as before.
        warm_up: steps over which it rises.
        clip: the longest gradient.
        average: how much of the running average of the weights stays at each step.
        smallest, largest: how much smaller or larger than on the device a picture is shown.
        as_deployed: the share of pictures that are shown at the device's own size and place.
        light: the share whose light is changed.
        closer: the old model looks at twice the size, where its head allows: what it sees better there is learned too.
            People on pictures that lay aside: AP50 .351 with it, .264 without, .357 before (one fold, all weights new).
        find, place, keep: the weights of the parts of the loss. `place` is TTFNet's; `keep` at 1 learned less of the
            street in one fold of two.
        check: steps between two looks at the validation pictures.
        patience: so many looks in a row that are no better end the training.
        alphas: the shares of new weights among which validation chooses.
        alpha: the largest share where no validation picture has labels, so that nothing says what is found.
        tolerance: AP50 that may be lost of the best on the validation pictures for replay.
    """

    seed: int = 0
    steps: Count = 160
    people: Places = 2
    machine: Places = 2
    replay: Places = 4
    rate: Weight = 0.007
    doubt: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.5
    warm_up: Places = 20
    clip: Positive = 5.0
    average: Share = 0.97
    smallest: Positive = 0.8
    largest: Positive = 1.4
    as_deployed: Share = 0.3
    light: Share = 0.5
    closer: bool = True
    find: Weight = 1.0
    place: Weight = 5.0
    keep: Weight = 0.1
    check: Count = 25
    patience: Count = 4
    alphas: tuple[Share, ...] = (0.25, 0.5, 0.75, 1.0)
    alpha: Share = 0.75
    tolerance: Share = 0.02


DEFAULT: Final = Recipe()
