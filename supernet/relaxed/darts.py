"""DARTS: the softmax mixture of all options (Liu, Simonyan and Yang, arXiv:1806.09055)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from supernet.relaxed.search import Relaxed


@dataclass(frozen=True)
class Darts(Relaxed):
    """Every step mixes all options by their probabilities (equation 2).

    First order: logits learn from held-out images at the weights as they are (equation 7 with ξ = 0), weights from the
    others, in turn (algorithm 1). Memory and time are those of all options together.

    Norms in the mixed layers neither scale nor shift while the search trains (appendix A.1.1), or a large γ would make
    up for a small probability: their γ and β learn nothing and stay as they were.
    """

    affine: ClassVar[bool] = False
