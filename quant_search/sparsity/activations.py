"""What tensors inside an ONNX model hold when images go through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnxruntime

_LOG_ERRORS = 3


def activations(
    model: onnx.ModelProto, names: Iterable[str], images: np.ndarray, batch: int = 32
) -> Iterator[dict[str, np.ndarray]]:
    """The named tensors (b, ...) by name, for `batch` of the images (n, c, h, w) float32 after the other.

    Raises:
        ValueError: no images, or a name that no node makes.
    """
    names = list(dict.fromkeys(names))
    if not len(images):
        raise ValueError("activations are those of images, got none")
    made = {name for node in model.graph.node for name in node.output} | {v.name for v in model.graph.input}
    for name in names:
        if name not in made:
            raise ValueError(f"the model has no tensor {name!r}")
    return _run(model, names, images, batch)


def _run(model: onnx.ModelProto, names: list[str], images: np.ndarray, batch: int) -> Iterator[dict[str, np.ndarray]]:
    session, given = _open(model, names), model.graph.input[0].name
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        inside = [name for name in names if name != given]
        found = dict(zip(inside, session.run(inside, {given: part}), strict=True)) if inside else {}
        yield {name: part if name == given else found[name] for name in names}


def _open(model: onnx.ModelProto, names: list[str]) -> onnxruntime.InferenceSession:
    augmented = onnx.ModelProto()
    augmented.CopyFrom(model)
    there = {value.name for value in model.graph.output}
    inside = (name for name in names if name not in there and name != model.graph.input[0].name)
    augmented.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more of them wait in loops, which costs a pinned process its core
    options.log_severity_level = _LOG_ERRORS
    return onnxruntime.InferenceSession(augmented.SerializeToString(), options, providers=["CPUExecutionProvider"])
