"""Noise of the network's outputs over their signal, one group quantized at a time.

Source: the signal-to-quantization-noise ratio by layer of Lin, Talathi and Annapureddy (arXiv:1511.06393), and of
Pandey et al. (arXiv:2302.05397), who rank layers by it at the network's output.
"""

from __future__ import annotations

import numpy as np

from quant_search.sensitivity.running import Direction, by_running
from quant_search.sensitivity.subject import Progress, Sensitivity, Subject


def sqnr(
    subject: Subject, progress: Progress | None = None, *, direction: Direction = "one", threads: int = 1
) -> Sensitivity:
    """Damage: Σ (quantized - fp32)² / Σ fp32² over all logits of all images, 1 / SQNR.

    Raises:
        ValueError: as `by_running`.
    """
    return by_running("sqnr", subject, noise_to_signal, direction, progress, threads)


def noise_to_signal(outputs: np.ndarray, fp32: np.ndarray) -> float:
    """Power of the difference of outputs (n, k) from those in fp32, over the power of these."""
    signal = np.square(fp32, dtype=np.float64).sum()
    noise = np.square(outputs - fp32, dtype=np.float64).sum()
    return float(noise / max(signal, np.finfo(np.float64).tiny))
