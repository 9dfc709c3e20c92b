"""Reproduces a front with onnxruntime and numpy alone: python experiments/check_front.py RUN TEST.npz

TEST.npz is from `nas data NAME --split test --out TEST.npz`.  Accuracies must be equal; latencies (medians of the
samples within a tenth of the third fastest) may differ by 5 % or twice the width of the reported interval.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

run, test = Path(sys.argv[1]), np.load(sys.argv[2])
front, options = json.loads((run / "front.json").read_text()), ort.SessionOptions()
device = json.loads((run / "record.json").read_text())["device"]
options.intra_op_num_threads, options.inter_op_num_threads = device["threads"], 1
image, samples = {"input": test["x"][: device["batch"]]}, [[] for _ in front]
for turn in range(40):  # fresh sessions, interleaved, in alternating order
    for i in range(len(front)) if turn % 2 == 0 else reversed(range(len(front))):
        session = ort.InferenceSession(run / front[i]["file"], options)
        calls = max(1, round(1e-4 / front[i]["latency_s"]["median"]))
        for _ in range(60):  # the first are warm-up, and slower
            start = time.perf_counter()
            for _ in range(calls):
                session.run(None, image)
            samples[i].append((time.perf_counter() - start) / calls)
failed = 0
for point, times in zip(front, map(np.array, samples), strict=True):
    session = ort.InferenceSession(run / point["file"], options)
    batches = np.array_split(test["x"], len(test["x"]) // 256 + 1)
    labels = np.concatenate([session.run(None, {"input": x})[0].argmax(1) for x in batches])
    accuracy, said, (low, high) = (labels == test["y"]).mean(), point["latency_s"]["median"], point["latency_s"]["ci95"]
    found, allowed = np.median(times[times <= 1.1 * np.sort(times)[2]]), max(0.05, 2 * (high - low) / said)
    failed += not (accuracy == point["accuracy"] and abs(found / said - 1) <= allowed)
    print(f"{point['file']}: accuracy {accuracy:.4f} ({point['accuracy']:.4f}), latency {1e6 * found:.1f} µs "
          f"({1e6 * said:.1f}), off {found / said - 1:+.1%} (allowed {allowed:.1%})")  # fmt: skip
sys.exit(f"{failed} of {len(front)} points were not reproduced" if failed else 0)
