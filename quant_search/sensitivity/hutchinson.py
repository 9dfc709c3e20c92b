"""Traces of the blocks of a Hessian by Hutchinson's estimator.

Tr(H) = E[v' H v] for v of independent signs (Hutchinson 1989; Avron and Toledo, JACM 58(2), 2011).  One v for all
weights gives every block's trace at once: of v_i' (H v)_i the terms from other blocks, v_i' H_ij v_j, are 0 in the
mean.  H v is the gradient of g' v (Pearlmutter 1994), so that no Hessian is ever formed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quant_search.sensitivity.subject import Progress

_LEAST = 5  # probes before the spread among them says anything


@dataclass(frozen=True, eq=False)
class Traces:
    """Estimates (l,) of the traces of l diagonal blocks, their standard errors (l,), and the probes they are from."""

    mean: np.ndarray
    error: np.ndarray
    probes: int


def block_traces(
    losses: Callable[[], Iterable[Tensor]],
    weights: Sequence[Tensor],
    tolerance: float = 0.1,
    probes: int = 64,
    seed: int = 0,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Traces:
    """The traces of the Hessian's blocks of each weight, until their standard errors are small.

    Args:
        losses: parts of the loss, anew in each call; they are added up, and one at a time is held.
        weights: tensors that require gradients, which every part is computed from.
        tolerance: the standard error of each trace, as a share of its size, at which no more probes are drawn.
        probes: the largest number of them; each costs about as much as two gradients.
        seconds: draw no more after this long.

    Raises:
        ValueError: no weights, a tolerance not above 0, or fewer than two probes.
    """
    if not weights or tolerance <= 0 or probes < 2:
        got = f"{len(weights)} weights, tolerance {tolerance}, {probes} probes"
        raise ValueError(f"traces need weights, a tolerance above 0 and two probes or more, got {got}")
    generator, start, samples = torch.Generator().manual_seed(seed), time.perf_counter(), list[list[float]]()
    while len(samples) < probes:
        samples.append(_products(losses(), weights, [_signs(w, generator) for w in weights]))
        if progress is not None:
            progress(len(samples), probes)
        late = seconds is not None and time.perf_counter() - start > seconds
        if len(samples) >= 2 and (late or _settled(np.array(samples), tolerance)):
            break
    found = np.array(samples)
    return Traces(found.mean(axis=0), _errors(found), len(found))


def _signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Signs of the shape and type of `weight`, each with probability 1/2."""
    return torch.randint(0, 2, weight.shape, generator=generator).to(weight) * 2 - 1


def _products(losses: Iterable[Tensor], weights: Sequence[Tensor], signs: Sequence[Tensor]) -> list[float]:
    """v_i' (H v)_i of each weight."""
    totals = [0.0] * len(weights)
    for loss in losses:
        gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        curved = [(g, v) for g, v in zip(gradients, signs, strict=True) if g.requires_grad]
        if not curved:  # linear in all of them
            continue
        inner = torch.stack([(g * v).sum() for g, v in curved]).sum()
        products = torch.autograd.grad(inner, weights, materialize_grads=True)
        totals = [t + float((v * p).sum()) for t, v, p in zip(totals, signs, products, strict=True)]
    return totals


def _errors(samples: np.ndarray) -> np.ndarray:
    errors: np.ndarray = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return errors


def _settled(samples: np.ndarray, tolerance: float) -> bool:
    return len(samples) >= _LEAST and bool(np.all(_errors(samples) <= tolerance * np.abs(samples.mean(axis=0))))
