"""Whether a device runs the networks of a space at all: told from their files, before anything is trained or timed."""

from __future__ import annotations

import numpy as np
from torch import nn

from latency.device import Device, baseline_of, entry_of
from latency.runtimes.opening import check_covered
from nas.anatomy import Anatomy
from nas.profiling import neutral_model
from nas.progress import Reporter

_DRAWN = 8  # random networks; a choice that most others do not hide is among them in every option


def check_space_covered(
    network: nn.Module, anatomy: Anatomy, image_shape: tuple[int, ...], device: Device, seed: int, reporter: Reporter
) -> None:
    """Refuses a space with networks that the device's kernels do not cover, where a device has such kernels.

    Looked at are the smallest, the middle and the largest network, and a few at random; where one of the others turns
    out not to be covered, a search counts it as failed, and a profile leaves it out.

    Raises:
        ValueError: with the nodes of the first network that is not covered, and what to do.
    """
    if not entry_of(device).networks_only:
        return
    space, rng = anatomy.space, np.random.default_rng([seed, 5])
    drawn = map(space.row, space.sample(_DRAWN, rng))
    archs = list(dict.fromkeys((space.smallest(), space.scaled(0.5), space.largest(), *drawn)))
    refused: list[str] = []
    with reporter.stage("kernels", len(archs)) as stage:
        for arch in archs:
            model = neutral_model(network, anatomy.tracer, arch, anatomy.precisions, tuple(image_shape))
            try:
                check_covered(model.SerializeToString(), device)
            except ValueError as error:
                refused.append(str(error))
            stage.advance()
    if refused:
        other = baseline_of(device)
        raise ValueError(
            f"{len(refused)} of {len(archs)} networks of the space do not run on {device.name} ({refused[0]}): leave "
            f"these operators out of the space, or give --device {other.name if other else 'cpu'}"
        )
