"""The names of weak spots: plain words, cameras only where they say something."""

import pytest

from hub.spot_names import name_of

FLEET = [("north", "a", str(number)) for number in range(1, 9)]
C3, C7 = FLEET[2], FLEET[6]
EVEN = dict.fromkeys(FLEET, 10)


@pytest.mark.parametrize(
    ("tags", "seen_by", "name"),
    [
        (["tiny", "motion_blur"], {C3: 50, C7: 40, FLEET[0]: 10}, "tiny + motion blur, cameras 3 and 7"),
        (["tiny", "motion_blur"], EVEN, "tiny + motion blur"),  # everywhere
        (["label:traffic_light", "dark"], EVEN, "dark, traffic light"),  # what is measured stands first
        (["dark", "hours:20-24", "site:north"], EVEN, "dark, 20-24 h, site north"),
        (["camera:north/a/3"], {C3: 5}, "camera 3"),
        (["camera:north/a/3", "flat"], {C3: 5}, "low contrast, camera 3"),
        (["camera:gone/x/9"], {}, "camera gone/x/9"),  # no sighting of it is left
        (["noisy"], {}, "noisy"),
        (["my\x1b[31m\ntag"], EVEN, "my [31m tag"),  # a device's words are printed to a terminal
    ],
)
def test_names(tags, seen_by, name) -> None:
    assert name_of(tags, seen_by, FLEET) == name


def test_a_camera_name_of_two_devices_is_told_with_its_device() -> None:
    fleet = [("north", "a", "door"), ("north", "b", "door"), ("south", "b", "door"), ("south", "c", "gate")]
    assert name_of(["dark"], {fleet[0]: 9}, fleet) == "dark, camera a/door"
    assert name_of(["dark"], {fleet[1]: 9, fleet[3]: 9}, fleet) == "dark, cameras gate and north/b/door"


def test_all_cameras_are_not_named() -> None:
    """Where a fleet has three, "cameras a, b and c" says nothing."""
    assert name_of(["dark"], {FLEET[0]: 5, FLEET[1]: 5}, FLEET[:2]) == "dark"
