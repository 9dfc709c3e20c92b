"""What a finished run knows that another device does not change, and its latency model of its own device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from latency.blocks import BlockTracer
from nas.anatomy import Anatomy
from nas.config import Settings
from nas.device_profile import fit_profile
from nas.folder import JOURNAL, PROFILE, read_record, read_settings
from nas.inherit import FILE as INHERITED
from nas.inherit import read_inherited
from nas.journal import Journal
from nas.objectives import Evaluation
from nas.predict import HardwarePredictor, Inherited, fit_hardware
from nas.profile_data import read_profile
from nas.spec import SpaceLike
from nas.weights import trained_network
from quant_search.policy import joint_space
from search_spaces.network import find_blocks
from search_spaces.space import INDEX, Architecture, SearchSpace
from supernet.checkpoint import FILE_NAME
from supernet.data import Dataset


@dataclass(frozen=True, eq=False)
class Known:
    """A finished run.

    Args:
        network: with the trained shared weights.
        architectures: the space without policies.
        anatomy: of the run's joint space.
        evaluations: all of the search and its baselines.
        hardware: what the run's device costs, predicted.
    """

    folder: Path
    settings: Settings
    record: dict[str, Any]
    network: nn.Module
    architectures: SearchSpace
    anatomy: Anatomy
    evaluations: tuple[Evaluation, ...]
    inherited: Inherited
    hardware: HardwarePredictor

    @property
    def device(self) -> str:
        """The name of the run's device."""
        return self.settings.device

    @property
    def fingerprint(self) -> str:
        """Of the run's device."""
        return str(self.record["device"]["fingerprint"])

    def lifted(self, population: np.ndarray) -> np.ndarray:
        """Rows of the joint space, or of architectures alone (n, d'), then in the most bits, as joint rows (n, d)."""
        if population.shape[1] == len(self.anatomy.space):
            return population
        return self.anatomy.in_most_bits(population)

    def inherited_in(self, space: SearchSpace) -> Inherited:
        """The inherited accuracies, of the most bits, in `space`: the joint space, or that of architectures alone."""
        return Inherited(self.inherited.population[:, : len(space)], self.inherited.val_accuracy)

    def seen_in(self, space: SearchSpace) -> list[tuple[Architecture, Evaluation]]:
        """The evaluations in `space`: the joint space, or that of architectures alone (those in the most bits)."""
        found = {}
        for evaluation in self.evaluations:
            row = np.array([evaluation.arch.indices], dtype=INDEX)
            if np.array_equal(self.lifted(row[:, : len(space)]), row):
                found[space.row(row[0, : len(space)])] = evaluation
        return list(found.items())


def read_known(folder: Path, dataset: Dataset, space: SpaceLike | None = None) -> Known:
    """Reads a finished run; nothing is measured or trained, and its folder stays as it is.

    Args:
        dataset: that of the run.
        space: the class, for a space of one's own that was given as such.

    Raises:
        ValueError: no finished run, a file of it is missing or damaged, or the space has changed since.
    """
    record, settings = read_record(folder), read_settings(folder)
    for name in (PROFILE, JOURNAL, INHERITED, FILE_NAME):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} lacks {name}, which `nas search` writes: give the folder of a search, whole")
    network, architectures = trained_network(folder, settings, dataset, space)
    joint = joint_space(architectures, find_blocks(network), settings.precisions)
    anatomy = Anatomy(joint, BlockTracer(network, dataset.image_shape), settings.precisions)
    evaluations = Journal(folder / JOURNAL, "search", joint, settings.problem).evaluations
    timed = evaluations if settings.profile is None else ()  # else their latencies are the profile's own predictions
    profile = fit_profile(read_profile(folder / PROFILE), anatomy)
    accuracies: dict[str, float] = json.loads((folder / INHERITED).read_text())
    return Known(
        folder=folder,
        settings=settings,
        record=record,
        network=network,
        architectures=architectures,
        anatomy=anatomy,
        evaluations=tuple(evaluations),
        inherited=read_inherited(accuracies, anatomy),
        hardware=fit_hardware(anatomy, profile, timed),
    )
