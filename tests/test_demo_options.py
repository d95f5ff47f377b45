"""What a person may type wrongly at `hub demo` and `hub batch new` is one line, never a traceback."""

import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from edge.contract.errors import UnusableError
from hub.cli import app
from hub.demo import Upload
from hub.demo.show import run_demo


@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--upload", "nope"],
        ["demo", "--size", "0"],
        ["demo", "--size", "1" + "0" * 400],
        ["batch", "new", "--size", "1" + "0" * 400],
    ],
)
def test_an_option_out_of_its_range_is_refused(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_no_folder_of_the_demo_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "answer").write_text("work of a person")
    for name, says in (
        ("file", "Not a directory"),
        ("file/below", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("loop", "demo's folder"),
        ("work", "no demo wrote"),
    ):
        with pytest.raises(UnusableError, match=says):
            run_demo(tmp_path / name, upload=Upload.WANT, size=1, console=Console(file=io.StringIO()))
    assert (tmp_path / "work" / "answer").read_text() == "work of a person"
