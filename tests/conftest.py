"""The suite as a whole: one thread a process, and the longest file first."""

import os

import pytest

# Two workers on two cores: threads of both that wait for each other make small networks many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_FIRST = "test_cli.py"  # whole runs: a worker that begins them last keeps the others waiting


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != _FIRST)  # stable: all else stays in order


@pytest.fixture
def two_cores(monkeypatch):
    """As many cores, whatever the suite is pinned to."""
    monkeypatch.setattr("latency.device.usable_cores", lambda: 2)
