"""Kills a search at random moments, resumes it, and compares its front with the uninterrupted run's.

python -m experiments.kill --out FOLDER [--kills 5] [--seed 0] [-- OPTIONS OF nas search]

Both runs share one measurement store, so the second replays the times that the first measured: what must be equal is
everything else.  Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

_SEARCH = [sys.executable, "-c", "from nas.cli import main; main()", "search"]


def command(folder: Path, options: list[str]) -> list[str]:
    """The command line of one run."""
    return [*_SEARCH, *options, "--out", str(folder), "--quiet"]


def evaluated(folder: Path) -> Counter[str]:
    """How often each architecture stands in the journal of a run, as finished evaluations."""
    found: Counter[str] = Counter()
    for line in (folder / "journal.log").read_text().splitlines():
        entry = json.loads(line)
        if "params" in entry:
            found[json.dumps(entry["params"], sort_keys=True)] += 1
    return found


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments, options = parser.parse_known_args()
    options = [o for o in options if o != "--"] or ["--epochs", "6", "--evaluations", "12"]
    os.environ["HWNAS_CACHE"] = str(arguments.out / "cache")
    whole, killed = arguments.out / "whole", arguments.out / "killed"
    start = time.perf_counter()
    subprocess.run(command(whole, options), check=True)
    whole_s = time.perf_counter() - start
    rng, moments = np.random.default_rng(arguments.seed), []
    for _ in range(arguments.kills):
        process = subprocess.Popen(command(killed, options))
        wait_s = float(rng.uniform(0.1, 0.5) * whole_s)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments.append(round(wait_s, 1))
    subprocess.run(command(killed, options), check=True)
    fronts = [json.loads((folder / "front.json").read_text()) for folder in (whole, killed)]
    counts = [evaluated(folder) for folder in (whole, killed)]
    result = {
        "uninterrupted_s": round(whole_s, 1),
        "killed_after_s": moments,
        "points": len(fronts[0]),
        "fronts_equal": fronts[0] == fronts[1],
        "files_equal": all((whole / p["file"]).read_bytes() == (killed / p["file"]).read_bytes() for p in fronts[0]),
        "evaluations": [sum(c.values()) for c in counts],
        "done_twice": sum(n - 1 for n in counts[1].values()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
