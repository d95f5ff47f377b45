"""`edge model rollback`: what a person does about the active release, beside a running daemon or without one.

A running daemon owns the state. It is asked by a file, and waited for; who asks writes nothing else.
"""

import time
from typing import Final

from edge.config import EdgeConfig
from edge.contract.errors import UnreachableError, UnusableError
from edge.health import hold_folder, is_held
from edge.opening import factory_line
from edge.slot_state import FACTORY, Slots, back_target, revert
from edge.slots import ByHand, SlotStore, ask, models_folder, read_slots

WITHIN_S: Final = 60.0
_TURN_S: Final = 0.2
_WHY: Final = "a person went back"


def go_back(config: EdgeConfig, *, factory: bool, within_s: float = WITHIN_S) -> str:
    """Leave the active release for what it may go back to, or for the factory's model; return why not, or "".

    Raises `UnusableError` when the state cannot be read or written, `UnreachableError` when a running daemon does not
    do it within `within_s`.
    """
    folder, line = models_folder(config.data_dir), factory_line(config)
    target = _target(read_slots(folder, line), factory=factory)
    if isinstance(target, str):
        return target
    if not is_held(config.data_dir):
        with hold_folder(config.data_dir):
            store = SlotStore(folder, line)
            if store.closed:
                raise UnusableError(store.closed)
            target = _target(store.slots, factory=factory)
            if isinstance(target, str):
                return target
            store.write(revert(store.slots, to=target, why=_WHY, now_ms=time.time_ns() // 1_000_000), at_once=True)
            if store.behind and read_slots(folder, line).active != target:
                msg = f"the disk does not take it: is {config.data_dir} full, or mounted read-only?"
                raise UnusableError(msg)
            if not store.behind:
                store.prune()
        return ""
    ask(folder, ByHand(to=target))
    deadline_s = time.monotonic() + within_s
    while read_slots(folder, line).active != target:
        if time.monotonic() > deadline_s:
            msg = f"the daemon did not go back within {within_s:.0f} s; `edge status` tells what it does"
            raise UnreachableError(msg)
        time.sleep(_TURN_S)
    return ""


def _target(slots: Slots, *, factory: bool) -> int | str:
    """Return the number to go back to, or why there is none."""
    active = slots.slot(slots.active)
    if active is None:
        return "the model of edge.toml serves: there is no release to go back from"
    if factory:
        return FACTORY
    target = back_target(slots)
    if target is None:
        return (
            f"nothing signed allows the way back from {active.release}; --factory goes back to the model of edge.toml"
        )
    return target
