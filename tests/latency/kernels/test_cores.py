"""Where threads of native code are: on cores that the caller may use, but not on its own."""

import os
from pathlib import Path

import numpy as np
import pytest
from native_programs import program_of, some_block, some_codes

from latency.kernels import native

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are placed on Linux alone")


@pytest.fixture
def use():
    """Sets the cores of this thread, until the test ends."""
    before = os.sched_getaffinity(0)
    yield lambda cores: os.sched_setaffinity(0, cores)
    os.sched_setaffinity(0, before)


@pytest.fixture
def two(use):
    """Two cores that this thread then may use."""
    try:
        use(range(os.cpu_count() or 1))
    except OSError:
        pytest.skip("cores cannot be chosen")
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        pytest.skip("there is one core")
    return found[:2]


def tasks():
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


@pytest.fixture
def block():
    rng = np.random.default_rng(0)
    return program_of((16, 8, 8), some_block(rng, 16, 96, 16, 3, 1, (1, 1, 1, 1))), some_codes(rng, 1, (16, 8, 8))


def core_of(task):
    """The core that a thread was on last."""
    return int(Path(f"/proc/self/task/{task}/stat").read_text().rsplit(")", 1)[1].split()[36])


def test_threads_leave_the_core_of_the_caller(use, two, block):
    program, x = block
    before = tasks()
    with native.open_program(program) as opened:
        opened.crowd()  # each has a part
        for here, other in (two, two[::-1], two):
            use({here})
            opened.run(x, 2)
            (thread,) = tasks() - before
            os.sched_setaffinity(thread, {here})  # where it then is
            os.sched_setaffinity(thread, two)
            use(two)
            for _ in range(20):  # the system may move it or the caller between
                np.testing.assert_array_equal(opened.run(x, 2), program.run(x))
                if core_of(thread) == other:
                    break
            assert core_of(thread) == other
            assert os.sched_getaffinity(thread) == os.sched_getaffinity(0) == set(two)


def test_one_core_has_one_thread(use, two, block):
    program, x = block
    use(two[:1])
    before = tasks()
    with native.open_program(program) as opened:
        np.testing.assert_array_equal(opened.run(x, 3), program.run(x))
        assert tasks() == before
        np.testing.assert_array_equal(opened.crowd().run(x, 3), program.run(x))
        assert len(tasks() - before) == 2
        use(two)
        np.testing.assert_array_equal(opened.run(x, 2), program.run(x))
