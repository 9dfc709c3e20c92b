"""torch: an ONNX file as a torch module, traced and frozen on a CPU, recorded as a CUDA graph on a GPU.

On a CPU the module is timed as TorchScript, traced for the shape of its input and frozen: of the forms that need no
compiler it is the fastest here (eager calls of small networks spend half their time in Python, and
`optimize_for_inference` loses it again on conversions between layouts).  On a GPU one graph holds the copy of the
images, all kernels and the copy of the logits, so that a call is one launch and one wait for an event.
fp32 means fp32: TF32 is off.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from latency.device import Device
from latency.runtimes.onnx_to_torch import to_torch
from latency.runtimes.session import Session, called, fixed_shape, read

_WARM_UP = 3  # calls before a graph is recorded, in which libraries choose their kernels and get their memory


class TorchSession(Session):
    """A model as a torch module on the CPU."""

    def __init__(
        self, module: nn.Module, input_shape: tuple[int, ...], threads: int, fixed_batch: int | None = None
    ) -> None:
        self.fixed_batch = fixed_batch
        self._module, self._input_shape, self._threads = module, input_shape, threads

    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits (b, classes) of `x` (b, *input_shape) float32."""
        with _threads(self._threads), torch.inference_mode():
            logits: np.ndarray = self._module(torch.from_numpy(x)).numpy()
        return logits

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch."""
        return self._input_shape

    def call(self, x: np.ndarray) -> Callable[[], object]:
        """One call of the traced and frozen module; sets the number of threads of the process."""
        torch.set_num_threads(self._threads)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shapes are meant to be fixed
            traced = torch.jit.trace(self._module, (torch.from_numpy(x),), check_trace=False)
            frozen = torch.jit.freeze(traced)

        @torch.inference_mode()
        def once() -> object:
            return frozen(torch.from_numpy(x)).numpy()

        return once


class CudaSession(Session):
    """A model as a torch module on the GPU."""

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...], fixed_batch: int | None = None) -> None:
        self.fixed_batch = fixed_batch
        self._module, self._input_shape = module.to("cuda"), input_shape

    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits (b, classes) of `x` (b, *input_shape) float32."""
        with torch.inference_mode(), _fp32():
            logits: np.ndarray = self._module(torch.from_numpy(x).to("cuda")).cpu().numpy()
        return logits

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch."""
        return self._input_shape

    def call(self, x: np.ndarray) -> Callable[[], object]:
        """One replay of a graph that copies the images to the GPU, computes, and copies the logits back."""
        images = torch.from_numpy(x).pin_memory()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), _fp32(), torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                logits = self._module(images.to("cuda", non_blocking=True))
            stream.synchronize()
            result = torch.empty(logits.shape, pin_memory=True)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                result.copy_(self._module(images.to("cuda", non_blocking=True)), non_blocking=True)
            done, array = torch.cuda.Event(), result.numpy()

        def once() -> np.ndarray:
            graph.replay()
            done.record()
            done.synchronize()
            return array

        return once


def open_session(model: bytes | Path, device: Device) -> Session:
    """Opens a model: converted, run once, on the CPU with `device.threads` threads or on the GPU.

    Args:
        model: an ONNX file, or its bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a GPU that torch does not see, a quantized model, an operator that torch has no form of here, or
            other inputs and outputs than one each of float32.
    """
    content = read(model)
    try:
        proto = onnx.load_from_string(content)
    except Exception as error:  # of protobuf, whose classes differ between versions
        raise ValueError(f"torch cannot open {called(model)}: it is no ONNX file") from error
    batch, *shape = _input_shape(proto, called(model))
    try:
        module = to_torch(proto)
        if device.kind == "cpu":
            session: Session = TorchSession(module, fixed_shape(tuple(shape)), device.threads, batch)
        else:
            session = _cuda_session(module, fixed_shape(tuple(shape)), batch, device)
        session.run(np.zeros(session.batch_shape(batch or 1), np.float32))  # what cannot be computed shows now
    except ValueError as error:
        raise ValueError(f"torch cannot open {called(model)}: {error}") from error
    return session


def _input_shape(proto: onnx.ModelProto, what: str) -> list[int | None]:
    """The sizes of the input, None for those that are left open."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name not in weights]
    kinds = [(i.name, onnx.TensorProto.DataType.Name(i.type.tensor_type.elem_type)) for i in inputs]
    if [kind for _, kind in kinds] != ["FLOAT"]:
        raise ValueError(f"{what} has inputs {kinds}, expected one float32 input")
    sizes = inputs[0].type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else None for d in sizes] or [None]


def _cuda_session(module: nn.Module, shape: tuple[int, ...], batch: int | None, device: Device) -> CudaSession:
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # number 0 is the one that nvidia-smi calls so
    if not torch.cuda.is_available():
        raise ValueError(
            f"device {device.name!r}: torch {torch.__version__} sees no GPU (torch.cuda.is_available() is false): "
            "install a build of torch that fits the driver"
        )
    return CudaSession(module, shape, batch)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """With `n` threads, and then as before: in the process that trains, training has a number of its own."""
    before = torch.get_num_threads()
    if before != n:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        if before != n:
            torch.set_num_threads(before)


def _fp32() -> AbstractContextManager[None]:
    """The fastest kernels that cuDNN finds, none of which rounds its inputs to TF32."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    return flags
