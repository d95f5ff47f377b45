"""Dataset versions: one digest for one content, whole or not there, refused when changed."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.detector.pictures import decode_jpeg
from hub.datasets.version import (
    IMAGES,
    MANIFEST,
    digest_of,
    make_version,
    read_image,
    read_jpeg,
    read_version,
    remove_parts,
    write_version,
)
from tests.hub.datasets.frozen import member, version_of, written
from tests.hub.made import jpeg


@given(st.integers(1, 6), st.randoms(), st.integers(0, 10**13), st.sampled_from(["", "f" * 64]))
def test_the_digest_does_not_depend_on_the_order_the_time_or_the_parent(count, rng, created_at_ms, parent):
    members = [member(number) for number in range(count)]
    shuffled = rng.sample(members, count)
    one = version_of(members, seed=1)
    other = make_version(
        shuffled, labels=("person", "head"), recipe={"seed": 1}, created_at_ms=created_at_ms, parent=parent
    )
    assert one.digest == other.digest
    assert one.members == other.members


CHANGES = [
    {"split": "val"},
    {"sha256": "0" * 64},
    {"labels": ("person", "head")},  # what was looked for
    {"boxes": ()},
    {"boxes": (msgspec.structs.replace(member(0).boxes[0], origin="self"),)},
    {"boxes": (msgspec.structs.replace(member(0).boxes[0], ignored=True),)},
    {"weak_spots": (3,)},
    {"noise": ("light x0.5",), "copy_of": "m1"},
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_is_of_all_that_a_training_sees(change):
    assert version_of([member(0), member(1)]).digest != version_of([member(0, **change), member(1)]).digest


def test_the_recipe_and_the_labels_are_in_it():
    digests = {
        version_of([member(0)]).digest,
        version_of([member(0)], seed=1).digest,
        version_of([member(0)], labels=("head", "person")).digest,
    }
    assert len(digests) == 3


def test_what_was_written_is_read(tmp_path):
    version = written(tmp_path / "v", [member(1), member(2, split="test")])
    assert read_version(tmp_path / "v") == version
    assert version.digest == digest_of(version)
    assert read_jpeg(tmp_path / "v", version.members[0]) == jpeg(1)
    assert sorted(one.name for one in (tmp_path / "v").iterdir()) == [IMAGES, MANIFEST]
    assert [one.name for one in tmp_path.iterdir()] == ["v"]


def test_two_pictures_of_one_name_and_unknown_labels_are_refused():
    with pytest.raises(UnusableError, match="two pictures of a dataset version are called m1"):
        version_of([member(0, name="M1"), member(1)])
    with pytest.raises(UnusableError, match="m1 has the label 'dog'"):
        version_of([member(1, labels=("dog",))])


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "v").mkdir()
    with pytest.raises(UnusableError, match="is there already"):
        written(tmp_path / "v", [member(1)])
    assert list((tmp_path / "v").iterdir()) == []


def test_a_picture_that_is_another_leaves_nothing_behind(tmp_path):
    version = version_of([member(1), member(2)])
    with pytest.raises(UnusableError, match="the picture m2 is not the one"):
        write_version(version, tmp_path / "v", jpeg_of=lambda one: jpeg(1))
    assert list(tmp_path.iterdir()) == []


def test_a_changed_folder_is_refused(tmp_path):
    version = written(tmp_path / "v", [member(1)])
    picture = tmp_path / "v" / IMAGES / "m1.jpg"
    picture.write_bytes(jpeg(2))
    with pytest.raises(UnusableError, match="was changed after it was frozen"):
        read_jpeg(tmp_path / "v", version.members[0])
    manifest = tmp_path / "v" / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"train"', b'"test"'))
    with pytest.raises(UnusableError, match="was changed after it was frozen"):
        read_version(tmp_path / "v")
    manifest.write_bytes(b"[" * 100_000)
    with pytest.raises(UnusableError, match="is not valid"):
        read_version(tmp_path / "v")
    shutil.rmtree(tmp_path / "v")
    with pytest.raises(UnusableError, match="is no dataset version"):
        read_version(tmp_path / "v")


def test_a_full_or_forbidden_place_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableError, match="cannot write the dataset version"):
        written(tmp_path / "file" / "v", [member(1)])


WRITER = """
    import sys, time
    from pathlib import Path
    from hub.datasets.version import write_version
    from tests.hub.datasets.frozen import member, version_of
    from tests.hub.made import jpeg

    members = [member(number) for number in range(400)]
    def jpeg_of(one):
        print("another", flush=True)
        return jpeg(int(one.name[1:]))
    print("begun", flush=True)
    write_version(version_of(members), Path(sys.argv[1]), jpeg_of=jpeg_of)
    print("done", flush=True)
"""


@pytest.mark.parametrize("after", [0, 1, 57, 399])
def test_kill_9_leaves_no_half_version_and_the_next_writer_cleans_up(tmp_path, after):
    """The process is killed after so many pictures: there is no folder, and what is left of it goes."""
    folder = tmp_path / "datasets" / "1"
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."}) as process:
        assert process.stdout is not None
        for _ in range(after + 1):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    if folder.exists():  # it was quicker than the signal: then it is whole
        version = read_version(folder)
        assert len([read_jpeg(folder, one) for one in version.members]) == 400
        shutil.rmtree(folder)
    made = written(folder, [member(1)])
    assert [one.name for one in folder.parent.iterdir()] == ["1"]
    assert read_version(folder) == made


def test_another_writer_at_work_is_left_alone(tmp_path):
    """It is seen by its lock, not by its process number: the other may be of another container."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "slow")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."}) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        written(tmp_path / "quick", [member(1)])
        parts = [one for one in tmp_path.iterdir() if one.name.endswith(".part")]
        process.send_signal(signal.SIGCONT)
        process.stdout.read()
        assert process.wait(60) == 0
    assert len(parts) == 1
    assert len(read_version(tmp_path / "slow").members) == 400


def test_what_is_no_part_of_a_version_is_never_removed(tmp_path):
    names = [".v.12.part", ".v.x.part", "v.12.part"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    remove_parts(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(names)


BOX = member(0).boxes[0]
NO_MEMBERS = [
    ({"labels": ("kangaroo",)}, "has the label 'kangaroo', which the dataset version does not list"),
    ({"boxes": (msgspec.structs.replace(BOX, label="kangaroo"),)}, "has the label 'kangaroo'"),
    ({"boxes": (msgspec.structs.replace(BOX, xyxy=(20.0, 20.0, 10.0, 30.0)),)}, "has a box that is none"),
]


@pytest.mark.parametrize(("change", "says"), NO_MEMBERS)
def test_a_version_from_elsewhere_is_held_against_the_same_rules(tmp_path, change, says):
    """Whoever wrote it can have computed the digest, too."""
    made = written(tmp_path / "v", [member(0)])
    bad = msgspec.structs.replace(made, members=(msgspec.structs.replace(made.members[0], **change),))
    bad = msgspec.structs.replace(bad, digest=digest_of(bad))
    (tmp_path / "v" / MANIFEST).write_bytes(msgspec.json.encode(bad))
    with pytest.raises(UnusableError, match=says):
        read_version(tmp_path / "v")


def test_two_pictures_of_one_name_are_no_version(tmp_path):
    made = written(tmp_path / "v", [member(0)])
    bad = msgspec.structs.replace(made, members=made.members * 2)
    bad = msgspec.structs.replace(bad, digest=digest_of(bad))
    (tmp_path / "v" / MANIFEST).write_bytes(msgspec.json.encode(bad))
    with pytest.raises(UnusableError, match="two pictures of a dataset version are called"):
        read_version(tmp_path / "v")


def test_a_picture_is_read_as_it_is_stored_whatever_its_camera_says_of_up(tmp_path):
    """Boxes are in pixels of what is stored; an EXIF orientation would turn the picture under them."""
    plain = cv2.imencode(".jpg", np.arange(40 * 80 * 3, dtype=np.uint8).reshape(40, 80, 3))[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    turned = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (80, 40, 3)  # it is one that turns
    one = member(0, sha256=hashlib.sha256(turned).hexdigest(), width=80, height=40, boxes=())
    write_version(version_of([one]), tmp_path / "v", jpeg_of=lambda _: turned)
    image = read_image(tmp_path / "v", one)
    assert image.shape == (40, 80, 3)
    assert (image == decode_jpeg(plain)).all()


def test_a_picture_that_claims_gigabytes_is_refused_by_its_header(tmp_path):
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    one = member(0, sha256=hashlib.sha256(jpeg).hexdigest())
    write_version(version_of([one]), tmp_path / "v", jpeg_of=lambda _: bytes(jpeg))
    with pytest.raises(UnusableError, match=r"the picture \S+ of .* cannot be used: .* 65535x65535 pixels"):
        read_image(tmp_path / "v", one)
