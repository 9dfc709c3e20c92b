"""The clocks that timing reads."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings in seconds; only differences mean something."""

    def wall(self) -> float:
        """Time that passes for everyone."""

    def cpu(self) -> float:
        """CPU time of the calling thread."""


class SystemClock:
    """The finest clocks of the standard library."""

    def wall(self) -> float:
        """`time.perf_counter`."""
        return time.perf_counter()

    def cpu(self) -> float:
        """`time.thread_time`."""
        return time.thread_time()


SYSTEM_CLOCK = SystemClock()
