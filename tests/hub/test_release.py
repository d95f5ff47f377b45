"""A model folder as a signed release: what goes into it, which number it gets, and what is refused."""

import io
import json
import resource
import shutil
import tarfile
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from edge.contract.card import Variant, read_card
from edge.contract.errors import UnusableError
from edge.detector.written import write_card
from hub.release import create_release, find_release, named_release, releases, require_gate
from hub.repository import read_repository, refresh, target_path
from tests.edge.detector.golden_models import golden_folder
from tests.hub.signed import add_release, made_keys, made_repository, small_model

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def made(tmp_path):
    return made_repository(tmp_path / "r")


def archive(made, one):
    return tarfile.open(target_path(made.folder, one.target, one.sha256))


def test_a_release_says_what_its_card_says(made, tmp_path):
    folder = golden_folder(tmp_path / "model", count=2)
    (folder / "LICENSE").write_text("MIT")
    (folder / "training.log").write_text("stays at home")
    (folder / "gate.json").write_text("stays at home")
    one = add_release(made, folder, ungated="the first")
    card = read_card(folder / "model.json")
    with archive(made, one) as tar:
        members = tar.getmembers()
        unpacked = {member.name: tar.extractfile(member).read() for member in members}
    golden = {f"{card.golden}/{path.name}": path.read_bytes() for path in (folder / card.golden).iterdir()}
    beside = {name: (folder / name).read_bytes() for name in ("LICENSE", "model.json", "starter.onnx")}
    assert unpacked == {**beside, **golden}
    assert [member.name for member in members] == sorted(unpacked)
    assert all(member.isreg() and (member.mtime, member.uid, member.mode) == (0, 0, 0o644) for member in members)
    signed = one.signed
    assert (signed.model, signed.release, signed.number, signed.baseline) == ("starter", "starter-1", 1, 0)
    assert (signed.input, signed.score_threshold_permille, signed.precisions) == ("192x160", 300, ("f32",))
    assert (signed.files, signed.unpacked_bytes) == (len(unpacked), sum(map(len, unpacked.values())))
    assert (one.made.ungated, one.made.baseline) == ("the first", "")
    assert one.length == target_path(made.folder, one.target, one.sha256).stat().st_size


def test_the_same_folder_is_the_same_bytes_and_is_released_once(made, tmp_path):
    folder = small_model(tmp_path / "model")
    one = add_release(made, folder)
    again = shutil.copytree(folder, tmp_path / "elsewhere")
    (again / "model.json").touch()
    same, new = create_release(made.folder, made.ring, model_folder=again, now=NOW, ungated="again")
    assert (same, new) == (one, False)
    assert len(list((made.folder / "targets" / "yard").iterdir())) == 1
    asked, new = create_release(made.folder, made.ring, model_folder=again, now=NOW, ungated="again", back=True)
    assert (asked.signed.number, asked.signed.back, asked.sha256, new) == (2, True, one.sha256, True)


def test_numbers_rise_by_line_and_the_baseline_is_the_one_before(made, tmp_path):
    for number in (1, 2, 3):
        one = add_release(made, small_model(tmp_path / f"yard-{number}", release=f"yard-{number}", content=str(number)))
        assert (one.signed.number, one.signed.baseline) == (number, number - 1)
    gate = add_release(made, small_model(tmp_path / "gate", name="gate", release="gate-1"))
    assert (gate.signed.number, gate.signed.baseline) == (1, 0)
    other = add_release(made, small_model(tmp_path / "x", release="yard-4", content="4"), baseline=1)
    assert (other.signed.number, other.signed.baseline) == (4, 1)
    with pytest.raises(UnusableError, match="--baseline 7: yard has no such release; it has: 0, 1, 2, 3, 4"):
        add_release(made, small_model(tmp_path / "x", release="yard-5", content="5"), baseline=7)
    assert [(one.signed.model, one.signed.number) for one in releases(read_repository(made.folder))] == [
        ("gate", 1),
        *(("yard", number) for number in (1, 2, 3, 4)),
    ]


NAMED = [
    # what a person types: line and number that are meant
    ("yard/2", ("yard", 2)),
    ("yard/000002", ("yard", 2)),
    ("yard", ("yard", 2)),  # the newest
    ("yard-1", ("yard", 1)),  # its name
    ("gate/1", ("gate", 1)),
    ("2", None),  # there are two lines
    ("", None),
    ("yard/3", None),
    ("door", None),
    ("yard/0", None),
    ("yard/x", None),
    ("yard/1234567", None),
    ("yard/²", None),  # no number
]


def test_a_release_is_found_by_what_a_person_types(made, tmp_path):
    for number in (1, 2):
        add_release(made, small_model(tmp_path / f"yard-{number}", release=f"yard-{number}", content=str(number)))
    assert named_release(made.folder, "").signed.number == 2
    assert named_release(made.folder, "1").signed.number == 1
    add_release(made, small_model(tmp_path / "gate", name="gate", release="gate-7"))
    for text, expected in NAMED:
        if expected is None:
            with pytest.raises(UnusableError):
                named_release(made.folder, text)
        else:
            found = named_release(made.folder, text)
            assert (found.signed.model, found.signed.number) == expected, text
            assert find_release(made.folder, model=expected[0], number=expected[1]) == found
    with pytest.raises(UnusableError, match="has no release yard/3; it has: gate/1, yard/1, yard/2"):
        find_release(made.folder, model="yard", number=3)


def test_what_is_signed_elsewhere_is_published_by_a_refresh(made, tmp_path):
    offline = made_keys(without=("snapshot", "timestamp"))[1]
    model = small_model(tmp_path / "model")
    one, new = create_release(made.folder, offline, model_folder=model, now=NOW, ungated="a test")
    assert (new, one.published) == (True, False)
    with pytest.raises(UnusableError, match="has no release"):
        find_release(made.folder)
    assert named_release(made.folder, "", waiting=True) == one
    online = made_keys(without=("root-1", "root-2", "root-3", "targets"))[1]
    refresh(made.folder, online, now=NOW + timedelta(hours=1))
    assert find_release(made.folder) == msgspec.structs.replace(one, published=True)
    other = small_model(tmp_path / "2", release="yard-2", content="2")
    with pytest.raises(UnusableError, match="to sign targets, the key"):
        create_release(made.folder, online, model_folder=other, now=NOW, ungated="x")


def test_two_models_of_a_line_do_not_have_one_name(made, tmp_path):
    add_release(made, small_model(tmp_path / "1", release="yard-1", content="1"))
    with pytest.raises(UnusableError, match=r"yard/1 is called yard-1, too, .*`release` in model\.json"):
        add_release(made, small_model(tmp_path / "2", release="yard-1", content="2"))
    assert len(releases(read_repository(made.folder))) == 1
    add_release(made, small_model(tmp_path / "3", name="gate", release="yard-1", content="3"))  # another line's
    add_release(made, tmp_path / "1", back=True)  # the same model, signed otherwise


@pytest.mark.parametrize("why", [" ", "x" * 301, "two\nlines", "\x1b[31mred"])
def test_why_no_gate_passed_it_is_one_line(made, tmp_path, why):
    with pytest.raises(UnusableError, match="says why in one line of at most 300 characters"):
        add_release(made, small_model(tmp_path / "1"), ungated=why)


def write_gate(folder, **change):
    card = read_card(folder / "model.json")
    told = {"sha256": card.sha256, "passed": True, "baseline": "yard-0", "checks": [], "release": card.release}
    told["variants"] = {one.name: one.sha256 for one in card.variants}
    (folder / "gate.json").write_text(json.dumps({**told, **change}))


GATES = [
    # what stands in gate.json, and what is said
    ({}, ""),
    ({"checks": [{"name": "recall over all", "outcome": "insufficient", "text": ""}]}, ""),
    ({"passed": False}, "did not pass the gate against yard-0"),
    ({"sha256": "0" * 64}, "is of another file than yard.onnx"),
    ({"passed": "yes"}, "cannot read"),
    ({"sha256": None}, "cannot read"),
    ({"variants": None}, "cannot read"),
    ({"variants": {"int8": "0" * 64}}, ""),  # one that was judged and then left out of the card
]


@pytest.mark.parametrize(("change", "message"), GATES)
def test_only_what_a_gate_passed_is_released(made, tmp_path, change, message):
    folder = small_model(tmp_path / "model")
    with pytest.raises(UnusableError, match=r"no gate\.json: no gate has judged it; .*--ungated"):
        create_release(made.folder, made.ring, model_folder=folder, now=NOW)
    write_gate(folder, **change)
    if not message:
        one, _ = create_release(made.folder, made.ring, model_folder=folder, now=NOW)
        assert (one.made.baseline, one.made.ungated) == ("yard-0", "")
        return
    with pytest.raises(UnusableError, match=message):
        create_release(made.folder, made.ring, model_folder=folder, now=NOW)
    assert releases(read_repository(made.folder)) == []
    one = add_release(made, folder, ungated="it is urgent")
    assert (one.made.baseline, one.made.ungated) == ("", "it is urgent")


def test_a_variant_that_came_after_the_gate_is_refused(tmp_path):
    folder = small_model(tmp_path / "model")
    write_gate(folder)
    card = read_card(folder / "model.json")
    variant = Variant(name="int8", file=card.file, sha256=card.sha256, precision="int8", runtimes=("openvino",))
    write_card(folder / "model.json", msgspec.structs.replace(card, variants=(variant,)))
    with pytest.raises(UnusableError, match="has not passed the variants int8"):
        require_gate(folder, read_card(folder / "model.json"))
    write_gate(folder, checks=[{"name": "variant int8", "outcome": "pass", "text": "within the budget"}])
    assert require_gate(folder, read_card(folder / "model.json")) == "yard-0"
    passed = [{"name": "variant int8", "outcome": "pass", "text": "within the budget"}]
    for told in ({"int8": "0" * 64}, {}):  # quantized again, or judged by a gate that named no files
        write_gate(folder, checks=passed, variants=told)
        with pytest.raises(UnusableError, match="of other files than those of the variants int8"):
            require_gate(folder, read_card(folder / "model.json"))


BROKEN = [
    # what was done to the folder, and what is said
    (lambda folder: (folder / "model.json").unlink(), "is no model folder"),
    (lambda folder: (folder / "yard.onnx").write_bytes(b"x" + (folder / "yard.onnx").read_bytes()), "yard.onnx"),
    (lambda folder: _card(folder, name="two words"), "cannot name a line of releases"),
    (lambda folder: _card(folder, name="../up"), "cannot name a line of releases"),
    (lambda folder: _card(folder, file="../yard.onnx"), "must stand beside the card"),
    (lambda folder: _card(folder, golden="golden-00000000"), "golden"),
    (lambda folder: [(folder / "golden").mkdir(), _card(folder, golden="golden")], "is no golden set"),
    (lambda folder: _card(folder, variants=(_variant(folder, "gone.onnx"),)), "gone.onnx"),
    (lambda folder: _card(folder, variants=(_variant(folder, "../yard.onnx"),)), "must stand beside the card"),
    # names that a device would not unpack
    (lambda folder: _called(folder, "caf\u00e9.onnx"), "devices refuse this name"),
    (lambda folder: _called(folder, ".yard.onnx"), "devices refuse this name"),
    (lambda folder: _called(folder, "y" * 96 + ".onnx"), "devices refuse this name"),
]


def _called(folder, file):
    (folder / "yard.onnx").rename(folder / file)
    _card(folder, file=file)


def _card(folder, **change):
    card = read_card(folder / "model.json")
    write_card(folder / "model.json", msgspec.structs.replace(card, **change))


def _variant(folder, file):
    sha256 = read_card(folder / "model.json").sha256
    return Variant(name="int8", file=file, sha256=sha256, precision="int8", runtimes=())


@pytest.mark.parametrize(("spoil", "message"), BROKEN)
def test_a_folder_that_is_no_whole_model_is_refused(made, tmp_path, spoil, message):
    folder = small_model(tmp_path / "model")
    spoil(folder)
    with pytest.raises(UnusableError, match=message):
        add_release(made, folder)
    assert releases(read_repository(made.folder)) == []
    assert [path for path in (made.folder / "targets").rglob("*") if path.is_file()] == []


def test_an_archive_is_plain_ustar(made, tmp_path):
    one = add_release(made, small_model(tmp_path / "model"))
    content = target_path(made.folder, one.target, one.sha256).read_bytes()
    assert content[257:265] == b"ustar\x0000"
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:  # "r:" takes no compression
        assert tar.getnames() == ["model.json", "yard.onnx"]


def test_a_full_disk_leaves_what_was_there(made, tmp_path):
    add_release(made, small_model(tmp_path / "model"))
    before = sorted(path for path in made.folder.rglob("*"))
    model = small_model(tmp_path / "next", release="yard-2", content="2")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # an archive is 10240 bytes
    try:
        with pytest.raises(UnusableError, match=r"cannot write to .*: File too large"):
            create_release(made.folder, made.ring, model_folder=model, now=NOW, ungated="a test")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path for path in made.folder.rglob("*")) == before
    assert add_release(made, model).signed.number == 2
