"""The device profile of a space: blocks and whole networks measured, a latency model fitted and checked.

Speed does not depend on weight values, so everything is measured with weights drawn from a fixed seed: equal
structures are equal files, and the measurement store serves them to every run, whatever it trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from nas.anatomy import Anatomy
from nas.candidate import with_policy
from nas.executed import EXECUTED, executed_metrics
from nas.progress import Stage
from predictors.block_table import BlockTable, fit_block_table
from predictors.ranking import Agreement, agreement
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.policy import policy_of, uniform
from search_spaces.network import extract
from search_spaces.space import INDEX, Architecture

BLOCKS = 72  # measured alone; the others are modelled
NETWORKS = 24  # measured whole: two thirds for the correction, the others to check it
_SAMPLED = 60  # architectures whose blocks are drawn from
_CALIBRATION = 16  # images that int8 ranges come from here
_LEAST_S = 1e-7  # what a block that computes nothing still counts


@dataclass(frozen=True, eq=False)
class Profile:
    """A fitted latency model and how well it did on networks it had not seen.

    Args:
        table: corrected on all measured networks.
        held_out: of the model; `macs_only` and `block_sum` are what a line through MACs, and block times
            without correction, achieve on the same networks.
        points: (predicted, measured) seconds of each held-out network.
        population, size_bytes: all measured networks (n, d), and the sizes of their files (n,).
        blocks, networks: how many were measured for fitting.
        executed: metrics of `nas.executed` of all measured networks (n,), by name; empty where nobody asked.
    """

    table: BlockTable
    held_out: Agreement
    macs_only: Agreement
    block_sum: Agreement
    points: tuple[tuple[float, float], ...]
    population: np.ndarray
    size_bytes: np.ndarray
    blocks: int
    networks: int
    executed: Mapping[str, np.ndarray] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON for the record of the run."""
        return {
            "blocks": self.blocks,
            "networks": self.networks,
            "held_out": self.held_out.plain(),
            "macs_only": self.macs_only.plain(),
            "block_sum": self.block_sum.plain(),
            "points": [{"predicted_s": p, "measured_s": m} for p, m in self.points],
        }


class Profiler:
    """Measures blocks and networks of one space on one device.

    Args:
        executed: whether to find the metrics of `nas.executed` of the networks too.
    """

    def __init__(
        self,
        network: nn.Module,
        anatomy: Anatomy,
        image_shape: tuple[int, ...],
        device: Device,
        store: MeasurementStore,
        executed: bool = False,
    ) -> None:
        self._network, self._anatomy, self._image_shape = network, anatomy, image_shape
        self._device, self._store, self._executed = device, store, executed

    def run(self, seed: int, stage: Stage) -> Profile:
        """Measures, fits and checks; what the store holds is not measured again."""
        stage.expect(BLOCKS + NETWORKS)
        table = fit_block_table(self._measure_blocks(np.random.default_rng([seed, 1]), stage))
        archs = list(dict.fromkeys(self._networks(NETWORKS, np.random.default_rng([seed, 2]))))
        placed = [self._anatomy.placed(arch) for arch in archs]
        files = [self._file(arch, stage) for arch in archs]
        seconds = np.array([self._seconds(file) for file in files])
        held_out_networks = max(1, len(archs) // 3)
        fit, check = slice(0, -held_out_networks), slice(-held_out_networks, None)
        if len(archs) == 1:  # nothing to hold out
            fit = check
        fitted = table.corrected(placed[fit], seconds[fit])
        predicted = fitted.predict(placed[check]).mean
        macs = np.array([sum(block.counts.macs for block, _ in network) for network in placed], dtype=float)
        line = np.polynomial.Polynomial.fit(macs[fit], seconds[fit], 1 if np.ptp(macs[fit]) else 0)
        held_out = agreement(predicted, seconds[check])
        stage.say(f"held-out error {100 * held_out.mape:.1f} %")
        return Profile(
            table=table.corrected(placed, seconds),
            held_out=held_out,
            macs_only=agreement(line(macs[check]), seconds[check]),
            block_sum=agreement(table.predict(placed[check]).mean, seconds[check]),
            points=tuple(zip(predicted.tolist(), seconds[check].tolist(), strict=True)),
            population=np.array([arch.indices for arch in archs], dtype=INDEX),
            size_bytes=np.array([len(file) for file in files], dtype=float),
            blocks=len(table.seconds),
            networks=len(archs) - held_out_networks,
            executed=self._find_executed(files),
        )

    def _find_executed(self, files: Sequence[bytes]) -> dict[str, np.ndarray]:
        found = [executed_metrics(file, self._device) for file in files] if self._executed else []
        return {name: np.array([metrics[name] for metrics in found]) for name in EXECUTED if found}

    def _measure_blocks(self, rng: np.random.Generator, stage: Stage) -> list[tuple[TracedBlock, str, float]]:
        """Isolated blocks of random architectures, without what a call costs by itself."""
        call_s = self._seconds(to_onnx(nn.Identity(), self._image_shape).SerializeToString())
        measured = []
        for block, precision, module in self._sampled_blocks(rng):
            model = to_onnx(module, block.input_shape)
            if precision == "int8":
                images = _noise(block.input_shape)
                model = quantize(model, [node.name for node in model.graph.node], activation_ranges(model, images))
            measured.append((block, precision, max(self._seconds(model.SerializeToString()) - call_s, _LEAST_S)))
            stage.advance()
        return measured

    def _sampled_blocks(self, rng: np.random.Generator) -> list[tuple[TracedBlock, str, nn.Module]]:
        """Up to `BLOCKS` different (structure, precision) pairs, with a module for each."""
        found: dict[tuple[str, str], tuple[TracedBlock, str, Architecture]] = {}
        for arch in self._networks(_SAMPLED, rng):
            for block, precision in self._anatomy.placed(arch):
                found.setdefault((block.structure, precision), (block, precision, arch))
        keys = list(found)
        order = [keys[i] for i in rng.permutation(len(keys))]
        first = {precision: key for key in reversed(order) for precision in key[1:]}  # one at least of each precision
        picked = [found[key] for key in list(dict.fromkeys([*first.values(), *order]))[:BLOCKS]]
        modules: dict[Architecture, Mapping[str, nn.Module]] = {}
        for _, _, arch in picked:
            if arch not in modules:
                modules[arch] = block_modules(self._network, arch, self._anatomy.tracer.blocks)
        return [(block, precision, neutral_(modules[arch][block.name])) for block, precision, arch in picked]

    def _networks(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Random architectures: half with random policies, the others all in one precision."""
        space, precisions = self._anatomy.space, self._anatomy.precisions
        kinds = (None, precisions[0], None, precisions[-1])
        archs = map(space.row, space.sample(n, rng))
        return [a if (p := kinds[i % 4]) is None else uniform(a, p) for i, a in enumerate(archs)]

    def _file(self, arch: Architecture, stage: Stage) -> bytes:
        anatomy = self._anatomy
        model = neutral_model(self._network, anatomy.tracer, arch, anatomy.precisions, self._image_shape)
        stage.advance()
        return model.SerializeToString()

    def _seconds(self, file: bytes) -> float:
        return measure_models([file], self._device, QUICK, self._store)[0].undisturbed.median_s


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
            fan_in = max(1, parameter[0].numel()) if parameter.dim() else 1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
            elif name.endswith("running_var"):
                buffer.fill_(1.0)
    return module


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((_CALIBRATION, *shape)).astype(np.float32)
