"""`tune`: what there is to measure, what is picked, and that what crashes, hangs or finds nothing never is."""

import json
import os
import re
import sys
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.detector import following
from edge.detector.child import Child
from edge.detector.following import open_tuned
from edge.detector.golden import FLOATS, Parity
from edge.detector.opening import find_starter, read_model
from edge.detector.runtime import RuntimeOptions
from edge.detector.runtimes import installed_runtimes
from edge.detector.tune import TuneReport, Way, choices, pick, tune, write_tuned
from edge.detector.tuned import Choice, read_tuned, this_machine, why_not
from edge.detector.written import write_card
from tests.edge.detector.golden_models import add_variant, golden_folder, scaled_scores, starter_folder

STARTER = (find_starter() / "starter.onnx").read_bytes()
THREADS = RuntimeOptions().thread_count
NOW_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def _both_runtimes():
    missing = {"openvino", "onnxruntime"} - set(installed_runtimes())
    if missing:
        pytest.skip(f"{', '.join(sorted(missing))} is not installed")


# a child that dies, hangs or babbles


def child(code: str) -> Child:
    return Child([sys.executable, "-c", f"import os, signal, sys; {code}"])


DEATHS = [
    # what a vendor's segmentation fault looks like
    ("os.kill(os.getpid(), signal.SIGSEGV)", "its process was killed by SIGSEGV"),
    # the kernel's, when memory is out
    ("os.kill(os.getpid(), signal.SIGKILL)", "its process was killed by SIGKILL"),
    # abort() after a last word
    (
        "sys.stderr.write('free(): invalid pointer\\n'); sys.stderr.flush(); os.abort()",
        "SIGABRT: free..: invalid pointer",
    ),
    # an exception that nobody expected
    ("raise TypeError('no')", "ended with status 1: TypeError: no"),
    # it goes without a word
    ("sys.exit(0)", "ended with status 0"),
]


@pytest.mark.parametrize(("code", "message"), DEATHS)
def test_the_death_of_a_child_is_an_answer(code, message):
    one = child(f"sys.stdin.readline(); {code}")
    with pytest.raises(UnusableError, match=message):
        one.ask(b"well?", within_s=60)
    with pytest.raises(UnusableError, match=message):  # and stays one
        one.ask(b"well?", within_s=60)
    one.close()


def test_a_child_that_hangs_is_killed():
    one = child("sys.stdin.read()")
    begun_s = time.monotonic()
    with pytest.raises(UnusableError, match="it did not answer within 1 s"):
        one.ask(b"well?", within_s=1)
    one.close()
    assert time.monotonic() - begun_s < 30
    with pytest.raises(ProcessLookupError):
        os.kill(one._process.pid, 0)


def test_a_child_answers_line_by_line_however_it_is_cut():
    one = child(
        "[(sys.stdout.write(line[:2]), sys.stdout.flush(), print(line[2:], end='', flush=True)) for line in sys.stdin]"
    )
    assert [one.ask(word, within_s=60) for word in (b"first", b"second")] == [b"first", b"second"]
    one.close()


# what there is to measure


def test_the_default_comes_first_and_a_variant_only_where_it_was_measured(tmp_path):
    folder = starter_folder(tmp_path / "model", size=(96, 64))
    add_variant(folder, "int8-ov", STARTER, precision="int8", runtimes=("openvino",))
    add_variant(folder, "large", STARTER, input="320x320")
    add_variant(folder, "unmeasured", STARTER, runtimes=())
    found = read_model(folder)
    assert [(one.variant, one.runtime, one.precision) for one in choices(found, size=(96, 64))] == [
        ("", "openvino", "f32"),
        ("", "onnxruntime", "f32"),
        ("", "openvino", "bf16"),
        ("", "openvino", "f16"),
        ("int8-ov", "openvino", "int8"),
    ]
    assert "large" in {one.variant for one in choices(found, size=(320, 320))}
    assert {one.threads for one in choices(found, size=(96, 64))} == {THREADS}


def test_a_listed_precision_of_the_own_file_is_measured_once(tmp_path):
    folder = starter_folder(tmp_path / "model", size=(96, 64))
    add_variant(folder, "half", STARTER, precision="bf16", file="starter.onnx", runtimes=("openvino",))
    listed = [(one.variant, one.precision) for one in choices(read_model(folder), size=(96, 64))]
    assert listed.count(("half", "bf16")) == 1
    assert ("", "bf16") not in listed


# what is picked


def way(name, *, ms=10.0, ratio=None, fault="", parity=1.0):
    held = Parity(10, parity, parity, 0, 0.0, 0.0, finite=True, limits=FLOATS)
    choice = Choice(variant=name, runtime="openvino", precision="f32", threads=1)
    spent = () if ms is None else (ms,)
    return Way(choice, version="1", parity=held, spent_ms=spent, against_default=ratio, fault=fault)


DEFAULT = way("", ratio=1.0)
PICKS = [
    # nothing else
    ([DEFAULT], ""),
    # half the time
    ([DEFAULT, way("fast", ms=5, ratio=0.5)], "fast"),
    # 4 % are not worth a change
    ([DEFAULT, way("fast", ms=9.6, ratio=0.96)], ""),
    # fast and wrong
    ([DEFAULT, way("wrong", ms=1, ratio=0.1, fault="it finds nothing")], ""),
    # the second fastest is right
    ([DEFAULT, way("wrong", ms=1, ratio=0.1, fault="no"), way("fast", ms=5, ratio=0.5)], "fast"),
    # timed briefly, not compared: what it took then is no proof
    ([DEFAULT, way("brief", ms=1, ratio=None)], ""),
    # the default cannot be used here
    ([way("", fault="it crashed", ms=None), way("slow", ms=30), way("fast", ms=20)], "fast"),
    # nothing can
    ([way("", fault="no"), way("other", fault="no")], None),
]


@pytest.mark.parametrize(("ways", "expected"), PICKS)
def test_pick(ways, expected):
    picked = pick(ways)
    assert (None if picked is None else picked.choice.variant) == expected


@given(
    st.lists(
        st.tuples(st.integers(10, 300).map(lambda n: n / 100), st.booleans()),
        max_size=6,
    ),
    st.booleans(),
)
def test_what_has_a_fault_is_never_picked_and_a_change_is_worth_it(others, default_fails):
    ways = [way("", ms=10, ratio=1.0, fault="no" if default_fails else "")]
    ways += [way(str(n), ms=10 * r, ratio=None if default_fails else r, fault="no" if bad else "")
             for n, (r, bad) in enumerate(others)]  # fmt: skip
    picked = pick(ways)
    assert (picked is None) == all(one.fault for one in ways)
    if picked is not None:
        assert not picked.fault
        assert picked is ways[0] or default_fails or picked.against_default < 0.95
        assert default_fails or all(
            one.fault or one.against_default >= min(picked.against_default, 0.95) for one in ways
        )


# the real thing


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Tune a folder that has what the field has: a variant that finds nothing, one that is garbage."""
    folder = golden_folder(tmp_path_factory.mktemp("tune") / "model", size=(192, 160), count=4)
    add_variant(folder, "nothing", scaled_scores(0), precision="int8", runtimes=("onnxruntime",))
    add_variant(folder, "garbage", STARTER[: len(STARTER) // 2], runtimes=("onnxruntime",))
    steps = []
    report = tune(folder, seconds=1, on_step=lambda *step: steps.append(step))
    return folder, report, steps


def of(report: TuneReport, variant, runtime="onnxruntime", precision="f32", threads=THREADS) -> Way:
    wanted = Choice(variant=variant, runtime=runtime, precision=precision, threads=threads)
    return next(one for one in report.ways if one.choice == wanted)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_way_is_measured_or_says_why_not(tuned):
    _, report, steps = tuned
    for runtime in ("openvino", "onnxruntime"):
        good = of(report, "", runtime)
        assert not good.fault
        assert good.parity.recall == good.parity.precision == 1
        assert 0 < good.median_ms <= good.p95_ms
        assert good.against_default > 0
    assert report.default.choice == of(report, "", "openvino").choice
    assert report.default.against_default == 1
    nothing = of(report, "nothing", precision="int8")
    assert nothing.fault == f"it finds nothing where {nothing.parity.boxes} golden boxes are"
    assert nothing.against_default is None
    assert "is not an ONNX model, or it is cut short" in of(report, "garbage").fault
    assert report.picked.choice.variant == ""
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    assert steps[-1][0] == steps[-1][1]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_was_picked_is_followed_while_all_is_as_it_was(tuned, tmp_path, caplog, monkeypatch):
    folder, report, _ = tuned
    # picked by hand, so that it differs from the default whatever is faster today
    picked = of(report, "", "onnxruntime")
    path = tmp_path / "tuned.json"
    write_tuned(
        TuneReport(**{**{f: getattr(report, f) for f in TuneReport.__slots__}, "picked": picked}), path, at_ms=NOW_MS
    )

    def runtime(**options):
        caplog.clear()
        following._warn_once.cache_clear()
        return open_tuned(folder, tuned=path, **options).runtime_name

    assert (runtime(), caplog.messages) == ("onnxruntime", [])
    assert (runtime(input_size=(192, 160)), caplog.messages) == ("onnxruntime", [])
    # what is named wins, and nothing is said
    assert (runtime(runtime="openvino"), caplog.messages) == ("openvino", [])
    # another size, machine, version
    assert runtime(input_size=(64, 64)) == "openvino"
    assert "it was measured at 192x160, not at 64x64; `edge tune` measures anew" in caplog.text
    was = json.loads(path.read_text())
    changed = [
        ({"machine": was["machine"] | {"cores": 99}}, "it was measured on .*, 99 cores, this is "),
        ({"runtime_version": "0.1"}, "it was measured with onnxruntime 0.1, not "),
        ({"file_sha256": "0"}, "it was measured with another model or card"),
        ({"card_sha256": "0"}, "it was measured with another model or card"),
        ({"schema": 99}, "it has the schema 99, this side reads 1"),
        ({"choice": was["choice"] | {"variant": "gone"}}, "has no variant 'gone'"),
        ({"choice": 3}, "is not valid"),
        ({"choice": was["choice"] | {"threads": 10**9}}, "is not valid"),  # a runtime would start them
        ({"choice": was["choice"] | {"threads": 0}}, "is not valid"),
    ]
    for change, message in changed:
        path.write_text(json.dumps(was | change))
        assert runtime() == "openvino", change
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith(f"{path} is not followed: ")
        assert re.search(message, caplog.text), message
    open_tuned(folder, tuned=path)
    assert len(caplog.messages) == 1  # told once
    path.unlink()
    assert (runtime(), caplog.messages) == ("openvino", [])


def test_a_card_that_changed_is_another_model(tuned, tmp_path):
    folder, report, _ = tuned
    path = tmp_path / "tuned.json"
    write_tuned(report, path, at_ms=NOW_MS)
    assert read_tuned(path).machine == this_machine()
    card = read_card(folder / "model.json")
    try:
        write_card(folder / "model.json", msgspec.structs.replace(card, score_threshold=0.77))
        assert "another model or card" in following_reason(folder, path)
    finally:
        write_card(folder / "model.json", card)
    assert following_reason(folder, path) == ""


def following_reason(folder, path):
    return why_not(read_tuned(path), model=read_model(folder), size=(192, 160))
