"""Frigate's cameras as this device's heartbeat tells of them. The worker writes, the caller's thread reads.

A camera is known when it is configured, or when Frigate has spoken of it. It runs when Frigate's broker is reached,
Frigate is online and, where Frigate's own figures have come, frames come in.
"""

import threading
from dataclasses import dataclass
from typing import Final

from edge.camera import CameraState
from edge.contract.status import CameraHealth
from edge.frigate import is_camera

CAMERAS: Final = 64


@dataclass(slots=True)
class _Camera:
    pictures: int = 0
    samples: int = 0
    pictured_s: float | None = None
    rates: tuple[float, float] | None = None


class FrigateCameras:
    """Which cameras there are and how they do. `reachable`: whether there is a connection to Frigate's broker.

    Args:
        names: only these; empty is all that Frigate speaks of, at most `CAMERAS`.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._fixed = bool(names)
        self._online: bool | None = None
        self._restarts = 0
        self._lock = threading.Lock()
        self._cameras = {name: _Camera() for name in names}

    def take(self, name: str) -> bool:
        """Return whether this camera is bridged, and remember it."""
        with self._lock:
            if name in self._cameras:
                return True
            if self._fixed or len(self._cameras) >= CAMERAS or not is_camera(name):
                return False
            self._cameras[name] = _Camera()
            return True

    def note_picture(self, name: str, *, now_s: float) -> None:
        """Take the word that a picture of a camera came."""
        with self._lock:
            self._cameras[name].pictures += 1
            self._cameras[name].pictured_s = now_s

    def next_sample(self, name: str) -> int:
        """Return the number of a camera's next sample, from 0."""
        with self._lock:
            self._cameras[name].samples += 1
            return self._cameras[name].samples - 1

    def note_rates(self, rates: dict[str, tuple[float, float]]) -> None:
        """Take Frigate's figures: frames a second, captured and looked at."""
        for name, both in rates.items():
            if self.take(name):
                with self._lock:
                    self._cameras[name].rates = both

    def note_available(self, *, is_online: bool, retained: bool) -> bool:
        """Take Frigate's word that it came or went. Return whether its tracks are void: it was started anew."""
        was, self._online = self._online, is_online
        is_news = not retained or was is False
        self._restarts += is_news and is_online and was is not None
        return is_news or not is_online

    def lost(self, *, reachable: bool) -> dict[str, str]:
        """Return why, for each camera that does not run."""
        with self._lock:
            causes = {name: self._cause(camera, reachable=reachable) for name, camera in self._cameras.items()}
        return {name: cause for name, cause in causes.items() if cause is not None}

    def health(self, *, now_s: float, reachable: bool) -> tuple[CameraHealth, ...]:
        """Return a line of the heartbeat for each camera. `frames` are its pictures that came, `fps` is Frigate's."""
        with self._lock:
            return tuple(
                CameraHealth(
                    name=name,
                    state=CameraState.RUNNING if self._cause(camera, reachable=reachable) is None else CameraState.LOST,
                    frames=camera.pictures,
                    fps=round(camera.rates[1], 2) if camera.rates else 0.0,
                    restarts=self._restarts,
                    frame_age_s=None if camera.pictured_s is None else round(max(0.0, now_s - camera.pictured_s), 3),
                    detect_ms=0.0,
                )
                for name, camera in self._cameras.items()
            )

    def _cause(self, camera: _Camera, *, reachable: bool) -> str | None:
        if not reachable:
            return "Frigate's broker is not reached"
        if self._online is False:
            return "Frigate is offline"
        if camera.rates is not None and camera.rates[0] == 0.0:
            return "Frigate gets no frames"
        return None
