"""By what factor sparsity makes networks faster on a device, measured: python -m experiments.sparsity_factor.

Each pattern on a small network of the layers that are searched, dense against sparse, interleaved, with the dense one
again as a control (`quant_search.sparsity.factor`); and which multiples of channels the device likes.
"""

from __future__ import annotations

import argparse

from latency.device import entry_of, parse_device
from quant_search.sparsity.factor import measured_factor
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.width_step import largest_that_pays, width_waste

PATTERNS = ("unstructured:0.8", "unstructured:0.95", "2:4", "16x4:0.5", "16x4:0.25", "channels:0.75", "channels:0.5")


def main() -> None:
    """Prints a table for each precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--patterns", nargs="+", default=PATTERNS)
    parser.add_argument("--seeds", type=int, default=3, help="networks, and comparisons, of each pattern")
    options = parser.parse_args()
    device = parse_device(options.device)
    for precision in entry_of(device).precisions:
        print(
            f"| {device.name} {precision} | factor (95 % interval) of each seed | control | pays |\n|---|---|---|---|"
        )
        for name in options.patterns:
            pattern = parse_pattern(name)
            found = [measured_factor(pattern, device, precision, seed=seed) for seed in range(options.seeds)]
            controls = ", ".join(f"{f.control:.3f}" for f in found)
            pays = sum(f.pays for f in found)
            print(f"| {name} | {', '.join(map(str, found))} | {controls} | {pays} of {len(found)} |", flush=True)
        waste = width_waste(device, precision)
        costs = ", ".join(f"{step}: {ratio:.2f}" for step, ratio in waste.items())
        print(f"\nlatency halfway between multiples over that at them: {costs}; step {largest_that_pays(waste)}\n")


if __name__ == "__main__":
    main()
