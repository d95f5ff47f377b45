"""A batch becomes a task on a CVAT server: what is sent, what is checked before boxes are, what a failure leaves."""

import os
import signal
import subprocess
import sys

import pytest

from edge.contract.errors import UnreachableError, UnusableError
from hub.config import HubConfig
from hub.cvat_push import Push, push_batch
from hub.store import Store
from tests.hub.cvat_desk import NAMES, config_of, drawn, only, pull, push, write_config
from tests.hub.labelled import NOW, event_id, freeze, made_batch, put
from tests.hub.made import jpeg
from tests.simulators.cvat import StandInCvat


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


@pytest.fixture
def server():
    with StandInCvat() as standing:
        yield standing


@pytest.fixture
def config(server, tmp_path) -> HubConfig:
    return config_of(server, tmp_path)


def test_the_images_are_the_bytes_of_the_camera(store, server, config) -> None:
    made_batch(store, 2)
    push(store, config)
    assert only(server).files == {name: store.frame(event_id(number)) for number, name in enumerate(NAMES, 1)}


def test_a_batch_with_nothing_proposed_is_pushed_without_annotations(store, server, config) -> None:
    made_batch(store, 2, boxes=())
    assert push(store, config).boxes == 0
    assert only(server).imports == 0
    only(server).finish()
    pull(store, config, annotator="cy")
    assert drawn(store) == {("cy", event_id(1)): (), ("cy", event_id(2)): ()}


def test_more_images_than_fit_into_one_request_and_one_that_is_larger(store, server, config, monkeypatch) -> None:
    """The large one goes by TUS, whose address on the server is wrong behind a badly set up proxy."""
    monkeypatch.setattr("hub.cvat_server._PART_BYTES", 3000)
    pictures = {number: jpeg(number) for number in range(1, 7)} | {7: jpeg(7, noise=True)}
    assert len(pictures[7]) > 3000
    put(store, *pictures, pictures=pictures)
    freeze(store, *pictures)
    push(store, config)
    assert sorted(only(server).files.values()) == sorted(pictures.values())


def test_a_project_gives_its_labels_and_must_have_them(store, server, config) -> None:
    made_batch(store, 2)
    server.projects = {
        1: {"car": ()},
        2: {f"label-{number}": () for number in range(11)} | {"person": ()},  # on the second page
        3: {"person": ("score", "origin")},
    }
    with pytest.raises(UnusableError, match=r"project 1 on .* lacks the labels person"):
        push(store, config, project_id=1)
    with pytest.raises(UnusableError, match="labels of project 9 failed: it is not there"):
        push(store, config, project_id=9)
    assert server.tasks == {}
    assert push(store, config, project_id=3).notes == ()
    bare = push(store, config, project_id=2, again=True)
    assert "declares no attributes score and origin for person" in bare.notes[0]
    assert server.tasks[bare.task_id].shapes[0].attributes == {}
    assert server.tasks[bare.task_id].project == 2


# Before, and instead of, sending boxes


def test_a_renamed_frame_stops_the_push_before_any_box_is_sent(store, server, config) -> None:
    """CVAT would put the boxes of the frame that it cannot find on the frame of the same number."""
    made_batch(store, 2)
    server.rename = {NAMES[0]: "zzz.jpg"}
    with pytest.raises(UnusableError, match=f"frame 0 is {NAMES[1]} of 64 x 48, not {NAMES[0]} of 64 x 48; no box"):
        push(store, config)
    assert server.tasks == {}
    assert server.count("POST", "/annotations") == 0
    assert store.cvat.of(1, "", server=server.url) == []


def test_a_wrong_name_with_a_valid_number_is_what_the_stand_in_gets_wrong_as_cvat_does(store, server, config) -> None:
    """Otherwise the test above would prove nothing."""
    made_batch(store, 2)
    push(store, config)
    task = only(server)
    xml = f'<annotations><image id="1" name="other.jpg">{BOX}</image></annotations>'
    server.read_annotations(task, xml.encode())
    assert [one.frame for one in task.shapes] == [1]


BOX = '<box label="person" xtl="1" ytl="2" xbr="9" ybr="9"/>'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": 70}, "shows the images at quality 70, asked for 100"),  # small things would blur
        ({"lose": 1}, r"holds 1 boxes, 2 were sent: of person on 0001-02-.* 0, not 1"),
        ({"reading": "cvat.Bad: no space left on device"}, "reading the images failed: cvat.Bad: no space left"),
        ({"slow": "create"}, r"not done after 0.3 s \(`cvat.wait_s`\): started"),  # its workers do not run
        ({"faults": [("POST", "/data", 413)]}, "sending the images failed: too large for the server"),
        ({"faults": [("POST", "/data", 403)]}, "no permission, or a limit of the account: the stand-in was told"),
        ({"faults": [("GET", "/data/meta", 500)]}, r"names of the frames failed: the server has an error \(500\)"),
        ({"faults": [("GET", "/data/meta", "nonsense")]}, "its answer is not understood"),
        ({"faults": [("POST", "/data", "hang")]}, r"sending the images failed: no answer in time \(`cvat.timeout_s`\)"),
        ({"faults": [("POST", "/annotations", 401)]}, "the token or the password is not accepted"),  # it ran out
        ({"faults": [("GET", "/data/meta", 404)]}, "it is not there"),  # somebody has deleted it
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_push_that_fails_leaves_no_task(store, server, tmp_path, change, message) -> None:
    made_batch(store, 2)
    for name, value in change.items():
        setattr(server, name, value)
    config = config_of(server, tmp_path, timeout_s=0.5, wait_s=0.3)
    with pytest.raises((UnusableError, UnreachableError), match=message) as caught:
        push(store, config)
    assert "\n" not in str(caught.value)
    assert server.tasks == {}
    assert store.cvat.of(1, "", server=server.url) == []


def test_a_half_made_task_that_cannot_be_deleted_is_named_and_deleted_by_the_next_push(store, server, config) -> None:
    made_batch(store, 2)
    server.faults = [("GET", "/data/meta", 500), ("DELETE", "/tasks", 500)]
    with pytest.raises(UnusableError, match=r"half-made task is still there: delete http.*/tasks/1, or push again"):
        push(store, config)
    assert list(server.tasks) == [1]
    again = push(store, config)
    assert "task 1 was left half made by an earlier push: it is deleted" in again.notes
    assert list(server.tasks) == [again.task_id]


def test_a_push_that_was_killed_is_cleaned_up_by_the_next(store, server, config, tmp_path) -> None:
    made_batch(store, 2)
    server.faults = [("GET", "/data/meta", "hang")]
    write_config(tmp_path, server)
    words = ["cvat", "push", "1", "--config", str(tmp_path / "hub.toml")]
    killed = subprocess.Popen([sys.executable, "-m", "hub", *words], stderr=subprocess.PIPE)
    assert server.wait_for("GET", "/data/meta")
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    (half,) = server.tasks
    with pytest.raises(UnusableError, match="no task there"):
        pull(store, config)  # half made is not there
    again = push(store, config)
    assert list(server.tasks) == [again.task_id]
    assert again.task_id != half


def test_interrupted_by_hand_it_deletes_its_task(store, server, config) -> None:
    made_batch(store, 2)

    def interrupt(what: str, *_: float) -> None:
        if what == "sending the pre-labels":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push_batch(store, config, Push(batch_id=1), now_ms=NOW, report=interrupt)
    assert server.tasks == {}
    assert server.count("DELETE", "/tasks/1") == 1


def test_a_task_whose_making_was_not_answered_is_named(store, server, tmp_path) -> None:
    made_batch(store, 2)
    server.faults = [("POST", "/api/tasks", "hang")]
    with pytest.raises(UnreachableError, match=r"should a task 'Batch 1: dark' without images be there, delete it"):
        push(store, config_of(server, tmp_path, timeout_s=0.3))


# Again


def test_a_batch_is_pushed_once_for_each_pass_unless_asked_for_again(store, server, config) -> None:
    made_batch(store, 2)
    first = push(store, config)
    second = push(store, config)
    assert (second.made, second.task_id, second.url) == (False, first.task_id, first.url)
    assert push(store, config, label_pass="person").made
    again = push(store, config, again=True, assignee="cy")
    assert (again.made, len(server.tasks)) == (True, 3)
    del server.tasks[again.task_id]  # on the server, by hand
    del server.tasks[first.task_id]
    anew = push(store, config)
    assert anew.made
    assert [note for note in anew.notes if "was deleted on the server" in note]


def test_what_the_batch_lacks_is_told(store, server, config) -> None:
    made_batch(store, 2)
    assert push(store, config, honeypots=3).notes[0].startswith("no honeypots: no image of an earlier batch")
