from pathlib import Path

import pytest

from edge.config import (
    CameraConfig,
    SourceKind,
    UpdatesConfig,
    parse_config,
    read_config,
    source_kind,
)
from edge.contract.errors import UnusableError

FOLDER = Path("/etc/weakspot")
LEAST = """
site = "yard"
device = "gate"
[[camera]]
name = "front"
source = "clip.mp4"
"""


def test_the_least_configuration_has_defaults() -> None:
    config = parse_config(LEAST, folder=FOLDER)
    assert config.data_dir == FOLDER / "edge-data"
    assert config.camera == (CameraConfig(name="front", source="/etc/weakspot/clip.mp4"),)
    assert config.mqtt.port_number == 1883
    assert config.upload == "want"


def test_paths_are_absolute_and_the_port_follows_tls() -> None:
    text = (
        'data_dir = "/var/lib/weakspot"\n'
        + LEAST
        + (
            '[mqtt]\nca = "ca.pem"\ncert = "tls/gate.pem"\nkey = "/k/gate.key"\n'
            '[model]\npath = "m/a.onnx"\ninput = "320x192"\n'
            '[detections]\nfile = "d.jsonl"\n'
        )
    )
    config = parse_config(text, folder=FOLDER)
    assert config.data_dir == Path("/var/lib/weakspot")
    assert (config.mqtt.ca, config.mqtt.cert) == (FOLDER / "ca.pem", FOLDER / "tls/gate.pem")
    assert config.mqtt.key == Path("/k/gate.key")
    assert config.mqtt.port_number == 8883
    assert config.model.path == FOLDER / "m/a.onnx"
    assert config.model.input_size == (320, 192)
    assert config.detections.file == FOLDER / "d.jsonl"


@pytest.mark.parametrize(
    "url", ["https://hub.example", "http://10.0.0.2:8080/street/", "http://[::1]:8080", "file:///media/a%20stick"]
)
def test_updates_are_off_until_a_repository_and_its_root_are_named(url: str) -> None:
    assert parse_config(LEAST, folder=FOLDER).updates is None
    text = 'labels = ["outdoor", "gate"]\n' + LEAST + f'[updates]\nurl = "{url}"\nroot = "root.json"\n'
    config = parse_config(text, folder=FOLDER)
    assert config.labels == ("outdoor", "gate")
    assert config.updates == UpdatesConfig(url=url, root=FOLDER / "root.json", poll_s=60.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('sit = "yard"\n' + LEAST, "unknown key `sit`; did you mean `site`?"),
        ('labels = ["a b"]\n' + LEAST, "`labels[0]`: expected `str` matching"),
        (LEAST + '[updates]\nurl = "https://h"\n', "`updates`: object missing required field `root`"),
        (LEAST + '[updates]\nurl = "ftp://h"\nroot = "r"\n', "`updates.url`: expected `str` matching"),
        (LEAST + '[updates]\nurl = "file://h/x"\nroot = "r"\n', "`updates.url`: expected `str` matching"),  # a host
        (LEAST + '[updates]\nurl = "http://h:0x1"\nroot = "r"\n', "`updates.url` is 'http://h:0x1': Port could not"),
        (LEAST + "[mqtt]\nhots = 'b'\n", "unknown key `mqtt.hots`; did you mean `host`?"),
        (LEAST + "fsp = 3\n", "unknown key `camera.fsp`; did you mean `fps`?"),
        (LEAST + "[zzz]\n", "unknown key `zzz`; known here: site, device"),
        (LEAST + "[mqtt]\nport = 'x'\n", "`mqtt.port`: expected `int"),  # a wrong type names the key
        (LEAST + "[mqtt]\nport = 0\n", "`mqtt.port`: expected `int` >= 1"),
        (LEAST + "fps = -1\n", "`camera[0].fps`: expected `float` >= 0"),
        (LEAST + "fps = nan\n", "`camera[0].fps`: "),  # TOML has nan
        (LEAST + "fps = inf\n", "`camera[0].fps`: "),
        (LEAST + "[model]\ninput = '320'\n", "`model.input`: "),
        (LEAST + "[model]\npath = 3\n", "`model.path`: expected a path, got 3"),
        (LEAST + "[model]\nruntime = 'torch'\n", "`model.runtime`: "),
        (LEAST + '[[camera]]\nname="front"\nsource=0\n', "two cameras are called 'front'"),
        (LEAST + '[mqtt]\ncert = "a"\n', "`mqtt.cert` and `mqtt.key`"),
        (LEAST + '[mqtt]\ncert = "a"\nkey = "b"\n', "`mqtt.cert` needs `mqtt.ca`"),
        ('site = "yard"\ndevice = "gate"\n', "no [[camera]]"),
        ('site = "yard"\ndevice = "gate"\ncamera = []\n', "no [[camera]]"),
        (LEAST.replace("yard", "ya/rd"), "`site`: "),  # the topic tree cannot carry it
        (LEAST.replace("clip.mp4", ""), "`camera[0].source`: "),
        ("site =", "not valid TOML: "),
        ("camera = 3\n" + LEAST.split("[[", maxsplit=1)[0], "`camera`: "),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(text: str, message: str) -> None:
    with pytest.raises(UnusableError) as caught:
        parse_config(text, folder=FOLDER)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_is_named_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"cannot read .*none\.toml: No such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "edge.toml").write_text("x = 1")
    with pytest.raises(UnusableError, match=r"edge\.toml: unknown key `x`"):
        read_config(tmp_path / "edge.toml")
    (tmp_path / "edge.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UnusableError, match="not UTF-8"):
        read_config(tmp_path / "edge.toml")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (0, SourceKind.DEVICE),
        ("/dev/video2", SourceKind.DEVICE),
        ("rtsp://user:pw@10.0.0.2/stream1", SourceKind.STREAM),
        ("HTTP://10.0.0.2/mjpg", SourceKind.STREAM),
        ("clips/a.avi", SourceKind.FILE),
        ("rtsp.avi", SourceKind.FILE),
    ],
)
def test_the_form_of_a_source_tells_its_kind(source: str | int, kind: SourceKind) -> None:
    assert source_kind(source) is kind
