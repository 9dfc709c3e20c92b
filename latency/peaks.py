"""Measuring a device's peaks: small ONNX models, timed as any other, whose kernels do one thing as fast as they can.

Each is a chain of equal links; a long chain less a short one is what the links take without the call, and the fastest
sample counts.  Of several shapes of a kind the best one does.  Kept as JSON beside the store of measurements.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from latency.device import Device, at_batch, fingerprint
from latency.harness import measure_models
from latency.lowering import INPUT, OUTPUT
from latency.roofline import Peaks
from latency.store import default_path
from latency.worker import Effort

_METHOD = 2  # to be raised when the way of measuring changes
_EFFORT = Effort(rounds=6, most_rounds=12, samples=20)
_DENSE = ((64, 28, 3), (128, 14, 3), (256, 14, 1), (512, 7, 1), (128, 28, 1))  # channels, height, kernel size
_DEPTHWISE = ((64, 14, 3), (128, 28, 3), (64, 14, 5), (128, 28, 5), (64, 14, 7), (128, 28, 7))
_PRODUCTS = (128, 256, 512)  # rows and columns of square matrices; the largest for many threads
_SETS = (2**15, 2**18, 2**21, 2**26)  # bytes: in L1, in L2, in L3 or beyond, in memory
_SMALL = 2**22  # larger sets make do with shorter chains


@dataclass(frozen=True)
class _Chain:
    """What a link does in numbers, and the model of so many links."""

    kind: str
    work: float  # MACs or bytes of a link
    nodes: int  # of a link
    model: Callable[[int], bytes]
    ends: tuple[int, int] = (2, 8)  # links of the short one and of the long one


def peaks_of(device: Device, folder: Path | None = None, on_round: Callable[[], object] = lambda: None) -> Peaks:
    """The peaks of `device`, whatever its batch; measured, which takes a minute or two, unless `folder` has them.

    Args:
        folder: by default that of the user's store of measurements.
        on_round: as of `measure_models`.

    Raises:
        ValueError: a file of peaks that is damaged.
        OSError: it cannot be written.
        ChildProcessError: the process that measures died.
    """
    device = at_batch(device, 1)
    place = fingerprint(device)
    file = (folder or default_path().parent) / f"peaks-{place}-{_METHOD}.json"
    try:
        return _read(file)
    except FileNotFoundError:
        peaks = _measure(device, place, on_round)
        write_whole(file, json.dumps(asdict(peaks), indent=1))
        return peaks


def _read(file: Path) -> Peaks:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        bandwidths = tuple((int(size), float(rate)) for size, rate in fields.pop("bandwidths"))
        return Peaks(bandwidths=bandwidths, **fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} holds no peaks ({error}): delete it, and they are measured again") from error


def write_whole(file: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}-", delete=False) as part:
        part.write(text)
    os.replace(part.name, file)  # noqa: PTH105


def _measure(device: Device, place: str, on_round: Callable[[], object]) -> Peaks:
    chains = _chains()
    models = [chain.model(links) for chain in chains for links in chain.ends]
    best = [min(m.timing.samples_s) for m in measure_models(models, device, _EFFORT, None, on_round)]
    return _peaks(place, chains, best)


def _peaks(place: str, chains: Sequence[_Chain], best_s: Sequence[float]) -> Peaks:
    """The peaks from the best times of each chain, short and long, one after the other (2n)."""
    pairs = list(zip(chains, best_s[::2], best_s[1::2], strict=True))
    links = [(c, (long - short) / (c.ends[1] - c.ends[0])) for c, short, long in pairs]
    node = min(time / c.nodes for c, time in links if c.kind == "node")
    call = min(short - (c.ends[0] + 1) * node for c, short, _ in pairs if c.kind == "node")  # one node reduces
    rates: dict[str, float] = {}
    for chain, time in links:
        alone = time - chain.nodes * node
        if chain.kind != "node" and alone > 0:
            rates[chain.kind] = max(rates.get(chain.kind, 0.0), chain.work / alone)
    bandwidths: list[tuple[int, float]] = []
    for size in reversed(_SETS):  # what a large set reaches, a small one does
        bandwidths.insert(0, (size, max(rates[f"set {size}"], *(rate for _, rate in bandwidths[:1]), 0.0)))
    return Peaks(
        fingerprint=place,
        float_macs_per_s=rates["float"],
        int8_macs_per_s=max(rates["int8"], rates["float"]),
        depthwise_float_macs_per_s=rates["depthwise float"],
        depthwise_int8_macs_per_s=max(rates["depthwise int8"], rates["depthwise float"]),
        bandwidths=tuple(bandwidths),
        node_s=node,
        call_s=call,
    )


# -- the models --------------------------------------------------------------------------------------


def _chains() -> list[_Chain]:
    chains = [_Chain("node", 0, 1, partial(_elementwise, op, 8)) for op in ("Neg", "Sigmoid", "Mul")]
    for c, h, k in _DENSE:
        macs = c * c * k * k * h * h
        chains.append(_Chain("float", macs, 1, partial(_convolutions, c, h, k, 1)))
        chains.append(_Chain("int8", macs, 1, partial(_int8_convolutions, c, h, k, 1)))
    for c, h, k in _DEPTHWISE:
        macs = c * k * k * h * h
        chains.append(_Chain("depthwise float", macs, 1, partial(_convolutions, c, h, k, c)))
        chains.append(_Chain("depthwise int8", macs, 1, partial(_int8_convolutions, c, h, k, c)))
    chains += [_Chain("float", side**3, 1, partial(_products, side, side)) for side in _PRODUCTS]
    for size in _SETS:
        ends = (1, 3) if size > _SMALL else (2, 8)
        values, side = size // 8, round((size / 4) ** 0.5)
        chains.append(_Chain(f"set {size}", size, 1, partial(_elementwise, "Mul", values), ends))
        chains.append(_Chain(f"set {size}", 2 * size, 2, partial(_copies, values), ends))
        chains.append(_Chain(f"set {size}", 4 * side**2, 1, partial(_products, 1, side), ends))
    return chains


def _elementwise(op: str, values: int, links: int) -> bytes:
    second = ["half"] if op == "Mul" else []
    nodes = [helper.make_node(op, [f"x{i}", *second], [f"x{i + 1}"]) for i in range(links)]
    return _model(nodes, (1, values), {"half": np.float32(0.5)} if second else {}, reduce=True)


def _copies(values: int, links: int) -> bytes:
    nodes = []
    for i in range(links):
        nodes.append(helper.make_node("Split", [f"x{i}"], [f"a{i}", f"b{i}"], axis=1))
        nodes.append(helper.make_node("Concat", [f"b{i}", f"a{i}"], [f"x{i + 1}"], axis=1))
    return _model(nodes, (1, values), {}, reduce=True)


def _products(rows: int, side: int, links: int) -> bytes:
    weight = np.full((side, side), 1 / side, np.float32)
    nodes = [helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(links)]
    return _model(nodes, (1, rows, side), {"w": weight})


def _convolutions(c: int, h: int, k: int, groups: int, links: int) -> bytes:
    """Padded, so that all are of one size; multiplications by padding count as if they were done."""
    weight = np.full((c, c // groups, k, k), groups / (c * k * k), np.float32)
    nodes = [helper.make_node("Conv", [f"x{i}", "w"], [f"x{i + 1}"], **_layout(k, groups)) for i in range(links)]
    return _model(nodes, (1, c, h, h), {"w": weight})


def _int8_convolutions(c: int, h: int, k: int, groups: int, links: int) -> bytes:
    weights: dict[str, np.ndarray | np.generic] = {
        "w": np.full((c, c // groups, k, k), 100, np.int8),
        "w_scale": np.full(c, 0.01 * groups / (c * k * k), np.float32),
        "w_zero": np.zeros(c, np.int8),
        "scale": np.float32(0.02),
        "zero": np.uint8(128),
    }
    of_x, of_w = ["scale", "zero"], ["w", "w_scale", "w_zero"]
    nodes = [helper.make_node("QuantizeLinear", ["x0", *of_x], ["q0"])]
    for i in range(links):
        operands = [f"q{i}", *of_x, *of_w, *of_x]
        nodes.append(helper.make_node("QLinearConv", operands, [f"q{i + 1}"], **_layout(k, groups)))
    nodes.append(helper.make_node("DequantizeLinear", [f"q{links}", *of_x], ["y"]))
    return _model(nodes, (1, c, h, h), weights)


def _layout(k: int, groups: int) -> dict[str, Any]:
    return {"pads": [k // 2] * 4, "group": groups, "kernel_shape": [k, k]}


def _model(
    nodes: list[NodeProto], shape: tuple[int, ...], weights: Mapping[str, np.ndarray | np.generic], reduce: bool = False
) -> bytes:
    """A model from `input` by way of x0 to `logits`: what the last node makes, or its largest value."""
    nodes[0].input[0] = INPUT
    if reduce:
        nodes.append(helper.make_node("ReduceMax", [nodes[-1].output[0]], [OUTPUT]))
    nodes[-1].output[0] = OUTPUT
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ("batch", *shape[1:]))],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())
