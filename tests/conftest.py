"""The suite as a whole: one thread a process, the longest files first, and little patience with a busy machine."""

import gc
import os

import pytest

# Two workers on two cores: threads of both that wait for each other make small networks many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Whole runs: a worker that begins them last keeps the others waiting.
_FIRST = (
    "test_fused_run.py",  # compiles the kernels where the cache has none
    "test_throughout.py",
    "test_cli.py",
    "test_quantize_command.py",
    "test_api.py",
    "test_source.py",
    "test_worker.py",
    "test_relaxed.py",
    "test_distributed.py",
    "test_train.py",
    "test_finetune.py",
    "test_network_laws.py",
)
_PATIENCE = {"_LEARNING_S": 0.3, "_ALLOWANCE_S": 2.0, "_SHARE": 0.2, "_INSISTED_S": 1.0, "_INSISTED_SHARE": 0.05}


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))  # stable: all else stays in order


def pytest_collection_finish():
    """What is imported stays: collections of garbage, a seventh of the time of some tests, look at it no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_unconfigure():
    gc.unfreeze()  # or what libraries look for at the end is taken for leaked


@pytest.fixture(scope="session", autouse=True)
def patience():
    """Processes that measure wait for a quiet core as ever, but not for as long: of two cores, both are in use."""
    from latency import worker  # here: not before threads are set

    start = worker._START.removesuffix("serve()\n")
    assert start != worker._START
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_START", f"{start}from latency import pace\nvars(pace).update({_PATIENCE})\nserve()\n")
        yield _PATIENCE


@pytest.fixture
def two_cores(monkeypatch):
    """As many cores, whatever the suite is pinned to."""
    monkeypatch.setattr("latency.device.usable_cores", lambda: 2)
