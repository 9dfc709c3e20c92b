"""DARTS: the softmax mixture of all options (Liu, Simonyan and Yang, arXiv:1806.09055)."""

from __future__ import annotations

from dataclasses import dataclass

from supernet.relaxed.search import Relaxed


@dataclass(frozen=True)
class Darts(Relaxed):
    """Every step mixes all options by their probabilities (equation 2).

    First order: logits learn from held-out images at the weights as they are (equation 7 with ξ = 0), weights from the
    others, in turn (algorithm 1). Memory and time are those of all options together.
    """
