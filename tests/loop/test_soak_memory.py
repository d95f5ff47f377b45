"""Hours of watching do not make memory grow: a pipeline in a process of its own, the bundled clip over and over."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOURS_8 = 8 * 3600 * 5  # frames
MAX_DRIFT = 1.05
MOST_FRAMES = 64


def watch(frames: int, *, timeout_s: float) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "tests.simulators.long_watch", str(frames)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def require_no_growth(lines: list[dict[str, float]]) -> None:
    """Compare the end with what was held once the first quarter was over."""
    quarter = len(lines) // 4
    warm, end = lines[quarter : 2 * quarter], lines[-quarter:]
    for name in ("rss", "objects"):
        before, after = (statistics.median(line[name] for line in part) for part in (warm, end))
        assert after < MAX_DRIFT * before, f"{name}: {before:.0f}, then {after:.0f}"
    assert lines[-1]["most_alive"] <= MOST_FRAMES, "frames in memory at once"
    assert end[-1]["findings"] > warm[-1]["findings"], "it goes on finding"


@pytest.mark.slow
def test_memory_does_not_grow() -> None:
    require_no_growth(watch(1000, timeout_s=110))


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_memory_does_not_grow_in_eight_hours_of_video() -> None:
    require_no_growth(watch(HOURS_8, timeout_s=3 * 3600))
