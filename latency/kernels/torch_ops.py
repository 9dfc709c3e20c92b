"""Programs as operators of torch, and modules with them: they run in eager torch and survive `torch.export`.

`hwnas::run_program` runs a network from float32 images to float32 outputs, `hwnas::run_codes` layers from codes to
codes.  A program is a tensor uint8 (bytes,), as `latency.kernels.program.encoded` writes it, so that modules and
exported programs are saved with it.  Tracing does not look into tensors: the sizes of what is made are arguments, which
are checked when it is run.

Importing this module registers the operators; whoever loads an exported program does so before.  They have no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from latency.kernels.codes import Layer, codes_program
from latency.kernels.intake import program_of
from latency.kernels.opened import digest_of, opened
from latency.kernels.program import encoded, shapes_of

# Of programs that were run, what tells whether they are the same, and their digest: not every call reads all of them.
_digests = WeakTensorKeyDictionary()


@torch.library.custom_op("hwnas::run_program", mutates_args=())
def run_program(program: Tensor, images: Tensor, outputs: int, threads: int = 1) -> Tensor:
    """Outputs float32 (b, outputs) of images float32 (b, c, h, w).

    Raises:
        ValueError: a tensor of another type, shape or device, or no program of these sizes.
        RuntimeError: there is no compiler, or not enough memory.
    """
    _check(program, images, "images", torch.float32, threads)
    return _run(program, images, (outputs,), threads)


@run_program.register_fake
def _(program: Tensor, images: Tensor, outputs: int, threads: int = 1) -> Tensor:
    _check(program, images, "images", torch.float32, threads)
    return images.new_empty((images.shape[0], outputs))


@torch.library.custom_op("hwnas::run_codes", mutates_args=())
def run_codes(program: Tensor, codes: Tensor, shape: Sequence[int], threads: int = 1) -> Tensor:
    """Codes uint8 (b, *shape) of codes uint8 (b, h, w, c), by a program that `codes_program` made.

    Codes go in and come out as float32, exactly: that costs a pass over each.

    Raises:
        ValueError: a tensor of another type, shape or device, or no program of these sizes.
        RuntimeError: there is no compiler, or not enough memory.
    """
    _check(program, codes, "codes", torch.uint8, threads)
    images = codes.permute(0, 3, 1, 2).to(torch.float32)
    return _run(program, images, shape, threads).to(torch.uint8)


@run_codes.register_fake
def _(program: Tensor, codes: Tensor, shape: Sequence[int], threads: int = 1) -> Tensor:
    _check(program, codes, "codes", torch.uint8, threads)
    return codes.new_empty((codes.shape[0], *shape))


class FusedNetwork(nn.Module):
    """An int8 network (QDQ form) from images float32 (b, c, h, w) to logits, as one operator.

    Args:
        model: an ONNX file, or its bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nodes that there are no kernels for, by name.
    """

    program: Tensor

    def __init__(self, model: bytes | Path | str, threads: int = 1) -> None:
        super().__init__()
        data = encoded(program_of(Path(model) if isinstance(model, str) else model))
        self.register_buffer("program", _tensor(data))
        self.input_shape, self.outputs = shapes_of(data)
        self.threads = threads

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 (b, outputs)."""
        made: Tensor = torch.ops.hwnas.run_program(self.program, images, self.outputs, self.threads)
        return made

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"{self.input_shape}, {self.outputs}, threads={self.threads}"


class FusedLayers(nn.Module):
    """Layers of the contract, such as one `InvertedResidual`, from codes uint8 (b, h, w, c) to codes, as one operator.

    Args:
        layers: each reads what the one before makes.
        shape: (h, w, c) of the first codes.

    Raises:
        ValueError: layers that do not fit the shape or one another.
    """

    program: Tensor

    def __init__(self, layers: Sequence[Layer], shape: tuple[int, int, int], threads: int = 1) -> None:
        super().__init__()
        program, self.output_shape = codes_program(layers, shape)
        self.register_buffer("program", _tensor(encoded(program)))
        self.input_shape, self.threads = shape, threads

    def forward(self, codes: Tensor) -> Tensor:
        """Codes uint8 (b, h', w', c')."""
        made: Tensor = torch.ops.hwnas.run_codes(self.program, codes, self.output_shape, self.threads)
        return made

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"{self.input_shape}, {self.output_shape}, threads={self.threads}"


def _check(program: Tensor, x: Tensor, name: str, dtype: torch.dtype, threads: int) -> None:
    """Refuses what can be told without looking into tensors."""
    for what, tensor, kind, dimensions in (("the program", program, torch.uint8, 1), (name, x, dtype, 4)):
        if tensor.dtype != kind or tensor.dim() != dimensions:
            got = f"{tensor.dtype} of {tensor.dim()} dimensions"
            raise ValueError(f"{what}: got {got}, expected {kind} of {dimensions}")
        if tensor.device.type not in ("cpu", "meta"):
            raise ValueError(f"{what}: got a tensor on {tensor.device}, and fused kernels run on the CPU: call .cpu()")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")


def _run(program: Tensor, images: Tensor, shape: Sequence[int], threads: int) -> Tensor:
    """float32 (b, *shape) of images float32 (b, c, h, w)."""
    data = program.detach().contiguous().numpy().data
    native = opened(_digest(program, data), data)
    image, outputs = shapes_of(data)
    if images.shape[1:] != image or prod(shape) != outputs:
        sizes = f"(b, {', '.join(map(str, images.shape[1:]))}) to {prod(shape)} numbers"
        raise ValueError(f"the program runs images (b, {', '.join(map(str, image))}) to {outputs} numbers, got {sizes}")
    made = torch.empty((len(images), *shape), dtype=torch.float32)
    if len(images):
        native.call(images.detach().contiguous().numpy(), made.numpy(), threads)()
    return made


def _digest(program: Tensor, data: memoryview) -> bytes:
    """The digest of a program's content, which is read again where torch may have changed it."""
    if program.is_inference():  # whose changes are not counted
        return digest_of(data)
    state = program._version, program.data_ptr(), len(program)
    known = _digests.get(program)
    if known is None or known[0] != state:
        known = _digests[program] = state, digest_of(data)
    digest: bytes = known[1]
    return digest


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
