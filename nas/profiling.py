"""The device profile of a space: blocks and whole networks measured, a latency model fitted and checked.

Speed does not depend on weight values, so everything is measured with weights drawn from a fixed seed: equal
structures are equal files, and the measurement store serves them to every run, whatever it trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from latency.blocks import BlockTracer, TracedBlock, block_modules
from latency.device import Device
from latency.harness import QUICK, measure_models
from latency.lowering import to_onnx
from latency.store import MeasurementStore
from nas.candidate import with_policy
from nas.progress import Stage
from predictors.block_table import BlockTable, Placed, fit_block_table
from predictors.ranking import Agreement, agreement
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.policy import policy_of, uniform
from search_spaces.network import extract
from search_spaces.space import Architecture, SearchSpace

BLOCKS = 120  # measured alone; the others are modelled
FITTED, HELD_OUT = 16, 8  # whole networks for the correction, and to check it
_SAMPLED = 60  # architectures whose blocks are drawn from
_CALIBRATION = 16  # images that int8 ranges come from here
_LEAST_S = 1e-7  # what a block that computes nothing still counts


@dataclass(frozen=True)
class Profile:
    """A fitted latency model and how well it did on networks it had not seen.

    Args:
        held_out: of the model; `macs_only` and `block_sum` are what a line through MACs, and block times
            without correction, achieve on the same networks.
        points: (predicted, measured) seconds of each held-out network.
        blocks, networks: how many were measured for fitting.
    """

    table: BlockTable
    held_out: Agreement
    macs_only: Agreement
    block_sum: Agreement
    points: tuple[tuple[float, float], ...]
    blocks: int
    networks: int

    def plain(self) -> dict[str, Any]:
        """As JSON for the record of the run."""
        return {
            "blocks": self.blocks,
            "networks": self.networks,
            "held_out": asdict(self.held_out),
            "macs_only": asdict(self.macs_only),
            "block_sum": asdict(self.block_sum),
            "points": [{"predicted_s": p, "measured_s": m} for p, m in self.points],
        }


class Profiler:
    """Measures blocks and networks of one space on one device."""

    def __init__(
        self,
        network: nn.Module,
        space: SearchSpace,
        tracer: BlockTracer,
        precisions: Sequence[str],
        image_shape: tuple[int, ...],
        device: Device,
        store: MeasurementStore,
    ) -> None:
        self._network, self._space, self._tracer = network, space, tracer
        self._precisions, self._image_shape = tuple(precisions), image_shape
        self._device, self._store = device, store

    def placed(self, arch: Architecture) -> list[Placed]:
        """The blocks of an architecture, each with its precision."""
        return place(self._tracer, arch, self._precisions)

    def run(self, seed: int, stage: Stage) -> Profile:
        """Measures, fits and checks; what the store holds is not measured again."""
        stage.expect(BLOCKS + FITTED + HELD_OUT)
        table = fit_block_table(self._measure_blocks(np.random.default_rng([seed, 1]), stage))
        archs = self._networks(FITTED + HELD_OUT, np.random.default_rng([seed, 2]))
        placed = [self.placed(arch) for arch in archs]
        seconds = np.array([self._measure_network(arch, stage) for arch in archs])
        fit, check = slice(0, FITTED), slice(FITTED, None)
        fitted = table.corrected(placed[fit], seconds[fit])
        predicted = fitted.predict(placed[check]).mean
        macs = np.array([sum(block.counts.macs for block, _ in network) for network in placed], dtype=float)
        line = np.polyfit(macs[fit], seconds[fit], 1)
        held_out = agreement(predicted, seconds[check])
        stage.say(f"held-out error {100 * held_out.mape:.1f} %")
        return Profile(
            table=table.corrected(placed, seconds),
            held_out=held_out,
            macs_only=agreement(np.polyval(line, macs[check]), seconds[check]),
            block_sum=agreement(table.predict(placed[check]).mean, seconds[check]),
            points=tuple(zip(predicted.tolist(), seconds[check].tolist(), strict=True)),
            blocks=len(table.seconds),
            networks=FITTED,
        )

    def _measure_blocks(self, rng: np.random.Generator, stage: Stage) -> list[tuple[TracedBlock, str, float]]:
        """Isolated blocks of random architectures, without what a call costs by itself."""
        call_s = self._seconds(to_onnx(nn.Identity(), self._image_shape))
        measured = []
        for block, precision, module in self._sampled_blocks(rng):
            model = to_onnx(module, block.input_shape)
            if precision == "int8":
                images = _noise(block.input_shape)
                model = quantize(model, [node.name for node in model.graph.node], activation_ranges(model, images))
            measured.append((block, precision, max(self._seconds(model) - call_s, _LEAST_S)))
            stage.advance()
        return measured

    def _sampled_blocks(self, rng: np.random.Generator) -> list[tuple[TracedBlock, str, nn.Module]]:
        """Up to `BLOCKS` different (structure, precision) pairs, with a module for each."""
        found: dict[tuple[str, str], tuple[TracedBlock, str, Architecture]] = {}
        for arch in self._networks(_SAMPLED, rng):
            for block, precision in self.placed(arch):
                found.setdefault((block.structure, precision), (block, precision, arch))
        keys = list(found)
        picked = [found[keys[i]] for i in rng.permutation(len(keys))[:BLOCKS]]
        modules: dict[Architecture, Mapping[str, nn.Module]] = {}
        for _, _, arch in picked:
            if arch not in modules:
                modules[arch] = block_modules(self._network, arch, self._tracer.blocks)
        return [(block, precision, neutral_(modules[arch][block.name])) for block, precision, arch in picked]

    def _networks(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Random architectures: half with random policies, the others all in one precision."""
        archs = [self._space.row(row) for row in self._space.sample(n, rng)]
        kinds = (None, self._precisions[0], None, self._precisions[-1])
        return [a if (p := kinds[i % 4]) is None else uniform(a, p) for i, a in enumerate(archs)]

    def _measure_network(self, arch: Architecture, stage: Stage) -> float:
        model = neutral_model(self._network, self._tracer, arch, self._precisions, self._image_shape)
        stage.advance()
        return self._seconds(model)

    def _seconds(self, model: onnx.ModelProto) -> float:
        return measure_models([model.SerializeToString()], self._device, QUICK, self._store)[0].timing.median_s


def place(tracer: BlockTracer, arch: Architecture, precisions: Sequence[str]) -> list[Placed]:
    """The blocks of an architecture in order, each with its precision; blocks without weights are fp32."""
    policy = policy_of(arch, tracer.blocks, precisions)
    return [(block, policy.get(block.name, "fp32")) for block in tracer.trace(arch)]


def neutral_model(
    network: nn.Module, tracer: BlockTracer, arch: Architecture, precisions: Sequence[str], shape: tuple[int, ...]
) -> onnx.ModelProto:
    """The file of an untrained architecture for images of `shape` (c, h, w): as fast and as large as a trained one."""
    model = to_onnx(neutral_(extract(network, arch)), shape)
    return with_policy(model, tracer.blocks, policy_of(arch, tracer.blocks, precisions), _noise(shape))


def neutral_(module: nn.Module) -> nn.Module:
    """Fills weights and statistics from a fixed seed, in place; no two values are equal by accident of training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel())
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
            elif name.endswith("running_var"):
                buffer.fill_(1.0)
    return module


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((_CALIBRATION, *shape)).astype(np.float32)
