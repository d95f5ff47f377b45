"""Home Assistant discovery: one retained message that tells it where this device's figures already stand.

Nothing is measured or published for Home Assistant alone: its entities read the `state` and `heartbeat` topics.
The message is of the form "device discovery", which Home Assistant knows since 2024.11.

Laws:

1. Two devices, and two cameras of one device, never share an id; an id is the same after every restart.
2. What Home Assistant was told once and should forget is taken back: a topic by an empty retained message, a camera by
   an entry without content. Both are said until the broker has confirmed them; a note in the data folder remembers.
3. Home Assistant is never needed: nobody listening is no fault.

The note is written before the message is sent, and made smaller after the broker has confirmed it.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from edge.config import EdgeConfig
from edge.contract.topics import Kind, topic
from edge.link import NOBODY, Confirmed, Link

BEATS: Final = 3
_NOTE: Final = "home-assistant.json"

_log = logging.getLogger(__name__)

Component = dict[str, Any]
Told = dict[str, dict[str, str]]  # topic -> component -> its platform, of all that Home Assistant may know


class Retained(NamedTuple):
    """One message to retain."""

    topic: str
    payload: bytes


def joined(*names: str) -> str:
    """Return one id for these names, in letters, digits, `_` and `-`: all that a discovery topic may have.

    Law: two different sequences of names have different ids. In a name `_` becomes `_u` and `.` becomes `_d`, so that
    the `__` between two names stands nowhere else. deploy/enroll.sh does the same.
    """
    return "__".join(name.replace("_", "_u").replace(".", "_d") for name in names)


def device_id(site: str, device: str) -> str:
    """Return the id under which Home Assistant knows the device."""
    return joined("weakspot", site, device)


def discovery_topic(prefix: str, *, site: str, device: str) -> str:
    """Return the topic of the device's discovery message."""
    return f"{prefix}/device/{device_id(site, device)}/config"


def components(config: EdgeConfig) -> dict[str, Component]:
    """Return what Home Assistant shows of the device: the key of each entity and its configuration."""
    state_topic = topic(config.site, config.device, Kind.STATE)
    expire_s = math.ceil(BEATS * config.mqtt.heartbeat_s)
    version = "{{ {'installed_version': value_json.model, 'latest_version': value_json.model} | tojson }}"
    found: dict[str, Component] = {
        "connection": {
            "p": "binary_sensor",
            "name": "Connection",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": state_topic,
            "value_template": "{{ 'ON' if value_json.online else 'OFF' }}",
            "availability": [],  # it must be there to say that the device is not
        },
        "model": {
            "p": "sensor",
            "name": "Model",
            "icon": "mdi:brain",
            "entity_category": "diagnostic",
            "state_topic": state_topic,
            "value_template": "{{ value_json.model }}",
        },
        "update": {
            "p": "update",
            "name": "Model update",
            "title": "Detector",
            "entity_category": "diagnostic",
            "state_topic": state_topic,
            "value_template": version,
        },
        "findings_day": _beaten("{{ value_json.findings_day }}", expire_s)
        | {"name": "Findings in 24 hours", "icon": "mdi:image-search", "unit_of_measurement": "findings"}
        | {"state_class": "measurement"},
        "unsent": _beaten("{{ value_json.spool.unsent }}", expire_s)
        | {"name": "Findings waiting", "icon": "mdi:tray-full", "unit_of_measurement": "findings"}
        | {"state_class": "measurement", "entity_category": "diagnostic"},
    }
    for camera in config.camera:
        found |= _camera(camera.name, expire_s)
    return {key: one | {"unique_id": f"{device_id(config.site, config.device)}__{key}"} for key, one in found.items()}


def discovery_payload(config: EdgeConfig, *, version: str, gone: Mapping[str, str]) -> bytes:
    """Return the discovery message. `gone`: component -> platform of what was there before and is to be removed."""
    device = {
        "ids": [device_id(config.site, config.device)],
        "name": f"weakspot {config.site} {config.device}",
        "mf": "weakspot",
        "mdl": "edge",
        "sw": version,
    }
    state_topic = topic(config.site, config.device, Kind.STATE)
    online = "{{ 'online' if value_json.online else 'offline' }}"
    message = {
        "dev": device,
        "o": {"name": "weakspot", "sw": version},
        "state_topic": topic(config.site, config.device, Kind.HEARTBEAT),
        "availability": [{"topic": state_topic, "value_template": online}],
        "cmps": components(config) | {key: {"p": platform} for key, platform in gone.items()},
    }
    return msgspec.json.encode(message)


def plan(config: EdgeConfig, *, version: str, told: Told) -> tuple[list[Retained], Told]:
    """Return the messages that bring Home Assistant from what it was told to what `config` says, and that as `Told`."""
    goal: Told = {}
    messages: list[Retained] = []
    if config.home_assistant.discovery:
        where = discovery_topic(config.home_assistant.prefix, site=config.site, device=config.device)
        goal[where] = {key: one["p"] for key, one in components(config).items()}
        gone = {key: platform for key, platform in told.get(where, {}).items() if key not in goal[where]}
        messages.append(Retained(where, discovery_payload(config, version=version, gone=gone)))
    messages += [Retained(where, b"") for where in told if where not in goal]
    return messages, goal


def open_announcement(config: EdgeConfig, *, version: str) -> "Announcement":
    """Return what this run has to tell Home Assistant: nothing, if it never was told anything and need not be."""
    note = config.data_dir / _NOTE
    before = _read(note)
    messages, goal = plan(config, version=version, told=before)
    told = {where: before.get(where, {}) | goal.get(where, {}) for where in (*before, *goal)}
    if told != before:
        _write(note, told)

    def settled(where: str) -> None:
        nonlocal told
        known = {key: value for key, value in told.items() if key != where}
        known |= {key: value for key, value in goal.items() if key == where}
        if known != told:
            told = known
            _write(note, told)

    return Announcement(messages, on_settled=settled)


class Announcement:
    """What is to be retained for Home Assistant, and whether the broker has it. For the publisher's thread alone.

    `restart` with each connection, `send` with each turn, `settle` with each answer of the broker. `on_settled` takes
    the topic of a message that the broker has.
    """

    def __init__(
        self, messages: Iterable[Retained] = (), *, on_settled: Callable[[str], None] = lambda _: None
    ) -> None:
        self._messages = list(messages)
        self._on_settled = on_settled
        self._due: Iterator[Retained] = iter(())
        self._sent: dict[int, Retained] = {}

    def restart(self) -> None:
        """Begin again: the broker of this connection may have forgotten everything."""
        self._due = iter(tuple(self._messages))
        self._sent = {}

    def send(self, link: Link) -> int:
        """Hand over at most one message, if there is room; return its bytes. Raises `UnreachableError`."""
        message = next(self._due, None) if link.has_room() else None
        if message is None:
            return 0
        if len(message.payload) > link.max_payload_bytes:
            n = len(message.payload)
            _log.warning("the broker does not take the %d bytes that Home Assistant needs to know this device", n)
            return 0
        self._sent[link.publish(message.topic, message.payload, retain=True)] = message
        return len(message.payload)

    def settle(self, confirmed: Confirmed) -> bool:
        """Whether this was the answer to one of these messages, and a good one. Nobody listening is good."""
        message = self._sent.pop(confirmed.mid, None)
        if message is None or confirmed.refusal not in {None, NOBODY}:
            return False
        if not message.payload:
            self._messages.remove(message)
        self._on_settled(message.topic)
        return True


def _beaten(template: str, expire_s: int, platform: str = "sensor") -> Component:
    """Return a component that reads the heartbeat and is unavailable when none comes."""
    return {"p": platform, "value_template": template, "expire_after": expire_s}


def _camera(name: str, expire_s: int) -> dict[str, Component]:
    """Return one camera's components. Before the first connection has come or failed, nobody knows of a problem."""
    find = f"{{% set camera = value_json.cameras | selectattr('name', 'eq', '{name}') | first %}}"
    problem = (
        "{{ 'OFF' if camera.state in ('running', 'ended')"
        " else 'None' if camera.state == 'connecting' and not camera.restarts else 'ON' }}"
    )
    title = f"Camera {name}"
    found = {
        "problem": _beaten(find + problem, expire_s, "binary_sensor")
        | {"name": f"{title} problem", "device_class": "problem"},
        "state": _beaten(find + "{{ camera.state }}", expire_s)
        | {"name": f"{title} state", "icon": "mdi:cctv", "entity_category": "diagnostic"},
        "fps": _beaten(find + "{{ camera.fps }}", expire_s)
        | {"name": f"{title} frame rate", "icon": "mdi:speedometer", "unit_of_measurement": "fps"}
        | {"state_class": "measurement", "entity_category": "diagnostic"},
        "frame_age": _beaten(find + "{{ camera.frame_age_s }}", expire_s)
        | {"name": f"{title} last frame", "device_class": "duration", "unit_of_measurement": "s"}
        | {"state_class": "measurement", "entity_category": "diagnostic"},
    }
    return {f"{joined('camera', name)}__{key}": one for key, one in found.items()}


def _read(note: Path) -> Told:
    try:
        return msgspec.json.decode(note.read_bytes(), type=Told)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        _log.warning("what Home Assistant was told cannot be read, and is not taken back: %s", error)
        return {}


def _write(note: Path, told: Told) -> None:
    """Replace the note, or remove it when there is nothing to remember."""
    try:
        if told:
            draft = note.with_name(f"{note.name}.new")
            draft.write_bytes(msgspec.json.encode(told))
            draft.replace(note)
        else:
            note.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("what Home Assistant was told cannot be noted: %s", error)
