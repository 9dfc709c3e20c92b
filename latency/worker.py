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
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from latency.device import Device, parse_device
from latency.pace import Pace
from latency.runtimes.onnx_runtime import open_session
from latency.timing import Call, Timing, measure_interleaved

_ROUND = {"round": "done"}  # an answer before the final one
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

    def measure(
        self, models: Sequence[bytes], device: Device, effort: Effort, on_round: Callable[[], object] = lambda: None
    ) -> list[Timing]:
        """The latency of each model at batch 1, all timed interleaved.

        Args:
            on_round: called `effort.rounds` times, as rounds are done.

        Raises:
            ValueError: a model that cannot be loaded.
            ChildProcessError: the process died.
        """
        with self._lock, tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            files = [Path(folder) / f"{i}.onnx" for i in range(len(models))]
            for file, model in zip(files, models, strict=True):
                file.write_bytes(model)
            request = {"files": list(map(str, files)), "device": device.name, "effort": asdict(effort)}
            self._process = self._process or _start()
            try:
                answer = _ask(self._process, request, on_round)
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


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _START, *sys.path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(process: subprocess.Popen[str], request: dict[str, Any], on_round: Callable[[], object]) -> dict[str, Any]:
    """The final answer to a request."""
    requests, answers = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
    with suppress(BrokenPipeError):  # a process that has died gives no answer either
        print(json.dumps(request), file=requests, flush=True)
    for line in answers:
        answer: dict[str, Any] = json.loads(line)
        if answer != _ROUND:
            return answer
        on_round()
    raise ChildProcessError(f"the process that measures latencies ended with code {process.wait()}")


# -- in the process ----------------------------------------------------------------------------------


def serve() -> None:
    """Answers requests until the input is closed, and ends then and there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    requests = queue.SimpleQueue[str]()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    pace = Pace()  # it knows the better how fast the machine can be the longer it is used
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print must not come among the answers

        def say(answer: dict[str, Any]) -> None:
            print(json.dumps(answer), file=answers, flush=True)

        while True:
            say(_final(json.loads(requests.get()), pace, lambda: say(_ROUND)))


def _read(requests: queue.SimpleQueue[str]) -> None:
    """Passes requests on; a measurement whose asker is gone would only disturb the next one."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _final(request: dict[str, Any], pace: Pace, on_round: Callable[[], object]) -> dict[str, Any]:
    """The timings, or why there are none."""
    device, effort = parse_device(request["device"]), Effort(**request["effort"])
    try:
        timings = measure_interleaved(
            [_opener(Path(file).read_bytes(), device) for file in request["files"]],
            rounds=effort.rounds,
            most_rounds=effort.most_rounds,
            samples_per_round=effort.samples,
            shortest_sample_s=effort.sample_s,
            pace=pace,
            on_round=on_round,
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
