"""The process that measures: a real one, with real models, really killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from small_model import model

from latency.device import at_batch, parse_device
from latency.worker import Effort, Worker

ROOT = Path(__file__).parents[2]
CPU = parse_device("cpu")
EFFORT = Effort(rounds=2, most_rounds=2, samples=3, sample_s=1e-5)


@pytest.fixture
def worker():
    """One of its own, to be killed."""
    opened = Worker()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def running():
    """One for all who only ask."""
    opened = Worker()
    yield opened
    opened.close()


BUSY = """
import sys, threading
from latency import worker as w
device, worker, model = w.parse_device("cpu"), w.Worker(), sys.stdin.buffer.read()
worker.measure([model], device, w.Effort(1, 1, 1))
print(worker._process.pid, flush=True)
worker.measure([model], device, w.Effort(1, 1, samples=10**9))  # for longer than anyone waits
"""


def runs(pid):
    """Whether the process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_timings_come_in_the_order_of_the_models(running):
    small, large = running.measure([model(1), model(512)], CPU, EFFORT).timings
    assert small.groups[:2] == large.groups[:2] == (3, 3)
    assert min(small.samples_s) < min(large.samples_s)
    rounds = []
    running.measure([model(1)], CPU, EFFORT, lambda: rounds.append(1))
    assert EFFORT.rounds <= len(rounds) <= EFFORT.rounds + 1  # the last one for a subject that was never left alone
    rounds.clear()
    running.measure(
        [model(1)], CPU, Effort(rounds=1, most_rounds=1, samples=10**4, sample_s=1e-6), lambda: rounds.append(1)
    )
    assert 1 <= len(rounds) <= 2
    assert running.measure([], CPU, EFFORT).timings == ()


def test_a_batch_takes_longer_and_a_fixed_one_is_kept(running):
    one, many = (running.measure([model(512)], at_batch(CPU, batch), EFFORT).timings[0] for batch in (1, 256))
    assert min(many.samples_s) > 2 * min(one.samples_s)
    fixed = onnx.load_model_from_string(model(1))
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    assert running.measure([fixed.SerializeToString()], at_batch(CPU, 2), EFFORT).timings
    with pytest.raises(ValueError, match="a batch of 3 does not fit"):
        running.measure([fixed.SerializeToString()], at_batch(CPU, 3), EFFORT)


def test_it_watches_the_machine_in_the_process_that_measures(running):
    found = running.measure([model(1)], CPU, Effort(rounds=2, most_rounds=2, samples=20)).contention
    assert found.seconds > 0 and 0 <= found.disturbed <= 1 and found.drift >= 0
    assert found.other_cores is None or 0 <= found.other_cores <= os.cpu_count() + 1


def test_one_process_answers_all_requests_and_knows_no_torch(running):
    running.measure([model(1)], CPU, EFFORT)
    first = running._process.pid
    running.measure([model(2)], CPU, EFFORT)
    assert running._process.pid == first
    assert "libtorch" not in Path(f"/proc/{first}/maps").read_text()


def test_another_run_time_gets_a_process_of_its_own(worker):
    worker.measure([model(1)], CPU, EFFORT)
    first = worker._process.pid
    timing = worker.measure([model(1)], parse_device("cpu:torch"), EFFORT).timings[0]
    second = worker._process.pid
    assert timing.groups[:2] == (3, 3) and second != first and not runs(first)
    maps = Path(f"/proc/{second}/maps").read_text()
    assert "libtorch" in maps and "onnxruntime_pybind" not in maps


def test_a_model_that_does_not_load_is_refused_and_the_next_one_measured(running):
    with pytest.raises(ValueError, match="cannot open the model of 4 bytes"):
        running.measure([model(1), b"junk"], CPU, EFFORT)
    assert running.measure([model(1)], CPU, EFFORT).timings[0].groups[:2] == (3, 3)


def test_a_process_that_was_killed_is_named_and_begun_again(worker):
    worker.measure([model(1)], CPU, EFFORT)
    os.kill(worker._process.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match="ended with code -9"):
        worker.measure([model(1)], CPU, EFFORT)
    assert worker.measure([model(1)], CPU, EFFORT).timings[0].groups[:2] == (3, 3)


def test_what_is_broken_off_is_not_the_next_answer(worker, monkeypatch):
    worker.measure([model(1)], CPU, EFFORT)

    def interrupted(text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("latency.worker.json.loads", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.measure([model(1)], CPU, EFFORT)
    assert len(worker.measure([model(1), model(2)], CPU, EFFORT).timings) == 2


FORKED = """
import multiprocessing, sys
from latency import worker as w
device, worker, model = w.parse_device("cpu"), w.Worker(), sys.stdin.buffer.read()
def measure(_): return worker.measure([model], device, w.Effort(1, 1, 1)) and worker._process.pid
own = measure(0)
with multiprocessing.get_context("fork").Pool(1) as pool:
    forks = pool.map(measure, [0])
assert own == measure(0) and own not in forks, (own, forks)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT, input=model(1), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_an_answer_cut_short_is_a_death(worker):
    worker.measure([model(1)], CPU, EFFORT)
    code = "import sys; sys.stdin.buffer.readline(); print('{\"timings\": [{', end='', flush=True)"
    worker.close()
    worker._process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with pytest.raises(ChildProcessError, match="ended with code 0"):
        worker.measure([model(1)], CPU, EFFORT)


def test_a_users_files_do_not_stand_in_its_way(worker, tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise ImportError('not the one of the standard library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(worker.measure([model(1)], CPU, EFFORT).timings) == 1


def test_ctrl_c_is_left_to_the_one_that_asks(running):
    running.measure([model(1)], CPU, EFFORT)
    os.kill(running._process.pid, signal.SIGINT)
    assert running.measure([model(1)], CPU, EFFORT).timings[0].groups[:2] == (3, 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc, which is Linux's")
def test_it_ends_with_a_process_that_was_killed():
    parent = subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    parent.stdin.write(model(1))
    parent.stdin.close()
    pid = int(parent.stdout.readline())
    assert runs(pid)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not runs(pid):
            break
        time.sleep(0.1)
    assert not runs(pid)
