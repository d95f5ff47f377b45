"""`edge.toml` -> one frozen value, passed in from `edge run` down. Nothing below reads the file or the environment.

Laws:

1. A key this module does not know is an error that names the nearest key it does know.
2. Every path in the returned value is absolute; a relative one is taken from the folder of the configuration file.
"""

import difflib
import tomllib
import types
import typing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import Name, Reason, Score

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1)]

_STREAM_SCHEMES: Final = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[model]`: which detector runs, and how.

    Attributes:
        path: an ONNX file; `model.json` stands beside it. Without it the starter model.
        runtime: `auto`, `onnxruntime` or `openvino`.
        input: `WIDTHxHEIGHT` of the model's input, each a multiple the model allows. Without it the card's.
        score_threshold: what counts as detected, 0..1. Without it the card's.
        threads: threads of the runtime. Without it the runtime decides.
        providers: ONNX Runtime providers, the preferred one first.
    """

    path: Path | None = None
    runtime: Literal["auto", "onnxruntime", "openvino"] = "auto"
    input: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")] | None = None
    score_threshold: Score | None = None
    threads: Count | None = None
    providers: tuple[str, ...] = ()

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Width and height of `input`."""
        if self.input is None:
            return None
        width, height = self.input.split("x")
        return int(width), int(height)


class MqttConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[mqtt]`: the broker. MQTT version 5 only.

    Attributes:
        host: name or address of the broker.
        port: 1883 without TLS and 8883 with it, unless given.
        username: sent only when given.
        password_file: file whose first line is the password.
        ca: PEM file of the authority that signed the broker's certificate; given, the connection is TLS.
        cert: PEM file of this device's certificate.
        key: PEM file of this device's private key.
        keepalive_s: the broker declares the device lost after one and a half of these.
        session_expiry_s: how long the broker keeps the hub's wants and acks for a device that is away.
        heartbeat_s: time between two heartbeats.
        ack_timeout_s: a sample that the hub has not acknowledged by then is sent again.
    """

    host: str = "localhost"
    port: Port | None = None
    username: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 30
    session_expiry_s: Annotated[int, msgspec.Meta(ge=0)] = 86400
    heartbeat_s: Positive = 30.0
    ack_timeout_s: Positive = 20.0


class SpoolConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[spool]`: the samples that wait on the device's disk.

    Attributes:
        limit_mb: megabytes (10^6 bytes) the samples may take; the least worthy leave first.
        reserve_mb: megabytes set aside so that a full disk can be cleared.
    """

    limit_mb: Positive = 512.0
    reserve_mb: Positive = 16.0


class CameraConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[camera]]`: one camera.

    Attributes:
        name: the camera's name in every finding.
        source: a stream's URL (`rtsp://...`), a V4L2 device (`/dev/video0`, or its number), or a file.
        fps: frames a second to look at; 0 is as they come.
        loop: a file starts again at its end.
        stall_s: no new frame for this long and the capture process is replaced.
    """

    name: Name
    source: Annotated[str, msgspec.Meta(min_length=1)] | Annotated[int, msgspec.Meta(ge=0)]
    fps: NotNegative = 5.0
    loop: bool = False
    stall_s: Positive = 10.0


class SourceKind(StrEnum):
    """What a camera's source is."""

    STREAM = "stream"
    DEVICE = "device"
    FILE = "file"


class MiningConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[mining]`: which frames become samples.

    Attributes:
        control_per_hour: frames drawn at random an hour and camera, so that rates can be estimated.
        jpeg_quality: of the frames that are kept, 1..100.
    """

    control_per_hour: NotNegative = 4.0
    jpeg_quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 90


class QuotaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[quota]`: the most samples an hour and camera that each reason may make.

    Attributes:
        burst: samples that may come at once before the hourly rate binds.
        low_confidence: an hour, from frames where the detector is unsure.
        missed: an hour, from frames where the detector missed something.
        suspect: an hour, from detections that look like ghosts.
        control: an hour, from frames drawn at random.
    """

    burst: Count = 10
    low_confidence: NotNegative = 60.0
    missed: NotNegative = 120.0
    suspect: NotNegative = 30.0
    control: NotNegative = 60.0

    def per_hour(self, reason: Reason) -> float:
        """Return the rate of one reason."""
        rate: float = getattr(self, reason.value)
        return rate


class DetectionsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[detections]`: the detections themselves, for whoever uses them. Off unless asked for.

    Attributes:
        mqtt: publish them as JSON on the device's `detections` topic, QoS 0.
        max_hz: messages a second and camera, on the topic and in the file.
        file: append them to this file, a JSON object a line.
        file_mb: megabytes (10^6 bytes) after which the file is renamed to `NAME.1` and a new one begun.
    """

    mqtt: bool = False
    max_hz: Positive = 1.0
    file: Path | None = None
    file_mb: Positive = 64.0


class EdgeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `edge.toml`.

    Attributes:
        site: name of the place; second level of every topic.
        device: name of this device, unique in its site.
        data_dir: folder of the spool and of everything else the daemon writes.
        upload: `want` sends a frame when the hub asks for it, `all` sends every frame with its finding.
        model: see `ModelConfig`.
        mqtt: see `MqttConfig`.
        spool: see `SpoolConfig`.
        camera: one or more, see `CameraConfig`.
        mining: see `MiningConfig`.
        quota: see `QuotaConfig`.
        detections: see `DetectionsConfig`.
    """

    site: Name
    device: Name
    data_dir: Path = Path("edge-data")
    upload: Literal["want", "all"] = "want"
    model: ModelConfig = ModelConfig()
    mqtt: MqttConfig = MqttConfig()
    spool: SpoolConfig = SpoolConfig()
    camera: tuple[CameraConfig, ...]
    mining: MiningConfig = MiningConfig()
    quota: QuotaConfig = QuotaConfig()
    detections: DetectionsConfig = DetectionsConfig()


def source_kind(source: str | int) -> SourceKind:
    """Return what a camera's source is, from its form alone."""
    if isinstance(source, int) or source.startswith("/dev/"):
        return SourceKind.DEVICE
    return SourceKind.STREAM if source.lower().startswith(_STREAM_SCHEMES) else SourceKind.FILE


def read_config(path: Path) -> EdgeConfig:
    """Read an `edge.toml`. Raises `UnusableError` with one line that names the key that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"cannot read the configuration {path}: {error.strerror}"
        raise UnusableError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 text"
        raise UnusableError(msg) from error
    try:
        return parse_config(text, folder=path.resolve().parent)
    except UnusableError as error:
        msg = f"{path}: {error}"
        raise UnusableError(msg) from error


def parse_config(text: str, *, folder: Path) -> EdgeConfig:
    """Return the configuration written in `text`. Raises `UnusableError`. The file system is not touched."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        msg = f"not valid TOML: {error}"
        raise UnusableError(msg) from error
    _require_known(table, EdgeConfig, "")
    try:
        config = msgspec.convert(table, EdgeConfig, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise UnusableError(_plain(error)) from error
    _require_sense(config)
    return _resolve(config, folder)


def _require_known(table: dict[str, Any], kind: type[msgspec.Struct], where: str) -> None:
    fields = typing.get_type_hints(kind)
    for key, value in table.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else f"; known here: {', '.join(fields)}"
            msg = f"unknown key `{where}{key}`{hint}"
            raise UnusableError(msg)
        below = _struct_of(fields[key])
        for part in value if isinstance(value, list) else [value]:
            if below is not None and isinstance(part, dict):
                _require_known(part, below, f"{where}{key}.")


def _struct_of(hint: Any) -> type[msgspec.Struct] | None:
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) and issubclass(kind, msgspec.Struct):
            return kind
    return None


def _decode_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    msg = f"expected a path, got {value!r}"
    raise ValueError(msg)


def _plain(error: msgspec.ValidationError) -> str:
    text, _, where = str(error).partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    return f"`{key}`: {text[0].lower()}{text[1:]}" if key else f"{text[0].lower()}{text[1:]}"


def _require_sense(config: EdgeConfig) -> None:
    if not config.camera:
        msg = "no [[camera]] is given"
        raise UnusableError(msg)
    names = [camera.name for camera in config.camera]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"two cameras are called {twice[0]!r}"
        raise UnusableError(msg)
    if (config.mqtt.cert is None) != (config.mqtt.key is None):
        msg = "`mqtt.cert` and `mqtt.key` are given together or not at all"
        raise UnusableError(msg)
    if config.mqtt.cert is not None and config.mqtt.ca is None:
        msg = "`mqtt.cert` needs `mqtt.ca`, the authority that signed the broker's certificate"
        raise UnusableError(msg)


def _resolve(config: EdgeConfig, folder: Path) -> EdgeConfig:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    def found(camera: CameraConfig) -> CameraConfig:
        if isinstance(camera.source, str) and source_kind(camera.source) is SourceKind.FILE:
            return msgspec.structs.replace(camera, source=str(folder / Path(camera.source).expanduser()))
        return camera

    replace = msgspec.structs.replace
    mqtt = config.mqtt
    return replace(
        config,
        data_dir=folder / config.data_dir.expanduser(),
        model=replace(config.model, path=absolute(config.model.path)),
        mqtt=replace(
            mqtt,
            port=mqtt.port or (8883 if mqtt.ca else 1883),
            password_file=absolute(mqtt.password_file),
            ca=absolute(mqtt.ca),
            cert=absolute(mqtt.cert),
            key=absolute(mqtt.key),
        ),
        camera=tuple(found(camera) for camera in config.camera),
        detections=replace(config.detections, file=absolute(config.detections.file)),
    )
