"""Names of files in a release: one rule for the hub, which signs, and the device, which unpacks."""

import pytest

from edge.contract.release import is_plain


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("model.json", True),
        ("yolox_s-int8+1 (2).onnx", False),  # brackets
        ("yolox s_1-int8+v2.onnx", True),
        ("golden-0a1b2c3d/street-001.jpg", True),
        ("a/b/c/d", True),
        ("a/b/c/d/e", False),  # too deep
        ("n" * 100, True),
        ("n" * 101, False),  # ustar would need two fields
        ("a/" + "n" * 99, False),
        ("", False),
        ("a//b", False),
        ("a/", False),
        ("/a", False),
        ("..", False),
        ("a/../b", False),
        (".DS_Store", False),
        ("-rf", False),
        ("a ", False),  # some disks drop it
        ("a\n", False),
        ("caf\u00e9", False),
        ("\u0661", False),  # a digit, but none of ASCII's
    ],
)
def test_a_name_is_plain_or_not(name: str, plain: bool) -> None:
    assert is_plain(name) == plain
    assert is_plain(name, deepest=1) == (plain and "/" not in name)
