"""What an executed kernel has to do: its kind, amounts that cost time each, and shape features of its efficiency.

Kinds are what ONNX Runtime has code of its own for: convolutions in its blocked layout (com.microsoft.nchwc) by way of
computing, those in the plain layout (by im2col and a matrix product), matrix products, and each other operator.
Source: onnxruntime/core/mlas/lib/snchwc.cpp and convolve.cpp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from latency.graph import VIEWS, Kernel, Tensor

BLOCKED = "com.microsoft.nchwc"
_FILTERS, _COLUMNS, _ROWS, _PANEL = 32, 6, 6, 16  # filters and output columns at a time; tile of a matrix product
_CHEAP = ("", "Relu")  # fused into the kernel; any other activation is a pass of its own over the output


@dataclass(frozen=True)
class Work:
    """One kernel as the model sees it.

    Args:
        kind: kernels of one kind share a model.
        family: of related kinds, for a kind that was hardly seen.
        amounts: what is computed and moved, as many for every kernel of a family; each costs time of its own.
        logs: logarithms of sizes, on which it depends how fast that goes; likewise.
    """

    kind: str
    family: str
    amounts: tuple[float, ...]
    logs: tuple[float, ...]


def work_of(kernel: Kernel) -> Work:
    """The work of one executed kernel, at the batch of its shapes."""
    if kernel.op_type in VIEWS:
        return Work(kernel.op_type, "view", (1.0,), (0.0,))
    if "Conv" in kernel.op_type and len(_operand(kernel, 1).shape) == 4 and kernel.op_type != "ConvTranspose":
        return _convolution(kernel)
    if kernel.macs:
        return _product(kernel)
    return _elementwise(kernel)


# -- convolutions --------------------------------------------------------------------------------------


def _convolution(kernel: Kernel) -> Work:
    x, w, y = kernel.inputs[0], _operand(kernel, 1), kernel.outputs[0]
    filters, depth, kh, kw = w.shape
    groups, out_h, out_w = kernel.group, y.shape[2], y.shape[3]
    per_group = filters / groups
    stride = math.prod(kernel.stride) ** 0.5 if kernel.stride else 1.0
    kind = f"conv {_way(kernel, x, depth, kh * kw)}"
    added = len(kernel.inputs) > 1
    dear = kernel.activation not in _CHEAP
    pixels = y.shape[0] * out_h * out_w
    amounts = (
        1.0,
        kernel.macs / 1e5,
        y.elements / 1e4,
        x.elements / 1e4,
        w.elements / 1e4,
        pixels * groups * depth * kh * kw / 1e4,  # gathered by im2col
        groups * out_h * y.shape[0] / 1e2,  # loops begun
        added * y.elements / 1e4,
        dear * y.elements / 1e4,
    )
    logs = (
        math.log(pixels),
        math.log(out_w),
        math.log(depth),
        math.log(per_group),
        math.log(groups),
        math.log(kh * kw),
        math.log(stride),
        math.log(w.elements),
        _waste(per_group, _FILTERS if kernel.domain == BLOCKED else _PANEL),
        _waste(out_w, _COLUMNS),
        _waste(depth, 8),
        float(added),
        float(dear),
    )
    return Work(kind, "conv", amounts, logs)


def _way(kernel: Kernel, x: Tensor, depth: int, taps: int) -> str:
    """How ONNX Runtime computes it."""
    layout = "blocked" if kernel.domain == BLOCKED else "nhwc" if "Nhwc" in kernel.op_type else "plain"
    if depth == 1 and kernel.group > 1:
        return f"{layout} depthwise"
    if kernel.group > 1:
        return f"{layout} grouped"
    if layout == "blocked" and x.shape[1] < 8:
        return "blocked stem"
    return f"{layout} pointwise" if taps == 1 else f"{layout} dense"


# -- matrix products -----------------------------------------------------------------------------------


def _product(kernel: Kernel) -> Work:
    y = kernel.outputs[0]
    columns = y.shape[-1]
    constant = bool(kernel.weights)
    weights = max((w.elements for w in kernel.weights), default=0)
    if constant:
        rows, batch = y.elements // columns, 1
    else:
        rows = y.shape[-2] if len(y.shape) > 1 else 1
        batch = y.elements // (rows * columns)
    inner = kernel.macs / max(1, y.elements)
    read = sum(t.elements for t in kernel.inputs)
    way = "vector" if rows == 1 else "weights" if constant else "activations"
    amounts = (1.0, kernel.macs / 1e5, y.elements / 1e4, read / 1e4, weights / 1e4, batch / 10, 0.0, 0.0, 0.0)
    logs = (
        math.log(rows),
        math.log(columns),
        math.log(max(1.0, inner)),
        math.log(batch),
        _waste(rows, _ROWS),
        _waste(columns, _PANEL),
    )
    return Work(f"{kernel.op_type} of {way}", "product", amounts, logs)


# -- everything else -----------------------------------------------------------------------------------


def _elementwise(kernel: Kernel) -> Work:
    y = kernel.outputs[0]
    read = kernel.bytes_read / 4
    written = kernel.bytes_written / 4
    first = kernel.inputs[0].shape if kernel.inputs else (1,)
    window = math.prod(kernel.kernel_size) if kernel.kernel_size else 1
    operands = [t.shape for t in (*kernel.inputs, *kernel.weights) if t.elements > 1]
    spread = any(shape != operands[0] for shape in operands) and kernel.op_type not in ("Concat", "Gather")
    run = _run(kernel)
    amounts = (
        1.0,
        read / 1e4,
        written / 1e4,
        written * window / 1e4,
        (read + written) / max(1.0, run) / 1e3,  # pieces that are copied or summed one by one
        len(kernel.outputs) + len(kernel.inputs),
    )
    logs = (
        math.log1p(max(read, written)),
        math.log1p(read) - math.log1p(written),
        math.log(run),
        math.log(max(1, math.prod(first[2:]))),
        math.log(max(1, y.shape[-1] if y.shape else 1)),
        float(spread),
        math.log(len(kernel.inputs) + len(kernel.outputs)),
        math.log(max(1, y.shape[1] if len(y.shape) > 1 else 1)),
        float(dict(kernel.attributes).get("channels_last", 0) == 1),
    )
    return Work(kernel.op_type, "elementwise", amounts, logs)


def _run(kernel: Kernel) -> float:
    """Elements that lie side by side before and after: what is moved or worked on in one piece."""
    attributes = dict(kernel.attributes)
    shape = kernel.outputs[0].shape or (1,)
    perm = attributes.get("perm")
    if isinstance(perm, tuple):
        kept = 0
        while kept < len(perm) and perm[-1 - kept] == len(perm) - 1 - kept:
            kept += 1
        return float(max(1, math.prod(shape[len(shape) - kept :])))
    axis = attributes.get("axis")
    if isinstance(axis, int) and kernel.op_type in ("Concat", "Split", "Gather", "Softmax"):
        return float(max(1, math.prod(shape[axis % len(shape) :])))
    if kernel.op_type in ("ReduceMean", "GlobalAveragePool", "ReduceSum", "ReduceMax"):
        total = kernel.inputs[0].elements if kernel.inputs else 1
        return float(max(1, total // max(1, kernel.outputs[0].elements)))
    small = min((t.elements for t in (*kernel.inputs, *kernel.weights) if t.elements > 1), default=1)
    return float(max(1, kernel.outputs[0].elements // max(1, small)))


def _operand(kernel: Kernel, i: int) -> Tensor:
    """The weight of a convolution, be it constant or computed."""
    return kernel.weights[0] if kernel.weights else kernel.inputs[min(i, len(kernel.inputs) - 1)]


def _waste(size: float, step: int) -> float:
    """Logarithm of how much more a size becomes in whole steps."""
    return math.log(math.ceil(size / step) * step / size)
