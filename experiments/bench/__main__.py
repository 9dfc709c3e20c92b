"""`python -m experiments.bench NAME [--json]`: runs one benchmark; without a name, lists them.

A benchmark may have options of its own: `python -m experiments.bench NAME --help`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from typing import Any, NoReturn

# Name to the module that has its `bench()`, which gives rows: dataclasses that print as lines, and may have a form for
# JSON of their own, `plain()`; one that is not `exact` makes the exit status 1.  `add_options(parser)`, where it is
# there, adds what `bench` takes.
BENCHMARKS = {
    "depthwise": "experiments.bench.depthwise",
    "inner_search": "experiments.bench.inner_search",
    "kernels": "experiments.bench.kernels",
    "quantize": "experiments.bench.quantize",
    "spaces": "experiments.bench.spaces",
    "supernet_step": "experiments.bench.supernet_step",
    "timing": "experiments.bench.timing",
    "trust": "experiments.bench.trust",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> None:
    """The command line."""
    parser = _Parser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="which benchmark to run")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="--json, and the benchmark's own: see NAME --help")
    args = parser.parse_args()
    if args.name is None:
        print(*BENCHMARKS, sep="\n")
        return
    module = importlib.import_module(BENCHMARKS[args.name])
    own = _Parser(prog=f"{parser.prog} {args.name}", description=module.__doc__)
    own.formatter_class = argparse.RawDescriptionHelpFormatter
    own.add_argument("--json", action="store_true", help="print the rows as JSON")
    if hasattr(module, "add_options"):
        module.add_options(own)
    options = vars(own.parse_args(args.options))
    as_json = options.pop("json")
    rows = []
    for row in module.bench(**options):
        rows.append(row)
        if not as_json:
            print(row, flush=True)
    if as_json:
        print(json.dumps([_plain(row) for row in rows], indent=2))
    if not all(getattr(row, "exact", True) for row in rows):
        sys.exit(1)


def _plain(row: Any) -> dict[str, Any]:
    found: dict[str, Any] = row.plain() if hasattr(row, "plain") else dataclasses.asdict(row)
    return found


if __name__ == "__main__":
    main()
