"""Timing in a process of its own, which holds the run-time of one device and nothing else.

In a process that has trained networks, the same file takes up to a tenth longer than in a fresh one, as it is deployed.
A request is a line of JSON and the bytes of the models, an answer a line; the process ends when its input does.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from latency.contention import Contention, Watch
from latency.device import Device, parse_device
from latency.pace import Pace
from latency.runtimes.opening import check_placement, open_parts, open_session
from latency.timing import Call, Timing
from latency.whole import Effort, Timed, call_of, time_whole

if TYPE_CHECKING:
    from latency.energy import EnergyMeasurement
    from latency.parts import Parts, PartsEffort

_ROUND = {"round": "done"}  # an answer before the final one
_START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, from the first moment on
sys.path[:] = sys.argv[1:]
from latency.worker import serve
serve()
"""


class Worker:
    """The process, started at the first request and again after one that was broken off."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._holds: tuple[str, str] | None = None  # kind and run-time of the device it has measured on
        self._asker = os.getpid()
        self._lock = threading.Lock()

    def measure(
        self,
        models: Sequence[bytes],
        device: Device,
        effort: Effort,
        on_round: Callable[[], object] = lambda: None,
        beside: Device | None = None,
    ) -> Timed:
        """The latency of each model for the device's batch of images, all timed interleaved.

        Args:
            on_round: called as each round is done: `effort.rounds` times, and more often for disturbed ones.
            beside: another device, on which each model is timed too; these timings stand behind the others.

        Raises:
            ValueError: a model that cannot be loaded.
            RuntimeError: a model that cannot be run.
            ChildProcessError: the process died.
        """
        request = {"sizes": list(map(len, models)), "device": device.name, "effort": asdict(effort)}
        request |= {"beside": beside.name} if beside else {}
        answer = self._answer(request, models, device, on_round)
        return Timed(tuple(map(Timing.of, answer["timings"])), Contention.of(answer["contention"]))

    def parts(
        self, models: Sequence[bytes], device: Device, effort: PartsEffort, references: Sequence[bytes] = ()
    ) -> tuple[list[Parts], Contention]:
        """Each model timed by its nodes, all in turn and with the references, and who else used the machine meanwhile.

        Raises:
            ValueError, RuntimeError, ChildProcessError: as of `measure`.
        """
        from latency.parts import Parts

        everything = [*models, *references]
        request = {"device": device.name, "parts": asdict(effort), "references": len(references)}
        answer = self._answer({"sizes": list(map(len, everything)), **request}, everything, device)
        return [Parts.of(plain) for plain in answer["parts"]], Contention.of(answer["contention"])

    def energy(
        self, models: Sequence[bytes], device: Device, pieces: int, on_model: Callable[[], object] = lambda: None
    ) -> list[EnergyMeasurement]:
        """What calls of each model take, one model after the other; `on_model` is called as each is done.

        Raises:
            ValueError, RuntimeError, ChildProcessError: as of `measure`; or there are no counters that can be read.
        """
        from latency.energy import EnergyMeasurement

        request = {"sizes": list(map(len, models)), "device": device.name, "pieces": pieces}
        return [EnergyMeasurement.of(plain) for plain in self._answer(request, models, device, on_model)["energies"]]

    def _answer(
        self,
        request: Mapping[str, Any],
        models: Sequence[bytes],
        device: Device,
        on_round: Callable[[], object] = lambda: None,
    ) -> dict[str, Any]:
        with self._lock:
            if self._asker != os.getpid():  # a fork must not take its parent's answers
                self._process, self._asker = None, os.getpid()
            if self._holds != (device.kind, device.runtime):
                self.close()  # two run-times in one process would slow each other down
                self._holds = device.kind, device.runtime
            self._process = self._process or _start()
            try:
                answer = _ask(self._process, _line(request) + b"".join(models), on_round)
            except BaseException:  # what is left of the answer must not be taken for the next one
                self.close()
                raise
        if "refused" in answer:
            raise ValueError(answer["refused"])
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def close(self) -> None:
        """Ends the process; it starts again when it is needed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _start() -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[1])
    # First the toolkit's own place, and without the folder of the user: no file in there may stand in its way.
    path = [root, *(p for p in sys.path if p not in ("", root, str(Path.cwd())))]
    process = subprocess.Popen([sys.executable, "-c", _START, *path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(process.kill)
    return process


def _ask(process: subprocess.Popen[bytes], request: bytes, on_round: Callable[[], object]) -> dict[str, Any]:
    """The final answer to a request."""
    requests, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
    with suppress(BrokenPipeError):  # a process that has died gives no answer either
        requests.write(request)
        requests.flush()
    for line in answers:
        if not line.endswith(b"\n"):
            break  # it died while it answered
        answer: dict[str, Any] = json.loads(line)
        if answer != _ROUND:
            return answer
        on_round()
    raise ChildProcessError(f"the process that measures latencies ended with code {process.wait()}")


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


# -- in the process ----------------------------------------------------------------------------------

_Request = tuple[dict[str, Any], list[bytes]]


def serve() -> None:
    """Answers requests until the input is closed, and ends then and there."""
    requests = queue.SimpleQueue[_Request]()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    pace = Pace()  # it knows the better how fast the machine can be the longer it is used
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what libraries print must not come among the answers

        def say(answer: Mapping[str, Any]) -> None:
            answers.write(_line(answer))
            answers.flush()

        while True:
            say(_final(*requests.get(), pace, lambda: say(_ROUND)))


def _read(requests: queue.SimpleQueue[_Request]) -> None:
    """Passes requests on; a measurement whose asker is gone would only disturb the next one."""
    stream = sys.stdin.buffer
    for line in stream:
        request = json.loads(line)
        requests.put((request, [stream.read(size) for size in request["sizes"]]))
    os._exit(0)


def _final(
    request: Mapping[str, Any], models: Sequence[bytes], pace: Pace, on_round: Callable[[], object]
) -> dict[str, Any]:
    """The timings, or why there are none."""
    try:
        device, watch = parse_device(request["device"]), Watch(pace)
        if "parts" in request:
            from latency.parts import PartsEffort, time_parts

            n, opened = len(models) - request["references"], [partial(open_parts, model, device) for model in models]
            parts = time_parts(opened[:n], device.batch, PartsEffort(**request["parts"]), opened[n:], pace)
            return {"parts": [p.plain() for p in parts], "contention": watch.reading().plain()}
        if "pieces" in request:
            return {"energies": list(_energies(models, device, request["pieces"], pace, on_round))}
        devices = [device, *([parse_device(request["beside"])] if "beside" in request else [])]
        openers = [_opener(model, each) for each in devices for model in models]
        timed = time_whole(openers, Effort(**request["effort"]), pace, on_round)
    except ValueError as error:
        return {"refused": str(error)}
    except Exception as error:  # noqa: BLE001 - a run-time may fail in any way, and the asker must hear of it
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"timings": [asdict(timing) for timing in timed.timings], "contention": timed.contention.plain()}


def _energies(
    models: Sequence[bytes], device: Device, pieces: int, pace: Pace, on_model: Callable[[], object]
) -> Iterator[dict[str, Any]]:
    from latency.energy import energy_of

    for model in models:
        yield energy_of(_opener(model, device)(), device, pieces, pace).plain()
        on_model()


def _opener(model: bytes, device: Device) -> Callable[[], Call]:
    check_placement(model, device)
    return lambda: call_of(open_session(model, device), device.batch)
