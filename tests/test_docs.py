"""The words for the user keep up with the program: help for every command and option, every key, every README line."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import pytest
import typer

import edge.cli
import edge.config
import hub.cli
import hub.config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(app: typer.Typer, name: str) -> dict[str, typer.core.TyperCommand]:
    """Return every command by its full name, as in `hub batch new`."""
    found: dict[str, typer.core.TyperCommand] = {}

    def walk(command, path: str) -> None:
        below = getattr(command, "commands", None)
        if below is None or command.invoke_without_command:
            found[path] = command
        for word, one in (below or {}).items():
            walk(one, f"{path} {word}")

    walk(typer.main.get_command(app), name)
    return found


COMMANDS = commands(edge.cli.app, "edge") | commands(hub.cli.app, "hub")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help, name
    assert len(command.help) > 20, name
    for parameter in command.params:
        if parameter.name != "help":
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_no_word_of_a_help_is_taken_for_markup(name: str) -> None:
    """What stands in square brackets would be missing where help is shown."""
    command = COMMANDS[name]
    for told in (command.help, *(getattr(parameter, "help", None) for parameter in command.params)):
        assert not re.search(r"(?<!\\)\[[a-z_.]+\]", told or ""), f"{name}: {told}"


def structs(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """Return a configuration struct and those below it."""
    found = [kind]
    for field in msgspec.structs.fields(kind):
        for below in (field.type, *getattr(field.type, "__args__", ())):
            if isinstance(below, type) and issubclass(below, msgspec.Struct):
                found += structs(below)
    return found


@pytest.mark.parametrize("kind", [*structs(edge.config.EdgeConfig), *structs(hub.config.HubConfig)])
def test_every_key_is_documented(kind: type[msgspec.Struct]) -> None:
    words = "\n".join(one.__doc__ or "" for one in kind.__mro__)
    for field in msgspec.structs.fields(kind):
        assert re.search(rf"^\s+{field.name}: \S", words, re.MULTILINE), f"{kind.__name__}.{field.name}"


def readme_lines() -> list[str]:
    """Return the lines of the README that call our commands, without their remarks."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(edge|hub) [a-z]", line)]


def test_the_readme_names_commands_and_options_that_exist() -> None:
    lines = readme_lines()
    assert len(lines) >= 7
    for line in lines:
        words = shlex.split(line)
        name = max((known for known in COMMANDS if line.startswith(known)), key=len, default="")
        assert name, line
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        for word in words:
            assert not word.startswith("--") or word in options, line


def test_the_readme_toml_is_valid(tmp_path: Path) -> None:
    device, server, updates = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert edge.config.parse_config(device, folder=tmp_path).camera
    assert edge.config.parse_config(f"{device}\n{updates}", folder=tmp_path).updates
    assert hub.config.parse_config(server, folder=tmp_path).database == tmp_path / "weakspot.db"


def run(line: str, folder: Path, *, expect: int = 0, timeout_s: float = 120) -> str:
    """Run one line in `folder`; it must end with the expected status."""
    program, *arguments = shlex.split(line)
    command = [sys.executable, "-m", program, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == expect, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_readme_lines_that_need_no_hub_run(tmp_path: Path) -> None:
    capture = cv2.VideoCapture(str(ROOT / "deploy" / "demo" / "street.mp4"))
    writer = cv2.VideoWriter(str(tmp_path / "recording.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (768, 576))
    for number in range(30):
        image = capture.read()[1]
        writer.write(image)
        if number == 0:
            cv2.imwrite(str(tmp_path / "street.jpg"), image)
    writer.release()
    card = (ROOT / "models" / "starter" / "model.json").read_text()
    (tmp_path / "model.json").write_text(card.replace('"starter.onnx"', '"my-detector.onnx"'))
    shutil.copy(ROOT / "models" / "starter" / "starter.onnx", tmp_path / "my-detector.onnx")
    lines = [line for line in readme_lines() if line.startswith(("edge detect", "edge model", "edge replay"))]
    assert len(lines) == 3
    printed = [run(line, tmp_path) for line in lines]
    assert "person" in printed[0]
    assert "centernet" in printed[1]
    assert "30 frames" in printed[2]
    assert (tmp_path / "found" / "detections.jsonl").is_file()


def test_the_help_of_a_group_that_is_a_command_too_is_whole() -> None:
    """A short help given to the group would stand in place of its docstring."""
    told = typer.main.get_command(hub.cli.app).commands["weakspots"].help
    assert "Life: open, batched" in told
