"""Machine labels on a real database: certified on random images, applied, checked by people, reported."""

import json
import random
import sys

import cv2
import msgspec
import pytest

import hub.cli
from hub.account import account
from hub.annotation import Annotation
from hub.autolabel import Asked, apply_certificate, certify_model
from hub.autolabel_lines import refused_lines
from hub.autolabel_report import report
from hub.certificates import CHECKS, GROUND_TRUTH, Details, details_of, in_force
from hub.certify import spent
from hub.config import CostsConfig
from hub.opinions import Onlooker
from hub.random_batches import random_batch
from hub.store import Store
from hub.validation import RefusedError
from tests.hub.labelled import NOW, draw, event_id, freeze, person, put

NUMBERS = range(1, 241)
PRICES = CostsConfig(currency="USD", image=0.26, machine=0.08)
SEED = 3


class Other:
    """A model of another name that sees what was put into the database for it, and nothing else."""

    labels = ("person", "car")
    score_threshold = 0.3

    def __init__(self, name="other@320x320x2"):
        self.name = name

    def look(self, jpeg):
        pytest.fail("it was looked at")


@pytest.fixture(scope="module")
def onlooker():
    return Onlooker.open()


def seen(number: int) -> tuple[Annotation, ...]:
    """What the model sees: every fifth image is hard, every tenth empty, the rest easy."""
    if number % 5 == 0 and number % 10:
        return (person(20, score=0.35, origin="model"), person(40, score=0.3, origin="model"))
    return () if number % 10 == 0 else (person(5 + number % 7, score=0.8, origin="model"),)


def there(number: int) -> list[Annotation]:
    """What is there: of the hard images something else."""
    return [person(2)] if number % 5 == 0 and number % 10 else [person(box.xyxy[0]) for box in seen(number)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A database with images of which a model has its opinion, 120 of them drawn at random and answered."""
    path = tmp_path_factory.mktemp("made") / "hub.db"
    with Store.open(path) as store:
        put(store, *NUMBERS)
        name = Onlooker.open().name
        for of in (name, Other().name):
            store.labels.add_opinions(of, {event_id(n): seen(n) for n in NUMBERS})
        batch = random_batch(store, size=120, rng=random.Random(SEED), now_ms=NOW)
        answer(store, batch.id)
    return path


@pytest.fixture
def path(filled, tmp_path):
    copy = tmp_path / "hub.db"
    copy.write_bytes(filled.read_bytes())
    return copy


@pytest.fixture
def store(path):
    with Store.open(path) as opened:
        yield opened


def answer(store, batch_id, *, wrong=(), labels=("person",)):
    """A person answers a batch, as it is or, on those images, as if the machine had overlooked something."""
    numbers = [int(member.event_id, 16) for member in store.batch_members(batch_id)]
    boxes = {n: [*there(n), person(48, 30)] if n in wrong else there(n) for n in numbers}
    draw(store, batch_id, boxes, labels=labels)


def certified(store, onlooker, **asked):
    return certify_model(store, onlooker, Asked(**asked), rng=random.Random(1), now_ms=NOW)


def applied(store, onlooker, **more):
    return apply_certificate(store, onlooker, rng=random.Random(2), now_ms=NOW, **more)


def test_a_model_that_is_right_where_it_is_sure_is_certified(store, onlooker):
    certificate = certified(store, onlooker)
    assert (certificate.model, certificate.rule, certificate.images) == (onlooker.name, "guarantee", 120)
    assert 0.85 <= certificate.share <= 0.95  # all but the hard ones
    assert certificate.wrong == 0
    details = details_of(certificate)
    assert (details.labels, details.attempt, details.delta) == (("person",), 1, spent(0.1, 1))
    assert details.population == details.looked_at == 120
    assert store.labels.certificates() == [certificate]
    assert in_force(store, onlooker.name) == certificate


def test_what_is_certified_is_labelled_and_one_in_twenty_goes_to_a_person(store, onlooker):
    certificate = certified(store, onlooker)
    done = applied(store, onlooker)
    rest = [n for n in NUMBERS if n not in drawn_numbers(store, 1)]
    easy = [n for n in rest if not (n % 5 == 0 and n % 10)]
    assert (done.certificate, done.looked_at, done.labelled) == (certificate, 120, len(easy))
    assert done.checks == -(-len(easy) // 20)
    (made,) = [one for one in store.labels.sets() if one.kind == "machine"]
    assert (made.batch_id, made.annotator, made.labels) == (None, onlooker.name, ("person",))
    boxes = {int(one.event_id, 16): one.boxes for one in store.labels.drawn() if one.label_set.id == made.id}
    assert sorted(boxes) == easy
    for number, of_image in boxes.items():
        assert [(box.xyxy, box.score, box.origin) for box in of_image] == [
            (box.xyxy, box.score, "machine") for box in seen(number)
        ]
    batch = store.batch(done.batch_id)
    assert (batch.title, batch.random, batch.size, batch.model) == (CHECKS, False, done.checks, onlooker.name)
    assert set(drawn_numbers(store, batch.id)) <= set(easy)
    assert {int(row.event_id, 16) for row in store.candidates()} == set(rest) - set(easy)
    assert not list(store.violations())
    # nothing is left: nothing more is labelled or drawn
    again = applied(store, onlooker)
    assert (again.labelled, again.set_id, again.batch_id) == (0, None, None)


def drawn_numbers(store, batch_id):
    return [int(member.event_id, 16) for member in store.batch_members(batch_id)]


def test_a_limit_is_kept_and_each_round_has_its_checks(store, onlooker):
    certified(store, onlooker)
    rounds = [applied(store, onlooker, limit=30) for _ in range(2)]
    assert [(one.labelled, one.checks) for one in rounds] == [(30, 2), (30, 2)]


def test_checks_that_were_cut_off_are_drawn_the_next_time(store, onlooker, monkeypatch):
    certified(store, onlooker)

    def crash(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "freeze_batch", crash)
        with pytest.raises(KeyboardInterrupt):
            applied(store, onlooker, limit=40)
    assert len(store.batches()) == 1
    done = applied(store, onlooker, limit=20)
    assert (done.labelled, done.checks) == (20, 2 + 1)


def test_nothing_is_labelled_without_a_certificate_of_this_very_model(store, onlooker):
    with pytest.raises(RefusedError, match="has no certificate: run `hub autolabel certify`"):
        applied(store, onlooker)
    certified(store, Other())
    with pytest.raises(RefusedError, match=r"has no certificate \(there are some of other@320x320x2\)"):
        applied(store, onlooker)
    assert not [one for one in store.labels.sets() if one.kind == "machine"]


def test_trying_again_on_the_same_answers_changes_nothing(store, onlooker):
    first = certified(store, onlooker)
    assert certify_model(store, onlooker, Asked(), rng=random.Random(99)) == first
    assert len(store.labels.certificates()) == 1
    # another epsilon is another attempt, with less of delta
    assert details_of(certified(store, onlooker, epsilon=0.2)).delta == pytest.approx(spent(0.1, 2))
    # a changed answer is new
    number = drawn_numbers(store, 1)[0]
    draw(store, 1, {number: [person(9)]}, labels=("person",))
    assert details_of(certified(store, onlooker)).attempt == 3


def test_a_model_that_is_sure_and_wrong_is_refused(path, onlooker):
    with Store.open(path) as store:
        wrong = [n for n in drawn_numbers(store, 1) if n % 3 == 0]
        answer(store, 1, wrong=wrong)
        certificate = certified(store, onlooker)
        assert certificate.threshold is None
        assert details_of(certificate).needs is None
        with pytest.raises(RefusedError, match="has no certificate"):
            applied(store, onlooker)


def test_too_few_random_images_say_how_many_more(store, onlooker):
    certificate = certified(store, onlooker, epsilon=0.02)
    assert certificate.threshold is None
    assert details_of(certificate).needs > 50


def test_a_later_refusal_ends_a_certificate_only_where_it_asks_for_no_less(store, onlooker):
    first = certified(store, onlooker)
    assert certified(store, onlooker, epsilon=0.02).threshold is None
    assert in_force(store, onlooker.name) == first
    answer(store, 1, wrong=drawn_numbers(store, 1)[:60])
    assert certified(store, onlooker).threshold is None
    with pytest.raises(RefusedError, match="was ended by refusal 3"):
        applied(store, onlooker)


def test_checks_that_contradict_make_a_certificate_void(store, onlooker):
    certificate = certified(store, onlooker)
    done = applied(store, onlooker, limit=60)
    checked = drawn_numbers(store, done.batch_id)
    answer(store, done.batch_id, wrong=checked)
    (standing,) = report(store, PRICES).standings
    assert (standing.state, standing.checks) == ("void", (60, 3, 3, 3))
    with pytest.raises(RefusedError, match=f"certificate {certificate.id} is void: 3 of 3 checked images are wrong"):
        applied(store, onlooker)


def test_a_second_import_of_the_same_costs_nothing_in_the_rounds(store):
    """The rounds add up to the account of `hub costs`."""
    answer(store, 1)
    answer(store, 1, wrong=drawn_numbers(store, 1)[:2])
    found = report(store, PRICES).rounds
    paid = [(one.images_person, one.cost_person) for one in found]
    assert paid == [(120, pytest.approx(120 * 0.26)), (0, 0.0), (2, pytest.approx(2 * 0.26))]
    total = account(store, PRICES).total
    assert (sum(cost for _, cost in paid), sum(images for images, _ in paid)) == (
        pytest.approx(total.cost),
        total.work.images,
    )


def test_what_a_void_certificate_was_measured_on_certifies_that_model_no_more(store, onlooker):
    certified(store, onlooker)
    done = applied(store, onlooker, limit=60)
    answer(store, done.batch_id, wrong=drawn_numbers(store, done.batch_id))
    with pytest.raises(RefusedError, match="no images were drawn at random since its certificate"):
        certified(store, onlooker, epsilon=0.2)  # the same images, another promise
    assert certified(store, Other()).images == 120  # they say of another model what they said
    batch = random_batch(store, size=60, rng=random.Random(4), now_ms=NOW + 1)
    answer(store, batch.id)
    certificate = certified(store, onlooker, epsilon=0.3)
    assert (certificate.images, details_of(certificate).attempt) == (60, 2)
    assert in_force(store, onlooker.name) == certificate


def test_checks_that_agree_leave_it_in_force(store, onlooker):
    certified(store, onlooker)
    done = applied(store, onlooker)
    answer(store, done.batch_id)
    found = report(store, PRICES)
    assert [(one.state, one.checks.answered, one.checks.wrong) for one in found.standings] == [
        ("in force", done.checks, 0)
    ]
    people, machine, checks = found.rounds
    assert (people.images_person, people.cost_person) == (120, pytest.approx(120 * 0.26))
    assert (machine.images_machine, machine.cost_machine) == (done.labelled, pytest.approx(done.labelled * 0.08))
    assert machine.cost_all_person == pytest.approx(done.labelled * 0.26)
    assert checks.images_person == done.checks
    assert len(found.ious("machine")) == sum(bool(there(n)) for n in drawn_numbers(store, done.batch_id))
    assert min(found.ious("machine")) == 1.0


def test_a_random_batch_counts_only_when_it_is_answered_whole(store, onlooker):
    batch = random_batch(store, size=40, rng=random.Random(8), now_ms=NOW)
    half = drawn_numbers(store, batch.id)[:20]
    draw(store, batch.id, {n: there(n) for n in half}, labels=("person",))
    certificate = certified(store, onlooker)
    assert certificate.images == 120
    (note,) = details_of(certificate).notes
    assert note == "batch 2 does not count: 20 of its 40 images are not answered yet for person"


def test_without_random_images_it_says_how_to_draw_some(tmp_path, onlooker):
    with Store.open(tmp_path / "hub.db") as store:
        put(store, 1, 2, 3)
        with pytest.raises(RefusedError, match="`hub batch new --random` draws some"):
            certified(store, onlooker)
        batch = random_batch(store, size=2, now_ms=NOW)
        with pytest.raises(RefusedError, match="no random batch is answered") as refused:
            certified(store, onlooker, names=("person", "wheelbarrow"))
        lines = refused_lines(str(refused.value))
        assert [line.strip() for line in lines if not line.startswith("    ")] == [
            "hub: no random batch is answered by people",
            "the model cannot tell wheelbarrow: it stays for people",
            "batch 1 does not count: 2 of its 2 images are not answered yet for person",
            "export these batches, label and import all of their images",
        ]
        answer(store, batch.id, labels=("wheelbarrow",))
        with pytest.raises(RefusedError, match="can tell none of the labels asked for: wheelbarrow"):
            certified(store, onlooker)


def test_a_label_that_the_model_cannot_tell_stays_for_people(path, onlooker):
    with Store.open(path) as store:
        answer(store, 1, labels=("person", "wheelbarrow"))
        details = details_of(certified(store, onlooker))
    assert details.labels == ("person",)
    assert details.notes == ("the model cannot tell wheelbarrow: it stays for people",)


def test_chosen_images_calibrate_and_certify_nothing(path, onlooker):
    with Store.open(path) as store:
        free = [n for n in NUMBERS if n not in drawn_numbers(store, 1)][:40]
        chosen = freeze(store, *free)
        answer(store, chosen)
        certificate = certified(store, onlooker)
        assert certificate.images == 120
        assert details_of(certificate).calibration.boxes == sum(len(seen(n)) for n in free)


def test_other_images_than_those_measured_are_not_labelled(store, onlooker):
    certified(store, onlooker)
    new = range(301, 401)
    put(store, *new)
    store.labels.add_opinions(onlooker.name, {event_id(n): (person(4, score=0.33, origin="model"),) for n in new})
    with pytest.raises(RefusedError, match="not like those that certificate 1 was measured on"):
        applied(store, onlooker)


def test_a_new_model_is_measured_on_the_same_images_and_labels_them_anew(store, onlooker):
    certified(store, onlooker)
    first = applied(store, onlooker)
    certificate = certified(store, Other())
    assert details_of(certificate).population == 120 - first.checks
    second = applied(store, Other())
    assert second.labelled == first.labelled - first.checks


def test_the_rule_of_ground_truth_accepts_what_is_unusable(path, onlooker):
    """An object that the machine overlooks on every other image costs nothing by that rule."""
    with Store.open(path) as store:
        more = random_batch(store, size=80, rng=random.Random(9), now_ms=NOW)
        answer(store, 1, wrong=[n for n in NUMBERS if n % 2])
        answer(store, more.id, wrong=[n for n in NUMBERS if n % 2])
        theirs = certified(store, onlooker, rule=GROUND_TRUTH)
        assert theirs.threshold is not None
        assert theirs.wrong > 0.4 * theirs.accepted
        assert certified(store, onlooker).threshold is None
        done = applied(store, onlooker)
        machine = [one for one in store.labels.drawn() if one.label_set.id == done.set_id]
        assert machine
        assert all(one.boxes for one in machine)  # an image without boxes has no confidence there


def test_the_rule_of_ground_truth_waits_for_two_iterations(store, onlooker):
    certificate = certified(store, onlooker, rule=GROUND_TRUTH)
    assert certificate.threshold is None
    assert details_of(certificate).needs == 80


def test_details_are_read_as_they_were_written(store, onlooker):
    details = details_of(certified(store, onlooker))
    assert msgspec.json.decode(msgspec.json.encode(details), type=Details) == details


# The commands


@pytest.fixture
def run(path, monkeypatch, capsys):
    """Run `hub autolabel ...`; return its status, what it printed, and what it said of errors."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(path.parent)
        monkeypatch.setattr(sys, "argv", ["hub", "autolabel", *words, "--database", str(path)])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


def test_certify_apply_and_report_as_they_are_typed(path, run):
    status, out, _ = run("report")
    assert (status, out) == (1, "no certificate yet: `hub autolabel certify`\n")
    status, _, err = run("apply")
    assert status == 1
    assert f"hub: model {Onlooker.open().name} has no certificate" in err
    status, out, err = run("certify")
    assert (status, err) == (0, "")
    assert "certified: at most 10.0% of what reaches it is wrong" in out
    assert out.endswith("next: hub autolabel apply\n")
    status, out, _ = run("apply", "--limit", "60")
    assert status == 0
    assert "60 of " in out
    assert "next: hub batch export 2 --format cvat --out checks-2" in out
    with Store.open(path) as store:
        answer(store, 2)
    status, out, _ = run("report", "--out", "pictures")
    assert status == 0
    assert "checked by people: 3 of 3, 0 of 3 wrong (0% to 71%)" in " ".join(out.split())
    for name in ("rounds.png", "iou.png", "most-confident.png"):
        assert f"drawn: pictures/{name}" in out
        assert cv2.imread(str(path.parent / "pictures" / name)) is not None
    for words in (["certify"], ["report"]):
        assert max(map(len, run(*words)[1].splitlines())) <= 80


def test_json_of_each(run):
    certificate = json.loads(run("certify", "--json")[1])
    assert (certificate["images"], certificate["fewest"], certificate["details"]["labels"]) == (120, 24, ["person"])
    done = json.loads(run("apply", "--limit", "20", "--json")[1])
    assert (done["labelled"], done["checks"], done["certificate"]) == (20, 1, 1)
    whole = json.loads(run("report", "--json")[1])
    assert whole["certificates"][0]["state"] == "in force"
    assert whole["certificates"][0]["checks"]["labelled"] == 20


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["certify", "--epsilon", "0.02"], 1, "more random images that people have labelled"),
        (["certify", "--rule", "ground-truth"], 1, "needs 80 more random images"),
        (["certify", "--epsilon", "0"], 2, "epsilon is 0: it must be more than 0"),
        (["certify", "--model", "none.onnx"], 2, "none.onnx"),
    ],
)
def test_what_is_refused_and_what_cannot_be_done(run, words, status, says):
    ended, out, err = run(*words)
    assert ended == status
    assert says in " ".join((out + err).split())
