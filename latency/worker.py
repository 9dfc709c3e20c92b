"""Timing in a process of its own, which holds ONNX Runtime and nothing else.

In a process that has trained networks, the same file takes up to a tenth longer than in a fresh one, as it is deployed.
Requests and answers are lines of JSON; the process ends when its input does, with or after the one that began it.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latency.device import Device, parse_device
from latency.pace import Pace
from latency.runtimes.onnx_runtime import open_session
from latency.timing import Call, Timing, measure_interleaved

_START = "import sys; sys.path[:] = sys.argv[1:]; from latency.worker import serve; serve()"


@dataclass(frozen=True)
class Effort:
    """How much is spent on one timing.

    Args:
        rounds: fresh sessions of the model that must be undisturbed, of `most_rounds` at most.
        samples: per round, each lasting at least `sample_s`.
    """

    rounds: int
    most_rounds: int
    samples: int
    sample_s: float = 1e-4


class Worker:
    """The process, started at the first request and again after one that was broken off."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def measure(self, models: Sequence[bytes], device: Device, effort: Effort) -> list[Timing]:
        """The latency of each model at batch 1, all timed interleaved.

        Raises:
            ValueError: a model that cannot be loaded.
            ChildProcessError: the process died.
        """
        with self._lock, tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            files = [Path(folder) / f"{i}.onnx" for i in range(len(models))]
            for file, model in zip(files, models, strict=True):
                file.write_bytes(model)
            request = {"files": list(map(str, files)), "device": device.name, "effort": asdict(effort)}
            try:
                answer = self._ask(request)
            except BaseException:  # what is left of the answer must not be taken for the next one
                self.close()
                raise
        if "refused" in answer:
            raise ValueError(answer["refused"])
        return [Timing.of(plain) for plain in answer["timings"]]

    def close(self) -> None:
        """Ends the process; it starts again when it is needed."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.communicate()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process = self._process or _start()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101
        line = ""
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            raise ChildProcessError(f"the process that measures latencies ended with code {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _START, *sys.path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# -- in the process ----------------------------------------------------------------------------------


def serve() -> None:
    """Answers requests until the input is closed, and ends then and there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    requests = queue.SimpleQueue[str]()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    pace = Pace()  # it knows the better how fast the machine can be the longer it is used
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print must not come among the answers
        while True:
            answers.write(json.dumps(_answer(json.loads(requests.get()), pace)) + "\n")
            answers.flush()


def _read(requests: queue.SimpleQueue[str]) -> None:
    """Passes requests on; a measurement whose asker is gone would only disturb the next one."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _answer(request: dict[str, Any], pace: Pace) -> dict[str, Any]:
    device, effort = parse_device(request["device"]), Effort(**request["effort"])
    try:
        timings = measure_interleaved(
            [_opener(Path(file).read_bytes(), device) for file in request["files"]],
            rounds=effort.rounds,
            most_rounds=effort.most_rounds,
            samples_per_round=effort.samples,
            shortest_sample_s=effort.sample_s,
            pace=pace,
        )
    except ValueError as error:
        return {"refused": str(error)}
    return {"timings": [asdict(timing) for timing in timings]}


def _opener(model: bytes, device: Device) -> Callable[[], Call]:
    def open_model() -> Call:
        session = open_session(model, device)
        image = np.random.default_rng(0).standard_normal((1, *session.input_shape)).astype(np.float32)
        return lambda: session.run(image)

    return open_model
