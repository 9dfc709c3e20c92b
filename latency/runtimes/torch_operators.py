"""ONNX operators as torch functions, opset 13 and later.

Source: the operator specification of ONNX, https://onnx.ai/onnx/operators/.  Inputs are positional parameters,
attributes are keywords: what a function does not name is refused when a model is converted.  An input annotated as
`Values` (a shape, axes, bounds) is handed over as Python numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

Values = Any  # the numbers of a tensor, as `Tensor.tolist` gives them
_DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


def _refuse(what: str, got: object, known: str) -> ValueError:
    return ValueError(f"{what} is {got!r}, and torch does it for {known} only")


# -- convolutions, pooling and products --------------------------------------------------------------


def _pads(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Values, auto_pad: str
) -> list[int]:
    """Zeros before each spatial axis, then after each, in ONNX's order."""
    if auto_pad in ("NOTSET", "VALID"):
        return list(pads or [0] * 2 * len(kernel)) if auto_pad == "NOTSET" else [0] * 2 * len(kernel)
    sizes = zip(x.shape[2:], kernel, strides, dilations, strict=True)
    all_of = [max(0, (math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n) for n, k, s, d in sizes]
    before = [(p + (auto_pad == "SAME_LOWER")) // 2 for p in all_of]
    return before + [p - b for p, b in zip(all_of, before, strict=True)]


def _split_pads(x: Tensor, pads: list[int], fill: float = 0.0) -> tuple[Tensor, list[int]]:
    """Equal padding on both sides is left to the operator; other padding is done here."""
    n = len(pads) // 2
    if pads[:n] == pads[n:]:
        return x, pads[:n]
    return F.pad(x, _torch_pads(pads), value=fill), [0] * n


def _torch_pads(pads: Sequence[int]) -> list[int]:
    """The last axis first, before and after side by side."""
    n = len(pads) // 2
    return [p for i in reversed(range(n)) for p in (pads[i], pads[n + i])]


def _conv(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, kernel_shape: Values = None, strides: Values = None,
    dilations: Values = None, pads: Values = None, auto_pad: str = "NOTSET", group: int = 1,
) -> Tensor:  # fmt: skip
    n = w.dim() - 2
    strides, dilations = strides or [1] * n, dilations or [1] * n
    x, padding = _split_pads(x, _pads(x, w.shape[2:], strides, dilations, pads, auto_pad))
    return (F.conv1d, F.conv2d, F.conv3d)[n - 1](x, w, b, strides, padding, dilations, group)


def _conv_transpose(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, kernel_shape: Values = None, strides: Values = None,
    dilations: Values = None, pads: Values = None, output_padding: Values = None, auto_pad: str = "NOTSET",
    group: int = 1,
) -> Tensor:  # fmt: skip
    n = w.dim() - 2
    pads = pads or [0] * 2 * n
    if auto_pad != "NOTSET" or pads[:n] != pads[n:]:
        raise _refuse("padding", (auto_pad, pads), "equal pads on both sides")
    run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
    return run(x, w, b, strides or 1, pads[:n], output_padding or 0, group, dilations or 1)


def _max_pool(
    x: Tensor, *, kernel_shape: Values, strides: Values = None, dilations: Values = None, pads: Values = None,
    auto_pad: str = "NOTSET", ceil_mode: int = 0, storage_order: int = 0,
) -> Tensor:  # fmt: skip
    n = len(kernel_shape)
    strides, dilations = strides or [1] * n, dilations or [1] * n
    x, padding = _split_pads(x, _pads(x, kernel_shape, strides, dilations, pads, auto_pad), -math.inf)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1]
    return pool(x, kernel_shape, strides, padding, dilations, bool(ceil_mode))


def _average_pool(
    x: Tensor, *, kernel_shape: Values, strides: Values = None, pads: Values = None, auto_pad: str = "NOTSET",
    ceil_mode: int = 0, count_include_pad: int = 0,
) -> Tensor:  # fmt: skip
    n = len(kernel_shape)
    strides = strides or [1] * n
    every = _pads(x, kernel_shape, strides, [1] * n, pads, auto_pad)
    padded, padding = _split_pads(x, every)
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
    if padded is x or count_include_pad:
        return pool(padded, kernel_shape, strides, padding, bool(ceil_mode), bool(count_include_pad))
    inside = F.pad(torch.ones_like(x[:1, :1]), _torch_pads(every))
    sums, counts = (pool(part, kernel_shape, strides, 0, bool(ceil_mode)) for part in (padded, inside))
    return sums / counts


def _gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
    transB: int = 0,
) -> Tensor:  # fmt: skip
    a = a.t() if transA else a
    if alpha == 1.0 and (c is None or (beta == 1.0 and c.dim() == 1)):
        return F.linear(a, b if transB else b.t(), c)
    product = alpha * (a @ (b.t() if transB else b))
    return product if c is None else product + beta * c


# -- element by element ------------------------------------------------------------------------------


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _clip(x: Tensor, low: Values = None, high: Values = None) -> Tensor:
    return x if low is None and high is None else x.clamp(low, high)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def _hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    # A sixth is written in float32; torch has a kernel for it.
    return F.hardsigmoid(x) if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5 else (alpha * x + beta).clamp(0, 1)


def _cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    if to not in _DTYPES:
        raise _refuse("the type", TensorProto.DataType.Name(to), "float, double, int32, int64 and bool")
    return x.to(_DTYPES[to])


def _dropout(x: Tensor, ratio: Values = None, training: Values = None, *, seed: int = 0) -> Tensor:
    if training:
        raise _refuse("training mode", training, "inference")
    return x


def _variadic(combine: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def run(*parts: Tensor) -> Tensor:
        result = parts[0]
        for part in parts[1:]:
            result = combine(result, part)
        return result

    return run


def _mean(*parts: Tensor) -> Tensor:
    return _variadic(torch.add)(*parts) / len(parts)


# -- normalisation and reduction ---------------------------------------------------------------------


def _batch_norm(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = 1e-5,
    momentum: float = 0.9, training_mode: int = 0,
) -> Tensor:  # fmt: skip
    if training_mode:
        raise _refuse("training mode", training_mode, "inference")
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def _layer_norm(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    shape = x.shape[axis % x.dim() :]
    return F.layer_norm(x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), epsilon)


def _instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _group_norm(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    if len(scale) != x.shape[1]:
        raise _refuse("the scale's length", len(scale), "one per channel (opset 21)")
    return F.group_norm(x, num_groups, scale, bias, epsilon)


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return x.softmax(axis)


def _log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return x.log_softmax(axis)


def _reduction(reduce: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    def run(x: Tensor, axes: Values = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        if not axes and noop_with_empty_axes:
            return x
        return reduce(x, list(axes or range(x.dim())), bool(keepdims))

    return run


def _global_average(x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.dim())), keepdim=True)


def _global_max(x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.dim())), keepdim=True)


# -- shapes ------------------------------------------------------------------------------------------


def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor([int(n) for n in x.shape][start:end], dtype=torch.int64)


def _reshape(x: Tensor, shape: Values, *, allowzero: int = 0) -> Tensor:
    return x.reshape([x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(shape)])


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis += x.dim() if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(x: Tensor, axes: Values = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(x: Tensor, axes: Values) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(x: Tensor, *, perm: Values = None) -> Tensor:
    return x.permute(perm or list(reversed(range(x.dim()))))


def _concat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


def _slice(x: Tensor, starts: Values, ends: Values, axes: Values = None, steps: Values = None) -> Tensor:
    axes = range(len(starts)) if axes is None else axes
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
        size = int(x.shape[axis])
        places = range(size)[start:end:step]  # ONNX counts as Python does
        if not places:
            x = x.narrow(axis, 0, 0)
        elif step < 0:  # the same places, counted from the other end
            x = _strided(x.flip(axis), axis, size - 1 - places[0], size - places[-1], -step)
        else:
            x = _strided(x, axis, places.start, places.stop, step)
    return x


def _strided(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    index = [slice(None)] * x.dim()
    index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _split(
    x: Tensor, sizes: Values = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int = 1
) -> tuple[Tensor, ...]:
    part = math.ceil(x.shape[axis] / (num_outputs or outputs))
    return x.split(part if sizes is None else sizes, axis)


def _gather(x: Tensor, indices: Values, *, axis: int = 0) -> Tensor:
    if not isinstance(indices, list):
        return x.select(axis, indices)
    # A tensor of indices would have to be on the GPU already while a CUDA graph is recorded.
    return torch.stack([_gather(x, i, axis=axis) for i in indices], axis % x.dim())


def _expand(x: Tensor, shape: Values) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


def _tile(x: Tensor, repeats: Values) -> Tensor:
    return x.repeat(repeats)


def _pad(x: Tensor, pads: Values, value: Values = None, axes: Values = None, *, mode: str = "constant") -> Tensor:
    axes = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
    every = [0] * 2 * x.dim()
    for i, axis in enumerate(axes):
        every[axis], every[x.dim() + axis] = pads[i], pads[len(axes) + i]
    padding = _torch_pads(every)
    if mode == "constant":
        return F.pad(x, padding, value=value or 0.0)
    while len(padding) > 2 and padding[-2:] == [0, 0]:  # torch pads the last axes only
        padding = padding[:-2]
    return F.pad(x, padding, {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


_NEAREST = {
    ("asymmetric", "floor"): "nearest",
    ("half_pixel", "round_prefer_ceil"): "nearest-exact",
    ("pytorch_half_pixel", "round_prefer_ceil"): "nearest-exact",
}
_SMOOTH = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}


def _resize(
    x: Tensor, roi: Values = None, scales: Values = None, sizes: Values = None, *, mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel", nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75, exclude_outside: int = 0, extrapolation_value: float = 0.0,
) -> Tensor:  # fmt: skip
    where, how = coordinate_transformation_mode, (mode, coordinate_transformation_mode, nearest_mode)
    torch_mode = _NEAREST.get((where, nearest_mode)) if mode == "nearest" else _SMOOTH.get((mode, x.dim() - 2))
    aligned = where == "align_corners"
    if (
        torch_mode is None
        or exclude_outside
        or not (mode == "nearest" or where in ("half_pixel", "pytorch_half_pixel", "align_corners"))
    ):
        raise _refuse("the way of resizing", how, "asymmetric floor, half_pixel and align_corners")
    if abs(cubic_coeff_a + 0.75) > 1e-6:
        raise _refuse("cubic_coeff_a", cubic_coeff_a, "-0.75")
    size = None if sizes is None else sizes[2:]
    factor = scales[2:] if size is None else None
    return F.interpolate(x, size, factor, torch_mode, None if mode == "nearest" else aligned)


def _depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    b, c, h, w = x.shape
    s = blocksize
    if mode == "CRD":
        return F.pixel_shuffle(x, s)
    return x.reshape(b, s, s, c // s**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // s**2, h * s, w * s)


def _constant_of_shape(shape: Values, *, value: Tensor | None = None) -> Tensor:
    value = torch.zeros(1) if value is None else value
    return torch.full(shape, value.item(), dtype=value.dtype)


OPERATORS: Mapping[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "Abs": lambda x: x.abs(),
    "Add": lambda a, b: a + b,
    "And": lambda a, b: a & b,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Ceil": lambda x: x.ceil(),
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Cos": lambda x: x.cos(),
    "DepthToSpace": _depth_to_space,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": lambda x, *, alpha=1.0: F.elu(x, alpha),
    "Equal": lambda a, b: a == b,
    "Erf": lambda x: x.erf(),
    "Exp": lambda x: x.exp(),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": lambda x: x.floor(),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "Greater": lambda a, b: a > b,
    "GroupNormalization": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: F.hardswish(x),
    "Identity": lambda x: x,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x, *, alpha=0.01: F.leaky_relu(x, alpha),
    "Less": lambda a, b: a < b,
    "Log": lambda x: x.log(),
    "LogSoftmax": _log_softmax,
    "MatMul": lambda a, b: a @ b,
    "Max": _variadic(torch.maximum),
    "MaxPool": _max_pool,
    "Mean": _mean,
    "Min": _variadic(torch.minimum),
    "Mish": lambda x: F.mish(x),
    "Mul": lambda a, b: a * b,
    "Neg": lambda x: -x,
    "Not": lambda x: ~x,
    "Or": lambda a, b: a | b,
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": lambda a, b: a**b,
    "Reciprocal": lambda x: x.reciprocal(),
    "ReduceL2": _reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "Relu": lambda x: x.relu(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Selu": lambda x: F.selu(x),
    "Shape": _shape,
    "Sigmoid": lambda x: x.sigmoid(),
    "Sin": lambda x: x.sin(),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": lambda x: F.softplus(x),
    "Split": _split,
    "Sqrt": lambda x: x.sqrt(),
    "Squeeze": _squeeze,
    "Sub": lambda a, b: a - b,
    "Sum": _variadic(torch.add),
    "Tanh": lambda x: x.tanh(),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": lambda condition, a, b: torch.where(condition, a, b),
}
