"""Lowering: a plain torch network as an ONNX model, the one form that is measured and shipped.

Source: torch's TorchScript-based exporter, which is 10 to 100 times faster on graphs of this size than the
one based on `torch.export`, and keeps the scopes of modules in every node's name.
"""

from __future__ import annotations

import functools
import re
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import nn
from torch.onnx import symbolic_helper

OPSET = 17  # the first with every operator of our networks as one node; long supported by ONNX Runtime
INPUT, OUTPUT = "input", "logits"


def to_onnx(module: nn.Module, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    """The ONNX model of a plain network in eval mode, with batch norm folded into the convolutions.

    One input `input` (batch, *input_shape) float32 and one output `logits`; the batch is dynamic.  Nodes are
    named `/path.of.module/Operator`, as `nodes_of` reads them.  The same network gives the same bytes.

    Raises:
        ValueError: an operation that has no ONNX form.
    """
    # On the network's own device: the trace must not move the caller's weights.
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    example = torch.zeros(2, *input_shape, device=device)
    _teach_shuffle()
    training = {m: m.training for m in module.modules()}
    module.eval()
    hook = module.register_forward_pre_hook(_scopes_by_path)
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
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{type(module).__name__} cannot be exported to ONNX: {reason}") from error
    finally:
        hook.remove()
        for m, mode in training.items():
            m.training = mode
    _own_weights_(model)
    _name_by_module_(model, module)
    return model


@functools.cache
def _teach_shuffle() -> None:
    """Teaches torch's exporter `nn.ChannelShuffle`, of which it knows no ONNX form."""
    torch.onnx.register_custom_op_symbolic("aten::channel_shuffle", _shuffled, OPSET)


def _shuffled(graph: Any, x: Any, groups: Any) -> Any:
    """A shuffle as one node that picks channels, for any number of images and pixels."""
    count, channels = symbolic_helper._maybe_get_const(groups, "i"), symbolic_helper._get_tensor_dim_size(x, 1)
    order = torch.arange(cast(int, channels)).view(count, -1).t().flatten()
    return graph.op("Gather", x, graph.op("Constant", value_t=order), axis_i=1)


def _own_weights_(model: onnx.ModelProto) -> None:
    """Gives every use of a weight its own initializer.

    The exporter stores equal initializers (zero biases, say) once and hands them out through Identity nodes.
    Behind an Identity a weight is no initializer and quantizers leave it alone; and an initializer that an int8
    and an fp32 layer share is quantized for both, which costs the fp32 layer its fast kernel.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    kept, uses = [], Counter[str]()
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in outputs:
            weights[node.output[0]] = weights[node.input[0]]
        else:
            kept.append(node)
    used = []
    for node in kept:
        for i, name in enumerate(node.input):
            if name in weights:
                uses[name] += 1
                own = onnx.TensorProto()
                own.CopyFrom(weights[name])
                own.name = node.input[i] = name if uses[name] == 1 else f"{name}_use{uses[name]}"
                used.append(own)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(used)


def _scopes_by_path(module: nn.Module, _inputs: object) -> None:
    """Makes the exporter name scopes by whole paths; its own names are cut at the last one that is no number."""
    scopes = torch.jit._trace._trace_module_map
    if scopes is not None:
        for path, m in module.named_modules():
            scopes[m] = f"{scopes[m].partition('::')[0]}::{path}"


def _name_by_module_(model: onnx.ModelProto, module: nn.Module) -> None:
    """Renames nodes to `/path.of.module/Operator`, from scopes that are paths, or `path_1` in a second run.

    What no module stands for (`F.relu(x)`, `x + y`), and a later run of a layer without weights that is run
    several times, goes with the latest of the nodes that feed it: there is its place among the blocks.
    """
    paths = {path for path, _ in module.named_modules()}
    weights = {tensor.name for tensor in model.graph.initializer}
    made_in: dict[str, str] = {}  # tensor to module path, in the order of the nodes
    seen = Counter[str]()
    for node in model.graph.node:
        scope = node.name.strip("/").rpartition("/")[0].rpartition("/")[2]
        path = scope if scope in paths else re.sub(r"_\d+$", "", scope)
        if not path or (scope not in paths and not weights.intersection(node.input)):
            path = next((made_in[name] for name in reversed(made_in) if name in node.input), path)
        made_in.update(dict.fromkeys(node.output, path))
        name = f"/{path}/{node.op_type}" if path else f"/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name] - 1}"


def nodes_of(model: onnx.ModelProto, members: tuple[str, ...]) -> list[str]:
    """The names of the nodes of a model of `to_onnx` that come from the modules at the dotted paths `members`."""
    return [node.name for node in model.graph.node if _inside(node.name.strip("/").rpartition("/")[0], members)]


def _inside(path: str, members: tuple[str, ...]) -> bool:
    return any(path == member or path.startswith(f"{member}.") for member in members)
