"""A network that the user already has, as an ONNX graph: a file, or a network of timm with local weights."""

from __future__ import annotations

import difflib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from latency.lowering import to_onnx
from quant_search.ptq.intake import prepared

FORMS = "FILE.onnx, or NAME:WEIGHTS of a network of timm"
EXPORT = "torch.onnx.export(network.eval(), (images[:1],), 'net.onnx', dynamo=False)"
OWN = f"write one of your own with {EXPORT}, and give that file"


def check_given(source: str) -> None:
    """Refuses what `read_given` could not read, before anything is loaded for it.

    Raises:
        ValueError: neither an ONNX file nor `NAME:WEIGHTS`.
        FileNotFoundError: no such file.
    """
    name, colon, weights = source.partition(":")
    file = Path(source) if source.endswith(".onnx") else Path(weights)
    if not source.endswith(".onnx") and not (colon and name and weights):
        raise ValueError(f"{source!r} is no network: give {FORMS}; {OWN}")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}: give {FORMS}")


def read_given(source: str, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """The network in fp32, with norms folded, in the form that `quant_search` works on.

    Args:
        image_shape: (c, h, w) of the data, for which a network of timm is exported.

    Raises:
        ValueError: as `check_given`; a file that is no ONNX model or cannot be brought into the form; a network that
            timm does not have or to which the weights do not belong; another image shape than the model's.
        OSError: the file cannot be read.
    """
    check_given(source)
    model = prepared(_read(Path(source)) if source.endswith(".onnx") else _of_timm(source, image_shape))
    sizes = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])
    if sizes != image_shape:
        hint = f": give --image-size {sizes[-1]}" if sizes[:1] == image_shape[:1] and sizes[1] == sizes[2] else ""
        raise ValueError(f"{source} takes images {sizes} (c, h, w), and the data has {image_shape}{hint}")
    return model


def classes_of(model: onnx.ModelProto) -> int:
    """How many classes the logits of a prepared model have.

    Raises:
        ValueError: an output that is no logits.
    """
    sizes = [size.dim_param or size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim]
    if len(sizes) != 2:
        raise ValueError(f"the network's output has the shape {sizes}, expected logits (batch, classes): flatten it")
    return int(sizes[1])


def _read(file: Path) -> onnx.ModelProto:
    try:
        return onnx.load(file)
    except DecodeError as error:
        raise ValueError(f"{file} is no ONNX model: {str(error).splitlines()[0]}") from error


def _of_timm(source: str, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    import timm  # takes seconds, which an ONNX file does not need

    from supernet.published import read_weights

    name = source.partition(":")[0].removeprefix("timm/")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f" (its nearest is {near[0]!r})" if near else ""
        raise ValueError(f"{name!r} is no network of timm{hint}: {OWN}")
    tensors = dict(read_weights(source).tensors)
    matrices = [value for value in tensors.values() if value.dim() == 2]
    classes = {"num_classes": len(matrices[-1])} if matrices else {}
    network = timm.create_model(name, in_chans=image_shape[0], **classes)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{source}: the weights are of another network: {' '.join(str(error).split())}") from error
    return to_onnx(network.eval(), image_shape)
