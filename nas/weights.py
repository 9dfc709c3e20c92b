"""The data, the network and the weights of a run, as they were."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from nas.config import IN_PYTHON, Training
from nas.spec import SpaceLike, build_network, space_fingerprint
from search_spaces.elastic import add_kernel_transforms_
from search_spaces.space import SearchSpace
from supernet.checkpoint import FILE_NAME, averaged_weights, load_checkpoint
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
    network, found = build_network(like, dataset.image_shape, dataset.num_classes, settings.preset, settings.seed)
    if space_fingerprint(like, network, found) != settings.space_fingerprint:
        raise ValueError(f"the space {settings.space} has changed since the run in {folder}: its weights do not fit")
    load_weights_(network, folder)
    return network, found


def load_weights_(network: nn.Module, folder: Path) -> None:
    """Gives a freshly built network the averaged weights of the training in `folder`, kernel transforms included."""
    weights = averaged_weights(load_checkpoint(folder / FILE_NAME))
    if weights.keys() - network.state_dict().keys():
        add_kernel_transforms_(network)
    network.load_state_dict(weights)
