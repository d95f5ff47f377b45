"""hub.toml: every key has a default, a wrong one is named."""

from pathlib import Path

import msgspec
import pytest

from edge.contract.errors import UnusableError
from hub.config import EXAMPLE, HubConfig, find_database, parse_config, read_config

FOLDER = Path("/etc/weakspot")


def test_an_empty_file_is_enough():
    config = parse_config("", folder=FOLDER)
    assert config.database == FOLDER / "weakspot.db"
    assert (config.mqtt.host, config.mqtt.port_number) == ("localhost", 1883)


def test_the_example_names_every_key_and_shows_the_defaults():
    config = parse_config(EXAMPLE, folder=FOLDER)
    default = HubConfig()
    assert (config.ingest, config.wants) == (default.ingest, default.wants)
    for kind in (HubConfig, type(default.mqtt), type(default.ingest), type(default.wants)):
        for name in kind.__struct_fields__:
            assert f"{name} =" in EXAMPLE or f"[{name}]" in EXAMPLE, name


def test_paths_are_taken_from_the_folder_of_the_file():
    text = 'database = "/var/lib/hub.db"\n[mqtt]\nca = "ca.crt"\ncert = "hub.crt"\nkey = "hub.key"'
    config = parse_config(text, folder=FOLDER)
    assert config.database == Path("/var/lib/hub.db")
    assert (config.mqtt.ca, config.mqtt.key, config.mqtt.port_number) == (FOLDER / "ca.crt", FOLDER / "hub.key", 8883)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("databse = 'x'", "unknown key `databse`; did you mean `database`?"),
        ("[mqtt]\nhots = 'x'", "unknown key `mqtt.hots`; did you mean `host`?"),
        ("[wants]\nzzz = 1", "unknown key `wants.zzz`; known here: bytes_per_day_per_device"),
        ("[mqt]\nhost = 'x'", "unknown key `mqt`; did you mean `mqtt`?"),
        ("mqtt = 3", "`mqtt`: expected `object`, got `int`"),
        ("[mqtt]\nport = 0", "`mqtt.port`: "),  # a port that cannot be
        ("[mqtt]\nport = 'x'", "`mqtt.port`: expected `int | null`, got `str`"),
        ("[mqtt]\ngroup = 'a/b'", "`mqtt.group`: "),  # a slash would cut the topic filter
        ("[mqtt]\ncert = 'a'", "`mqtt.cert` and `mqtt.key`"),
        ("[mqtt]\ncert = 'a'\nkey = 'b'", "`mqtt.cert` needs `mqtt.ca`"),
        ("[wants]\ncontrol_share = 1.5", "`wants.control_share`: "),
        ("database = ''", "`database`: expected a path"),
        ('database = "a\\u0000b"', "`database`: expected a path"),
        ("database = '~nosuchuser/x.db'", "`database`: expected a path, got '~nosuchuser/x.db'"),
        ("[mqtt]\nhost = ''", "`mqtt.host` is ''"),
        ("[mqtt]\nhost = 'broker..example'", "`mqtt.host` is 'broker..example'"),
        ("[mqtt]\nhost = 'a b'", "`mqtt.host` is 'a b'"),
        (f"[mqtt]\nhost = '{'a' * 70}'", "`mqtt.host` is 'aaaa"),  # a part of a name is at most 63
        ("[mqtt]\npassword_file = 'x'", "`mqtt.password_file` needs `mqtt.username`"),
        ("[mqtt]\nusername = ''", "`mqtt.username`: "),
        (f"[mqtt]\nusername = '{'u' * 70000}'", "`mqtt.username`: "),  # MQTT carries 65535 bytes
        ("[wants]\nmax_age_h = inf", "`wants.max_age_h`: "),
        ("[wants]\nmax_age_h = nan", "`wants.max_age_h`: "),
        ("[wants]\nresend_s = 1e300", "`wants.resend_s`: "),
        ("[wants]\noutstanding_per_device = 9223372036854775807", "`wants.outstanding_per_device`: "),
        ("[wants]\nbytes_per_day_per_device = 9223372036854775807", "`wants.bytes_per_day_per_device`: "),
        ("[ingest]\nbatch_bytes = 99999999999999999999999", "`ingest.batch_bytes`: "),
        ("database =", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(UnusableError) as caught:
        parse_config(text, folder=FOLDER)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["broker.example.org", "localhost", "bücher.example", "::1", "10.0.0.1", "a."])
def test_a_name_or_an_address_is_a_host(host):
    assert parse_config(f"[mqtt]\nhost = '{host}'", folder=FOLDER).mqtt.host == host


def test_a_home_is_put_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_config("database = '~/x.db'", folder=FOLDER).database == Path("/home/me/x.db")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing.toml", tmp_path, binary):
        with pytest.raises(UnusableError, match=str(path)):
            read_config(path)


def test_a_command_finds_its_database(tmp_path):
    config = tmp_path / "hub.toml"
    with pytest.raises(UnusableError, match="--database"):
        find_database(config=config, database=None)
    config.write_text("databse = 'x'")
    with pytest.raises(UnusableError, match="did you mean"):
        find_database(config=config, database=None)
    config.write_text("database = 'x.db'")
    assert find_database(config=config, database=None) == tmp_path / "x.db"
    assert find_database(config=config, database=Path("y.db")) == Path("y.db")


def test_the_configuration_is_frozen():
    with pytest.raises(AttributeError):
        HubConfig().database = Path("x")  # type: ignore[misc]
    assert msgspec.structs.replace(HubConfig(), database=Path("x")).database == Path("x")
