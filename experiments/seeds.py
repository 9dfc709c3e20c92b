"""Hypervolume of the search against random search and uniform scaling over several seeds.

python -m experiments.seeds --out FOLDER [--seeds 3] [OPTIONS OF nas search]; prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

_SEARCH = [sys.executable, "-c", "from nas.cli import main; main()", "search"]


def main() -> None:
    """Runs one search per seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments, options = parser.parse_known_args()
    rows = []
    for seed in range(arguments.seeds):
        folder = arguments.out / f"seed-{seed}"
        subprocess.run([*_SEARCH, *options, "--seed", str(seed), "--out", str(folder), "--quiet"], check=True)
        record = json.loads((folder / "record.json").read_text())
        latencies = [point["latency_s"]["median"] for point in record["front"]]
        rows.append(
            {
                "seed": seed,
                "hypervolume": record["search"]["hypervolume"],
                "evaluations": {name: len(found) for name, found in record["search"]["groups"].items()},
                "points": len(latencies),
                "latency_range": max(latencies) / min(latencies),
                "held_out_mape": record["profile"]["held_out"]["mape"],
                "seconds": record["seconds"],
            }
        )
    volumes = {name: [row["hypervolume"][name] for row in rows] for name in rows[0]["hypervolume"]}
    medians = {name: float(np.median(values)) for name, values in volumes.items()}
    print(json.dumps({"runs": rows, "median_hypervolume": medians}, indent=1))


if __name__ == "__main__":
    main()
