"""The whole loop on one machine: a broker, a hub and three simulated cameras that play a bundled clip.

Everything but the cameras' pictures is the real thing: the same `edge run` and `hub serve`, over a real MQTT broker.
"""

from enum import StrEnum


class Upload(StrEnum):
    """When the demo's devices send a frame: when the hub wants it, or every one with its finding."""

    WANT = "want"
    ALL = "all"
