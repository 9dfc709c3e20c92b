"""Fake quantization with a learned step size, for quantization-aware training (LSQ, arXiv:1902.08153)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant_search.fake import join, split, usable
from quant_search.formats.granularity import Granularity
from quant_search.formats.integer import Integer
from quant_search.formats.number import TINY


class LearnedStep(nn.Module):
    """Fake quantization to integers whose step size is learned with the weights (LSQ, arXiv:1902.08153).

    The zero point stays what it was at first.  The gradient to the step is scaled by 1 / sqrt(N x Qp), section 2.2,
    where N is the number of values that share the step and Qp the largest code above zero.

    Args:
        scale: steps to begin with, as `initial_step` or `scales_of` gives them.
        zero: zero points of the same shape; 0 unless given.
        batched: values have a batch in front, whose size does not count in N: activations.

    Raises:
        ValueError: steps that are not all above 0, or a format of more than 16 bits.
    """

    zero: Tensor

    def __init__(
        self,
        number: Integer,
        scale: Tensor,
        zero: Tensor | None = None,
        granularity: Granularity | None = None,
        batched: bool = False,
    ) -> None:
        super().__init__()
        if not bool((scale > 0).all()):
            raise ValueError(f"steps must be above 0, got {scale.min().item()}: take initial_step of the values")
        if number.bits > 16:
            raise ValueError(f"steps are learned for up to 16 bits, got {number.name}")
        self.number, self.granularity, self.batched = number, number.checked(granularity), batched
        self.scale = nn.Parameter(scale.detach().clone().float())
        self.register_buffer("zero", torch.zeros_like(scale) if zero is None else zero.detach().clone().float())

    def forward(self, values: Tensor) -> Tensor:
        """`values` rounded (eq. 1-2), with gradients to them and to the step (eq. 3)."""
        layout = self.granularity.layout(tuple(values.shape))
        scale, zero = (part.reshape(layout.broadcast) for part in (self.steps(), self.zero))
        sharing = values.numel() / max(1, self.scale.numel()) / (max(1, len(values)) if self.batched else 1)
        most = (self.number.highest - zero).clamp(min=1)
        weight = (max(1.0, sharing) * most).rsqrt()
        blocks = _LearnedRounding.apply(split(values.float(), layout), scale, zero, weight, self.number)
        return join(blocks, layout, values.shape)

    def steps(self) -> Tensor:
        """The scales in use: above 0, whichever side of it the weights' optimizer put the parameter."""
        return self.scale.abs().clamp(min=TINY)


def initial_step(values: Tensor, number: Integer, granularity: Granularity | None = None) -> Tensor:
    """Steps for LSQ to begin with: 2 mean |values| / sqrt(Qp) (section 2.1) of those that share one, 1 where all are 0.

    Raises:
        ValueError: a format with a zero point, for which ranges give scales, or a granularity that does not fit.
    """
    if not number.symmetric:
        raise ValueError(f"an initial step needs a symmetric format, got {number.name}: take scales_of for it")
    granularity = number.checked(granularity)
    layout, shape = granularity.layout(tuple(values.shape)), granularity.scale_shape(tuple(values.shape))
    blocks = split(values.detach().float().abs(), layout)
    count = split(torch.ones_like(values, dtype=torch.float32), layout)
    if layout.shared:
        blocks, count = (part.sum(layout.shared) for part in (blocks, count))
    mean = (blocks / count.clamp(min=1)).reshape(shape)
    return usable(2 * mean.double() / number.highest**0.5)


class _LearnedRounding(torch.autograd.Function):
    """v -> (clip(round(v / s) + zero) - zero) s, with the gradients of LSQ's eq. 3 and 5."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero: Tensor, weight: Tensor, number: Integer) -> Tensor:
        ctx.save_for_backward(values, scale, zero, weight)
        ctx.ends = number.lowest, number.highest
        code = (torch.round(values / scale) + zero).clamp(*ctx.ends)
        return (code - zero) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        values, scale, zero, weight = ctx.saved_tensors
        steps, least, most = values / scale, ctx.ends[0] - zero, ctx.ends[1] - zero
        inside = (steps > least) & (steps < most)
        to_step = torch.where(inside, torch.round(steps) - steps, torch.minimum(torch.maximum(steps, least), most))
        shared = [i for i, n in enumerate(scale.shape) if n == 1]
        to_scale = gradients[0] * to_step
        total = to_scale.sum(shared, keepdim=True) if shared else to_scale
        return gradients[0] * inside, total * weight, None, None, None
