"""Policies: from TOML to the database, from there to every connection, and what the devices say of them."""

import hashlib
import json
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

import hub.cli
from edge.contract.errors import UnusableError
from edge.contract.policy import MiningPolicy, Policy, QuotaPolicy, Weights, decode_policy
from edge.contract.status import Heartbeat, PolicyVerdict, decode, encode
from edge.contract.topics import Kind
from hub.config import MqttConfig
from hub.link import Link
from hub.policies import EXAMPLE, PolicyPost, parse_policy, policy_toml, report_policies
from hub.store import Store
from tests.hub.made import arrival, heartbeat_payload

NOW = 1_700_000_000_000
PAUSED = Policy(paused=True)
REASON = "`mining.zoom_budget`: expected `float` <= 4.0"


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def set_policy(store: Store, policy: Policy, *, site: str = "lab", device: str = "", now_ms: int = NOW) -> bytes:
    """Return what will be published."""
    store.edit_policy(site, device, lambda _: policy, now_ms=now_ms)
    return next(row.payload for row in store.policies() if (row.site, row.device) == (site, device))


def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()[:16]


def hear(store: Store, *verdicts: PolicyVerdict, device: str = "box") -> None:
    beat = msgspec.structs.replace(decode(heartbeat_payload(), Heartbeat), policies=verdicts)
    store.commit([arrival(Kind.HEARTBEAT, encode(beat), device=device)], now_ms=NOW)


# The file.


def test_the_example_of_the_help_has_every_key() -> None:
    policy = parse_policy(EXAMPLE)
    assert policy.paused is False
    for part in (policy.mining, policy.quota):
        assert None not in msgspec.structs.asdict(part).values()
    assert set(policy.weights) == {"door"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pausd = true", "unknown key `pausd`; did you mean `paused`?"),
        ("[mining]\nzoom_budgt = 1", "unknown key `mining.zoom_budgt`; did you mean `zoom_budget`?"),
        ("[mining]\nlabels = ['cat']", "unknown key `mining.labels`"),  # a key of edge.toml, not of a policy
        ("[mining]\nzoom_budget = 9", "`mining.zoom_budget`: expected `float` <= 4.0"),
        ("[mining]\nzoom_budget = nan", "`mining.zoom_budget`"),
        ("[mining]\nhours = ['22-06']", "`mining.hours[0]`: a span of the day is written as in '22:00-06:00'"),
        ("[quota]\nburst = 0", "`quota.burst`: expected `int` >= 1"),
        ("[weights.door]\ngapp = 1", "unknown key `weights.door.gapp`; did you mean `gap`?"),
        ("[weights.door]\ngap = 1", "missing required field `bias`"),
        ("paused = 1", "`paused`: expected `bool"),
        ("schema = 2", "schema 2, this side speaks 1"),
        ("paused", "not valid TOML"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(UnusableError) as caught:
        parse_policy(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,8}", fullmatch=True)
SPANS = st.tuples(st.times(), st.times()).map(lambda both: f"{both[0]:%H:%M}-{both[1]:%H:%M}")
WEIGHTS = st.builds(Weights, **{name: st.floats(-50, 50) for name in Weights.__struct_fields__})
POLICIES = st.builds(
    Policy,
    paused=st.none() | st.booleans(),
    mining=st.builds(
        MiningPolicy,
        control_per_hour=st.none() | st.floats(0, 1e6),
        min_severity=st.none() | st.floats(0, 1),
        merge=st.none() | st.booleans(),
        hours=st.none() | st.lists(SPANS, max_size=3).map(tuple),
    ),
    quota=st.builds(QuotaPolicy, burst=st.none() | st.integers(1, 10_000), missed=st.none() | st.floats(0, 1e6)),
    weights=st.dictionaries(NAMES, WEIGHTS, max_size=3),
)


@given(policy=POLICIES)
def test_what_is_shown_can_be_set_again(policy: Policy) -> None:
    assert parse_policy(policy_toml(policy)) == policy


# The database and the way out.


class Line:
    """Keeps what was published."""

    def __init__(self) -> None:
        self.connection: int | None = None
        self.sent: list[tuple[str, str, bytes]] = []

    def policy(self, site: str, device: str, payload: bytes) -> bool:
        if self.connection is not None:
            self.sent.append((site, device, payload))
        return self.connection is not None

    def take(self) -> list[tuple[str, str, bytes]]:
        taken, self.sent = self.sent, []
        return taken


def test_a_policy_goes_out_once_a_connection_and_when_it_is_set(store: Store) -> None:
    line = Line()
    post = PolicyPost(store, line=line)
    site = set_policy(store, PAUSED)
    assert post.step() == 0, "no connection"
    line.connection = 1
    assert (post.step(), line.take()) == (1, [("lab", "", site)])
    assert (post.step(), line.take()) == (0, [])
    own = set_policy(store, Policy(paused=False), device="box")
    assert (post.step(), line.take()) == (1, [("lab", "box", own)])
    line.connection = 2  # a broker that was started again may have lost them
    assert (post.step(), line.take()) == (2, [("lab", "", site), ("lab", "box", own)])
    set_policy(store, PAUSED, now_ms=NOW + 1)  # set again as it is: somebody else may have written to the topic
    assert (post.step(), line.take()) == (1, [("lab", "", site)])
    line.connection = None
    set_policy(store, Policy())
    assert post.step() == 0
    line.connection = 3
    assert post.step() == 2
    assert all(payload for _, _, payload in line.take()), "a cleared one is published as an empty policy"


def test_a_broker_that_refuses_what_the_hub_sends_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    link = Link(MqttConfig(), client_id="denied", hand_over=lambda *_: True)
    for code in (0x87, 0x87, 0x10, 0x00):  # not authorized, twice; nobody listens; taken
        link._on_publish(link._client, None, 1, ReasonCode(PacketTypes.PUBACK, identifier=code), None)
    assert caplog.text.count("the broker refuses what the hub sends: Not authorized") == 1
    assert len(caplog.records) == 1


def test_an_edit_that_no_device_could_read_is_not_stored(store: Store) -> None:
    kept = set_policy(store, PAUSED)
    weights = Weights(bias=0.0, gap=0.0, candidate=0.0, motion=0.0, zoom=0.0, refuted=0.0)
    with pytest.raises(UnusableError, match=r"policy of \d+ bytes"):
        set_policy(store, Policy(weights={f"{n:064}": weights for n in range(1000)}))
    for site, device in (("a/b", ""), ("+", ""), ("lab", "#"), ("", "box")):
        with pytest.raises(UnusableError, match="is not a usable name"):
            set_policy(store, PAUSED, site=site, device=device)
    assert [row.payload for row in store.policies()] == [kept]


def test_check_finds_a_policy_that_cannot_be_read(store: Store) -> None:
    set_policy(store, PAUSED, device="box")
    assert list(store.violations()) == []
    store._connection.execute("UPDATE policy SET payload = x'00'")
    assert [one.partition(":")[0] for one in store.violations()] == ["the policy of lab box cannot be read"]


# Who follows it.


def standings(store: Store, **place: str) -> list[tuple[str, str, str]]:
    (report,) = report_policies(store, **place)
    return [(one.device, one.stands, one.reason) for one in report.devices]


def test_each_device_stands_where_its_heartbeat_says(store: Store) -> None:
    ours = digest(set_policy(store, PAUSED))
    hear(store, PolicyVerdict(scope="site", digest=ours), device="a")
    hear(store, PolicyVerdict(scope="site", digest=ours, refused=REASON), device="b")
    hear(store, PolicyVerdict(scope="site", digest="0" * 16), device="c")  # an older one
    hear(store, PolicyVerdict(scope="site", digest="0" * 16, refused=REASON), device="d")  # not of the hub
    hear(store, device="e")
    hear(store, PolicyVerdict(scope="device", digest=ours), device="f")  # its own, of the same bytes
    assert standings(store, site="lab") == [
        ("a", "followed", ""),
        ("b", "refused", REASON),
        ("c", "follows other", ""),
        ("d", "refused other", REASON),
        ("e", "not heard yet", ""),
        ("f", "not heard yet", ""),
    ]
    assert standings(store, site="lab", device="f") == [("f", "follows other", "")], "the hub has set none for it"
    assert sum(device.refused_policies for device in store.status(now_ms=NOW).devices) == 2


def test_a_device_that_was_never_heard_is_named(store: Store) -> None:
    set_policy(store, PAUSED, device="new")
    assert standings(store, site="lab", device="new") == [("new", "not heard yet", "")]


# The commands.


@pytest.fixture
def run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `hub policy ...` on the store's database; return the exit status and what was printed."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hub", *words, "--database", str(tmp_path / "hub.db")])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


def test_set_show_pause_resume_clear(run, store: Store, tmp_path: Path) -> None:
    hear(store)
    file = tmp_path / "policy.toml"
    file.write_text("[mining]\nmerge = true\n[quota]\nmissed = 9\n")
    status, printed, _ = run("policy", "set", "lab", str(file))
    assert (status, printed.count("\n")) == (0, 1)
    assert "`hub policy show lab` says who follows it" in printed
    assert run("policy", "pause", "lab")[0] == 0
    status, printed, _ = run("policy", "show", "lab")
    assert status == 0
    assert tomllib.loads(printed) == {"paused": True, "mining": {"merge": True}, "quota": {"missed": 9.0}}
    assert "box: not heard yet" in printed
    hear(store, PolicyVerdict(scope="site", digest=digest(store.policies()[0].payload)))
    assert "box: followed" in run("policy", "show", "lab")[1]
    assert run("policy", "resume", "lab")[0] == 0
    assert decode_policy(store.policies()[0].payload) == parse_policy(file.read_text())
    assert run("policy", "clear", "lab")[0] == 0
    assert decode_policy(store.policies()[0].payload) == Policy()
    assert "# lab: empty, set 20" in run("policy", "show")[1]


def test_one_devices_policy_is_another_than_its_sites(run, store: Store, tmp_path: Path) -> None:
    hear(store)
    file = tmp_path / "policy.toml"
    file.write_text("paused = true\n")
    assert run("policy", "set", "lab", "box", str(file))[0] == 0
    assert run("policy", "pause", "lab")[0] == 0
    assert [(row.site, row.device) for row in store.policies()] == [("lab", ""), ("lab", "box")]
    status, printed, _ = run("policy", "resume", "lab", "box")
    assert (status, "the policy of lab pauses all its devices, this one too" in printed) == (0, True)
    shown = json.loads(run("policy", "show", "--json")[1])["policies"]
    assert [(one["site"], one["device"], one["policy"]["paused"]) for one in shown] == [
        ("lab", "", True),
        ("lab", "box", None),
    ]
    file.write_text("paused = false\n")
    assert run("policy", "set", "lab", "box", str(file))[0] == 0
    assert run("policy", "resume", "lab", "box")[0] == 0
    assert parse_policy(file.read_text()) == decode_policy(store.policies()[1].payload), "resuming pauses nothing"


def test_what_the_hub_sees_amiss_is_said_at_once(run, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(EXAMPLE.replace("weights.door", "weights.dor"))
    assert "note: lab bx was not heard yet" in run("policy", "set", "lab", "bx", str(file))[1]
    hear(store)
    printed = run("policy", "set", "lab", "box", str(file))[1]
    assert "note: lab box has no camera 'dor'; it will refuse this policy" in printed
    assert "note: lab has no camera 'dor'\n" in run("policy", "set", "lab", str(file))[1]


def test_what_cannot_be_done_is_one_line_and_status_2(run, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[mining]\nzoom_budget = 9\n")
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    cases = {
        ("set", "lab", str(file)): "policy.toml: `mining.zoom_budget`: expected `float` <= 4.0",
        ("set", "lab", str(tmp_path / "none.toml")): "cannot read",
        ("set", "lab", "box", "more", str(empty)): "at most one device",
        ("pause", "a/b"): "'a/b' is not a usable name",
    }
    for words, message in cases.items():
        status, printed, error = run("policy", *words)
        assert (status, printed, error.count("\n")) == (2, "", 1), words
        assert message in error
    assert store.policies() == []


def test_nothing_set_is_an_answer(run) -> None:
    assert run("policy", "show") == (0, "", "hub: no policy is set\n")
    assert run("policy", "show", "lab", "box") == (1, "", "hub: no policy is set for lab box\n")


def test_status_says_where_to_look(run, store: Store) -> None:
    hear(store)
    assert "policy show" not in run("status")[1]
    hear(store, PolicyVerdict(scope="site", digest="0" * 16, refused=REASON))
    assert "refused by 1 device: `hub policy show` says why" in run("status")[1]
    shown = run("policy", "show")[1]
    assert "# lab: the hub has set none, and a device got one" in shown
    assert f"box: refused other: {REASON}" in shown
