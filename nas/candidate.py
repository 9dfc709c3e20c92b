"""From an architecture and its policy to the ONNX file that will be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from torch import nn

from latency.blocks import BlockTracer
from latency.lowering import nodes_of, to_onnx
from quant_search.layer_rounding import round_layers_
from quant_search.policy import policy_of
from quant_search.ranges import activation_ranges, neutral_ranges
from quant_search.realise import in_precisions, nodes_in_int8
from search_spaces.network import Block, extract
from search_spaces.space import Architecture
from supernet.calibrate import calibrate_, calibration_images
from supernet.data import Dataset

RANGE_IMAGES = 128  # training images that activation ranges are taken from


@dataclass(frozen=True)
class Candidate:
    """One architecture as a file.

    Args:
        model: the bytes of the ONNX file.
        policy: block name to precision.
    """

    arch: Architecture
    model: bytes
    policy: Mapping[str, str]
    macs: int
    parameters: int


class Builder:
    """Makes the files of one trained supernet; batch norms and activations are calibrated on training images."""

    def __init__(self, network: nn.Module, tracer: BlockTracer, dataset: Dataset, precisions: Sequence[str]) -> None:
        self._network, self._tracer, self._dataset = network, tracer, dataset
        self._precisions = tuple(precisions)
        self._images = calibration_images(dataset)

    def network(self, arch: Architecture, policy: Mapping[str, str] | None = None) -> nn.Module:
        """The plain torch network of `arch` in fp32, calibrated, in eval mode.

        Args:
            policy: block name to the precision in which weights are while batch norms are calibrated; fp32 by default.
                Norms whose statistics are those of fp32 weights shift what weights of four bits or fewer compute.
        """
        plain = extract(self._network, arch)
        give_back = round_layers_(plain, self._tracer.blocks, policy or {}, activations=False)
        calibrate_(plain, self._images)
        give_back()
        return plain

    def build(self, arch: Architecture) -> Candidate:
        """The file of `arch`; the same weights give the same bytes.

        Raises:
            ValueError: the network has no ONNX form.
        """
        policy = policy_of(arch, self._tracer.blocks, self._precisions)
        model = to_onnx(self.network(arch, policy), self._dataset.image_shape)
        model = with_policy(model, self._tracer.blocks, policy, self._images)
        traced = self._tracer.trace(arch)
        macs, parameters = (sum(getattr(b.counts, name) for b in traced) for name in ("macs", "parameters"))
        return Candidate(arch, model.SerializeToString(), policy, macs, parameters)


def with_policy(
    model: onnx.ModelProto, blocks: Sequence[Block], policy: Mapping[str, str], images: np.ndarray | None
) -> onnx.ModelProto:
    """`model` with each block in the precision that `policy` sets it to.

    Args:
        images: (n, c, h, w) that activations are calibrated on; None for a file of which only the speed counts.
    """
    lower = {block.name: block.members for block in blocks if policy.get(block.name, "fp32") != "fp32"}
    if not lower:
        return model
    groups = {name: nodes_of(model, members) for name, members in lower.items()}
    nodes = nodes_in_int8(groups, policy := {name: policy[name] for name in groups})
    ranges = neutral_ranges(model) if images is None else activation_ranges(model, images[:RANGE_IMAGES], nodes=nodes)
    return in_precisions(model, groups, policy, ranges, pack=True)
