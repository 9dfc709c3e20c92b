"""Peak memory of activations: ONNX Runtime's plan of buffers, replayed over the kernels in their order of execution.

A tensor lives from the kernel that makes it to the last one that reads it.  As in ONNX Runtime (`ComputeReusePlan` of
allocation_planner.cc) a view shares its input's buffer, some operators write over an input that nobody else reads, and
a buffer that is free is handed on to a tensor of the same shape, which keeps it held in between.  Shapes that ONNX
Runtime does not know before the call, such as behind a Reshape of an open batch, take no part in the last two.

Outputs of the graph count, inputs and weights do not: the caller and the session hold them.  Nor does scratch memory
inside one kernel, nor what ONNX Runtime's arena holds beyond what is asked of it: it grows by powers of two, and the
single block that it plans for later calls has gaps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from latency.graph import Kernel, Tensor

# Operators whose kernels are registered with MayInplace(0, 0), and what shares its input's buffer in any case.
_IN_PLACE = (
    *("Celu", "Clip", "Elu", "HardSigmoid", "LeakyRelu", "LogSoftmax", "Relu", "Selu", "Sigmoid", "Softmax"),
    *("Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
)
_SHARED = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
_SHAPED_BY_DATA = ("ConstantOfShape", "Expand", "Range", "Resize", "Slice", "Tile")


@dataclass
class _Buffer:
    """What holds a tensor, and others of its shape after it."""

    tensor: Tensor
    made: int
    readers: int  # that have not read yet
    freed: int = 0  # the last kernel that needs it


def peak_bytes(kernels: Iterable[Kernel]) -> int:
    """The most bytes that activations take at once; 0 without kernels.

    Args:
        kernels: in the order of execution, as `executed_kernels` gives them.
    """
    return max(live_bytes(kernels), default=0)


def live_bytes(kernels: Iterable[Kernel]) -> tuple[int, ...]:
    """The bytes that activations take while each kernel runs (n,).

    Args:
        kernels: n of them in the order of execution.
    """
    kernels = tuple(kernels)
    changes = [0] * (len(kernels) + 1)
    for buffer in _plan(kernels):
        changes[buffer.made] += buffer.tensor.bytes
        changes[buffer.freed + 1] -= buffer.tensor.bytes
    live, now = [], 0
    for change in changes[:-1]:
        now += change
        live.append(now)
    return tuple(live)


@dataclass
class _Planner:
    readers: Counter[str]
    last: int
    held: dict[str, _Buffer] = field(default_factory=dict)  # by tensor
    free: list[_Buffer] = field(default_factory=list)  # the latest first
    unknown: set[str] = field(default_factory=set)  # tensors whose shape is found out only in the call

    def run(self, i: int, kernel: Kernel) -> list[_Buffer]:
        """The buffers that a kernel adds."""
        if self._hides_shape(kernel):
            self.unknown.update(t.name for t in kernel.outputs)
        added = []
        for t in kernel.outputs:
            if self._is_callers(kernel, t):
                continue
            buffer = self._given(kernel, t)
            if buffer is None:
                buffer = _Buffer(t, i, 0, i)
                added.append(buffer)
            buffer.readers += self.readers[t.name]
            buffer.freed = i if self.readers[t.name] else max(i, self.last)  # nobody reads what is an output
            self.held[t.name] = buffer
        for t in kernel.inputs:
            if t.name in self.held:
                self._read(i, self.held[t.name])
        return added

    def _read(self, i: int, buffer: _Buffer) -> None:
        buffer.readers -= 1
        buffer.freed = max(i, buffer.freed)
        if buffer.readers == 0 and buffer.freed == i:
            self.free.insert(0, buffer)

    def _given(self, kernel: Kernel, output: Tensor) -> _Buffer | None:
        """The buffer that an output takes over; None where it needs one of its own."""
        if not self.readers[output.name]:
            return None
        if kernel.op_type in _SHARED:
            return self.held[kernel.inputs[0].name]
        over = _written_over(kernel)
        if over and self.held.get(over.name) and self.held[over.name].readers == 1 and self._fits(over, output):
            return self.held[over.name]
        found = next((b for b in self.free if output.shape and self._fits(b.tensor, output)), None)
        if found:
            self.free.remove(found)
        return found

    def _is_callers(self, kernel: Kernel, output: Tensor) -> bool:
        """Whether an output is a view of an input of the graph or of a weight; the graph's own outputs are copies."""
        view = kernel.op_type in _SHARED and self.readers[output.name] > 0
        return view and not (kernel.inputs and kernel.inputs[0].name in self.held)

    def _fits(self, a: Tensor, b: Tensor) -> bool:
        known = self.unknown.isdisjoint((a.name, b.name))
        return known and a.shape == b.shape and a.bytes == b.bytes

    def _hides_shape(self, kernel: Kernel) -> bool:
        computed = kernel.op_type in _SHAPED_BY_DATA and len(kernel.inputs) > 1
        return computed or kernel.op_type == "Reshape" or any(t.name in self.unknown for t in kernel.inputs)


def _plan(kernels: Sequence[Kernel]) -> list[_Buffer]:
    readers = Counter(t.name for kernel in kernels for t in kernel.inputs)
    planner = _Planner(readers, last=len(kernels) - 1)
    return [buffer for i, kernel in enumerate(kernels) for buffer in planner.run(i, kernel)]


def _written_over(kernel: Kernel) -> Tensor | None:
    """The input that a kernel may write its result over: that of an activation, or the summand of a convolution."""
    if kernel.op_type in _IN_PLACE and kernel.inputs:
        return kernel.inputs[0]
    return kernel.inputs[-1] if kernel.op_type in ("Conv", "FusedConv") and len(kernel.inputs) > 1 else None
