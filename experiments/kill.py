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

# The command line, with a line in a log for each real evaluation that is done, whatever becomes of its result.
_SPIED = """
import os
from pathlib import Path
from nas.cli import main
from nas.verify import RealEvaluator

evaluate = RealEvaluator.__call__

def logged(self, arch):
    metrics = evaluate(self, arch)
    with Path(os.environ["EVALUATED"]).open("a") as log:
        log.write(f"{arch}\\n")
    return metrics

RealEvaluator.__call__ = logged
main()
"""


def start(folder: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Starts the run in `folder`, or goes on with it."""
    command = [sys.executable, "-c", _SPIED, "search", *options, "--out", str(folder), "--quiet"]
    return subprocess.Popen(command, env={**os.environ, "EVALUATED": str(folder.with_suffix(".log"))})


def evaluated(folder: Path) -> Counter[str]:
    """How often each architecture was really evaluated in a run."""
    return Counter(folder.with_suffix(".log").read_text().splitlines())


def finish(folder: Path, options: list[str]) -> None:
    """Runs the search to its end.

    Raises:
        RuntimeError: it failed.
    """
    code = start(folder, options).wait()
    if code:
        raise RuntimeError(f"the run in {folder} ended with {code}")


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments, options = parser.parse_known_args()
    options = [o for o in options if o != "--"] or ["--epochs", "6", "--evaluations", "12"]
    os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order in all runs
    os.environ["HWNAS_CACHE"] = str(arguments.out / "cache")
    whole, killed = arguments.out / "whole", arguments.out / "killed"
    if arguments.out.exists() and any(arguments.out.iterdir()):
        parser.error(f"{arguments.out} is not an empty folder")
    arguments.out.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    finish(whole, options)
    whole_s = time.perf_counter() - begun
    rng, moments = np.random.default_rng(arguments.seed), []
    for _ in range(arguments.kills):
        process = start(killed, options)
        wait_s = float(rng.uniform(0.1, 0.4) * whole_s)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments.append(round(wait_s, 1))
    finish(killed, options)
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
    if len(moments) < arguments.kills:
        sys.exit(f"only {len(moments)} of {arguments.kills} kills came before the end")


if __name__ == "__main__":
    main()
