"""A model folder as a signed release: what goes into it, which number it gets, and what is refused."""

import hashlib
import io
import json
import os
import resource
import shutil
import tarfile
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from edge.contract.card import InputSpec, Variant, read_card
from edge.contract.errors import UnusableError
from edge.detector.written import write_card
from hub.release import create_release, find_release, named_release, releases
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
    assert len(list((made.folder / "targets" / "yard").iterdir())) == 1, "what nobody signed for does not stay"


def test_what_a_stopped_try_left_is_removed_by_the_next_of_its_number(made, tmp_path):
    """Another content under the same number, from a command that was killed before it signed."""
    first = add_release(made, small_model(tmp_path / "1", release="yard-1", content="1"))
    place = made.folder / "targets" / "yard"
    (place / f"{'0' * 64}.000002.tar").write_bytes(bytes(9000))
    (place / f"{'0' * 64}.000003.tar").write_bytes(b"of a machine that signs elsewhere")
    (place / ".000002.tar.part").write_bytes(bytes(9000))
    second = add_release(made, small_model(tmp_path / "2", release="yard-2", content="2"))
    assert {path.name for path in place.iterdir()} == {
        f"{first.sha256}.000001.tar",
        f"{second.sha256}.000002.tar",
        f"{'0' * 64}.000003.tar",
    }


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
    told["checks"] = [_variant_check(one.name) for one in card.variants]
    told["comparison"] = {"input": f"{card.input.width}x{card.input.height}", "score_threshold": card.score_threshold}
    (folder / "gate.json").write_text(json.dumps({**told, **change}))


def _variant_check(name, outcome="pass"):
    return {"name": f"variant {name}", "outcome": outcome, "text": ""}


def with_variants(folder, *names):
    """Give a small model variants with files of their own."""
    card = read_card(folder / "model.json")
    variants = []
    for name in names:
        content = (folder / card.file).read_bytes() + b"\x42\x00"  # an empty field of another name: another file
        (folder / f"{name}.onnx").write_bytes(content * 1)
        sha256 = hashlib.sha256(content).hexdigest()
        variants.append(
            Variant(name=name, file=f"{name}.onnx", sha256=sha256, precision="int8", runtimes=("openvino",))
        )
    write_card(folder / "model.json", msgspec.structs.replace(card, variants=tuple(variants)))
    return folder


def _change_model(folder):
    """Train on: another file, and a card that says so; the gate is older."""
    content = (folder / "yard.onnx").read_bytes() + b"\x42\x00"
    (folder / "yard.onnx").write_bytes(content)
    _card(folder, sha256=hashlib.sha256(content).hexdigest())


def _change_variant(folder):
    """Quantize again: another file under the same name."""
    content = (folder / "int8.onnx").read_bytes() + b"\x42\x00"
    (folder / "int8.onnx").write_bytes(content)
    card = read_card(folder / "model.json")
    one = msgspec.structs.replace(card.variants[0], sha256=hashlib.sha256(content).hexdigest())
    _card(folder, variants=(one, *card.variants[1:]))


AFTER_THE_GATE = [
    # what happened to a folder with a variant after its gate, and what is said; "": it is released
    (lambda folder: None, ""),
    (lambda folder: write_gate(folder, passed=False), "yard-1 did not pass the gate against yard-0"),
    (lambda folder: (folder / "gate.json").unlink(), r"has no gate\.json: no gate has judged it"),
    (lambda folder: (folder / "gate.json").write_text("{"), "cannot read"),
    (lambda folder: (folder / "gate.json").write_text(""), "cannot read"),
    (lambda folder: [(folder / "gate.json").unlink(), (folder / "gate.json").mkdir()], "cannot read"),
    (lambda folder: write_gate(folder, passed="yes"), "cannot read"),
    (lambda folder: write_gate(folder, sha256=None), "cannot read"),
    (lambda folder: write_gate(folder, variants=None), "cannot read"),
    (lambda folder: write_gate(folder, comparison=None), "cannot read"),
    # of another model; older than the model's file
    (lambda folder: write_gate(folder, sha256="0" * 64), r"is of another file than yard\.onnx"),
    (_change_model, r"is of another file than yard\.onnx"),
    # a variant changed, added, left out, failed, measured too little
    (_change_variant, "is of other files than those of the variants int8"),
    (lambda folder: write_gate(folder, variants={"int8": "0" * 64}), "of other files than those of the variants int8"),
    (lambda folder: write_gate(folder, variants={}), "of other files than those of the variants int8"),
    (lambda folder: with_variants(folder, "int8", "mixed"), "has not passed the variants mixed"),
    (lambda folder: _card(folder, variants=()), ""),
    (lambda folder: write_gate(folder, checks=[]), "has not passed the variants int8"),
    (lambda folder: write_gate(folder, checks=[_variant_check("int8", "fail")]), "has not passed the variants int8"),
    (
        lambda folder: write_gate(folder, checks=[_variant_check("int8", "insufficient")]),
        "not passed the variants int8",
    ),
    # a check that is a warning elsewhere
    (lambda folder: write_gate(folder, checks=[_variant_check("int8"), _variant_check("x", "insufficient")]), ""),
    # the card says another threshold or input than the gate ran: with .99 it reports nothing
    (lambda folder: _card(folder, score_threshold=0.99), r"changed after the gate, which ran 32x32 .* threshold 0\.3"),
    (lambda folder: _card(folder, input=InputSpec(width=64, height=32)), r"model\.json was changed after the gate"),
]


@pytest.mark.parametrize(("change", "message"), AFTER_THE_GATE)
@pytest.mark.parametrize("ungated", ["", "it is urgent"])
def test_only_what_a_gate_passed_is_released(made, tmp_path, change, message, ungated):
    folder = with_variants(small_model(tmp_path / "model"), "int8")
    write_gate(folder)
    change(folder)
    if message and not ungated:
        with pytest.raises(UnusableError, match=f'{message}.*; `hub gate` judges it, --ungated "why" releases it'):
            create_release(made.folder, made.ring, model_folder=folder, now=NOW)
        assert releases(read_repository(made.folder)) == []
        return
    one, _ = create_release(made.folder, made.ring, model_folder=folder, now=NOW, ungated=ungated)
    assert (one.made.baseline, one.made.ungated) == ("" if ungated else "yard-0", ungated)


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
    (lambda folder: _called(folder, "caf\u00e9.onnx"), "devices refuse the name"),
    (lambda folder: _called(folder, ".yard.onnx"), "devices refuse the name"),
    (lambda folder: _called(folder, "y" * 96 + ".onnx"), "devices refuse the name"),
    (lambda folder: _called(folder, "two\nlines.onnx"), "devices refuse the name"),
    (lambda folder: _called(folder, "-rf.onnx"), "devices refuse the name"),
    (lambda folder: _called(folder, "end .onnx "), "devices refuse the name"),
    # names of lines and releases that are paths, options or nothing
    (lambda folder: _raw(folder, name=".."), "cannot name a line of releases"),
    (lambda folder: _raw(folder, name="a/b"), "cannot name a line of releases"),
    (lambda folder: _raw(folder, name="%2e%2e"), "cannot name a line of releases"),
    (lambda folder: _raw(folder, name="a\0b"), "name"),
    (lambda folder: _raw(folder, name=""), "name"),
    (lambda folder: _raw(folder, name="x" * 300), "name"),
    (lambda folder: _raw(folder, release=""), "release"),
    (lambda folder: _raw(folder, release="a\nb"), "release"),
    (lambda folder: _raw(folder, release="\u202egpj"), "release"),
    (lambda folder: _raw(folder, release=None), "release"),
    # numbers that are none, or cannot be
    (lambda folder: _text(folder, '"score_threshold": 0.3', '"score_threshold": NaN'), "is not valid"),
    (lambda folder: _text(folder, '"score_threshold": 0.3', '"score_threshold": Infinity'), "is not valid"),
    (lambda folder: _text(folder, '"score_threshold": 0.3', '"score_threshold": 1e999'), "is not valid"),
    (lambda folder: _text(folder, '"score_threshold": 0.3', '"score_threshold": -0.1'), "score_threshold"),
    (lambda folder: _text(folder, '"width": 32', '"width": 32.5'), "width"),
    (lambda folder: _text(folder, '"width": 32', '"width": 1e400'), "width"),
    (lambda folder: _text(folder, '"width": 32', f'"width": {"9" * 5000}'), "width|is not valid"),
    (lambda folder: (folder / "model.json").write_text("[" * 100_000), "is not valid"),
    (lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe"), "is not valid"),
    (lambda folder: (folder / "model.json").write_bytes(b""), "is not valid"),
    # a licence that is a way to what lies elsewhere on this machine
    (lambda folder: (folder / "LICENSE").symlink_to("/etc/passwd"), r"LICENSE is a link out of the folder"),
    (lambda folder: (folder / "README.md").symlink_to("../secret"), r"README.md is a link out of the folder"),
]


def _raw(folder, **change):
    """Write what a card may not say."""
    told = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(told | change))


def _text(folder, before, after):
    text = (folder / "model.json").read_text()
    assert before in text
    (folder / "model.json").write_text(text.replace(before, after))


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
    (tmp_path / "secret").write_text("secret")
    folder = small_model(tmp_path / "model")
    spoil(folder)
    with pytest.raises(UnusableError, match=message) as refused:
        add_release(made, folder)
    assert str(refused.value).isprintable(), "an error is one line"
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


def test_links_inside_the_folder_and_to_the_model_are_followed(made, tmp_path):
    """What the card pins by its sha256 may lie on another disk; a device gets plain files."""
    folder = small_model(tmp_path / "model")
    (folder / "yard.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "yard.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    (folder / "text").write_text("MIT")
    (folder / "LICENSE").symlink_to("text")
    (folder / "README.md").symlink_to("nowhere")
    (folder / "deep").symlink_to(folder)  # a circle; nothing looks into it
    os.mkfifo(folder / "LICENSE.txt")  # would never end
    with archive(made, add_release(made, folder)) as tar:
        assert all(member.isreg() for member in tar.getmembers())
        assert tar.getnames() == ["LICENSE", "model.json", "yard.onnx"]
        assert tar.extractfile("LICENSE").read() == b"MIT"


WHILE_PACKED = [
    # what happens to the folder after the first file was packed, and what is said; "": it changes nothing
    (lambda folder: (folder / "NOTES.md").write_text("appears"), ""),
    (lambda folder: (folder / "LICENSE").write_text("appears"), ""),
    (lambda folder: (folder / "yard.onnx").unlink(), r"cannot read .*yard\.onnx: No such file"),
    (lambda folder: os.truncate(folder / "yard.onnx", 10), "was changed while it was read"),
    (lambda folder: (folder / "yard.onnx").write_bytes((folder / "yard.onnx").read_bytes()[::-1]), "was changed while"),
    (lambda folder: os.truncate(folder / "yard.onnx", 20_000), "was changed while it was read"),
    (lambda folder: (folder / "README.md").write_text("longer than it was"), "was changed while it was read"),
    (lambda folder: (folder / "README.md").unlink(), r"cannot read .*README\.md: No such file"),
]


@pytest.mark.parametrize(("change", "message"), WHILE_PACKED)
def test_a_folder_that_changes_while_it_is_packed(made, tmp_path, change, message):
    folder = small_model(tmp_path / "model")
    (folder / "LICENSE.txt").write_text("packed first")
    (folder / "README.md").write_text("short")
    changed = []

    def on_bytes(done, total):
        if not changed:
            changed.append(done)
            change(folder)

    def release():
        return create_release(made.folder, made.ring, model_folder=folder, now=NOW, ungated="x", on_bytes=on_bytes)

    if message:
        with pytest.raises(UnusableError, match=message):
            release()
        assert [path for path in (made.folder / "targets").rglob("*") if path.is_file()] == []
        assert releases(read_repository(made.folder)) == []
        return
    with archive(made, release()[0]) as tar:
        assert tar.getnames() == ["LICENSE.txt", "README.md", "model.json", "yard.onnx"]


def test_a_file_that_cannot_be_read_is_named(made, tmp_path):
    folder = small_model(tmp_path / "model")
    (folder / "README.md").write_text("mine")
    (folder / "README.md").chmod(0)
    user = os.geteuid()
    for path in (made.folder, *made.folder.rglob("*")):
        os.chown(path, 65534, 65534) if user == 0 else None
    for path in (tmp_path, *tmp_path.parents):
        if user == 0 and path.stat().st_mode & 0o005 != 0o005:
            path.chmod(path.stat().st_mode | 0o055)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # root reads everything
        try:
            if user == 0:
                os.setuid(65534)
            create_release(made.folder, made.ring, model_folder=folder, now=NOW, ungated="x")
        except UnusableError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(read, encoding="utf-8") as said:
        assert said.read() == f"cannot read {folder / 'README.md'}: Permission denied"
    assert list((made.folder / "targets").rglob("*.part")) == []


def test_a_huge_folder_costs_nothing_but_what_the_card_names(made, tmp_path):
    folder = small_model(tmp_path / "model")
    for number in range(2000):
        (folder / f"epoch-{number}.log").write_text("x")
    with (folder / "checkpoint.pt").open("wb") as file:
        file.truncate(1 << 40)
    assert add_release(made, folder).length == 10240


def test_a_model_that_is_larger_than_devices_take_is_refused_before_it_is_packed(made, tmp_path):
    folder = small_model(tmp_path / "model")
    with (folder / "README.md").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UnusableError, match=r"has 3 files of 3221\d+ bytes; a release has at most 256 of 2147483648"):
        add_release(made, folder)


def test_two_at_once(made, tmp_path):
    """One packs; another, and a refresh, are told at once; then both numbers are there."""
    one, other = (small_model(tmp_path / n, release=f"yard-{n}", content=n) for n in ("1", "2"))
    said = []

    def meanwhile(done, total):
        for work in (lambda: add_release(made, other), lambda: refresh(made.folder, made.ring, now=NOW)):
            with pytest.raises(UnusableError, match=r"another command writes to .*; wait until it has ended"):
                work()
            said.append(done)

    create_release(made.folder, made.ring, model_folder=one, now=NOW, ungated="x", on_bytes=meanwhile)
    assert len(said) == 4
    assert add_release(made, other).signed.number == 2
