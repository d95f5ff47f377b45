"""Over the air, the whole circle: `hub keys`-signed releases served over HTTP, `hub serve`, and two real `edge run`.

Nothing stands in: real models, a real street, a real broker, real signatures, the commands as people type them.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge.contract.status import State, decode
from hub.rollouts import find_rollout
from hub.store import Store
from tests.brokers import Broker, broker, wait_until
from tests.edge.releases import made_release
from tests.hub.devices import Hub
from tests.hub.signed import MadeRepository, made_repository
from tests.hub.test_serve import command

__all__ = ["broker"]  # a fixture
pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]
LONG_S = 600.0
BAKE_S = 60
FRAMES = 25
"""Judged in shadow, and as many on trial."""
CONFIG = """
site = "yard"
device = "{device}"
labels = ["outdoor"]
data_dir = "data-{device}"
[model]
runtime = "onnxruntime"
input = "256x192"
threads = 1
[mqtt]
host = "127.0.0.1"
port = {port}
heartbeat_s = 1
[spool]
limit_mb = 50
reserve_mb = 1
[updates]
url = "{url}"
root = "root.json"
poll_s = 1
[[camera]]
name = "front"
source = "{root}/deploy/demo/street.mp4"
fps = 4
loop = true
"""
Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start a command of ours; its stdout is a pipe, its stderr a log; what is left of it is killed."""
    with ExitStack() as stack:

        def start(package: str, *words: object) -> subprocess.Popen[str]:
            log = stack.enter_context((tmp_path / f"{package}.log").open("a"))
            whole = [sys.executable, "-m", package, *map(str, words)]
            process = subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
            stack.callback(lambda: process.stdout and process.stdout.close())
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def repository(tmp_path: Path) -> MadeRepository:
    """1 is as good as the starter model. 2 reports nothing: its threshold is out of reach."""
    good = made_release(tmp_path / "good", "starter-2")
    blind = made_release(tmp_path / "blind", "starter-3", score_threshold=0.99)
    return made_repository(tmp_path / "repository", good, blind)


def served(run: Run, repository: MadeRepository) -> str:
    """Start `hub repository serve`; return its address."""
    server = run("hub", "repository", "serve", "--port", 0, "--repository", repository.folder)
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]
    pytest.fail("hub repository serve told no address")


def models(hub: Hub) -> dict[str, str]:
    """What each device that is online says that it serves."""
    with Store.open(hub.database, create=False) as store:
        rows = store._connection.execute("SELECT device, state FROM device WHERE online AND state IS NOT NULL")
        return {device: decode(payload, State).model for device, payload in rows}


def rollout(hub: Hub, *words: object) -> subprocess.CompletedProcess[str]:
    return command("rollout", *words, "--database", hub.database)


def on_trial(hub: Hub) -> dict[str, int]:
    """How many frames each device has told figures of that is on trial."""
    with Store.open(hub.database, create=False) as store:
        members = find_rollout(store, "starter").members.values()
    return {one.place.device: one.figures.frames for one in members if one.phase == "trial" and one.figures}


def state(hub: Hub) -> str:
    with Store.open(hub.database, create=False) as store:
        return find_rollout(store, "starter").state


def test_a_good_release_reaches_both_devices_and_a_blind_one_stops_at_the_first(
    broker: Broker, tmp_path: Path, run: Run, repository: MadeRepository
) -> None:
    url = served(run, repository)
    (tmp_path / "root.json").write_bytes(repository.root)
    for name in ("gate", "door"):
        (tmp_path / f"{name}.toml").write_text(CONFIG.format(device=name, port=broker.port, url=url, root=ROOT))
    with Hub(tmp_path, broker.port) as hub:
        devices = [run("edge", "run", "--config", tmp_path / f"{name}.toml") for name in ("gate", "door")]
        wait_until(
            lambda: models(hub) == {"gate": "starter-1", "door": "starter-1"}, deadline_s=120, what="both are known"
        )
        plan = (
            "--bake",
            BAKE_S // 60,
            "--shadow-frames",
            FRAMES,
            "--trial-frames",
            FRAMES,
            "--repository",
            repository.folder,
        )

        begun = rollout(hub, "start", "starter/1", "--label", "outdoor", "--canary", "yard/door", *plan)
        assert begun.returncode == 0, begun.stderr
        both = {"gate": "starter-2", "door": "starter-2"}
        seen: list[dict[str, str]] = []
        baked: dict[str, list[int]] = {"gate": [], "door": []}

        def is_over() -> bool:
            for device, frames in on_trial(hub).items():
                baked[device] += [frames] * (frames not in baked[device])
            now = models(hub)
            if now not in seen:
                seen.append(now)
            return state(hub) != "running"

        wait_until(is_over, deadline_s=LONG_S, what="the good release is confirmed by both")
        assert (state(hub), models(hub)) == ("complete", both)
        assert {"gate": "starter-2", "door": "starter-1"} not in seen, "the canary was the first"
        for frames in baked.values():
            assert frames == sorted(frames), "figures grow"
            assert frames[-1] > 2 * FRAMES, "all that it was to judge was judged, and still it was on trial"
        assert rollout(hub, "status").returncode == 0

        assert rollout(hub, "start", "starter/2", *plan).returncode == 0
        wait_until(lambda: state(hub) != "running", deadline_s=LONG_S, what="the blind one ends")
        told = rollout(hub, "status")
        assert told.returncode == 1
        status = json.loads(rollout(hub, "status", "--json").stdout)["rollouts"][0]
        assert (status["state"], status["release"]) == ("stopped", "starter-3"), told.stdout
        with Store.open(hub.database, create=False) as store:
            assert len(find_rollout(store, "starter").members) == 1, "one device had it, beside the old one"
        assert models(hub) == both
        for process in devices:
            process.terminate()
        assert [process.wait(60) for process in devices] == [0, 0]
        assert hub.stop() == 0
