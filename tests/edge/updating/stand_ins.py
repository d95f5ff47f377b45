"""An updater without network, cameras, broker and models: what it is given to work with, each the least there can be.

The disk and the state are real. Signatures, opening a model and judging it are not: they are tried where they belong
(and all together in test_updater_device.py), and here they would hide what the updater does.
"""

import contextlib
import shutil
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.config import EdgeConfig, parse_config
from edge.contract.errors import UnusableError, WeakspotError
from edge.contract.judgement import Figures, Verdict, add
from edge.contract.rollout import Assignment, RolloutReport, TrialPlan
from edge.contract.status import decode, encode
from edge.detection import Looked
from edge.slots import SlotStore
from edge.updating import proving, updater
from edge.updating.fetching import Offered
from edge.updating.updater import Updater, begin_start
from tests.edge.releases import signed_of

PASS, FAIL, WAIT = (
    Verdict(outcome="pass"),
    Verdict(outcome="fail", reason="it is blind"),
    Verdict(outcome="insufficient"),
)


class Repository:
    """Releases by target, as tar files. `fault` is what it raises, as long as it is set."""

    def __init__(self, folder: Path, *models: Path) -> None:
        self.fault: WeakspotError | None = None
        self.releases: dict[str, tuple[Offered, Path]] = {}
        for number, model in enumerate(models, 1):
            signed = signed_of(model, number, baseline=number - 1)
            archive = folder / f"{number:06d}.tar"
            with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
                for path in sorted(model.iterdir()):
                    tar.add(path, path.name)
            offered = Offered(signed=signed, archive_bytes=archive.stat().st_size)
            self.releases[f"{signed.model}/{number:06d}.tar"] = offered, archive


class StandInFetcher:
    """Edge.updating.fetching.Fetcher, which believes everything."""

    repository: Repository

    def __init__(self, folder: Path) -> None:
        self.downloads = folder / "downloads"

    def refresh(self) -> None:
        if self.repository.fault is not None:
            raise self.repository.fault

    def release(self, target: str) -> Offered:
        return self.repository.releases[target][0]

    def fetch(self, target: str, *, require_room=lambda _: None, on_bytes=lambda *_: None) -> Path:
        self.refresh()
        offered, archive = self.repository.releases[target]
        require_room(offered.archive_bytes)
        on_bytes(0, offered.archive_bytes)
        self.downloads.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(archive, self.downloads))

    def clear(self) -> None:
        shutil.rmtree(self.downloads)
        self.downloads.mkdir()


@dataclass
class Judges:
    """What judging says: of the arrival, in shadow, in the trial.

    Attributes:
        trouble: the child cannot go on.
        frames: that each child has judged.
        shares: that were given, one after another.
    """

    golden: Verdict = PASS
    shadow: Verdict = PASS
    trial: Verdict = PASS
    trouble: str = ""
    frames: int = 20
    shares: list[float] = field(default_factory=list)
    opened: list[tuple[Path | None, Path | None, str]] = field(default_factory=list)
    open_now: int = 0


class StandInJudge:
    """Edge.updating.judge.Judge as far as it is asked."""

    script = Judges()

    def __init__(self, _config, *, old, new, serving, counted) -> None:
        self.serving = serving
        self.counted = counted
        self.script.opened.append((old, new, serving))

    def __enter__(self):
        self.script.open_now += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.script.open_now -= 1

    def offer(self, _frame) -> bool:
        return True

    def disagreements(self) -> list:
        return []

    def verdict(self, enough: int | None) -> Verdict:
        if self.serving == "old":
            return self.script.shadow
        lacking = enough is None or self.figures.frames < enough
        return WAIT if self.script.trial == PASS and lacking else self.script.trial

    @property
    def figures(self):
        return add(self.counted, Figures(frames=self.script.frames))

    @property
    def share(self) -> float:
        return self.script.shares[-1]

    @share.setter
    def share(self, share: float) -> None:
        self.script.shares.append(share)

    @property
    def trouble(self) -> str:
        return self.script.trouble


class StandInDetection:
    """Edge.detection.Detection without cameras: it notes what serves."""

    def __init__(self, number: int, release: str) -> None:
        self.serving = SimpleNamespace(number=number, release=release)
        self.served: list[int] = [number]
        self.refuses = ""
        self.not_finite = 0
        self.silent_s = 0.0
        self.faults: list[str] = []

    def swap(self, serving, *, within_s: float) -> float:
        if self.refuses:
            raise UnusableError(self.refuses)
        self.serving = serving
        self.served.append(serving.number)
        return 1.0

    def looked(self) -> Looked:
        return Looked(self.serving.number, 20, 0, self.not_finite, 20)

    @property
    def beat_s(self) -> float:
        return time.monotonic() - self.silent_s

    def sizes(self) -> dict:
        return {}

    def watch_with(self, watch) -> None: ...

    def hand_in(self, mined: list) -> None: ...

    def count_fault(self, reason: str, text: str, error: Exception | None = None) -> None:
        self.faults.append(f"{reason}: {text}: {error}")


class StandInPublisher:
    """Edge.publisher.Publisher: it notes what would be sent."""

    def __init__(self) -> None:
        self.reports: list[RolloutReport] = []
        self.cleared = False
        self.models: list[str] = []

    def offer_report(self, payload: bytes) -> None:
        self.cleared = not payload
        if payload:
            self.reports.append(decode(payload, RolloutReport))

    def serve_as(self, model: str) -> None:
        self.models.append(model)


class Device:
    """One start of a device's updater, driven by hand."""

    def __init__(self, config: EdgeConfig, *, store: SlotStore | None = None) -> None:
        self.store = begin_start(config) if store is None else store
        number = self.store.slots.active
        self.detection = StandInDetection(number, release_of(self.store, number))
        self.publisher = StandInPublisher()
        self.updater = Updater(config, self.store, detection=self.detection, publisher=self.publisher, boot_id="boot-1")

    def order(self, assignment: Assignment) -> None:
        self.updater.take(encode(assignment))

    def turn(self, n: int = 1) -> None:
        for _ in range(n):
            self.updater._guarded_turn()

    def turn_until(self, phase: str) -> None:
        """Turn until this phase has begun, and once more for `trial`: then the cameras have the model."""
        for _ in range(40):
            work = self.store.slots.work
            if work is not None and work.phase == phase:
                self.turn(int(phase == "trial"))
                return
            self.turn()
        pytest.fail(f"never {phase}")

    def run(self, *, most: int = 40) -> RolloutReport:
        """Turn until the work has ended and was told of; return the last report."""
        for _ in range(most):
            self.turn()
            work = self.store.slots.work
            last = self.updater.last_report
            if work is None or (work.ended and last is not None and last.sequence == self.store.slots.sequence):
                break
        return self.publisher.reports[-1]

    @property
    def phases(self) -> list[str]:
        told = [report.phase for report in self.publisher.reports]
        return [phase for n, phase in enumerate(told) if n == 0 or told[n - 1] != phase]


def release_of(store: SlotStore, number: int) -> str:
    slot = store.slots.slot(number)
    return "starter-1" if slot is None else slot.release


def device_config(
    folder: Path,
    *,
    updates: bool = True,
    data_dir: Path | None = None,
    device: str = "gate",
    url: str = "http://127.0.0.1:1",
    root: bytes = b"{}",
) -> EdgeConfig:
    (folder / "root.json").write_bytes(root)
    url = f'[updates]\nurl = "{url}"\nroot = "{folder / "root.json"}"\npoll_s = 0.1'
    text = f"""
        site = "yard"
        device = "{device}"
        data_dir = "{data_dir or folder / "data"}"
        [model]
        threads = 1
        {url if updates else ""}
        [[camera]]
        name = "front"
        source = "clip.avi"
    """
    return parse_config(text, folder=folder)


def order_of(number: int, *, release: str = "", rollout: str = "r1", action: str = "install", **plan) -> Assignment:
    """An assignment of one of the releases `starter-2`, `starter-3` ... that a made repository has as 1, 2 ..."""
    return Assignment(
        rollout=rollout,
        action=action,
        model="starter",
        release=release or f"starter-{number + 1}",
        number=number,
        target=f"starter/{number:06d}.tar",
        plan=TrialPlan(**({"shadow_frames": 20, "trial_frames": 20, "bake_s": 0} | plan)),
        at_ms=1,
    )


@contextlib.contextmanager
def standing_in(patch: pytest.MonkeyPatch, repository: Repository) -> Iterator[Judges]:
    """What is fetched is believed, models open as names only, and judging says what the script says."""
    script = Judges()
    patch.setattr(StandInFetcher, "repository", repository, raising=False)
    patch.setattr(updater, "open_fetcher", lambda folder, _updates: StandInFetcher(folder))
    patch.setattr(StandInJudge, "script", script)
    patch.setattr(proving, "Judge", StandInJudge)
    patch.setattr(proving, "tune_on_arrival", lambda *_, **__: PASS)
    patch.setattr(proving, "hold_golden", lambda *_, **__: script.golden)
    patch.setattr(updater, "open_slot", lambda _config, folder: SimpleNamespace(folder=folder, input_size=(192, 96)))
    patch.setattr(updater, "warm", lambda *_: None)

    def named(_config, detector, *, number: int):
        release = "starter-1" if detector.folder is None else f"starter-{number + 1}"
        return SimpleNamespace(number=number, release=release)

    patch.setattr(updater, "open_serving", named)
    yield script
