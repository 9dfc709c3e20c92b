"""Where a command's results and progress go: standard output, standard error, JSON or nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from nas.progress import Reporter


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
