"""A graph run over many images, layer after layer, holding no more than what later nodes read.

What works layer by layer wants the input and output of each over all images.  Running the network up to every layer
anew would cost as many passes as there are layers; holding every activation would fill the memory.  A walk goes
through the graph once, and what it has not passed yet may still be changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto

from latency.lowering import INPUT

_BATCH_PIXELS = 2**16
_ON_DISK_BYTES = (
    2**27
)  # larger arrays lie in a temporary file, which the system keeps in memory as far as there is room
_LOG_ERRORS = 3
_CHEAP = ("DequantizeLinear",)  # computed again wherever read: codes take a quarter of the bytes


class Walk:
    """A place between two nodes of a graph, with the tensors that cross it for all images.

    Args:
        images: (n, c, h, w) float32, held as they are.
        batch: images run at a time; unless said otherwise so few that activations stay small.

    Raises:
        ValueError: no images.
    """

    def __init__(self, model: onnx.ModelProto, images: np.ndarray, batch: int | None = None, threads: int = 1) -> None:
        if not len(images):
            raise ValueError("post-training quantization needs calibration images, got none")
        self._batch = batch or max(1, _BATCH_PIXELS // int(np.prod(images.shape[2:])))
        self._threads = threads
        self._count = len(images)
        self._held: dict[str, np.ndarray] = {INPUT: images}
        self._at = 0
        self.use(model)

    def use(self, model: onnx.ModelProto) -> None:
        """Goes on in `model`, which has the same nodes and other initializers."""
        self._model = model
        self._nodes = list(model.graph.node)
        self._made = {name: i for i, node in enumerate(self._nodes) for name in node.output}
        self._index = {node.name: i for i, node in enumerate(self._nodes)}
        self._values = {t.name: t for t in model.graph.initializer}
        self._fixed = _fixed(model)

    def node(self, name: str) -> NodeProto:
        """The node of this name."""
        return self._nodes[self._index[name]]

    def advance(self, name: str) -> None:
        """Moves on to before the node of this name: all nodes before it have run.

        Raises:
            ValueError: a tensor that has not one row for each image, or a part that ONNX Runtime does not run.
        """
        end = self._index[name]
        needed = self._crossing(end)
        missing = [tensor for tensor in needed if tensor not in self._held]
        if missing:
            self._held.update(self._computed(missing))
        self._held = {tensor: self._held[tensor] for tensor in needed}
        self._at = end

    def each(self, tensor: str) -> Iterator[np.ndarray]:
        """A tensor for a batch of images after the other, in their order; the walk stays where it is.

        Raises:
            ValueError: as `advance`.
        """
        return (values[0] for values in self._batches([tensor]))

    def _crossing(self, end: int) -> list[str]:
        """The tensors that are made before the node `end` and read from there on."""
        read = {name for node in self._nodes[end:] for name in node.input}
        read |= {value.name for value in self._model.graph.output}
        made = {INPUT, *(name for node in self._nodes[:end] for name in node.output)} - self._fixed
        return sorted({self._stored_as(name) for name in read & made})

    def _stored_as(self, tensor: str) -> str:
        """The tensor to hold in place of one that is cheap to make."""
        while tensor in self._made and self._nodes[self._made[tensor]].op_type in _CHEAP:
            tensor = self._nodes[self._made[tensor]].input[0]
        return tensor

    def _computed(self, tensors: list[str]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        start = 0
        for values in self._batches(tensors):
            for tensor, part in zip(tensors, values, strict=True):
                if tensor not in found:
                    found[tensor] = _room((self._count, *part.shape[1:]), part.dtype)
                found[tensor][start : start + len(part)] = part
            start += len(values[0])
        return found

    def _batches(self, tensors: list[str]) -> Iterator[list[np.ndarray]]:
        nodes, given = self._part(tensors)
        session = _session(self._model, nodes, given, tensors, self._values, self._held, self._threads)
        for start in range(0, self._count, self._batch):
            some = {name: self._held[name][start : start + self._batch] for name in given}
            values = session.run(tensors, some) if session else [some[name] for name in tensors]
            size = min(self._batch, self._count - start)
            for tensor, value in zip(tensors, values, strict=True):
                if value.shape[:1] != (size,):
                    raise ValueError(
                        f"tensor {tensor!r} of {size} images has the shape {value.shape}: one row for each"
                    )
            yield values

    def _part(self, tensors: Collection[str]) -> tuple[list[NodeProto], list[str]]:
        """The nodes that make `tensors` of those held, in order, and which of these they read."""
        wanted, nodes, given = list(tensors), set(), set()
        while wanted:
            name = wanted.pop()
            if name in self._held:
                given.add(name)
            elif name in self._made and self._made[name] not in nodes:
                nodes.add(self._made[name])
                wanted += self._nodes[self._made[name]].input
        return [self._nodes[i] for i in sorted(nodes)], sorted(given)


def _fixed(model: onnx.ModelProto) -> set[str]:
    """The tensors that do not depend on the images."""
    known = {t.name for t in model.graph.initializer} | {""}
    for node in model.graph.node:
        if known.issuperset(node.input):
            known.update(node.output)
    return known


def _room(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to fill, in memory or in a file that goes with it."""
    if np.prod(shape) * np.dtype(dtype).itemsize < _ON_DISK_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="hwnas-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _session(
    model: onnx.ModelProto,
    nodes: list[NodeProto],
    given: list[str],
    tensors: list[str],
    values: dict[str, onnx.TensorProto],
    held: dict[str, np.ndarray],
    threads: int,
) -> onnxruntime.InferenceSession | None:
    """The part of a model from the tensors `given` to `tensors`; None where there is nothing to compute."""
    if not nodes:
        return None
    part = onnx.ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.graph.name = "part"
    part.graph.node.extend(nodes)
    read = dict.fromkeys(name for node in nodes for name in node.input)
    part.graph.initializer.extend(values[name] for name in read if name in values)
    for name in given:
        kind = onnx.helper.np_dtype_to_tensor_dtype(held[name].dtype)
        sizes = ["batch", *held[name].shape[1:]]
        part.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, sizes))
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, _LOG_ERRORS
    try:
        return onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        reason = str(error).splitlines()[0]
        raise ValueError(f"the part that makes {tensors[0]!r} does not run in ONNX Runtime: {reason}") from error
