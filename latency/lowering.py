"""Lowering: a plain torch network as an ONNX model, the one form that is measured and shipped.

Source: torch's TorchScript-based exporter, which is 10 to 100 times faster on graphs of this size than the
one based on `torch.export`, and keeps the module's path in every node's name.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

OPSET = 17  # the first with every operator of our networks as one node; long supported by ONNX Runtime
INPUT, OUTPUT = "input", "logits"


def to_onnx(module: nn.Module, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    """The ONNX model of a plain network in eval mode, with batch norm folded into the convolutions.

    One input `input` (batch, *input_shape) float32 and one output `logits`; the batch is dynamic.  The same
    network gives the same bytes.

    Raises:
        ValueError: an operation that has no ONNX form.
    """
    # On the network's own device: the trace must not move the caller's weights.
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    example = torch.zeros(2, *input_shape, device=device)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            warnings.simplefilter("ignore")  # deprecation of the exporter, and tracer notes on fixed shapes
            file = Path(folder) / "model.onnx"
            torch.onnx.export(
                module,
                (example,),
                file,
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
            model = onnx.load_model(file)
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ValueError(f"{type(module).__name__} cannot be exported to ONNX: {str(error).splitlines()[0]}") from error
    finally:
        module.train(was_training)
    return _without_aliases(model)


def _without_aliases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives every use of a weight its own initializer.

    The exporter stores equal initializers (zero biases, say) once and hands them out through Identity nodes.
    Behind an Identity a weight is no initializer and quantizers leave it alone; and an initializer that an int8
    and an fp32 layer share is quantized for both, which costs the fp32 layer its fast kernel.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        shared = initializers.get(node.input[0]) if node.op_type == "Identity" else None
        if shared is None:
            kept.append(node)
        else:
            own = model.graph.initializer.add()
            own.CopyFrom(shared)
            own.name = node.output[0]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def nodes_of(model: onnx.ModelProto, members: tuple[str, ...]) -> list[str]:
    """The names of the graph's nodes that come from the modules at the dotted paths `members`, in order.

    The exporter names nodes by scopes: below a plain module a component is the child's own name, below a
    sequence or list it is the child's whole path within its parents.
    """
    return [node.name for node in model.graph.node if _path(node.name) and _inside(_path(node.name), members)]


def _path(node_name: str) -> str:
    """`/a/a.1/a.1.0/conv/Conv` → `a.1.0.conv`."""
    parts: list[str] = []
    for part in node_name.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


def _inside(path: str, members: tuple[str, ...]) -> bool:
    return any(path == member or path.startswith(f"{member}.") for member in members)
