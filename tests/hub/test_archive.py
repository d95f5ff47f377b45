"""A ZIP from outside can be read and cannot do harm."""

import io
import struct
import warnings
import zipfile

import pytest

from edge.contract.errors import UnusableError
from hub import archive
from hub.archive import ZipFiles, is_junk
from hub.formats import open_files


def write(file, entries, *, method=zipfile.ZIP_DEFLATED):
    """A ZIP of these names (or ZipInfos) and contents, in order, also doubled ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a doubled name
        with zipfile.ZipFile(file, "w", method) as opened:
            for name, content in entries:
                opened.writestr(name, content)
    return file


@pytest.fixture
def file(tmp_path):
    return tmp_path / "answer.zip"


def test_its_files_are_read_without_what_systems_leave_in_it(file) -> None:
    entries = [("a.xml", b"A"), ("b/c.txt", b"C"), ("b/", b""), ("__MACOSX/._a.xml", b"x"), ("b/.DS_Store", b"x")]
    files = open_files(write(file, entries))
    assert dict(files) == {"a.xml": b"A", "b/c.txt": b"C"}
    assert (len(files), "c.txt" in files) == (2, False)
    with pytest.raises(KeyError):
        files["c.txt"]


def test_one_folder_around_everything_is_left_out(file) -> None:
    assert set(ZipFiles(write(file, [("batch-1/a.xml", b""), ("batch-1/b/c.txt", b""), ("__MACOSX/x", b"")]))) == {
        "a.xml",
        "b/c.txt",
    }


def test_a_zip_is_known_by_its_content(file, tmp_path) -> None:
    unnamed = tmp_path / "download"
    unnamed.write_bytes(write(file, [("a.xml", b"A")]).read_bytes())
    assert dict(open_files(unnamed)) == {"a.xml": b"A"}


@pytest.mark.parametrize(
    "name",
    [
        "../a.xml",
        "b/../../a.xml",
        "/etc/passwd",
        "C:/a.xml",  # a drive
        "..\\a.xml",  # as Windows reads it
        "b/..",
    ],
)
def test_what_lies_outside_is_not_opened(file, name) -> None:
    entry = zipfile.ZipInfo("x")
    entry.filename = name  # as an attacker writes it
    with pytest.raises(UnusableError, match="lies outside the ZIP's own folder"):
        ZipFiles(write(file, [("a.xml", b"A"), (entry, b"B")]))


def test_a_name_that_occurs_twice_is_refused(file) -> None:
    with pytest.raises(UnusableError, match=r"answer\.zip: a\.xml is in it twice"):
        ZipFiles(write(file, [("a.xml", b"A"), ("a.xml", b"B")]))


def test_a_link_is_no_file(file) -> None:
    link = zipfile.ZipInfo("b.xml")
    link.external_attr = 0o120777 << 16
    assert dict(ZipFiles(write(file, [("a.xml", b"A"), (link, b"/etc/passwd")]))) == {"a.xml": b"A"}


def test_an_encrypted_file_is_refused(file) -> None:
    content = bytearray(write(file, [("a.xml", b"A")]).read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 8] |= 1  # of the list of files: the flag of encryption
    file.write_bytes(content)
    with pytest.raises(UnusableError, match=r"a\.xml is encrypted; make the ZIP without a password"):
        ZipFiles(file)


def test_a_bomb_is_not_unpacked(file, monkeypatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    files = ZipFiles(write(file, [("bomb.xml", bytes(50_000_000)), ("small.txt", b"s")]))
    assert file.stat().st_size < 60_000
    assert files["small.txt"] == b"s", "what is not asked for costs nothing"
    with pytest.raises(UnusableError, match="what is to be read of it is more than"):
        files["bomb.xml"]


def test_many_small_bombs_share_one_limit(file, monkeypatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    files = ZipFiles(write(file, [(f"{at}.xml", bytes(300_000)) for at in range(9)]))
    with pytest.raises(UnusableError, match="more than"):
        list(files.values())


def test_a_size_that_is_told_wrong_is_not_believed(file, monkeypatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    content = bytearray(write(file, [("a.xml", bytes(5_000_000))]).read_bytes())
    struct.pack_into("<L", content, content.find(b"PK\x01\x02") + 24, 10)
    file.write_bytes(content)
    with pytest.raises(UnusableError):
        ZipFiles(file)["a.xml"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: whole[:-1],  # cut off in its end
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:4],
        lambda whole: (
            whole[:-22] + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_535, 65_535, 1, 0, 0)
        ),  # ZIP64's mark
        lambda whole: whole[:-22] + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 2**31, 0, 0),  # a list of 2 GB
        lambda whole: whole[:-22] + b"PK\x06\x07" + bytes(16) + whole[-22:],  # a ZIP64 list of any length
    ],
)
def test_a_zip_that_is_not_whole_is_refused(file, spoil) -> None:
    file.write_bytes(spoil(write(file, [("a.xml", b"A" * 100)]).read_bytes()))
    with pytest.raises(UnusableError, match=r"answer\.zip: not a whole ZIP"):
        ZipFiles(file)


def test_damaged_content_is_refused(file) -> None:
    whole = bytearray(write(file, [("a.xml", b"A" * 1000)], method=zipfile.ZIP_STORED).read_bytes())
    whole[100] ^= 1
    file.write_bytes(whole)
    with pytest.raises(UnusableError, match=r"answer\.zip: a\.xml cannot be read: Bad CRC"):
        ZipFiles(file)["a.xml"]


def test_junk_of_a_folder_is_not_seen(tmp_path) -> None:
    for name in ("a.xml", ".DS_Store", "._a.xml"):
        (tmp_path / name).write_bytes(b"x")
    assert list(open_files(tmp_path)) == ["a.xml"]
    assert not is_junk("MACOSX/a.xml")


def test_an_empty_zip_is_empty(tmp_path) -> None:
    made = io.BytesIO()
    zipfile.ZipFile(made, "w").close()
    (tmp_path / "empty.zip").write_bytes(made.getvalue())
    assert dict(open_files(tmp_path / "empty.zip")) == {}


def test_the_list_of_a_zip_is_read_once(file, monkeypatch) -> None:
    """A VOC answer has a file for each image: reading the list for each of them takes the square of their number."""
    with zipfile.ZipFile(file, "w") as made:
        for number in range(5):
            made.writestr(f"{number}.txt", "x")
    lists = []
    plain = zipfile.ZipFile._RealGetContents
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda opened: (lists.append(1), plain(opened)))
    assert [content for _, content in ZipFiles(file).items()] == [b"x"] * 5
    assert len(lists) == 1


def test_no_more_is_unpacked_than_may_be_read(file, monkeypatch) -> None:
    """The refusal would come too late once a bomb is in memory."""
    write(file, [("a.txt", b"0" * 100_000)])
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    asked = []
    plain = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda part, n=-1: (asked.append(n), plain(part, n))[1])
    with pytest.raises(UnusableError):
        ZipFiles(file)["a.txt"]
    assert asked == [1001]
