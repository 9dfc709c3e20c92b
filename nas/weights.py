"""The data, the network and the weights of a run, as they were."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from nas.config import IN_PYTHON, Training
from nas.spec import SpaceLike, network_for, space_fingerprint
from search_spaces.space import SearchSpace
from supernet.checkpoint import FILE_NAME, load_averaged_
from supernet.data import Dataset, load_data


def run_data(settings: Training, given: Dataset | None = None) -> Dataset:
    """The data of a run: those given, else what its settings name.

    Raises:
        ValueError: they are not to be had, or are not (or no longer) those of the run.
    """
    if given is None and settings.data.startswith(IN_PYTHON):
        raise ValueError(f"the run's data were given in Python ({settings.data}): use the methods of its result there")
    dataset = given or load_data(settings.data, image_size=settings.image_size)
    if dataset.fingerprint != settings.data_fingerprint:
        raise ValueError(f"data {settings.data!r} are not those of the run, or have changed since")
    return dataset


def trained_network(
    folder: Path, settings: Training, dataset: Dataset, space: SpaceLike | None = None
) -> tuple[nn.Module, SearchSpace]:
    """The network of a run with its averaged weights, and its space.

    Args:
        space: the class, for a space of one's own that was given as such.

    Raises:
        ValueError: the space has changed since.
    """
    like = space or settings.space
    network, found = network_for(settings, like, dataset)
    if space_fingerprint(like, network, found) != settings.space_fingerprint:
        raise ValueError(f"the space {settings.space} has changed since the run in {folder}: its weights do not fit")
    load_averaged_(network, folder / FILE_NAME)
    return network, found
