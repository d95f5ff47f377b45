"""`edge.toml` -> one frozen value, passed in from `edge run` down. Nothing below reads the file or the environment.

How the file is read, and the laws of that, stand in edge.contract.settings.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.policy import Hours, Share
from edge.contract.samples import Label, Name, Reason, Score
from edge.contract.settings import BrokerSettings, parse_settings, read_settings

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Point = tuple[Score, Score]
Polygon = Annotated[tuple[Point, ...], msgspec.Meta(min_length=3, max_length=64)]

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


class MqttConfig(BrokerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[mqtt]`: the broker, see also `BrokerSettings`.

    Attributes:
        session_expiry_s: how long the broker keeps the hub's wants and acks for a device that is away.
        heartbeat_s: time between two heartbeats.
        ack_timeout_s: a sample that the hub has not acknowledged by then is sent again.
    """

    session_expiry_s: Annotated[int, msgspec.Meta(ge=0)] = 86400
    heartbeat_s: Positive = 30.0
    ack_timeout_s: Positive = 20.0


class SpoolConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[spool]`: the samples that wait on the device's disk.

    Attributes:
        limit_mb: megabytes (10^6 bytes) the samples may take; the least worthy leave first.
        reserve_mb: megabytes set aside so that a full disk can be cleared.
        keep_hours: a sample older than this leaves the disk, sent or not; 0 keeps it until it is sent or evicted.
    """

    limit_mb: Positive = 512.0
    reserve_mb: Positive = 16.0
    keep_hours: NotNegative = 0.0


class CameraConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[camera]]`: one camera.

    Attributes:
        name: the camera's name in every finding.
        source: a stream's URL (`rtsp://...`), a V4L2 device (`/dev/video0`, or its number), or a file.
        fps: frames a second to look at; 0 is as they come.
        loop: a file starts again at its end.
        stall_s: no new frame for this long and the capture process is replaced.
        ignore: zones in which nothing is mined and whose pixels never leave the device; polygons of three or more
            `[x, y]` points, each 0..1 of the picture's width and height.
    """

    name: Name
    source: Annotated[str, msgspec.Meta(min_length=1)] | Annotated[int, msgspec.Meta(ge=0)]
    fps: NotNegative = 5.0
    loop: bool = False
    stall_s: Positive = 10.0
    ignore: tuple[Polygon, ...] = ()


class SourceKind(StrEnum):
    """What a camera's source is."""

    STREAM = "stream"
    DEVICE = "device"
    FILE = "file"


class MiningConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[mining]`: which frames become samples.

    Attributes:
        control_per_hour: frames drawn at random an hour and camera, so that rates can be estimated.
        min_severity: a miss is reported from this probability on that it is a true one, 0..1.
        low_confidence_band: a detection this close above the score threshold is unsure.
        zoom_budget: share of inferences that may be added for second looks, on average; 0 turns them off.
        merge: what the second look finds joins the detections that the device publishes.
        hours: spans of the day in local time, as in `["22:00-06:00"]`, in which frames are mined; none is always.
        labels: only these labels are mined; none is all of them.
        jpeg_quality: of the frames that are kept, 1..100.
    """

    control_per_hour: NotNegative = 4.0
    min_severity: Score = 0.6
    low_confidence_band: Score = 0.15
    zoom_budget: Share = 0.1
    merge: bool = False
    hours: tuple[Hours, ...] = ()
    labels: tuple[Label, ...] = ()
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


class PrivacyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[privacy]`: what is made unrecognisable before a frame is kept.

    Attributes:
        blur: `none`; `heads`, the heads of people outside the finding's region; `people`, the whole of them.
    """

    blur: Literal["none", "heads", "people"] = "none"


class HomeAssistantConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[home_assistant]`: the device as Home Assistant shows it. Off unless asked for.

    Attributes:
        discovery: tell Home Assistant of this device, by one retained message; off again takes the device away.
        prefix: the first level of its discovery topics, as set in Home Assistant.
    """

    discovery: bool = False
    prefix: Name = "homeassistant"


class FrigateCamera(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[frigate.camera]]`: one of Frigate's cameras.

    Attributes:
        name: its name in Frigate.
        size: `WIDTHxHEIGHT` of its `detect` in Frigate, in whose pixels Frigate's boxes are. Without it Frigate is
            asked at `url`, and without that a snapshot is taken to be of this size.
    """

    name: Name
    size: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}\Z")] | None = None

    @property
    def detect_size(self) -> tuple[int, int] | None:
        """Width and height of `size`."""
        if self.size is None:
            return None
        width, height = self.size.split("x")
        return int(width), int(height)


class FrigateConfig(BrokerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[frigate]`: a Frigate whose events become samples by `edge bridge frigate`. The broker is Frigate's.

    Attributes:
        topic_prefix: as in Frigate's `mqtt`.
        url: of Frigate's HTTP API, as in `http://frigate:5000`; snapshots are taken from there. Without it they are
            taken from the broker.
        threshold: a track whose top score stays under it was dropped: Frigate's own `threshold`, or what that was
            before it was lowered so that Frigate tells of such tracks at all.
        camera: the cameras that are bridged, see `FrigateCamera`; none is all of them.
    """

    topic_prefix: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)*\Z", max_length=128)] = (
        "frigate"
    )
    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[A-Za-z0-9_.:\[\]\-]+(/[A-Za-z0-9_.~/\-]*)?\Z")] | None = None
    threshold: Score = 0.7
    camera: tuple[FrigateCamera, ...] = ()


class UpdatesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[updates]`: where signed releases come from. Off unless given; needs the extra `ota`.

    Attributes:
        url: of the signed repository (the folder that holds `metadata/` and `targets/`): `https://...`, `http://...`,
            or `file:///...`, a folder on this device, such as a stick. What comes is believed by its signatures only.
        root: file of the repository's `root.json` that this device trusts; it comes with the device's enrolment.
        poll_s: while a release is awaited and the repository does not answer, or has run out, this is the time until
            it is asked again.
    """

    url: Annotated[
        str, msgspec.Meta(pattern=r"^(https?://[A-Za-z0-9_.:\[\]\-]+|file://(?=/))(/[A-Za-z0-9_.~%+/\-]*)?\Z")
    ]
    root: Path
    poll_s: Positive = 60.0


class EdgeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `edge.toml`.

    Attributes:
        site: name of the place; second level of every topic.
        device: name of this device, unique in its site.
        labels: words for this device, as in `["outdoor", "gate"]`; a rollout may be for the devices with one of them.
        data_dir: folder of the spool and of everything else the daemon writes.
        upload: `want` sends a frame when the hub asks for it, `all` sends every frame with its finding.
        model: see `ModelConfig`.
        mqtt: see `MqttConfig`.
        spool: see `SpoolConfig`.
        camera: one or more, see `CameraConfig`; none where only `[frigate]` is bridged.
        mining: see `MiningConfig`.
        quota: see `QuotaConfig`.
        privacy: see `PrivacyConfig`.
        detections: see `DetectionsConfig`.
        frigate: see `FrigateConfig`.
        home_assistant: see `HomeAssistantConfig`.
        updates: see `UpdatesConfig`; without it the device takes no releases.
    """

    site: Name
    device: Name
    labels: tuple[Name, ...] = ()
    data_dir: Path = Path("edge-data")
    upload: Literal["want", "all"] = "want"
    model: ModelConfig = ModelConfig()
    mqtt: MqttConfig = MqttConfig()
    spool: SpoolConfig = SpoolConfig()
    camera: tuple[CameraConfig, ...] = ()
    mining: MiningConfig = MiningConfig()
    quota: QuotaConfig = QuotaConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    detections: DetectionsConfig = DetectionsConfig()
    frigate: FrigateConfig | None = None
    home_assistant: HomeAssistantConfig = HomeAssistantConfig()
    updates: UpdatesConfig | None = None


def source_kind(source: str | int) -> SourceKind:
    """Return what a camera's source is, from its form alone."""
    if isinstance(source, int) or source.startswith("/dev/"):
        return SourceKind.DEVICE
    return SourceKind.STREAM if source.lower().startswith(_STREAM_SCHEMES) else SourceKind.FILE


def read_config(path: Path) -> EdgeConfig:
    """Read an `edge.toml`. Raises `UnusableError` with one line that names the key that is wrong."""
    return read_settings(path, lambda text, folder: parse_config(text, folder=folder))


def parse_config(text: str, *, folder: Path) -> EdgeConfig:
    """Return the configuration written in `text`. Raises `UnusableError`. The file system is not touched."""
    config = parse_settings(text, EdgeConfig, folder=folder)
    _require_sense(config)
    return msgspec.structs.replace(config, camera=tuple(_found(camera, folder) for camera in config.camera))


def _require_sense(config: EdgeConfig) -> None:
    if not config.camera and config.frigate is None:
        msg = "no [[camera]] is given"
        raise UnusableError(msg)
    names = [camera.name for camera in config.camera]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"two cameras are called {twice[0]!r}"
        raise UnusableError(msg)
    config.mqtt.require_sense()
    if config.updates is not None:
        _require_url(config.updates.url, "updates.url")
    if config.frigate is not None:
        _require_frigate(config.frigate)


def _require_frigate(frigate: FrigateConfig) -> None:
    try:
        frigate.require_sense()
    except UnusableError as error:
        raise UnusableError(str(error).replace("`mqtt.", "`frigate.")) from error
    if frigate.url is not None:
        _require_url(frigate.url, "frigate.url")


def _require_url(url: str, key: str) -> None:
    try:
        urlsplit(url).port  # noqa: B018 - it is read for its complaint
    except ValueError as error:
        msg = f"`{key}` is {url!r}: {error}"
        raise UnusableError(msg) from error


def _found(camera: CameraConfig, folder: Path) -> CameraConfig:
    if isinstance(camera.source, str) and source_kind(camera.source) is SourceKind.FILE:
        return msgspec.structs.replace(camera, source=str(folder / Path(camera.source).expanduser()))
    return camera
