"""A stand-in of a CVAT server beside a database, and what a person does in a task."""

from pathlib import Path

from hub.annotation import Annotation
from hub.config import CvatConfig, HubConfig
from hub.cvat_pull import Pull, Pulled, pull_batch
from hub.cvat_push import Push, Pushed, push_batch
from hub.store import Store
from tests.hub.labelled import NOW
from tests.simulators.cvat import TOKEN, Shape, StandInCvat, StandInTask

NAMES = [f"0001-0{number}-{share}-door-0000000{number}.jpg" for number, share in ((1, "train"), (2, "test"))]


def config_of(server: StandInCvat, folder: Path, **changes) -> HubConfig:
    (folder / "token").write_text(f"{TOKEN}\n")
    given = {"url": server.url, "token_file": folder / "token", "timeout_s": 5.0, "wait_s": 5.0}
    return HubConfig(cvat=CvatConfig(**given | changes))


def push(store: Store, config: HubConfig, **wish) -> Pushed:
    return push_batch(store, config, Push(**{"batch_id": 1} | wish), now_ms=NOW, report=lambda *_: None)


def pull(store: Store, config: HubConfig, **wish) -> Pulled:
    return pull_batch(store, config, Pull(**{"batch_id": 1} | wish), now_ms=NOW, report=lambda *_: None)


def only(server: StandInCvat) -> StandInTask:
    (task,) = server.tasks.values()
    return task


def draw(task: StandInTask, *shapes: tuple[int, str, tuple[float, float, float, float]]) -> None:
    """What a person leaves behind who deletes all that was proposed and draws these boxes."""
    task.shapes = [Shape(frame, label, points) for frame, label, points in shapes]


def drawn(store: Store) -> dict[tuple[str, str], tuple[Annotation, ...]]:
    return {(one.label_set.annotator, one.event_id): one.boxes for one in store.labels.drawn(1)}


def write_config(folder: Path, server: StandInCvat) -> None:
    (folder / "token").write_text(TOKEN)
    (folder / "hub.toml").write_text(f'database = "hub.db"\n[cvat]\nurl = "{server.url}"\ntoken_file = "token"\n')
