"""What of a quantized file runs in int8 once ONNX Runtime has optimised it, and which layers were meant to and do not.

A QDQ file asks for int8; whether a layer gets an int8 kernel is decided by patterns that the optimiser finds.  One that
it does not find computes in fp32 between conversions, silently and slower than if nothing had been quantized.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from latency.device import Device
from latency.graph import executed_kernels
from latency.runtimes.onnx_runtime import INT8_KERNELS


@dataclass(frozen=True)
class Int8Share:
    """Where the products of a file are computed.

    Args:
        macs: all, at the device's batch, of kernels as they are executed.
        int8_macs: those in int8 kernels.
        islands: names of the layers whose weights and inputs are stored as codes, but which run in fp32.
    """

    macs: int
    int8_macs: int
    islands: tuple[str, ...]

    @property
    def share(self) -> float:
        """The share of MACs in int8 kernels; 0 where there are none."""
        return self.int8_macs / self.macs if self.macs else 0.0


def share_in_int8(model: onnx.ModelProto | bytes | Path, device: Device) -> Int8Share:
    """Looks at the kernels that ONNX Runtime executes for a model on `device`.

    Runs the model on blank inputs, as it is executed and once more for shapes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `latency.graph.executed_kernels`.
    """
    file = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    kernels = executed_kernels(file, device)
    int8 = [kernel for kernel in kernels if kernel.op_type in INT8_KERNELS]
    read = Counter(weight.name for kernel in int8 for weight in kernel.weights)
    islands = []
    for name, codes in meant_for_int8(model if isinstance(model, onnx.ModelProto) else _loaded(model)).items():
        if read[codes]:
            read[codes] -= 1  # another layer may share the weight
        else:
            islands.append(name)
    return Int8Share(sum(kernel.macs for kernel in kernels), sum(kernel.macs for kernel in int8), tuple(islands))


def meant_for_int8(model: onnx.ModelProto) -> dict[str, str]:
    """Layer name to the name of the codes of its weight, where its input comes from codes, too."""
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return {
        node.name: made[node.input[1]].input[0]
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and all(name in made for name in node.input[:2])
    }


def _loaded(model: bytes | Path) -> onnx.ModelProto:
    return onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load_model(model)
