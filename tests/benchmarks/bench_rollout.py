"""A bad release before a fleet, and a thousand devices before a broker.

First in process, with a clock that runs faster than real time: the rules of the rollout and the rule by which a device
judges are the real ones, the devices and what they see are made up (tests.simulators.rollout_fleet, hub.scenery), and
there is no broker and no database between. 200 fleets of 20 to 400 devices for each kind of fault, a bake of 20 minutes
on each device; reports late, twice and out of order, a tenth of the devices away for two hours. A crash hits 1 frame of
100 to all of them, NaN likewise; everything is 3 to 20 times the boxes; slow is 1.5 to 4 times the time; worse takes 1
to 3 from every object's logit.

Then over a real broker and a real `hub serve`: 1,000 simulated devices connect; a release that fails on the first
device stops; a good one, on all of them, is sent back by hand.
"""

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from edge.contract.release import SignedRelease
from edge.contract.rollout import TrialPlan
from edge.contract.settings import BrokerSettings
from hub.rollout_state import RolloutPlan
from hub.rollouts import find_rollout, roll_back_rollout, start_rollout
from hub.scenery import Ailment, Fault
from hub.simulate import Fleet as Connected
from hub.simulate import make_devices
from hub.simulated import FACTORY, SENT_BACK, draw_places
from hub.store import Store
from tests.brokers import Broker, mosquitto_path, wait_until
from tests.hub.devices import Hub
from tests.simulators.rollout_fleet import Fleet, Outcome, Play

FLEETS: Final = 200
DEVICES: Final = 1000
STRENGTHS: Final[dict[Ailment, tuple[float, float]]] = {
    Ailment.CRASH: (0.01, 1.0),
    Ailment.NAN: (0.01, 1.0),
    Ailment.BLIND: (1.0, 1.0),
    Ailment.EVERYTHING: (3.0, 20.0),
    Ailment.SLOW: (1.5, 4.0),
    Ailment.WORSE: (1.0, 3.0),
}
DEADLINE_S: Final = 240.0


def draw(seed: int, ailment: Ailment | None) -> Fleet:
    """Return a fleet of 20 to 400 devices, and how strong its fault is; both on a logarithmic scale."""
    rng = np.random.default_rng((seed, 7))
    devices = round(float(np.exp(rng.uniform(np.log(20), np.log(400)))))
    if ailment is None:
        return Fleet(devices=devices, seed=seed)
    low, high = STRENGTHS[ailment]
    return Fleet(
        devices=devices,
        seed=seed,
        fault=Fault(ailment=ailment, strength=float(np.exp(rng.uniform(np.log(low), np.log(high))))),
    )


def share(outcome: Outcome) -> float:
    """Return how many confirmed, of the most that may: 1 device or 5 %."""
    return outcome.confirmed / max(1, outcome.devices // 20)


def fleets(count: int) -> None:
    print(f"{count} fleets of 20 to 400 devices a kind, in process; allowed: 1 device or 5 %, whichever is more")
    print(f"{'kind':11} {'caught':>7} {'over':>5} {'worst':>13} {'left with it':>13}  stopped at")
    for ailment in Ailment:
        played = [Play(draw(seed, ailment)).run() for seed in range(count)]
        worst = max(played, key=share)
        where = Counter(one.rollout.reason.partition(":")[0] for one in played if one.caught)
        print(
            f"{ailment:11} {sum(one.caught for one in played) / count:7.1%}"
            f" {sum(share(one) > 1 for one in played):5}"
            f" {f'{worst.confirmed} of {worst.devices}':>13} {sum(one.serving for one in played):13}"
            f"  {', '.join(f'{name} {n}' for name, n in where.most_common())}"
        )
    good = [Play(draw(seed, None)).run() for seed in range(count)]
    failed = sum(n for one in good for reason, n in one.reasons.items() if reason != SENT_BACK)
    devices = sum(one.devices for one in good)
    stopped = sum(one.caught for one in good)
    print(f"{'good':11} stopped {stopped} of {count}; {failed} of {devices} devices rolled it back by themselves")
    why = Counter(reason for one in good for reason in one.reasons)
    print("\n".join(f"{'':11} {n} x {reason}" for reason, n in why.most_common(3)))


def seconds_until(condition: Callable[[], object], what: str) -> float:
    begun_s = time.monotonic()
    wait_until(condition, deadline_s=DEADLINE_S, what=what)
    return time.monotonic() - begun_s


def signed(number: int) -> SignedRelease:
    return SignedRelease(
        model="line", release=f"line-{number}", number=number, card_sha256="0" * 64, input="320x192",
        score_threshold_permille=400, files=2, unpacked_bytes=1000,
    )  # fmt: skip


def connected(devices: int) -> None:
    print(f"\n{devices} simulated devices, mosquitto and `hub serve` on these cores")
    places = draw_places(devices, rng=np.random.default_rng(0), site="sim", fps=200.0)
    made = make_devices(places, faults={2: Fault(ailment=Ailment.BLIND, strength=1.0)}, seed=0)
    plan = RolloutPlan(trial=TrialPlan(bake_s=0))
    with (
        tempfile.TemporaryDirectory() as folder,
        Broker() as broker,
        Hub(Path(folder), broker.port) as hub,
        Store.open(hub.database, create=False) as store,
        Connected(made, BrokerSettings(port=broker.port)) as fleet,
    ):
        spent_s = seconds_until(lambda: fleet.standing().connected == devices, "all are connected")
        known_s = seconds_until(lambda: sum(one.online for one in store.rollouts.fleet()) == devices, "all known")
        print(f"connect     {spent_s:6.1f} s, and known to the hub {spent_s + known_s:6.1f} s; wanted 60")

        start_rollout(store, signed(2), plan, now_ms=time.time_ns() // 1_000_000)
        wait_until(lambda: fleet.standing().reasons, deadline_s=DEADLINE_S, what="the first device rolls back")
        stopped_s = seconds_until(lambda: find_rollout(store, "line").state == "stopped", "it is stopped")
        print(f"halt        {stopped_s:6.1f} s from the failure of the first device; wanted 10")

        start_rollout(store, signed(1), plan, now_ms=time.time_ns() // 1_000_000)
        rolled_s = seconds_until(lambda: find_rollout(store, "line").state == "complete", "it is complete")
        print(f"a good one  {rolled_s:6.1f} s to all, no bake, 500 frames judged at 200 a second")
        roll_back_rollout(store, "line", now_ms=time.time_ns() // 1_000_000)
        back_s = seconds_until(lambda: fleet.standing().serving == {FACTORY: devices}, "all went back")
        print(f"sent back   {back_s:6.1f} s until all {devices} serve what was before")
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"simulator   {used.ru_utime + used.ru_stime:6.1f} s of processor, {used.ru_maxrss // 1024} MB in all")


def main() -> None:
    fleets(FLEETS)
    if mosquitto_path() is None:
        print("broker      not measured: mosquitto is not installed")
        return
    connected(DEVICES)


if __name__ == "__main__":
    main()
