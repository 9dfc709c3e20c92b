"""Fine-tuning of a pruned ONNX model: what was pruned stays 0, and so it is in the file.

Stochastic gradient descent with momentum and a cosine schedule, as after pruning in arXiv:1608.08710 and 2104.08378;
another network, such as the one that was pruned, may teach (as in arXiv:1711.05852).  Norms are folded into the weights
of an exported graph, or stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latency.runtimes.onnx_to_torch import to_torch
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.masking import Masks, apply_masks
from quant_search.sparsity.trainable import Trainable
from quant_search.sparsity.weighted import layers_of
from supernet.batches import step_generator
from supernet.distill import kl_divergence

_DISTILL = 0.5  # of the loss, where there is a teacher
_LARGEST_NORM = 5.0  # to which the gradient of all weights is cut: zeros that are new make the first ones large


def fine_tune(
    model: onnx.ModelProto,
    examples: Examples,
    steps: int,
    *,
    rate: float = 0.01,
    momentum: float = 0.9,
    masks: Masks | None = None,
    teacher: onnx.ModelProto | None = None,
    augment: Callable[[Tensor, np.random.Generator], Tensor] | None = None,
    seed: int = 0,
    on_step: Callable[[], object] = lambda: None,
) -> onnx.ModelProto:
    """A copy of `model` whose weights and biases were trained on cross entropy for `steps` batches.

    Args:
        examples: batches are drawn from them, each image once before any comes again.
        rate: of learning, at the first step; it falls to 0 along a cosine.
        masks: weights that are 0 from the start and stay 0.
        teacher: half of the loss is the divergence from its classes, where it is given; the rest is the labels'.
        augment: what is done to the images (b, c, h, w) of each step.
        seed: of the order of images and what is done to them; the same seed, the same model.

    Raises:
        ValueError: no steps or no positive rate, masks that do not fit, or as of `Trainable`.
    """
    if steps < 1 or not rate > 0:
        raise ValueError(f"fine-tuning needs steps and a positive rate, got {steps} and {rate}")
    masked = apply_masks(model, masks or {})
    trainable = Trainable(masked, dict.fromkeys((*(layer.weight for layer in layers_of(masked)), *_biases(masked))))
    kept = {name: torch.from_numpy(kept) for name, kept in (masks or {}).items() if name in trainable.weights}
    taught = None if teacher is None else to_torch(teacher)
    weights = list(trainable.weights.values())
    optimizer = torch.optim.SGD(weights, rate, momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, (images, labels) in enumerate(_draws(examples, steps, seed)):
        if augment is not None:
            images = augment(images, step_generator(seed, step))
        loss = _loss(trainable(images), images, labels, taught)
        for tensor, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            tensor.grad = gradient
        for name, mask in kept.items():
            trainable.weights[name].grad.mul_(mask)  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(weights, _LARGEST_NORM)
        optimizer.step()
        schedule.step()
        on_step()
    return trainable.model()


def _loss(logits: Tensor, images: Tensor, labels: Tensor, teacher: nn.Module | None) -> Tensor:
    loss = F.cross_entropy(logits, labels)
    if teacher is None:
        return loss
    with torch.no_grad():
        wanted = teacher(images)
    return (1 - _DISTILL) * loss + _DISTILL * kl_divergence(logits, wanted)


def _biases(model: onnx.ModelProto) -> list[str]:
    """Biases that convolutions and matrix products read from constants."""
    names = {layer.node for layer in layers_of(model)}
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = (node for node in model.graph.node if (node.name or node.output[0]) in names and len(node.input) > 2)
    return [node.input[2] for node in nodes if node.input[2] in constants]


def _draws(examples: Examples, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images and classes."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(examples.images), torch.from_numpy(examples.labels).long()
    n, size = len(images), min(examples.batch, len(images))
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(-(-steps * size // n))])
    for part in order[: steps * size].split(size):
        yield images[part], labels[part]
