"""Live progress of a run's stages, with time left, on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Stage(Protocol):
    """One stage under way."""

    def advance(self, done: float = 1) -> None:
        """Counts `done` more of the stage's total."""
        ...

    def expect(self, total: float) -> None:
        """Sets the total, once it is known."""
        ...

    def say(self, text: str) -> None:
        """Shows the newest finding of the stage beside its bar."""
        ...


class Reporter(Protocol):
    """Where the stages of a run report to."""

    def stage(self, name: str, total: float | None = None) -> AbstractContextManager[Stage]:
        """A context in which the stage `name` runs."""
        ...

    def message(self, view: RenderableType) -> None:
        """Something that stays: a line or a table."""
        ...


class _Silent:
    """A stage that tells nobody."""

    def advance(self, done: float = 1) -> None:
        """Nothing is shown."""

    def expect(self, total: float) -> None:
        """Nothing is shown."""

    def say(self, text: str) -> None:
        """Nothing is shown."""


class SilentReporter:
    """Shows nothing: for `--quiet`, and `quiet=True` of the Python API."""

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Stage]:
        """A stage that tells nobody."""
        yield _Silent()

    def message(self, view: RenderableType) -> None:
        """Nothing is shown."""


class _Bar:
    """A stage shown as a bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, done: float = 1) -> None:
        self._progress.advance(self._task, done)

    def expect(self, total: float) -> None:
        self._progress.update(self._task, total=total)

    def say(self, text: str) -> None:
        self._progress.update(self._task, note=text)


class LiveReporter:
    """One bar per stage, each with its count, time and time left; a plain line per stage where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
            refresh_per_second=4,
        )

    def __enter__(self) -> LiveReporter:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Stage]:
        """A bar that counts up to `total`."""
        task = self._progress.add_task(name, total=total, note="")
        yield _Bar(self._progress, task)
        state = next(t for t in self._progress.tasks if t.id == task)
        self._progress.update(task, total=state.total or 1, completed=state.total or 1)
        if not self._console.is_terminal:
            line = f"{name}: {state.elapsed or 0:.1f} s {state.fields['note']}".rstrip()
            self._console.print(line, highlight=False, markup=False)

    def message(self, view: RenderableType) -> None:
        """Above the bars."""
        self._progress.console.print(view, highlight=False, markup=False)
