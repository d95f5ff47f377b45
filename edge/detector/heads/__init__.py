"""Heads: raw outputs to boxes. One table, and the rule that finds a model's head in it."""

from edge.contract.card import HeadName
from edge.contract.errors import UnusableError
from edge.detector.heads import centernet, detr, yolo, yolox
from edge.detector.heads.head import Head, Shapes, listed
from edge.detector.letterbox import Size

HEADS: dict[HeadName, Head] = {head.NAME: head for head in (centernet, yolox, yolo, detr)}


def recognise(shapes: Shapes, *, input_size: Size) -> Head:
    """Return the one head whose layout the outputs have, for an input of (width, height).

    Raises `UnusableError` that names the outputs and the heads when none or several fit.
    """
    fitting = [head for head in HEADS.values() if head.recognises(shapes, input_size)]
    if len(fitting) == 1:
        return fitting[0]
    verdict = f"fit the heads {' and '.join(head.NAME for head in fitting)}" if fitting else "fit no head"
    known = "; ".join(f"{head.NAME}: {head.LAYOUT}" for head in fitting or HEADS.values())
    msg = f'the outputs ({listed(shapes)}) {verdict}; name one as "head" in a model.json beside the model ({known})'
    raise UnusableError(msg)
