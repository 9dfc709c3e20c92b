"""What predictors see of an architecture: its placed blocks, its counts, and its features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from latency.blocks import BlockTracer
from predictors.block_table import Placed
from quant_search.policy import PRECISIONS, SUFFIX, policy_of
from quant_search.precision import bit_operations, kind_of, stored_bytes
from search_spaces.encoding import one_hot
from search_spaces.space import INDEX, Architecture, SearchSpace

_COST_WEIGHT = 4  # columns of each logarithm: a cost says as much as the options of a few choices together


class Anatomy:
    """Looks into the architectures of a joint space, into each one once.

    Args:
        space: of architectures, or of architectures and policies.
        tracer: of the network that realises it.
        precisions: what blocks may have.
    """

    def __init__(self, space: SearchSpace, tracer: BlockTracer, precisions: Sequence[str]) -> None:
        self.space, self.tracer, self.precisions = space, tracer, tuple(precisions)
        self._counts: dict[bytes, np.ndarray] = {}
        self._macs: dict[bytes, np.ndarray] = {}
        self._operations: dict[bytes, np.ndarray] = {}
        self._activations: dict[bytes, np.ndarray] = {}

    @property
    def policy_columns(self) -> tuple[int, ...]:
        """Which choices of the space are precisions."""
        names = enumerate(choice.name for choice in self.space.choices)
        return tuple(j for j, name in names if name.endswith(SUFFIX))

    def joined(
        self, arch: Architecture | Mapping[str, Any], policy: str | Mapping[str, str] | None = None
    ) -> Architecture:
        """An architecture with a policy as a point of the space.

        Args:
            arch: of the space or of its architecture factor, or options by name.
            policy: one precision for all blocks, or block name to precision; by default what `arch` says, and the
                first precision where it says nothing.

        Raises:
            ValueError: options, blocks or precisions that the space does not have.
        """
        values = dict(arch.values if isinstance(arch, Architecture) else arch)
        names = [c.name for c in self.space.choices if c.name.endswith(SUFFIX)]
        blocks = {name.removesuffix(SUFFIX) for name in names}
        wanted = dict.fromkeys(blocks, policy) if isinstance(policy, str) else dict(policy or {})
        for block, precision in wanted.items():
            if precision not in self.precisions:
                raise ValueError(f"precision {precision!r} is not among those profiled: {', '.join(self.precisions)}")
            if block not in blocks and len(self.precisions) > 1:
                raise ValueError(f"there is no block {block!r}: there are {', '.join(sorted(blocks))}")
        given = {f"{block}{SUFFIX}": precision for block, precision in wanted.items()} if names else {}
        start = {**self.space.smallest().assignment, **dict.fromkeys(names, self.precisions[0])}
        return self.space.architecture({**start, **values, **given})

    def placed(self, arch: Architecture) -> list[Placed]:
        """The blocks of an architecture in order, each with the precision whose kernels it runs in.

        Blocks without weights are fp32.
        """
        return [(block, kind_of(precision)) for block, precision in self._precise(arch)]

    def _precise(self, arch: Architecture) -> list[Placed]:
        """The blocks in order, each with its own precision."""
        policy = policy_of(arch, self.tracer.blocks, self.precisions)
        return [(block, policy.get(block.name, "fp32")) for block in self.tracer.trace(arch)]

    def placed_rows(self, population: np.ndarray) -> list[list[Placed]]:
        """The placed blocks of each row of a population (n, d)."""
        return [self.placed(arch) for arch in self._architectures(population)]

    def in_most_bits(self, population: np.ndarray) -> np.ndarray:
        """Rows (n, d') of the architecture factor as rows (n, d) of the space, each block in what has most bits.

        That is the last of a block's options, which are listed from cheap to dear.
        """
        most = [len(choice.options) - 1 for choice in self.space.choices[population.shape[1] :]]
        policies = np.tile(np.array(most, dtype=INDEX), (len(population), 1))
        return self.space.canonical(np.column_stack([population, policies]))

    def counts(self, population: np.ndarray) -> np.ndarray:
        """MACs, parameters, bytes of fp32 and of quantized parameters, layers (n, 5)."""
        return self._each(population, self._counts, _count).reshape(-1, 5)

    def kinds_of_macs(self, population: np.ndarray) -> np.ndarray:
        """MACs in fp32 and in int8 (n, 2)."""
        return self._each(population, self._macs, _count_macs).reshape(-1, 2)

    def bit_operations(self, population: np.ndarray) -> np.ndarray:
        """Of one image (n,): for each MAC the bits of its weight times those of its activation."""
        return self._each(population, self._operations, _count_operations).reshape(-1)

    def activations(self, population: np.ndarray) -> np.ndarray:
        """Bytes of fp32 activations, of int8 ones, of h-swish in int8 blocks, and of the block with most (n, 4).

        What a quantized graph computes of h-swish stays in fp32.
        """
        return self._each(population, self._activations, _count_activations).reshape(-1, 4)

    def _each(
        self, population: np.ndarray, known: dict[bytes, np.ndarray], count: Callable[[Sequence[Placed]], np.ndarray]
    ) -> np.ndarray:
        keys = [row.tobytes() for row in population]
        for key, row in zip(keys, population, strict=True):
            if key not in known:
                known[key] = count(self._precise(next(self._architectures(row[None]))))
        return np.array([known[key] for key in keys])

    def features(self, population: np.ndarray) -> np.ndarray:
        """One-hot choices beside the logarithms of MACs and parameters (n, f)."""
        logs = np.repeat(self.cost_logs(population), _COST_WEIGHT, axis=1)
        return np.column_stack([one_hot(self.space, population), logs])

    def cost_logs(self, population: np.ndarray) -> np.ndarray:
        """The logarithms of MACs and parameters (n, 2)."""
        logs: np.ndarray = np.log(self.counts(population)[:, :2] + 1)
        return logs

    def _architectures(self, population: np.ndarray) -> Iterator[Architecture]:
        return (Architecture(self.space, tuple(row)) for row in population.tolist())


def _count(placed: Sequence[Placed]) -> np.ndarray:
    macs, parameters, fp32, codes, layers = 0, 0, 0, 0.0, 0
    for block, precision in placed:
        macs += block.counts.macs
        layers += block.counts.layers
        parameters += block.counts.parameters
        if precision == "fp32":
            fp32 += 4 * block.counts.parameters
        else:
            codes += stored_bytes(precision) * block.counts.parameters
    return np.array([macs, parameters, fp32, codes, layers], dtype=float)


def _count_macs(placed: Sequence[Placed]) -> np.ndarray:
    return np.array([sum(b.counts.macs for b, precision in placed if kind_of(precision) == p) for p in PRECISIONS])


def _count_operations(placed: Sequence[Placed]) -> np.ndarray:
    return np.array([float(sum(block.counts.macs * bit_operations(precision) for block, precision in placed))])


def _count_activations(placed: Sequence[Placed]) -> np.ndarray:
    parts = np.zeros((len(placed), 3))
    for i, (block, precision) in enumerate(placed):
        fp32 = kind_of(precision) == "fp32"
        elements, hswish = block.counts.activation_elements, block.counts.hswish_elements
        parts[i] = (4 * elements, 0, 0) if fp32 else (0, elements, 4 * hswish)
    return np.append(parts.sum(axis=0), parts.sum(axis=1).max(initial=0.0))
