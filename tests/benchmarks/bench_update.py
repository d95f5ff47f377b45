"""Over the air, on the device: what its client costs, how long a swap keeps the cameras waiting, and the way back.

*Client*: a repository of 100 signed releases behind `hub repository serve`'s own server, over HTTP on loopback. Each
run in a new process that has loaded what `edge run` loads, but no model; memory is its peak above that. The process's
own processor time only; the server is another one. Bytes are those of the files that were sent, without HTTP's headers.

*Swap* and *way back*: a whole daemon without a broker, the starter model and a release of the same file, the bundled
clip at its own 10 frames a second. A pause is what the detection thread measures. From look to look is what a camera
sees of it: from the beginning of one look to that of the next. All of it is wall time, on a machine that may do other
work; the looks without a swap are there to compare with.
"""

import contextlib
import itertools
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np

from edge.config import EdgeConfig, read_config
from edge.contract.rollout import Assignment, TrialPlan
from edge.contract.status import encode
from edge.daemon import Daemon
from edge.eye import Eye
from edge.frame import Frame
from edge.opening import open_configured, open_slot, open_spool
from edge.serving import open_serving, running_words, warm
from edge.slot_work import accept, advance, assign, begin_trial, hold
from edge.slots import SlotStore, models_folder, read_slots
from edge.updating.fetching import Fetcher
from tests.edge.releases import made_release, signed_of

ROOT: Final = Path(__file__).resolve().parents[2]
RELEASES: Final = 100
MODEL_BYTES: Final = 12_000_000
RUNS: Final = 3
FPS: Final = 10
INTERVAL_MS: Final = 1000 / FPS
SWAPS: Final = 50
WAYS_BACK: Final = 5
DEADLINE_S: Final = 120.0
CONFIG: Final = """
site = "yard"
device = "gate"
data_dir = "data"
[mqtt]
port = 1
[spool]
limit_mb = 100
reserve_mb = 1
[[camera]]
name = "front"
source = "{root}/deploy/demo/street.mp4"
fps = {fps}
loop = true
"""


# The client: a process of its own is `python -m tests.benchmarks.bench_update STEP URL ROOT FOLDER TARGET`.


def memory_kb(name: str) -> int:
    """Return VmRSS (now) or VmHWM (the most since `forget_peak`) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def client(step: str, url: str, root: Path, folder: Path, target: str) -> dict[str, float]:
    """Do one step of an update and return what it cost: the client's making apart from it."""
    known = root.read_bytes()
    forget_peak()
    idle_kb = memory_kb("VmRSS")
    begun_s = time.process_time()
    fetcher = Fetcher(folder, url, known)
    loaded_s, loaded_kb = time.process_time() - begun_s, memory_kb("VmRSS")

    def fetch() -> None:
        fetcher.fetch(target)

    def stage() -> None:
        SlotStore(folder, "yard").stage(fetcher.fetch(target), fetcher.release(target).signed)

    steps: dict[str, tuple[Sequence[Callable[[], None]], Callable[[], None]]] = {
        "refresh": ((), fetcher.refresh),
        "fetch": ((fetcher.refresh,), fetch),
        "stage": ((fetcher.refresh, fetch), stage),
    }
    before, last = steps[step]
    for one in before:
        one()
    begun_s, wall_s = time.process_time(), time.perf_counter()
    last()
    return {
        "loaded_s": loaded_s,
        "cpu_s": time.process_time() - begun_s,
        "wall_s": time.perf_counter() - wall_s,
        "idle_mb": idle_kb / 1024,
        "loaded_mb": (loaded_kb - idle_kb) / 1024,
        "above_mb": (memory_kb("VmHWM") - idle_kb) / 1024,
    }


class Sent:
    """The bytes of the files that a server has sent, by its own log of requests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.requests: list[tuple[str, int]] = []

    def note(self, line: str) -> None:
        _, path, _, status = line.replace('"', "").split()[1:5]
        size = (self._folder / path.lstrip("/")).stat().st_size if status == "200" else 0
        self.requests.append((path, size))


def make_releases(folder: Path) -> tuple[Path, Path, str]:
    """Return a repository with `RELEASES` releases, its root and the target of the newest, which is the large one."""
    from tests.hub.signed import add_release, made_repository, small_model

    rng = random.Random(0)
    repository = made_repository(folder / "repository")
    for number in range(1, RELEASES):
        add_release(repository, small_model(folder / str(number), release=f"yard-{number}", content=str(number)))
    large = small_model(folder / "large", release=f"yard-{RELEASES}", content=rng.randbytes(MODEL_BYTES // 2).hex())
    newest = add_release(repository, large)
    (folder / "root.json").write_bytes(repository.root)
    return repository.folder, folder / "root.json", newest.target


def clients() -> None:
    from hub.repository_http import RepositoryServer

    with TemporaryDirectory() as name:
        folder = Path(name)
        repository, root, target = make_releases(folder)
        sent = Sent(repository)
        with RepositoryServer(repository, host="127.0.0.1", port=0, on_request=sent.note) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"

            def row(title: str, step: str, counted: str) -> None:
                """Print the medians of some runs, and their largest memory."""
                sent.requests.clear()
                found = [in_new_process(step, url, str(root), str(device), target) for device in devices]
                kb = sum(size for path, size in sent.requests if path.startswith(counted)) / RUNS / 1e3
                middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
                print(
                    f"{title:<34} {kb:8.1f} {middle['loaded_s']:8.3f} {middle['cpu_s']:8.3f} {middle['wall_s']:8.3f}"
                    f" {max(one['above_mb'] for one in found):9.1f} {middle['loaded_mb']:8.1f} {middle['idle_mb']:8.1f}"
                )

            print(f"Client, {RELEASES} releases over HTTP; medians of {RUNS} processes each, memory the largest")
            columns = ("kB sent", "load s", "cpu s", "wall s", " MB above", "of load", "MB idle")
            print(f"{'':<34}", *(f"{column:>8}" for column in columns))
            devices = [folder / f"device-{run}" for run in range(RUNS)]
            row("refresh, nothing known", "refresh", "/")
            row("refresh, nothing new", "refresh", "/")
            row(f"fetch and verify {MODEL_BYTES / 1e6:.0f} MB", "fetch", "/targets/")
            row("stage it: verify, unpack, flush", "stage", "/targets/")
            server.shutdown()
        assert all((one / f"{RELEASES:06d}").is_dir() for one in devices), "the release stands unpacked"
    print("MB above: the peak above idle; of load: what the libraries take of that, and keep.")
    print("load: the client's libraries, once a process. cpu and wall: the step alone, after what goes before it.")


def in_new_process(*command: str) -> dict[str, float]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_update", *command],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        sys.exit(run.stderr)
    return json.loads(run.stdout)


# The cameras.


class Look(NamedTuple):
    """One look at a frame: when it began and ended (monotonic), the process's time at its end, and who looked."""

    begun_s: float
    ended_s: float
    spent_s: float
    sequence: int
    number: int


class Gaps(NamedTuple):
    """From the beginning of one look to that of the next, and the frames between them that nobody looked at."""

    ms: list[float]
    skipped: int


@contextlib.contextmanager
def running(config: EdgeConfig, **more: Any) -> Iterator[tuple[Daemon, list[Look]]]:
    """A daemon that runs as in `edge run`, and a list that its looks go to."""
    looks: list[Look] = []
    stop = threading.Event()
    with contextlib.closing(open_spool(config)) as spool:
        daemon = Daemon(config, spool=spool, **more)
        detection = daemon._detection
        look = detection.look

        def noted(eye: Eye, frame: Frame) -> None:
            begun_s = time.monotonic()
            look(eye, frame)
            serving = detection.serving.number
            looks.append(Look(begun_s, time.monotonic(), time.process_time(), frame.sequence, serving))

        detection.look = noted
        caller = threading.Thread(
            target=daemon.attend, args=(stop,), kwargs={"exit_at_end": False, "tell": lambda _: None}
        )
        daemon.start()
        caller.start()
        try:
            yield daemon, looks
            assert caller.is_alive()
        finally:
            stop.set()
            caller.join()
            daemon.stop()


def configure(folder: Path) -> EdgeConfig:
    (folder / "edge.toml").write_text(CONFIG.format(root=ROOT, fps=FPS))
    config = read_config(folder / "edge.toml")
    config.data_dir.mkdir()
    return config


def wait_for(condition: Callable[[], object], what: str) -> None:
    from tests.brokers import wait_until

    wait_until(condition, deadline_s=DEADLINE_S, what=what)


def gap(before: Look, after: Look) -> Gaps:
    return Gaps([(after.begun_s - before.begun_s) * 1e3], after.sequence - before.sequence - 1)


def joined(gaps: Sequence[Gaps]) -> Gaps:
    return Gaps([ms for one in gaps for ms in one.ms], sum(one.skipped for one in gaps))


def tell(title: str, values: Sequence[float], *, limit_ms: float = INTERVAL_MS, skipped: int | None = None) -> None:
    over = f"{sum(value > limit_ms for value in values)} over {limit_ms:.0f} ms"
    more = "" if skipped is None else f", {skipped} frames not looked at"
    print(f"{title:<34} {len(values):>5} {statistics.median(values):>9.2f} {max(values):>9.2f}  {over}{more}")


def tell_gaps(title: str, gaps: Gaps) -> None:
    """Print them; a pause of a frame interval makes two of them of the time between two looks."""
    tell(f"look to look, {title}", gaps.ms, limit_ms=2 * INTERVAL_MS, skipped=gaps.skipped)


def swaps() -> None:
    with TemporaryDirectory() as name:
        config = configure(Path(name))
        first = open_configured(config)
        coming = open_slot(config, made_release(Path(name) / "m", "starter-2"))
        pauses_ms = []
        with running(config, detector=first) as (daemon, looks):
            detection = daemon._detection
            wait_for(lambda: len(looks) > 20, "frames are looked at")
            warm(coming, [np.full((height, width, 3), 114, np.uint8) for width, height in detection.sizes().values()])
            both = [detection.serving, open_serving(config, coming, number=2)]
            begun, rng, phase = len(looks), random.Random(0), threading.Event()
            for turn in range(1, SWAPS + 1):
                phase.wait(rng.uniform(0, 1 / FPS))  # an order comes at any point between two frames
                pauses_ms.append(detection.swap(both[turn % 2], within_s=DEADLINE_S))
                wait_for(lambda: detection.looked().frames > 3, "the new one looks")
            assert not detection._faults
        known = {one.number for one in looks}
        assert known == {0, 2}
        pairs = list(itertools.pairwise(looks[begun:]))
        over = joined([gap(a, b) for a, b in pairs if a.number != b.number])
        else_ = joined([gap(a, b) for a, b in pairs if a.number == b.number])
        print(f"\nSwap, both models open and warm, {running_words(coming)}, at {FPS} frames a second")
        print(f"{'ms':<34} {'count':>5} {'median':>9} {'worst':>9}")
        tell("pause", pauses_ms)
        tell("a look itself", [(one.ended_s - one.begun_s) * 1e3 for one in looks[begun:]])
        tell_gaps("over a swap", over)
        tell_gaps("without", else_)


# The way back.


def order_of(rollout: str) -> Assignment:
    return Assignment(
        rollout=rollout, action="install", model="starter", release="starter-2", number=1,
        target="starter/000001.tar", plan=TrialPlan(shadow_frames=20, trial_frames=100_000), at_ms=1,
    )  # fmt: skip


def put_on_trial(config: EdgeConfig, rollout: str) -> SlotStore:
    """Return what the device holds in the midst of a trial."""
    store = SlotStore(models_folder(config.data_dir), "starter")
    folder = made_release(store.path(1), "starter-2")
    slots = assign(store.slots, order_of(rollout), now_ms=1)
    slots = advance(accept(slots, signed_of(folder, 1), now_ms=1), "verified", now_ms=1)
    slots = advance(advance(hold(slots, now_ms=1), "golden", now_ms=1), "shadow", now_ms=1)
    store.write(begin_trial(slots, now_ms=1))
    return store


class Way(NamedTuple):
    """One way back: from the order to the end of the old model's first look."""

    wall_s: float
    spent_s: float
    pause_ms: float
    gaps: Gaps
    gaps_before: Gaps


def go_back(config: EdgeConfig, rollout: str) -> Way:
    """Start a daemon on trial with its judge at work, order it back, and measure."""
    store = put_on_trial(config, rollout)
    with running(config, detector=open_slot(config, store.path(1)), slots=store) as (daemon, looks):
        updater = daemon._updater
        assert updater is not None
        proving = updater._proving
        wait_for(
            lambda: len(looks) > 10 and proving._round.judge is not None and proving._round.judge.figures.frames > 5,
            "it is judged in its trial",
        )
        before = len(looks)
        begun_s, spent_s = time.monotonic(), time.process_time()
        back = Assignment(
            rollout=rollout, action="back", model="starter", release="starter-2", number=1, target="", at_ms=2
        )
        updater.take(encode(back))
        wait_for(lambda: looks[-1].number == 0, "the old model serves")
        wait_for(lambda: updater.last_report is not None and updater.last_report.phase == "rolled_back", "it is told")
        first = next(one for one in looks if one.number == 0)
        seen = looks[before - 1 : looks.index(first) + 1]
        pause_ms = daemon._detection.pause_ms
    assert read_slots(store.folder, "starter").active == 0
    on_the_way, in_trial = (
        joined([gap(a, b) for a, b in itertools.pairwise(part)]) for part in (seen, looks[5:before])
    )
    return Way(first.ended_s - begun_s, first.spent_s - spent_s, pause_ms, on_the_way, in_trial)


def ways_back() -> None:
    with TemporaryDirectory() as name:
        config = configure(Path(name))
        open_configured(config)  # what served once has its compiled graph on the disk
        ways = [go_back(config, f"r{number}") for number in range(WAYS_BACK)]
    print(f"\nWay back from a trial, {WAYS_BACK} times: from the order to the old model's first look, opening included")
    print(f"{'':<34} {'median':>9} {'worst':>9}")
    wall, spent = [one.wall_s for one in ways], [one.spent_s for one in ways]
    print(f"{'seconds':<34} {statistics.median(wall):>9.2f} {max(wall):>9.2f}  wanted at most 60")
    print(
        f"{'seconds of the processor':<34} {statistics.median(spent):>9.2f} {max(spent):>9.2f}  with serving meanwhile"
    )
    print(f"{'ms':<34} {'count':>5} {'median':>9} {'worst':>9}")
    tell("pause", [one.pause_ms for one in ways])
    tell_gaps("on the way", joined([one.gaps for one in ways]))
    tell_gaps("in the trial before", joined([one.gaps_before for one in ways]))


def main() -> None:
    logging.getLogger("edge").setLevel(logging.ERROR)  # that there is no broker is said every few seconds
    begun = os.times()
    clients()
    swaps()
    ways_back()
    ended = os.times()
    spent_s = sum(ended[:4]) - sum(begun[:4])
    print(f"\n{spent_s:.0f} s of the processor in all")


if __name__ == "__main__":
    if sys.argv[1:]:
        step, url, root, folder, target = sys.argv[1:]
        print(json.dumps(client(step, url, Path(root), Path(folder), target)))
    else:
        main()
