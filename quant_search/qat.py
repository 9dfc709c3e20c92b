"""Quantization-aware training of an ONNX network: its weights and step sizes learn while they are rounded.

Learned step sizes (LSQ, arXiv:1902.08153) on the torch twin of the file that is shipped (`quant_search.twin`), so that
what training believed is what the file does; the fp32 network may teach (Apprentice, arXiv:1711.05852).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnxruntime.quantization.calibrate import TensorsData
from torch import Tensor, nn

from latency.runtimes.onnx_to_torch import to_torch
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions, nodes_in_int8
from quant_search.twin import Twin
from quant_search.weight_codes import WeightCodes
from supernet.batches import batch_indices, step_generator
from supernet.distill import kl_divergence

_CALIBRATION = 512  # images

Augment = Callable[[Tensor, np.random.Generator], Tensor]
"""Changes images (b, ...) at random; every draw comes from the generator."""

Teacher = Callable[[Tensor], Tensor]
"""Logits (b, classes) of images (b, ...), on their device."""


@dataclass(frozen=True)
class Recipe:
    """How a quantized network is trained.

    Args:
        lr: of weights and steps at the start, from which a cosine leads to 0 (arXiv:1902.08153, section 2.3).
        weight_decay: of weights, not of biases and steps.
        distill: share of the loss that is the divergence from the teacher's classes; the rest is the labels'.
        largest_norm: to which the gradient of all weights and steps is cut.

    Raises:
        ValueError: a number out of its range.
    """

    steps: int = 300
    batch: int = 64
    lr: float = 0.005
    momentum: float = 0.9
    weight_decay: float = 1e-4
    distill: float = 0.5
    largest_norm: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.lr <= 0 or not 0 <= self.distill <= 1:
            raise ValueError(f"a recipe has steps, a batch and a rate above 0 and a share of distillation, got {self}")


@dataclass(frozen=True, eq=False)
class Trained:
    """A network after quantization-aware training.

    Args:
        model: in fp32, with its weights as they are before rounding.
        ranges: of the activations, by their learned scales.
        codes: name of each layer whose weight is rounded to that weight.
        losses: of every step.
        twin: the torch network that was trained.
    """

    model: onnx.ModelProto
    groups: Mapping[str, Sequence[str]]
    chosen: Mapping[str, str]
    ranges: TensorsData
    codes: Mapping[str, WeightCodes]
    losses: tuple[float, ...]
    twin: Twin

    def file(self, pack: bool = True) -> onnx.ModelProto:
        """The quantized network as ONNX, whose outputs are the twin's up to a code in each activation.

        Args:
            pack: as for `onnx_qdq.quantize`.
        """
        return in_precisions(self.model, self.groups, self.chosen, self.ranges, self.codes, pack)


def train(
    model: onnx.ModelProto,
    groups: Mapping[str, Sequence[str]],
    chosen: Mapping[str, str],
    images: np.ndarray,
    labels: np.ndarray | None = None,
    recipe: Recipe = Recipe(),
    *,
    ranges: TensorsData | None = None,
    augment: Augment | None = None,
    teacher: Teacher | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Trained:
    """Trains `model` with groups of its nodes in the precisions chosen for them.

    The same arguments give the same result on a CPU.  Costs about twice what training in fp32 does.

    Args:
        groups, chosen: as for `precision.in_precisions`.
        images: (n, ...) float32, as the network takes them.
        labels: classes (n,); none are needed where all of the loss is distilled.
        ranges: that activations begin with; by default those of 512 images, drawn by the seed.
        augment: what is done to the images of each step.
        teacher: by default the network in fp32, as it was given; in a network that is not rounded at all it is that
            network itself, which holds it where it began.

    Raises:
        ValueError: images and labels that do not fit, a network that torch cannot run, or a loss that is not finite.
    """
    _check(images, labels, recipe)
    if ranges is None:
        some = np.random.default_rng(recipe.seed).permutation(len(images))[:_CALIBRATION]
        ranges = activation_ranges(model, images[some], nodes=nodes_in_int8(groups, chosen))
    twin, teacher = Twin(model, groups, chosen, ranges).to(device), teacher or to_torch(model).to(device)
    optimizer, losses = _optimizer(twin, recipe), list[float]()
    for step, (x, y) in enumerate(_batches(images, labels, recipe, augment, device)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        losses.append(_step(twin, teacher, optimizer, x, y, recipe))
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss is {losses[-1]} after {step} steps: take a smaller rate than {recipe.lr}")
        if progress is not None:
            progress(step + 1, recipe.steps)
    twin.to("cpu")
    return Trained(twin.fp32(model), groups, chosen, twin.ranges(), twin.codes(), tuple(losses), twin)


def _check(images: np.ndarray, labels: np.ndarray | None, recipe: Recipe) -> None:
    if not len(images) or images.dtype != np.float32:
        raise ValueError(f"training needs images of float32, one at least, got {len(images)} of {images.dtype}")
    if labels is None and recipe.distill < 1:
        raise ValueError(f"a loss of {1 - recipe.distill:.0%} labels needs labels, got none: give them, or distill=1")
    if labels is not None and labels.shape != (len(images),):
        raise ValueError(f"labels are the classes (n,) of the images, got {labels.shape} for {len(images)} images")


def _batches(
    images: np.ndarray, labels: np.ndarray | None, recipe: Recipe, augment: Augment | None, device: str
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images (b, ...) and labels (b,) of each step, drawn by the seed and the step alone."""
    for step in range(recipe.steps):
        some = batch_indices(len(images), recipe.batch, recipe.seed, step)
        x = torch.from_numpy(images[some])
        if augment is not None:
            x = augment(x, step_generator(recipe.seed, step))
        y = None if labels is None else torch.from_numpy(labels[some].astype(np.int64)).to(device)
        yield x.to(device), y


def _optimizer(twin: Twin, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [p for p in twin.weights if p.dim() > 1]
    others = [p for p in twin.weights if p.dim() <= 1] + list(twin.steps.parameters())
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, recipe.lr, recipe.momentum, nesterov=recipe.momentum > 0)


def _step(
    twin: Twin, teacher: Teacher, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor | None, recipe: Recipe
) -> float:
    logits, loss = twin(x), torch.zeros((), device=x.device)
    if recipe.distill > 0:
        with torch.no_grad():
            target = teacher(x)
        loss = loss + recipe.distill * kl_divergence(logits, target)
    if y is not None and recipe.distill < 1:
        loss = loss + (1 - recipe.distill) * F.cross_entropy(logits, y)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(twin.parameters(), recipe.largest_norm)
    optimizer.step()
    return loss.item()
