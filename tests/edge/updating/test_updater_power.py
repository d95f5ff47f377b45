"""The power is cut while a release comes in: at each write of the state, before it and after it.

Cameras, network and models are stand-ins; the disk is a real ext4 whose power is really cut. Needs root.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.slot_state import Slots, faults
from edge.slots import broken_slots, read_slots
from tests.edge.releases import empty_release
from tests.edge.test_spool_crash import Disk, disk  # noqa: F401
from tests.edge.updating.stand_ins import Device, Judges, Repository, device_config, order_of, standing_in

WRITES = 8


class PowerCutError(BaseException):
    """The power is off."""


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Judges]:
    folder = tmp_path / "repository"
    repository = Repository(tmp_path, empty_release(folder / "starter-2", "starter-2"))
    with standing_in(monkeypatch, repository) as script:
        yield script


def cut_at(device: Device, disk: Disk, n: int, *, when: str) -> Slots:  # noqa: F811
    """Follow an order until the power goes at write `n`; return the last state that was said to be on the disk."""
    store, write, left = device.store, device.store.write, [n]
    said = [store.slots]

    def dying(slots: Slots, **more: bool) -> None:
        if slots == store.slots:
            return
        left[0] -= 1
        if left[0] < 0 and when == "before":
            disk.cut_power()
            raise PowerCutError
        write(slots, **more)
        said.append(slots)
        if left[0] < 0:
            disk.cut_power()
            raise PowerCutError

    store.write = dying
    device.order(order_of(1))
    with pytest.raises(PowerCutError):
        device.run()
    return said[-1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_power_cut_at_any_step_the_update_goes_on(
    tmp_path: Path,
    disk: Disk,  # noqa: F811
    judges: Judges,
    when: str,
) -> None:
    """What was said is there, what serves is whole, and the next start reaches the same end."""
    for n in range(WRITES):
        config = device_config(tmp_path, data_dir=disk.mount / f"data-{n}")
        config.data_dir.mkdir()
        said = cut_at(Device(config), disk, n, when=when)
        disk.power_on()
        folder = config.data_dir / "models"
        found = read_slots(folder, "starter")
        assert found == said, f"write {n}"
        assert list(broken_slots(folder, "starter")) == [], f"write {n}"
        again = Device(config)
        assert faults(again.store.slots) == []
        assert again.detection.serving.number == said.active
        again.order(order_of(1))
        assert again.run().phase == "confirmed", f"write {n}"
        assert again.detection.serving.number == 1
        assert not list(folder.glob("*.part"))


def test_the_power_cut_is_real(
    tmp_path: Path,
    disk: Disk,  # noqa: F811
    judges: Judges,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: without syncing, a state that was said to be there is gone."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    config = device_config(tmp_path, data_dir=disk.mount / "data")
    config.data_dir.mkdir()
    said = cut_at(Device(config), disk, WRITES - 1, when="after")
    disk.power_on()
    assert read_slots(config.data_dir / "models", "starter") != said
