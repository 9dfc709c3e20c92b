"""Reproduces a front with onnxruntime and numpy alone: python experiments/check_front.py RUN TEST.npz

TEST.npz is from `nas data NAME --split test --out TEST.npz`.  Accuracies must be equal; latencies may differ by 5 % or
twice the width of the reported interval.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

run, test = Path(sys.argv[1]), np.load(sys.argv[2])
front, options = json.loads((run / "front.json").read_text()), ort.SessionOptions()
options.intra_op_num_threads = json.loads((run / "record.json").read_text())["device"]["threads"]
options.inter_op_num_threads, image, samples = 1, {"input": test["x"][:1]}, [[] for _ in front]
for turn in range(20):  # fresh sessions, interleaved, in alternating order
    for i in range(len(front)) if turn % 2 == 0 else reversed(range(len(front))):
        session = ort.InferenceSession(run / front[i]["file"], options)
        deadline = time.perf_counter() + 0.03
        while time.perf_counter() < deadline:  # warm-up
            session.run(None, image)
        for _ in range(15):
            start = time.perf_counter()
            for _ in range(10):
                session.run(None, image)
            samples[i].append((time.perf_counter() - start) / 10)
failed = 0
for point, times in zip(front, samples, strict=True):
    session = ort.InferenceSession(run / point["file"], options)
    batches = np.array_split(test["x"], len(test["x"]) // 256 + 1)
    labels = np.concatenate([session.run(None, {"input": x})[0].argmax(1) for x in batches])
    accuracy, said, (low, high) = (labels == test["y"]).mean(), point["latency_s"]["median"], point["latency_s"]["ci95"]
    off, allowed = abs(np.median(times) / said - 1), max(0.05, 2 * (high - low) / said)
    failed += not (accuracy == point["accuracy"] and off <= allowed)
    accuracies, latencies = f"{accuracy:.4f} ({point['accuracy']:.4f})", f"{off:.1%} (allowed {allowed:.1%})"
    print(f"{point['file']}: accuracy {accuracies}, latency off {latencies}")
sys.exit(f"{failed} of {len(front)} points were not reproduced" if failed else 0)
