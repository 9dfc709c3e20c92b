"""`python -m experiments.bench NAME [--json]`: runs one benchmark; without a name, lists them."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json

# Name to the module that has its `bench()`, which returns rows (dataclasses that print as lines).
BENCHMARKS = {
    "depthwise": "experiments.bench.depthwise",
    "inner_search": "experiments.bench.inner_search",
    "quantize": "experiments.bench.quantize",
    "spaces": "experiments.bench.spaces",
    "supernet_step": "experiments.bench.supernet_step",
    "timing": "experiments.bench.timing",
    "trust": "experiments.bench.trust",
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="which benchmark to run")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    if args.name is None:
        print(*BENCHMARKS, sep="\n")
        return
    rows = importlib.import_module(BENCHMARKS[args.name]).bench()
    if args.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    else:
        print(*rows, sep="\n")


if __name__ == "__main__":
    main()
