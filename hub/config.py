"""`hub.toml` -> one frozen value, passed in from `hub serve` down. Nothing below reads the file or the environment.

How the file is read, and the laws of that, stand in edge.contract.settings. Every key has a default: an empty file is
a hub beside a broker on this machine.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import Label, Text
from edge.contract.settings import BrokerSettings, parse_settings, read_settings
from hub.tags import TagsConfig

Count = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Price = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
HOUR_MS: Final = 60 * 60 * 1000

EXAMPLE: Final = """\
database = "weakspot.db"    # made if missing; on a local disk

[mqtt]
host = "broker.example.org" # "localhost"
ca = "ca.crt"               # given: TLS, and port = 8883, else 1883
cert = "hub.crt"            # with key: how the hub proves itself
key = "hub.key"
username = "hub"            # if the broker wants one
password_file = "password"  # its first line
group = "hub"               # processes of one group share the work
keepalive_s = 30
session_expiry_s = 60       # a vanished process's messages are kept
receive_maximum = 512       # messages under way to one process
max_packet_bytes = 1048576

[ingest]                    # what shares one transaction
batch_messages = 128
batch_bytes = 4000000
linger_ms = 10

[wants]                     # which frames are asked for
bytes_per_day_per_device = 50000000
outstanding_per_device = 50
pool = 65                   # frames of a weak spot: a batch and more
explore = 30                # frames while no weak spot is known
control_share = 0.1         # control frames, of those
resend_s = 60               # an unanswered want is sent again
max_age_h = 72              # then a frame is asked for no more

[tags]                      # beside those that the devices measure
timezone = "Europe/Zurich"  # "UTC": what the hours of day mean
rules = { gate = "camera:plant7/cam1/gate and left" }

[labels]
names = ["person", "head"]  # [] is what is proposed; the classes, and the order of passes

[costs]                     # of work, in a currency of your own
currency = "USD"            # "" names none
image = 0.26                # 0: an image that a person labels
box = 0.0                   # each box drawn
review = 0.0                # an image that a person checks
machine = 0.08              # 0: an image that the machine labels
hour = 0.0                  # people's time, where minutes were told

[cvat]                      # the server of `hub cvat push` and `pull`
url = "https://cvat.example.org"
token_file = "cvat-token"   # or username and password_file
organization = "yard"       # left out: your own workspace
ca = "cvat-ca.crt"          # left out: the system's authorities
timeout_s = 60              # for one answer
wait_s = 1800               # for it to read a batch, or to write it out

[repository]                # of signed releases
folder = "repository"
keys = "keys"               # where the commands that sign look for keys

[keep]                      # frames in batches are kept in any case
frame_days = 90             # an older frame is deleted
frame_bytes = 50000000000   # over this, the oldest go first
"""


class MqttConfig(BrokerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[mqtt]`: the broker, see also `BrokerSettings`.

    Attributes:
        group: processes of one group share the work; two hubs that each want everything need two groups.
        session_expiry_s: how long the broker keeps messages for a hub process that has vanished. Keep it short: they
            are safe on the devices, and until it ends the broker goes on giving the vanished process its share.
        receive_maximum: messages under way to one process at once.
        max_packet_bytes: a larger message is not delivered.
    """

    group: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.\-]{1,64}\Z")] = "hub"
    session_expiry_s: Annotated[int, msgspec.Meta(ge=0, le=86400)] = 60
    receive_maximum: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 512
    max_packet_bytes: Annotated[int, msgspec.Meta(ge=131072, le=268435455)] = 1048576


class IngestConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ingest]`: how many messages share one transaction, and so one wait for the disk.

    Attributes:
        batch_messages: the most messages.
        batch_bytes: the most payload bytes.
        linger_ms: how long the first message waits for company.
    """

    batch_messages: Count = 128
    batch_bytes: Count = 4_000_000
    linger_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 10.0


class WantsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[wants]`: which frames the hub asks the devices for.

    Attributes:
        bytes_per_day_per_device: the most bytes of frames asked of one device within 24 hours; 0 asks for none.
        outstanding_per_device: the most frames of one device under way at once.
        pool: frames for each open weak spot, here or under way and in no batch; one a near-duplicate group. A batch's
            worth and a reserve lets the batch be chosen well. The whole of it is asked for when four times as many
            events are known, less before: so the first to come do not fill it.
        explore: the same while no weak spot needs frames, for the whole fleet; a very large number asks for every
            group's frame.
        control_share: how many `control` frames are asked for beside them, as a part of their number, 0..1.
        resend_s: a want that was not answered for so long is sent again while the device is alive.
        max_age_h: hours after which a finding's frame is no longer asked for, and an unanswered want is given up.
    """

    bytes_per_day_per_device: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = 50_000_000
    outstanding_per_device: Count = 50
    pool: Count = 65
    explore: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 30
    control_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    resend_s: Positive = 60.0
    max_age_h: Positive = 72.0


class KeepConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[keep]`: which frames `hub gc`, and `hub serve` once an hour, delete. Findings and frames in batches are kept.

    Attributes:
        frame_days: an older frame is deleted.
        frame_bytes: while all frames are more than this, the oldest are deleted.
    """

    frame_days: Positive = 90.0
    frame_bytes: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = 50_000_000_000


class LabelsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[labels]`: what annotators are asked for.

    Attributes:
        names: the labels in their fixed order: the class numbers of exports, and the order of passes. Empty: those of
            the boxes that a batch proposes and those suspected in it, by the alphabet.
    """

    names: tuple[Label, ...] = ()


class CostsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[costs]`: what labels cost. What is 0 is not counted.

    Attributes:
        currency: printed behind amounts.
        image: an image that a person labels.
        box: each box that a person draws or keeps.
        review: an image that a person checks again.
        machine: an image that the machine labels.
        hour: an hour of people's work, where minutes were told.
    """

    currency: Text = ""
    image: Price = 0.0
    box: Price = 0.0
    review: Price = 0.0
    machine: Price = 0.0
    hour: Price = 0.0


class CvatConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cvat]`: the CVAT server that batches are pushed to.

    Attributes:
        url: where it stands, with `https://`; `http://` sends password and token as they are.
        token_file: file whose first line is an access token of CVAT.
        username: in place of a token, with `password_file`.
        password_file: file whose first line is the password.
        organization: the short name of the organization to work in; left out: the user's own workspace.
        ca: PEM file of the authority that signed the server's certificate; left out: those of the system.
        timeout_s: how long one answer of the server, or sending one part, may take.
        wait_s: how long the server may take to read what was sent, or to write annotations out.
    """

    url: Annotated[str, msgspec.Meta(pattern=r"^(https?://[^\s/@?#]+(/[^\s@?#]*)?)?\Z")] = ""
    token_file: Path | None = None
    username: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f]{1,256}\Z")] | None = None
    password_file: Path | None = None
    organization: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.\-]{0,64}\Z")] = ""
    ca: Path | None = None
    timeout_s: Positive = 60.0
    wait_s: Positive = 1800.0

    def require_sense(self) -> None:
        """Raise `UnusableError` when it is not said how to log in, or in two ways."""
        if (self.username is None) != (self.password_file is None):
            msg = "`cvat.username` and `cvat.password_file` are given together or not at all"
            raise UnusableError(msg)
        if self.username is not None and self.token_file is not None:
            msg = "`cvat.token_file` and `cvat.username` are two ways to log in: give one"
            raise UnusableError(msg)
        if self.url and self.username is None and self.token_file is None:
            msg = "`cvat.url` needs `cvat.token_file`, or `cvat.username` and `cvat.password_file`"
            raise UnusableError(msg)


class RepositoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[repository]`: the signed releases, which devices fetch.

    Attributes:
        folder: the repository itself.
        keys: the folder of keys, below which the commands that sign look.
    """

    folder: Path = Path("repository")
    keys: Path = Path("keys")


class HubConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `hub.toml`.

    Attributes:
        database: the SQLite file; made when it does not exist. It must lie on a local disk.
        mqtt: see `MqttConfig`.
        ingest: see `IngestConfig`.
        wants: see `WantsConfig`.
        tags: see `TagsConfig`.
        labels: see `LabelsConfig`.
        costs: see `CostsConfig`.
        cvat: see `CvatConfig`.
        repository: see `RepositoryConfig`.
        keep: see `KeepConfig`.
    """

    database: Path = Path("weakspot.db")
    mqtt: MqttConfig = MqttConfig()
    ingest: IngestConfig = IngestConfig()
    wants: WantsConfig = WantsConfig()
    tags: TagsConfig = TagsConfig()
    labels: LabelsConfig = LabelsConfig()
    costs: CostsConfig = CostsConfig()
    cvat: CvatConfig = CvatConfig()
    repository: RepositoryConfig = RepositoryConfig()
    keep: KeepConfig = KeepConfig()


def read_config(path: Path) -> HubConfig:
    """Read a `hub.toml`. Raises `UnusableError` with one line that names the key that is wrong."""
    return read_settings(path, lambda text, folder: parse_config(text, folder=folder))


def find_database(*, config: Path, database: Path | None) -> Path:
    """Return the database that a command means: the one named, else the configuration's. Raises `UnusableError`."""
    if database is not None:
        return database
    try:
        return read_config(config).database
    except UnusableError as error:
        if config.exists():
            raise
        msg = f"{error}; name it with --config, or a database with --database"
        raise UnusableError(msg) from error


def find_config(config: Path) -> HubConfig:
    """Return the configuration, the defaults where there is no such file. Raises `UnusableError`."""
    return read_config(config) if config.exists() else HubConfig()


def find_tags(config: Path) -> TagsConfig:
    """Return the `[tags]` of a configuration, the defaults where there is no such file. Raises `UnusableError`."""
    return find_config(config).tags


def parse_config(text: str, *, folder: Path) -> HubConfig:
    """Return the configuration written in `text`. Raises `UnusableError`. The file system is not touched."""
    config = parse_settings(text, HubConfig, folder=folder)
    config.mqtt.require_sense()
    config.cvat.require_sense()
    return config
