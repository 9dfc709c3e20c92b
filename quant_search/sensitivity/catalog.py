"""The sensitivity measures by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quant_search.sensitivity.subject import Measure, Progress, Sensitivity, Subject


@dataclass(frozen=True)
class MeasureEntry:
    """A sensitivity measure.

    Args:
        source: where it was proposed.
        maker: `module:function` of a `Measure`.
        labels: whether it needs the classes of the images.
        activations: whether it sees what rounding activations costs, or weights alone.
    """

    summary: str
    source: str
    maker: str
    labels: bool
    activations: bool

    def measure(self, subject: Subject, progress: Progress | None = None, **settings: Any) -> Sensitivity:
        """The damage of each option to each group; torch is loaded only by those that need it.

        Raises:
            ValueError: as the measure says.
        """
        module, _, function = self.maker.partition(":")
        found: Measure = getattr(importlib.import_module(module), function)
        return found(subject, progress, **settings)


MEASURES = {
    "sqnr": MeasureEntry(
        summary="noise over signal of the logits, a group quantized at a time",
        source="arXiv:1511.06393",
        maker="quant_search.sensitivity.sqnr:sqnr",
        labels=False,
        activations=True,
    ),
    "kl": MeasureEntry(
        summary="divergence of the predicted classes, a group quantized at a time",
        source="arXiv:2001.00281",
        maker="quant_search.sensitivity.kl:kl",
        labels=False,
        activations=True,
    ),
    "leave-one-out": MeasureEntry(
        summary="drop of accuracy, a group quantized at a time or all but one",
        source="arXiv:2004.09602",
        maker="quant_search.sensitivity.leave_one_out:leave_one_out",
        labels=True,
        activations=True,
    ),
    "hessian": MeasureEntry(
        summary="mean trace of the loss' Hessian times the squared change of weights",
        source="arXiv:1911.03852",
        maker="quant_search.sensitivity.hessian:hessian",
        labels=True,
        activations=False,
    ),
    "fisher": MeasureEntry(
        summary="squared gradients of each image times the squared change, weight by weight",
        source="arXiv:2210.08502",
        maker="quant_search.sensitivity.fisher:fisher",
        labels=True,
        activations=False,
    ),
}
