"""What `hub train` shows while it works, on stderr: one bar on a terminal, and a line where there is news."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hub.train.course import Watch
from hub.train.estimate import Estimate
from hub.train.lines import estimate_line
from hub.train.stopping import Stop


class Screen:
    """Bars and lines."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._task = progress.add_task("", total=None, parts="", visible=False)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, what: str, done: int, total: int) -> None:
        """Show how far something is."""
        self._progress.update(self._task, description=what, completed=done, total=total, parts="", visible=True)

    def wait(self, what: str) -> None:
        """Show that something is done whose end cannot be told."""
        self._progress.remove_task(self._task)  # a total cannot be taken away from it
        self._task = self._progress.add_task(what, total=None, parts="")

    def watch(self, stop: Stop) -> Watch:
        """Return who looks on at a training."""
        return Watch(said=self.wait, estimated=self._estimated, stepped=self._stepped, stop=stop)

    def _estimated(self, estimate: Estimate) -> None:
        if estimate.steps:
            self.say(estimate_line(estimate))

    def _stepped(self, done: int, steps: int, parts: Mapping[str, float]) -> None:
        shown = " ".join(f"{name} {value:.3g}" for name, value in parts.items())
        self._progress.update(self._task, description="training", completed=done, total=steps, parts=shown)


@contextmanager
def on_screen() -> Iterator[Screen]:
    """Show progress on stderr for the time of the block; the bar on a terminal only."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[parts]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Screen(console, progress)
