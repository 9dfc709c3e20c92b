"""Where a command's results and progress go: standard output, standard error, JSON or nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from nas.progress import Reporter


def check_file(out: Path | None) -> None:
    """Refuses a file that could not be written, before any work is done for it.

    Raises:
        ValueError: a folder, or a place where no file can be made.
    """
    if out is None:
        return
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file with --out")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ValueError(f"{out} cannot be written ({parent} is no folder of yours): name another file with --out")


@dataclass(frozen=True)
class Output:
    """Where a command's results and progress go."""

    as_json: bool
    quiet: bool
    # Asked before the bars begin: they put a stand-in in the place of standard output.
    on_terminal: bool = field(default_factory=lambda: sys.stdout.isatty() and sys.stderr.isatty())

    def show(self, view: RenderableType) -> None:
        """Something for a person: on standard output, or standard error beside JSON."""
        if not self.quiet:
            Console(stderr=self.as_json).print(view, highlight=False)

    def amid(self, view: RenderableType, reporter: Reporter) -> None:
        """Something for a person while bars are shown: above them on a terminal, else as `show`."""
        if self.on_terminal:
            reporter.message(view)
        else:
            self.show(view)

    def result(self, content: Mapping[str, Any], view: RenderableType) -> None:
        """The result of the command."""
        if self.as_json:
            sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")
        self.show(view)

    @contextmanager
    def reporter(self) -> Iterator[Reporter]:
        """Where the stages of a run show their progress."""
        from nas.progress import LiveReporter, SilentReporter

        if self.quiet:
            yield SilentReporter()
        else:
            with LiveReporter(Console(stderr=True)) as live:
                yield live
