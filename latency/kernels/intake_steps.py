"""The steps of a program while it is made, and how they are joined once all are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from latency.kernels.contract import (
    Add,
    AveragePool,
    Convolution,
    InvertedResidual,
    Multiply,
    Operation,
    Program,
    Rounding,
    Step,
    Table,
    WindowAverage,
)
from latency.kernels.intake_values import CODES, Codes

_ROUNDED = (Convolution, AveragePool, WindowAverage, Add, Multiply)


class Steps:
    """Steps in their order; tensor 0 is the input (c, h, w)."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        self._input_shape = input_shape
        self._steps: list[Step] = []
        self._shapes: dict[int, tuple[int, ...]] = {0: input_shape}
        self._tables: dict[tuple[int, bytes], int] = {}

    def add(self, name: str, operation: Operation, inputs: Iterable[int], shape: tuple[int, ...]) -> int:
        """The tensor, of this shape without the batch, that a new step makes."""
        output = len(self._shapes)
        self._steps.append(Step(name, operation, tuple(inputs), output))
        self._shapes[output] = shape
        return output

    def tensor(self, name: str, codes: Codes) -> int:
        """The tensor that holds codes, made by a step called `name` where a table is to be applied."""
        if (codes.table == CODES).all():
            return codes.tensor
        key = codes.tensor, codes.table.tobytes()
        if key not in self._tables:
            shape = self._shapes[codes.tensor]
            self._tables[key] = self.add(name, Table(codes.table), (codes.tensor,), shape)
        return self._tables[key]

    def program(self) -> Program:
        """What the last step needs, in as few steps as the contract allows."""
        steps = _needed(self._steps)
        steps = _with_picks(steps)
        steps = _with_tables(steps)
        steps = _with_blocks(steps)
        there = {0, *(step.output for step in steps)}
        return Program(self._input_shape, tuple(steps), {i: s for i, s in self._shapes.items() if i in there})


@dataclass(frozen=True, eq=False)
class _Links:
    """Which step makes a tensor, and how often it is read; that of the last step counts as read."""

    maker: Mapping[int, Step]
    uses: Counter[int]

    @classmethod
    def of(cls, steps: list[Step]) -> _Links:
        """The links of steps."""
        uses = Counter(i for step in steps for i in step.inputs)
        uses[steps[-1].output] += 1
        return cls({step.output: step for step in steps}, uses)

    def only(self, tensor: int) -> Step | None:
        """The step that makes a tensor which is read once."""
        return self.maker.get(tensor) if self.uses[tensor] == 1 else None


def _needed(steps: list[Step]) -> list[Step]:
    wanted = {steps[-1].output}
    kept = []
    for step in reversed(steps):
        if step.output in wanted:
            wanted.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def pick(order: np.ndarray, channels: int) -> Convolution:
    """Channels in another order, or some of them, as a convolution with ones."""
    weight = np.zeros((len(order), channels, 1, 1), np.int8)
    weight[np.arange(len(order)), order] = 1
    one = np.ones(1, np.float32)
    return Convolution(weight, Rounding(one, np.zeros(1, np.float32)))


def _picked(operation: Operation) -> np.ndarray | None:
    """The order of the channels that `pick` made a convolution of."""
    if not isinstance(operation, Convolution) or operation.depthwise or operation.weight.shape[2:] != (1, 1):
        return None
    rounding, weight = operation.rounding, operation.weight[:, :, 0, 0]
    plain = rounding.scale.shape == (1,) and rounding.scale[0] == 1 and not rounding.bias.any()
    plain = plain and (
        rounding.low,
        rounding.high,
        rounding.table,
        rounding.residual,
        rounding.offset,
        rounding.zero,
    ) == (0, 255, None, None, None, 0)
    one_each = (weight != 0).sum(1).max() == 1 and (weight.sum(1) == 1).all()
    return weight.argmax(1) if plain and one_each and operation.stride == 1 and not any(operation.padding) else None


def _with_picks(steps: list[Step]) -> list[Step]:
    """A convolution whose channels are picked alone makes these, in their order, by itself."""
    links = _Links.of(steps)
    made: dict[int, Step] = {}
    for step in steps:
        order, before = _picked(step.operation), links.only(step.inputs[0])
        of = None if before is None else made[before.output].operation
        if before is not None and order is not None and isinstance(of, Convolution) and not of.depthwise:
            operation = replace(of, weight=of.weight[order], rounding=_ordered(of.rounding, order))
            if of.rounding.residual is None:
                step = Step(before.name, operation, made.pop(before.output).inputs, step.output)
        made[step.output] = step
    return list(made.values())


def _ordered(rounding: Rounding, order: np.ndarray) -> Rounding:
    """The rounding of channels in another order."""
    parts = {name: getattr(rounding, name) for name in ("scale", "bias", "offset")}
    several = {name: x[order] for name, x in parts.items() if x is not None and len(x) > 1}
    return replace(rounding, **several)


def _with_tables(steps: list[Step]) -> list[Step]:
    """A table behind an operation that rounds goes into its rounding."""
    links = _Links.of(steps)
    made: dict[int, Step] = {}
    for step in steps:
        before = links.only(step.inputs[0])
        if isinstance(step.operation, Table) and before is not None and isinstance(before.operation, _ROUNDED):
            del made[before.output]
            rounding = _behind(before.operation.rounding, step.operation.table)
            step = Step(before.name, replace(before.operation, rounding=rounding), before.inputs, step.output)
        made[step.output] = step
    return list(made.values())


def _behind(rounding: Rounding, table: np.ndarray) -> Rounding:
    """`rounding`, which has none yet, with a table behind; one that only cuts moves the ends."""
    reached = CODES[rounding.low : rounding.high + 1]
    low, high = (int(table[end]) for end in (rounding.low, rounding.high))
    if low <= high and (table[reached] == np.clip(reached, low, high)).all():
        return replace(rounding, low=low, high=high)
    return replace(rounding, table=table)


def _with_blocks(steps: list[Step]) -> list[Step]:
    """Depthwise convolutions with the 1x1 behind and, where there is one, that before them become one step each."""
    links = _Links.of(steps)
    made: dict[int, Step] = {}
    for step in steps:
        joined = _block(step, made, links)
        if joined is not None:
            used, step = joined
            for output in used:
                del made[output]
        made[step.output] = step
    return list(made.values())


def _block(step: Step, made: Mapping[int, Step], links: _Links) -> tuple[list[int], Step] | None:
    """The outputs of the steps that a step joins, and what they become with it."""
    before = made.get(step.inputs[0]) if links.uses[step.inputs[0]] == 1 else None
    if before is None or not isinstance(before.operation, Convolution) or not before.operation.depthwise:
        return None
    if not _is_pointwise(step.operation):
        return None
    expand = made.get(before.inputs[0]) if links.uses[before.inputs[0]] == 1 else None
    if expand is not None and (not _is_pointwise(expand.operation) or expand.operation.rounding.residual is not None):
        expand = None
    first = expand or before
    if len(step.inputs) > 1 and step.inputs[1] != first.inputs[0]:
        return None
    wide = None if expand is None else expand.operation
    block = InvertedResidual(wide if _is_pointwise(wide) else None, before.operation, step.operation)
    return [s.output for s in (expand, before) if s is not None], Step(step.name, block, first.inputs[:1], step.output)


def _is_pointwise(operation: Operation | None) -> TypeGuard[Convolution]:
    if not isinstance(operation, Convolution) or operation.depthwise:
        return False
    return operation.weight.shape[2:] == (1, 1) and operation.stride == 1 and not any(operation.padding)
