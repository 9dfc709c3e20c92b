"""One network of a space as an ONNX file: `nas.export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from latency.lowering import to_onnx
from nas.candidate import with_policy
from nas.names import parse_channels
from nas.native_export import check_int8, write_native
from nas.profiles import built_space, profiled_space
from nas.profiling import neutral_
from nas.results import check_new
from nas.spec import SpaceLike
from quant_search.policy import PRECISIONS, policy_of
from search_spaces.network import extract
from search_spaces.space import Architecture
from supernet.atomic import write_bytes


def export(
    space: SpaceLike,
    arch: Architecture | Mapping[str, Any],
    policy: str | Mapping[str, str] | None,
    path: Path | str,
    *,
    images: np.ndarray | None = None,
    preset: str | None = None,
    image_size: int | None = None,
    in_channels: int = 3,
    num_classes: int | None = None,
    sparsity: Sequence[str] = (),
    format: str = "onnx",
) -> Path:
    """Writes the network `arch` of a space or supernet as an ONNX file, and returns its path.

    With `format="native"` the path is that of a folder with C++ source and weights, for policies in int8 throughout.

    A module instance is exported with its own weights and statistics; of a name or class, which has none, the file is
    as fast and as large as a trained one, and computes nothing of use.

    Args:
        arch: of the space, or its options by name; what is left out stands at its first option.
        policy: one precision for all blocks, or block name to precision; by default fp32.
        images: (n, c, h, w) float32 that activations are calibrated on, for int8 blocks of a module instance.
        preset, image_size, in_channels, num_classes, sparsity: as of `nas.profile`.

    Raises:
        ValueError: options, blocks or precisions that there are not, int8 blocks of an instance without images, or a
            network that has no ONNX form; for a native one, blocks in fp32, or a folder that holds something.
        OSError: the file cannot be written.
    """
    if format not in ("onnx", "native"):
        raise ValueError(f"unknown format {format!r}: there are onnx and native")
    profiled = profiled_space(space, preset, image_size, in_channels, num_classes, PRECISIONS, parse_channels(sparsity))
    network, anatomy, profiled = built_space(space, profiled, seed=0)
    joint = anatomy.joined(arch, policy)
    precisions = policy_of(joint, anatomy.tracer.blocks, anatomy.precisions)
    if format == "native":
        check_new(Path(path))
        check_int8(precisions, "this policy", "give 'int8'")
    trained = isinstance(space, nn.Module)
    if trained and images is None and "int8" in precisions.values():
        raise ValueError("int8 blocks need calibration images: give images (n, c, h, w) float32, or policy 'fp32'")
    if images is not None and (
        images.dtype != np.float32 or images.shape[1:] != profiled.input_shape or not len(images)
    ):
        expected = ", ".join(map(str, profiled.input_shape))
        raise ValueError(f"images must be float32 of shape (n, {expected}), got {images.dtype} of {images.shape}")
    plain = extract(network, joint) if trained else neutral_(extract(network, joint))
    model = to_onnx(plain, profiled.input_shape)
    content = with_policy(model, anatomy.tracer.blocks, precisions, images).SerializeToString()
    if format == "native":
        sample = None if images is None else np.ascontiguousarray(images[:1])
        write_native(content, Path(path), f"A network of {profiled.name}", image=sample)
    else:
        write_bytes(Path(path), content)
    return Path(path)
