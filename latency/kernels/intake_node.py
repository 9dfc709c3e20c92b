"""A node of a QDQ graph, with what its inputs stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx import NodeProto
from onnx.helper import get_attribute_value
from onnx.reference import ReferenceEvaluator

from latency.kernels.intake_steps import Steps
from latency.kernels.intake_values import Constant, Unsupported, Value

BATCH = -(2**40)  # stands for the number of images in shapes that the graph computes


@dataclass(frozen=True, eq=False)
class Node:
    """A node, with what its inputs stand for; None where one is left out.

    Args:
        batch: what the graph calls the number of images, besides `BATCH`.
    """

    name: str
    kind: str
    proto: NodeProto
    inputs: tuple[Value | None, ...]
    opset: int
    batch: int | None

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node."""
        return next((get_attribute_value(a) for a in self.proto.attribute if a.name == name), default)

    def input(self, i: int) -> Value:
        """An input that has to be there.

        Raises:
            Unsupported: it is left out.
        """
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise Unsupported(f"input {i} is left out")
        return value

    def constant(self, i: int, what: str) -> np.ndarray | None:
        """A constant input, or None where it is left out.

        Raises:
            Unsupported: it depends on the network's input.
        """
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            return None
        if not isinstance(value, Constant):
            raise Unsupported(f"its {what} depends on the network's input")
        return value.values

    def evaluate(self, inputs: Sequence[np.ndarray | None]) -> np.ndarray:
        """What the node makes of arrays, by ONNX's reference."""
        given = {name: x for name, x in zip(self.proto.input, inputs, strict=True) if name}
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(self.proto, opsets={"": self.opset}).run(None, given)
        return np.asarray(found[0])


Handler: TypeAlias = Callable[[Node, Steps], Value]
