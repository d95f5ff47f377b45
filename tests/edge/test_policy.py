"""Rules from `edge.toml` and two policies, and the box that takes whatever comes."""

import json
from datetime import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import EdgeConfig, MiningConfig, QuotaConfig, parse_config
from edge.contract.policy import MAX_POLICY_BYTES, MiningPolicy, Policy, QuotaPolicy, Weights, encode_policy
from edge.contract.status import PolicyVerdict
from edge.contract.topics import Kind, site_policy_topic, topic
from edge.policy import PolicyBox, closed, is_open, overlay, policy_topics

SITE, DEVICE = site_policy_topic("yard"), topic("yard", "gate", Kind.POLICY)
WEIGHTS = Weights(bias=-1.0, gap=1.0, candidate=2.0, motion=0.5, zoom=4.0, refuted=-3.0)
OTHERS = msgspec.structs.replace(WEIGHTS, bias=-2.0)


def configured(folder: Path, *, device: str = "gate", site: str = "yard", top: str = "") -> EdgeConfig:
    text = f'site = "{site}"\ndevice = "{device}"\ndata_dir = "."\n{top}'
    return parse_config(f'{text}\n[[camera]]\nname = "front"\nsource = 0', folder=folder)


CONFIG = configured(Path("/nowhere"))
PAUSED = encode_policy(Policy(paused=True))


# Rules.


@pytest.mark.parametrize(("part", "kind"), [(MiningPolicy, MiningConfig), (QuotaPolicy, QuotaConfig)])
def test_every_key_of_a_policy_is_a_key_of_the_configuration(part, kind) -> None:
    names = {field.name for field in msgspec.structs.fields(part)}
    assert names
    assert names <= {field.name for field in msgspec.structs.fields(kind)}


OTHER = {
    "mining": {
        "control_per_hour": 7.5,
        "min_severity": 0.9,
        "low_confidence_band": 0.01,
        "zoom_budget": 0.0,
        "merge": True,
        "hours": ("22:00-06:00",),
    },
    "quota": {"burst": 3, "low_confidence": 1.0, "missed": 2.0, "suspect": 0.0, "control": 4.0},
}


@pytest.mark.parametrize(("part", "key"), [(part, key) for part, keys in OTHER.items() for key in keys])
def test_each_key_is_applied_alone(part: str, key: str) -> None:
    """Also 0, False and no hours, which are values and not gaps."""
    kind = {"mining": MiningPolicy, "quota": QuotaPolicy}[part]
    value = OTHER[part][key]
    before = getattr(CONFIG, part)
    assert getattr(before, key) != value
    ruled = getattr(overlay(CONFIG, Policy(**{part: kind(**{key: value})}), None), part)
    assert ruled == msgspec.structs.replace(before, **{key: value})


def test_the_table_above_has_every_key() -> None:
    assert set(OTHER["mining"]) == {field.name for field in msgspec.structs.fields(MiningPolicy)}
    assert set(OTHER["quota"]) == {field.name for field in msgspec.structs.fields(QuotaPolicy)}


def test_the_devices_own_policy_lies_over_its_sites_key_by_key() -> None:
    site = Policy(
        paused=True,
        mining=MiningPolicy(merge=True, min_severity=0.9, hours=("01:00-02:00",)),
        weights={"front": WEIGHTS, "elsewhere": WEIGHTS},
    )
    device = Policy(
        paused=False, mining=MiningPolicy(min_severity=0.2, hours=()), quota=QuotaPolicy(burst=2), weights={}
    )
    rules = overlay(CONFIG, site, device)
    assert rules.paused_by is None
    assert (rules.mining.merge, rules.mining.min_severity, rules.mining.hours) == (True, 0.2, ())
    assert rules.quota == msgspec.structs.replace(CONFIG.quota, burst=2)
    assert dict(rules.weights) == {"front": WEIGHTS}, "not of the camera of another device"
    over = overlay(CONFIG, site, Policy(weights={"front": OTHERS}))
    assert (over.paused_by, dict(over.weights)) == ("site", {"front": OTHERS})
    assert overlay(CONFIG, site, Policy(paused=True)).paused_by == "device"


def test_without_a_policy_the_configuration_rules() -> None:
    rules = overlay(CONFIG, None, Policy())
    assert (rules.mining, rules.quota, dict(rules.weights)) == (CONFIG.mining, CONFIG.quota, {})
    assert closed(rules, local=time(12, 0)) is None


@pytest.mark.parametrize(
    ("hours", "local", "expected"),
    [
        ((), "00:00", True),  # no span is always
        (("08:00-17:30",), "08:00", True),
        (("08:00-17:30",), "07:59", False),
        (("08:00-17:30",), "17:29", True),
        (("08:00-17:30",), "17:30", False),  # the end is not part of it
        (("22:00-06:00",), "21:59", False),
        (("22:00-06:00",), "22:00", True),
        (("22:00-06:00",), "00:00", True),  # over midnight
        (("22:00-06:00",), "05:59", True),
        (("22:00-06:00",), "06:00", False),
        (("18:00-24:00",), "23:59", True),
        (("18:00-24:00",), "00:00", False),
        (("00:00-24:00",), "00:00", True),
        (("09:00-09:00",), "08:59", True),  # the whole day
        (("06:00-08:00", "20:00-21:00"), "07:00", True),
        (("06:00-08:00", "20:00-21:00"), "20:30", True),
        (("06:00-08:00", "20:00-21:00"), "12:00", False),
    ],
)
def test_the_schedule(hours: tuple[str, ...], local: str, expected: bool) -> None:
    assert is_open(hours, local=time.fromisoformat(local)) is expected


@given(begin=st.times(), end=st.times(), local=st.times())
def test_a_span_and_the_span_from_its_end_to_its_begin_share_no_minute(begin: time, end: time, local: time) -> None:
    one, other = (f"{a:%H:%M}-{b:%H:%M}" for a, b in ((begin, end), (end, begin)))
    if one != other:
        assert is_open((one,), local=local) != is_open((other,), local=local)


def test_why_nothing_is_mined() -> None:
    hours = Policy(mining=MiningPolicy(hours=("22:00-06:00",)))
    assert closed(overlay(CONFIG, hours, None), local=time(12, 0)) == "outside its hours"
    assert closed(overlay(CONFIG, hours, None), local=time(23, 0)) is None
    assert closed(overlay(CONFIG, Policy(paused=True), None), local=time(12, 0)) == "paused by the site's policy"
    assert closed(overlay(CONFIG, None, Policy(paused=True)), local=time(12, 0)) == "paused by the device's policy"


# The box.


def test_a_policy_is_followed_kept_and_taken_back(tmp_path: Path) -> None:
    config = configured(tmp_path)
    box = PolicyBox(config)
    assert (box.rules, box.verdicts) == (overlay(config, None, None), ())
    box.take(SITE, PAUSED)
    box.take(DEVICE, encode_policy(Policy(quota=QuotaPolicy(burst=2))))
    assert (box.rules.paused_by, box.rules.quota.burst) == ("site", 2)
    assert [(one.scope, one.refused) for one in box.verdicts] == [("site", ""), ("device", "")]
    again = PolicyBox(config)  # a start without a broker
    assert (again.rules, again.verdicts) == (box.rules, box.verdicts)
    again.take(SITE, b"")
    assert again.rules.paused_by is None
    assert [one.scope for one in again.verdicts] == ["device"]
    assert PolicyBox(config).rules == again.rules
    box.take("weakspot/1/yard/other/policy", PAUSED)
    assert box.rules.quota.burst == 2, "not this device's topic"


def test_a_refused_policy_leaves_the_one_before_it_in_force(tmp_path: Path) -> None:
    box = PolicyBox(configured(tmp_path))
    box.take(SITE, PAUSED)
    rules, kept = box.rules, (tmp_path / "policies.json").read_bytes()
    box.take(SITE, b'{"schema": 1, "mining": {"zoom_budget": 9}}')
    assert box.rules == rules
    (verdict,) = box.verdicts
    assert verdict.refused == "`mining.zoom_budget`: expected `float` <= 4.0"
    assert (tmp_path / "policies.json").read_bytes() == kept
    box.take(SITE, PAUSED)
    assert box.verdicts[0].refused == ""


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"nonsense", "JSON is malformed"),
        (b"\xff\xfe", "JSON is malformed"),
        (b"[]", "expected `object`, got `array`"),
        (b"{}", "missing required field `schema`"),
        (b'{"schema": 2}', "schema 2"),
        (b'{"schema": 1, "pausd": true}', "unknown field `pausd`"),
        (b'{"schema": 1, "paused": "yes"}', "`paused`: expected `bool"),
        (b'{"schema": 1, "mining": {"zoom_budget": NaN}}', "JSON is malformed"),
        (b'{"schema": 1, "mining": {"zoom_budget": 1e999}}', "`mining.zoom_budget`: number out of range"),
        (b'{"schema": 1, "mining": {"hours": ["25:00-26:00"]}}', "`mining.hours[0]`"),
        (b'{"schema": 1, "mining": {"labels": ["cat"]}}', "unknown field `labels`"),  # not the hub's to change
        (b'{"schema": 1, "weights": {"front": {"bias": 1}}}', "missing required field"),
        (encode_policy(Policy(weights={"frnt": WEIGHTS})), "there is no camera 'frnt' here"),
        (b"[" * 60_000, ""),  # deeper than any parser goes
        (b"x" * 10_000_000, f"the limit is {MAX_POLICY_BYTES}"),
        (b'{"schema": 1, "\x01\xe2\x80\xae\xf0\x9f\x98\x80": 1}', ""),  # a name that cannot be shown
    ],
)
def test_nonsense_is_refused_with_a_reason(tmp_path: Path, payload: bytes, reason: str) -> None:
    box = PolicyBox(configured(tmp_path))
    before = box.rules
    box.take(DEVICE, payload)
    assert box.rules == before
    (verdict,) = box.verdicts
    assert verdict.refused
    assert reason in verdict.refused
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=PolicyVerdict) == verdict, "the hub can read it"
    assert not (tmp_path / "policies.json").exists()


def test_a_sites_policy_may_speak_of_other_devices_cameras(tmp_path: Path) -> None:
    box = PolicyBox(configured(tmp_path))
    box.take(SITE, encode_policy(Policy(weights={"front": WEIGHTS, "back": OTHERS})))
    assert box.verdicts[0].refused == ""
    assert dict(box.rules.weights) == {"front": WEIGHTS}


VALID = json.loads(encode_policy(Policy(paused=True, mining=MiningPolicy(merge=True), weights={"front": WEIGHTS})))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NEARLY = st.dictionaries(st.sampled_from(sorted(VALID)), JSON).map(lambda changes: json.dumps(VALID | changes).encode())
HARMLESS = st.sampled_from([PAUSED, encode_policy(Policy(quota=QuotaPolicy(burst=2))), b""])


@given(messages=st.lists(st.tuples(st.sampled_from([SITE, DEVICE, "x"]), st.binary() | NEARLY | HARMLESS), max_size=6))
def test_whatever_comes_the_box_lives_and_says_the_same_after_a_restart(tmp_path_factory, messages) -> None:
    config = configured(tmp_path_factory.mktemp("box"))
    box = PolicyBox(config)
    for where, payload in messages:
        before = box.rules
        box.take(where, payload)
        refused = {one.scope: one.refused for one in box.verdicts}
        if refused.get(policy_topics("yard", "gate").get(where)):
            assert box.rules == before
        assert msgspec.json.decode(msgspec.json.encode(box.verdicts), type=tuple[PolicyVerdict, ...]) == box.verdicts
        closed(box.rules, local=time(3, 0))
    assert PolicyBox(config).rules == box.rules


@pytest.mark.parametrize(
    "written",
    [
        b"",  # an empty file, as after a power cut
        b"{",
        b'{"policies": {"weakspot/1/yard/policy": 3}}',
        b'{"policies": {"weakspot/1/yard/policy": "bm9uc2Vuc2U="}}',  # "nonsense"
        b"[" * 2_000_000,
    ],
)
def test_a_broken_file_is_ignored_with_a_warning(tmp_path: Path, caplog, written: bytes) -> None:
    config = configured(tmp_path)
    (tmp_path / "policies.json").write_bytes(written)
    box = PolicyBox(config)
    assert box.rules == overlay(config, None, None)
    assert caplog.records
    box.take(SITE, PAUSED)
    assert PolicyBox(config).rules.paused_by == "site"


def test_a_device_that_moves_does_not_take_the_old_sites_policy_along(tmp_path: Path) -> None:
    PolicyBox(configured(tmp_path)).take(SITE, PAUSED)
    assert PolicyBox(configured(tmp_path, device="other")).rules.paused_by == "site"
    assert PolicyBox(configured(tmp_path, site="field")).rules.paused_by is None


def test_a_disk_that_takes_nothing_does_not_keep_a_policy_from_being_followed(tmp_path: Path, caplog) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    box = PolicyBox(configured(folder))
    folder.rmdir()
    box.take(SITE, PAUSED)
    assert box.rules.paused_by == "site"
    assert "could not be kept" in caplog.text
    folder.mkdir()
    box.take(SITE, PAUSED)  # as it comes with every connection
    assert PolicyBox(configured(folder)).rules.paused_by == "site"
