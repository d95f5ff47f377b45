"""Over the air, whole: `edge run` in processes of its own, a real broker, signatures, real models and a street.

Nothing stands in. The judge's child opens both models and looks at the very frames that the cameras see.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from edge.check import report_device, status_lines
from edge.config import EdgeConfig, read_config
from edge.contract.errors import UnusableError
from edge.contract.rollout import PHASES, Assignment, TrialPlan
from edge.health import read_status
from edge.slot_state import Slots
from edge.slots import broken_slots, models_folder, read_slots
from tests.brokers import Broker, broker, wait_until  # noqa: F401
from tests.edge.hub_stand_in import HubStandIn
from tests.edge.releases import made_release
from tests.hub.signed import MadeRepository, made_repository

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[3]
LONG_S = 300.0
BAKE_S = 30
"""Longer than figures wait to be told: so they are on the disk while it bakes."""
CONFIG = """
site = "yard"
device = "gate"
labels = ["outdoor"]
data_dir = "data"
[model]
runtime = "onnxruntime"
input = "256x192"
threads = 1
[mqtt]
host = "127.0.0.1"
port = {port}
heartbeat_s = 0.5
[spool]
limit_mb = 50
reserve_mb = 1
[updates]
url = "file://{repository}"
root = "root.json"
poll_s = 1
[[camera]]
name = "front"
source = "{root}/deploy/demo/street.mp4"
fps = 5
loop = true
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> MadeRepository:
    """1 is as good as the starter model. 2 reports nothing: its threshold is out of reach."""
    folder = tmp_path_factory.mktemp("releases")
    good = made_release(folder / "good", "starter-2")
    blind = made_release(folder / "blind", "starter-3", score_threshold=0.99)
    return made_repository(folder / "repository", good, blind)


@pytest.fixture
def hub(broker: Broker) -> Iterator[HubStandIn]:  # noqa: F811
    stand_in = HubStandIn(broker.port)
    yield stand_in
    stand_in.close()


@pytest.fixture
def config(tmp_path: Path, broker: Broker, repository: MadeRepository) -> EdgeConfig:  # noqa: F811
    (tmp_path / "root.json").write_bytes(repository.root)
    (tmp_path / "edge.toml").write_text(CONFIG.format(port=broker.port, root=ROOT, repository=repository.folder))
    return read_config(tmp_path / "edge.toml")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    with ExitStack() as stack:

        def run() -> subprocess.Popen[str]:
            log = stack.enter_context((tmp_path / "edge.log").open("a"))
            command = [sys.executable, "-m", "edge", "run", "--config", str(tmp_path / "edge.toml")]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield run


def order_of(number: int, *, rollout: str = "r1") -> Assignment:
    return Assignment(
        rollout=rollout,
        action="install",
        model="starter",
        release=f"starter-{number + 1}",
        number=number,
        target=f"starter/{number:06d}.tar",
        plan=TrialPlan(shadow_frames=25, trial_frames=25, bake_s=BAKE_S),
        at_ms=1,
    )


def state(config: EdgeConfig) -> Slots | None:
    try:
        return read_slots(models_folder(config.data_dir), "starter")
    except UnusableError:
        return None


def test_killed_at_every_phase_it_goes_on_and_a_blind_one_is_left(config: EdgeConfig, hub: HubStandIn, start) -> None:
    """kill -9 as soon as each phase stands on the disk, and while it bakes; then a bad release, on the same street."""
    hub.assign(order_of(1))
    pause = threading.Event()
    killed: list[str] = []
    process = start()
    for _ in range(int(LONG_S / 0.002)):
        now = state(config)
        phase: str = "" if now is None or now.work is None else now.work.phase
        if phase == "confirmed":
            break
        if phase == "trial" and now.work.frames:
            phase = "bake"
        if phase and phase not in killed:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed.append(phase)
            assert list(broken_slots(models_folder(config.data_dir), "starter")) == []
            process = start()
        pause.wait(0.002)
    assert {"downloading", "golden", "shadow", "trial", "bake"} <= set(killed), "phases that last are met"
    assert killed == [phase for phase in (*PHASES, "bake") if phase in killed], "no phase came twice or out of order"
    wait_until(lambda: hub.reports and hub.reports[-1].phase == "confirmed", deadline_s=LONG_S, what="it is told")
    last = hub.reports[-1]
    assert (last.serving, last.number) == ("starter-2", 1)
    assert last.figures is not None
    assert last.figures.frames >= 25
    sequences = [report.sequence for report in hub.reports]
    assert sequences == sorted(sequences)
    wait_until(lambda: hub.states[-1].model == "starter-2", what="the state names the release")
    assert hub.states[-1].labels == ("outdoor",)
    wait_until(lambda: hub.heartbeats[-1].model == "starter-2", what="the heartbeat, too")

    hub.assign(order_of(2, rollout="r2"))
    wait_until(lambda: hub.reports[-1].phase == "rolled_back", deadline_s=LONG_S, what="the blind one is left")
    last = hub.reports[-1]
    assert (last.rollout, last.serving) == ("r2", "starter-2")
    assert last.reason
    assert not any(report.number == 2 and report.phase == "trial" for report in hub.reports), "it never served"
    assert os.path.lexists(config.data_dir / "models" / "000001")
    wait_until(lambda: (read := read_status(config.data_dir)) and read.update and read.update.phase == "rolled_back")
    told = status_lines(report_device(config))
    assert any(line.startswith("update    starter-3 (number 2) is rolled back") for line in told)
    assert "model     the float32 file on onnxruntime in f32" in told
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert state(config).starts == 0, "it ended in order"


def parents_now() -> dict[int, int]:
    """Return process -> parent of all that run; one that ended and was not waited for runs no more."""
    found = {}
    for one in Path("/proc").iterdir():
        if one.name.isdecimal():
            with suppress(OSError):
                state, parent = (one / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(one.name)] = int(parent)
    return found


def children_of(pid: int) -> list[int]:
    """Return the processes below a process, those of their own sessions, too."""
    found, parents, running = [], {pid}, parents_now()
    while parents:
        parents = {child for child, parent in running.items() if parent in parents}
        found += parents
    return found


def test_it_ends_within_seconds_in_the_middle_of_each_phase(config: EdgeConfig, hub: HubStandIn, start) -> None:
    """Measuring on arrival may take minutes: it is broken off, with all its processes, and begun anew."""
    settings = config.data_dir.parent / "edge.toml"
    settings.write_text(settings.read_text().replace('runtime = "onnxruntime"', "").replace("threads = 1", ""))
    hub.assign(order_of(1))
    for phase in ("golden", "golden", "shadow", "trial"):
        process = start()
        wait_until(
            lambda phase=phase: (now := state(config)) and now.work and now.work.phase == phase,
            deadline_s=LONG_S,
            what=phase,
        )
        wait_until(lambda pid=process.pid: len(children_of(pid)) > 1, deadline_s=60.0, what="a camera and a judge")
        below = children_of(process.pid)
        begun_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        print(f"{phase}: ended after {time.monotonic() - begun_s:.1f} s, with {len(below)} processes below it")
        assert time.monotonic() - begun_s < 15.0
        wait_until(lambda below=below: not parents_now().keys() & set(below), what="none is left")
        assert (state(config).work.phase, state(config).starts) == (phase, 0), "where it was, and no bad start"
    start()
    wait_until(lambda: hub.reports and hub.reports[-1].phase == "confirmed", deadline_s=LONG_S, what="it goes on")
