"""What people drew on a CVAT server comes back, each annotator's by itself and once."""

import pytest

from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.samples import Box
from hub import cvat_pull
from hub.annotation import Annotation
from hub.config import HubConfig
from hub.label_faults import FaultsError
from hub.store import Store
from hub.truth import truths
from tests.hub.cvat_desk import NAMES, config_of, draw, drawn, only, pull, push
from tests.hub.labelled import draw as draw_known
from tests.hub.labelled import event_id, made_batch, person
from tests.simulators.cvat import Shape, StandInCvat

DETECTOR = {"score": "0.4", "origin": "detector"}


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


def test_what_people_draw_on_the_server_is_what_is_stored(store, server, config) -> None:
    made_batch(store, 2)
    pushed = push(store, config, assignee="bob")
    task = only(server)
    assert (pushed.made, pushed.images, pushed.test, pushed.boxes) == (True, 2, 1, 2)
    assert pushed.url == f"{server.url}/tasks/{task.id}"
    assert (task.name, task.assignee, task.quality, task.sorting) == ("Batch 1: dark", "bob", 100, "lexicographical")
    assert [frame[0] for frame in task.frames] == NAMES
    assert task.labels == {"person": ("score", "origin")}
    assert [(one.frame, one.points, one.attributes) for one in task.shapes] == [
        (0, (1.0, 2.0, 30.0, 40.0), DETECTOR),
        (1, (1.0, 2.0, 30.0, 40.0), DETECTOR),
    ]
    task.shapes[0].points = (3.0, 4.0, 31.5, 40.25)  # moved; its attributes stay, as CVAT keeps them
    task.shapes[1] = Shape(0, "person", (40.0, 4.0, 50.0, 14.0))  # the other image's is deleted, one is drawn here
    task.finish()
    pulled = pull(store, config, minutes=12.5)
    assert drawn(store) == {
        ("bob", event_id(1)): (Annotation((3.0, 4.0, 31.5, 40.25), "person"), person(40)),
        ("bob", event_id(2)): (),
    }
    (answer,) = pulled.answers
    assert (answer.task_id, answer.annotator, answer.imported.images, answer.imported.boxes) == (task.id, "bob", 2, 2)
    assert store.batch(1).minutes == 12.5
    assert f"/tasks/{task.id}" in store.labels.sets(1)[0].source
    assert sorted(truths(store, 1)) == [event_id(1), event_id(2)]
    assert list(store.violations()) == []


def test_one_pass_asks_for_one_label(store, server, config) -> None:
    made_batch(store, 2, boxes=(Box((1.0, 2.0, 30.0, 40.0), "person", 0.4), Box((5.0, 5.0, 15.0, 15.0), "head", 0.9)))
    push(store, config, label_pass="head")
    assert only(server).name == "Batch 1, head only: dark"
    assert {one.label for one in only(server).shapes} == {"head"}
    with pytest.raises(UnusableError, match=r"batch 1 has no task there; `hub cvat push 1`"):
        pull(store, config)
    only(server).finish()
    pull(store, config, label_pass="head", annotator="cy")
    assert [(one.label_pass, one.labels) for one in store.labels.sets(1)] == [("head", ("head",))]


def test_known_answers_are_pushed_and_answered_like_the_rest(store, server, config) -> None:
    made_batch(store, 2)
    everyone = {number: [person(4)] for number in (1, 2)}
    for annotator in ("ann", "bob"):
        draw_known(store, 1, everyone, annotator=annotator, labels=("person",))
    made_batch(store, 2, first=3)
    pushed = push(store, config, batch_id=2, honeypots=1)
    assert pushed.images == 3
    only(server).finish()
    pull(store, config, batch_id=2, annotator="cy")
    (honeypot,) = store.labels.honeypots(2)
    answered = {one.event_id for one in store.labels.drawn(2)}
    assert answered == {event_id(3), event_id(4), honeypot.event_id}


# Again


def test_what_was_pulled_and_has_not_changed_is_not_imported_again(store, server, config) -> None:
    """Minutes would count twice."""
    made_batch(store, 2)
    push(store, config, assignee="bob")
    push(store, config, assignee="cy", again=True)
    bob, cy = server.tasks.values()
    draw(bob, (0, "person", (4.0, 4.0, 14.0, 14.0)))
    bob.finish()
    first = pull(store, config, minutes=3)
    assert [(one.annotator, one.imported is None) for one in first.answers] == [("bob", False)]
    assert [url for url, _ in first.unfinished] == [f"{server.url}/tasks/{cy.id}"]
    cy.finish()
    second = pull(store, config, minutes=4)
    assert [(one.annotator, one.imported is None) for one in second.answers] == [("bob", True), ("cy", False)]
    assert store.batch(1).minutes == 7
    draw(bob, (1, "person", (4.0, 4.0, 14.0, 14.0)))
    assert [one.imported is None for one in pull(store, config).answers] == [False, True]
    assert drawn(store)["bob", event_id(1)] == ()


# Who drew, and whether they are done


def test_each_annotator_of_a_task_gets_a_label_set(store, server, config) -> None:
    made_batch(store, 3)
    push(store, config, assignee="ann")
    task = only(server)
    job = task.jobs[0]
    job.stop, job.assignee = 0, "bob"
    later = type(job)(job.id + 90, 1, 2)  # for whom the task's assignee stands in
    replica = type(job)(job.id + 91, 0, 2, "cy", type="ground_truth")  # nobody's answer to the batch
    task.jobs = [replica, later, job]
    draw(task, *((frame, "person", (4.0 + frame, 4.0, 14.0, 14.0)) for frame in range(3)))
    task.finish()
    replica.state = "new"
    answers = pull(store, config, minutes=3).answers
    assert [(one.annotator, one.imported.images, one.imported.boxes) for one in answers] == [
        ("bob", 1, 1),
        ("ann", 2, 2),
    ]
    assert sorted(drawn(store)) == [("ann", event_id(2)), ("ann", event_id(3)), ("bob", event_id(1))]
    assert [one.minutes for one in store.labels.sets(1)] == [1, 2]
    assert [one.imported.missing for one in answers] == [(), ()]
    assert len(truths(store, 1)) == 3


def test_who_drew_must_be_known(store, server, config) -> None:
    made_batch(store, 2)
    push(store, config)
    only(server).finish()
    with pytest.raises(UnusableError, match=r"nobody is assigned to job .* say who drew with --annotator"):
        pull(store, config)
    assert pull(store, config, annotator="dee").answers[0].annotator == "dee"


@pytest.mark.parametrize("state", ["new", "in progress", "rejected"])
def test_an_unfinished_task_is_left_unless_asked_for(store, server, config, state) -> None:
    made_batch(store, 2)
    push(store, config, assignee="bob")
    task = only(server)
    task.jobs[0].state = state
    pulled = pull(store, config)
    assert pulled.unfinished == ((f"{server.url}/tasks/{task.id}", f"job {task.jobs[0].id} is {state}"),)
    assert store.labels.sets() == []
    assert pull(store, config, unfinished=True).unfinished == ()
    assert len(store.labels.sets()) == 1


def test_a_frame_that_was_deleted_in_cvat_is_missing(store, server, config) -> None:
    made_batch(store, 2)
    push(store, config, assignee="bob")
    task = only(server)
    task.deleted = {1}
    task.finish()
    (answer,) = pull(store, config).answers
    assert (answer.imported.images, answer.imported.missing) == (1, (NAMES[1],))


def test_what_cannot_be_imported_is_named_and_can_be_pulled_again(store, server, config) -> None:
    made_batch(store, 2)
    push(store, config, assignee="bob")
    task = only(server)
    draw(task, (0, "person", (4.0, 4.0, 70.0, 14.0)))  # outside: the image is 64 wide
    task.finish()
    with pytest.raises(FaultsError, match=NAMES[0]):
        pull(store, config)
    assert store.labels.sets() == []
    (answer,) = pull(store, config, fix=True).answers
    assert answer.imported.fixed
    assert drawn(store)["bob", event_id(1)] == (Annotation((4.0, 4.0, 64.0, 14.0), "person"),)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("GET", "/dataset/download", "cut"), "fetching the annotations failed: the connection broke"),
        (("POST", "/dataset/export", 500), r"writing the annotations out failed: the server has an error \(500\)"),
        (("GET", "/dataset/download", "nonsense"), "annotations.xml"),  # a page where a ZIP should be
        (("GET", "/jobs", 403), "reading the jobs of task 1 failed: no permission"),
    ],
    ids=str,
)
def test_a_pull_that_fails_stores_nothing(store, server, config, fault, message) -> None:
    made_batch(store, 2)
    push(store, config, assignee="bob")
    only(server).finish()
    server.faults = [fault]
    with pytest.raises((UnusableError, UnreachableError), match=message) as caught:
        pull(store, config)
    assert "\n" not in str(caught.value)
    assert store.labels.sets() == []
    assert pull(store, config).answers[0].imported is not None


def test_a_task_that_was_deleted_meanwhile_is_named(store, server, config) -> None:
    made_batch(store, 2)
    push(store, config, assignee="bob")
    server.tasks.clear()
    with pytest.raises(UnusableError, match="task 1 was deleted on the server: what was drawn in it is lost"):
        pull(store, config)


def test_of_two_pulls_at_once_one_imports(store, server, config, monkeypatch) -> None:
    """The other finds, within the transaction that would store it, that it was overtaken."""
    made_batch(store, 2)
    push(store, config, assignee="bob")
    only(server).finish()
    plain = cvat_pull.import_labels

    def overtaken(*args, **more):
        monkeypatch.setattr(cvat_pull, "import_labels", plain)
        pull(store, config, minutes=5)
        return plain(*args, **more)

    monkeypatch.setattr(cvat_pull, "import_labels", overtaken)
    with pytest.raises(UnusableError, match=r"another pull .* has just imported from it"):
        pull(store, config, minutes=5)
    assert len(store.labels.sets(1)) == 1
    assert store.batch(1).minutes == 5
    assert [answer.imported for answer in pull(store, config, minutes=5).answers] == [None]
