"""AlphaNet: the sandwich rule with the adaptive alpha-divergence (Wang et al., arXiv:2102.07954), section 4."""

from __future__ import annotations

from dataclasses import dataclass

from supernet.distill import Divergence, alpha_divergence
from supernet.strategies.sandwich import Sandwich


@dataclass(frozen=True)
class AlphaNet(Sandwich):
    """As `Sandwich`, but students are neither too sure nor too unsure where their teacher is."""

    @property
    def divergence(self) -> Divergence:
        """As `Sandwich.divergence`."""
        return alpha_divergence
