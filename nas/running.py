"""Which kind of run a search is: on a device that is here or by a profile, in a supernet or as it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.absent import run_absent
from nas.config import Settings
from nas.pipeline import OnSpace, run
from nas.progress import Reporter
from nas.relaxed import check_relaxed, is_relaxed, relaxed_stages
from nas.spec import SpaceLike
from supernet.data import Dataset


def run_search(
    settings: Settings,
    space: SpaceLike,
    dataset: Dataset,
    folder: Path,
    reporter: Reporter,
    on_space: OnSpace = lambda _: None,
    remeasure: bool = False,
) -> dict[str, Any]:
    """Does the run that the settings ask for, or what is left of it; arguments and errors as of `nas.pipeline.run`."""
    if settings.profile is not None:
        return run_absent(settings, space, dataset, folder, reporter, on_space)
    if is_relaxed(settings):
        return run(settings, space, dataset, folder, reporter, on_space, remeasure, relaxed_stages, check_relaxed)
    return run(settings, space, dataset, folder, reporter, on_space, remeasure)
