"""Wants: what 200 simulated devices are asked for, what the batches are worth with it, and how long a choice takes."""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from edge.contract.topics import Kind
from hub.config import WantsConfig
from hub.curator import Curator
from hub.dedupe import DuplicateIndex
from hub.store import Store
from hub.tags import Tagger, TagsConfig, join_tags
from tests.hub.made import arrival, heartbeat_payload
from tests.simulators.fleet import PLANTED, Plan
from tests.simulators.fleet_worth import lines, measure

NOW_MS = 1_700_000_000_000
ROUNDS = 5


class _Deaf:
    def want(self, site: str, device: str, want: object) -> None:
        """No device answers."""


def main() -> None:
    plan = Plan()
    print(
        f"{plan.devices} simulated devices, each {plan.events_per_device} events and {plan.controls_per_device}"
        f" control frames in {plan.ticks // 6} h; {plan.offline:.0%} go offline for good, {plan.away:.0%} for a while,"
        f" {plan.gone:.0%} of the wants find no frame;\nreal: messages, store, near-duplicates, naming, wants, batches;"
        " simulated: devices, clock, no broker"
    )
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(lines(measure(plan, Path(folder), by_hand=False))))
    print("processor time of one round of asking, 200 devices; rounds take at most a tenth of the curator's time")
    for held in (10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "hub.db") as store:
            _time_rounds(store, held)


def _time_rounds(store: Store, held: int, devices: int = 200) -> None:
    """Time rounds with `held` frames that may be asked for, four weak spots, then with all needs full."""
    _fill(store, held, devices)
    line, rule = _Deaf(), WantsConfig()
    curator = Curator(store, make_index=DuplicateIndex, line=line, wants=rule, tagger=Tagger(TagsConfig()), pace_s=0)
    took = []
    for _ in range(ROUNDS):
        started = time.process_time()
        curator._ask(NOW_MS)
        took.append(time.process_time() - started)
    print(
        f"  {held:>7} held frames: the first {took[0] * 1e3:.0f} ms, the second {took[1] * 1e3:.0f} ms, later with full"
        f" needs p50 {statistics.median(took[2:]) * 1e3:.0f} ms"
    )


def _fill(store: Store, held: int, devices: int) -> None:
    """Put grouped findings there without the work of ingest and grouping: 2 KB of header each."""
    store.commit([arrival(Kind.HEARTBEAT, heartbeat_payload(), device=f"d{n}") for n in range(devices)], now_ms=NOW_MS)
    rng = np.random.default_rng(0)
    words = ["dark", "tiny", "motion_blur", "small", "border", "noisy", "crowded", "left"]
    rows, groups = [], []
    for number in range(1, held + 1):
        event, tags = f"{number:032x}", join_tags(rng.choice(words, 3, replace=False).tolist())
        groups.append((number, event))
        hashes = rng.bytes(32), rng.bytes(32), rng.bytes(32)
        features, header = rng.integers(-127, 127, 96, np.int8).tobytes(), rng.bytes(2000)
        severity, device = float(rng.random()), f"d{number % devices}"
        rows.append((number, event, device, severity, NOW_MS, NOW_MS, tags, *hashes, features, header, number))
    connection = store._connection
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO near_duplicate_group (id, leader_event_id, site, camera, label, size, first_at_ms, last_at_ms,"
        " track, track_at_ms, looks) VALUES (?, ?, 'lab', 'door', 'person', 1, 0, 0, '', 0, x'')",
        groups,
    )
    connection.executemany(
        "INSERT INTO finding (id, event_id, site, device, camera, reason, severity, label, captured_at_ms,"
        " received_at_ms, x1, y1, x2, y2, width, height, track, tags, crop_hash, frame_hash, frame_sha256, features,"
        " header, group_id, model, frame_state, frame_bytes, want_open) VALUES (?, ?, 'lab', ?, 'door', 'missed', ?,"
        " 'person', ?, ?, 10, 10, 30, 40, 640, 480, '', ?, ?, ?, ?, ?, ?, ?, 'm', 'held', 50000, 1)",
        rows,
    )
    connection.executemany(
        "INSERT INTO weak_spot (name, tags, manual, state, opened_at_ms, named_at_ms) VALUES (?, ?, 0, 'open', 0, 0)",
        [("", join_tags(sorted(pair))) for pair in (*PLANTED, ("dark",))],
    )
    connection.execute("COMMIT")


if __name__ == "__main__":
    main()
