"""Topics, status messages and the model card."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.contract.status import Ack, CameraHealth, Heartbeat, SpoolHealth, State, Want, decode, encode
from edge.contract.topics import Kind, Topic, parse_topic, subscription, topic
from tests.edge.contract.strategies import IDS, NAMES

ROOT = Path(__file__).parents[3]


@given(NAMES, NAMES, st.sampled_from(Kind))
def test_topic_there_and_back(site: str, device: str, kind: Kind) -> None:
    assert parse_topic(topic(site, device, kind)) == Topic(site, device, kind)


@given(st.text(max_size=60))
def test_parse_topic_raises_our_error_only(text: str) -> None:
    with pytest.raises(UnusableError):
        parse_topic(text)


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "+", "#", "a b", "-a", "x" * 65, "é"],  # empty, two levels, wildcards, space, leading dash, long
)
def test_names_that_mqtt_cannot_carry(name: str) -> None:
    with pytest.raises(UnusableError, match="usable name"):
        topic(name, "device", Kind.EVENT)


def test_subscription_is_shared_only_when_asked() -> None:
    assert subscription(Kind.EVENT) == "weakspot/1/+/+/event"
    assert subscription(Kind.EVENT, group="hub") == "$share/hub/weakspot/1/+/+/event"


@given(st.lists(IDS, max_size=5), st.lists(IDS, max_size=5), st.dictionaries(IDS, st.text(max_size=20), max_size=3))
def test_ack_there_and_back(findings: list[str], frames: list[str], refused: dict[str, str]) -> None:
    ack = Ack(findings=tuple(findings), frames=tuple(frames), refused=refused)
    assert decode(encode(ack), Ack) == ack


CAMERA = CameraHealth(name="door", state="running", frames=3, fps=5.0, restarts=0, frame_age_s=None, detect_ms=20.0)
SPOOL = SpoolHealth(samples=2, unsent=1, bytes=1000, limit_bytes=5000)
HEARTBEAT = Heartbeat(
    boot_id="b", at_ms=1, uptime_s=2.0, model="m", cameras=(CAMERA,), spool=SPOOL,
    findings={"missed": 1}, dropped={}, bytes_up=3,
)  # fmt: skip


def test_the_others_there_and_back() -> None:
    for message in (State(boot_id="b", online=True, at_ms=1, model="m", version="0"), HEARTBEAT, Want(event_ids=())):
        assert decode(encode(message), type(message)) == message


@given(st.binary(max_size=100))
def test_status_decoders_raise_our_error_only(noise: bytes) -> None:
    for kind in (Ack, Want, State, Heartbeat):
        with pytest.raises(UnusableError):
            decode(noise, kind)


def test_the_starter_card_reads() -> None:
    card = read_card(ROOT / "models" / "starter" / "model.json")
    assert (card.head, len(card.labels), card.labels[0]) == ("centernet", 80, "person")


def test_a_card_with_a_typo_names_the_field(tmp_path: Path) -> None:
    text = (ROOT / "models" / "starter" / "model.json").read_text().replace('"labels"', '"lables"')
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(UnusableError, match="lables"):
        read_card(tmp_path / "model.json")
    with pytest.raises(UnusableError, match="cannot read"):
        read_card(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"bytes_up": -1},
        {"bytes_up": 10**30},  # would burst a table and a database
        {"findings": {"missed": -1}},
        {"dropped": {f"reason {i}": 1 for i in range(65)}},
        {"dropped": {"\x1b[31m": 1}},
        {"uptime_s": 1e300},
        {"model": "m\n"},
        {"spool": {"samples": -1, "unsent": 0, "bytes": 0, "limit_bytes": 0}},
    ],
)
def test_a_counter_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    raw = json.loads(encode(HEARTBEAT)) | fields
    with pytest.raises(UnusableError, match="Heartbeat is not valid"):
        decode(json.dumps(raw).encode(), Heartbeat)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("schema",), 2, "schema 2, this side reads 1"),
        (("labels",), ["person", "dog "], "matching regex"),
        (("labels",), [""], "length"),
        (("release",), "a\nb", "release"),
        (("release",), "x" * 65, "release"),  # would not fit a finding
        (("score_threshold",), 1.5, "score_threshold"),
        (("input", "width"), 0, "width"),
        (("input", "std"), [1, 0, 1], "std"),  # a division by zero
    ],
)
def test_a_card_that_cannot_be_used_names_the_field(
    path: tuple[str, ...], value: object, says: str, tmp_path: Path
) -> None:
    card = json.loads((ROOT / "models" / "starter" / "model.json").read_text())
    place = card[path[0]] if len(path) > 1 else card
    place[path[-1]] = value
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(UnusableError, match=says):
        read_card(tmp_path / "model.json")


def test_a_card_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(UnusableError, match="not valid"):
        read_card(tmp_path / "model.json")
