"""A network with fewer channels or with zeros is trained on before its precisions are chosen.

The network that was given teaches, beside the classes of the images (`quant_search.sparsity.fine_tune`).  What became
worse in validation accuracy stands as it was pruned, as it does where `nas search` trains its points on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx

from latency.device import Device
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from nas.finetune import augmentation
from nas.sparsify import zeros_to_keep
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.fine_tune import fine_tune
from supernet.data import Dataset

_BATCH = 64


@dataclass(frozen=True)
class Accuracies:
    """Of one network in fp32."""

    val_accuracy: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class FinetunedPruned:
    """What a training gave.

    Args:
        model: the trained network, or the pruned one where training made validation accuracy worse.
    """

    model: onnx.ModelProto
    steps: int
    before: Accuracies
    after: Accuracies

    @property
    def kept(self) -> bool:
        """Whether training made it no worse."""
        return self.after.val_accuracy >= self.before.val_accuracy

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        pairs = {
            name: {"before": getattr(self.before, name), "after": getattr(self.after, name)}
            for name in ("val_accuracy", "accuracy")
        }
        return {"steps": self.steps, "kept": self.kept, **pairs}


def finetune_pruned(
    pruned: onnx.ModelProto,
    given: onnx.ModelProto,
    sparsity: str,
    dataset: Dataset,
    device: Device,
    steps: int,
    seed: int,
    on_step: Callable[[], object],
) -> FinetunedPruned:
    """Trains `pruned` on the training images; zeros of the pattern stay zeros.

    Args:
        pruned: `given` with the sparsity of that name.

    Raises:
        ValueError: a network that torch cannot run.
    """
    tuned = fine_tune(
        pruned,
        Examples(dataset.x_train, dataset.y_train, _BATCH),
        steps,
        masks=zeros_to_keep(given, sparsity),
        teacher=given,
        augment=augmentation(dataset),
        seed=seed,
        on_step=on_step,
    )
    before, after = (_accuracies(model, dataset, device) for model in (pruned, tuned))
    found = FinetunedPruned(tuned, steps, before, after)
    return found if found.kept else FinetunedPruned(pruned, steps, before, after)


def _accuracies(model: onnx.ModelProto, dataset: Dataset, device: Device) -> Accuracies:
    session = open_session(model.SerializeToString(), device)
    val, test = ((dataset.x_val, dataset.y_val), (dataset.x_test, dataset.y_test))
    return Accuracies(accuracy(session, *val), accuracy(session, *test))
