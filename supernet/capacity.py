"""How much memory images take and how much there is, so that too large a set is refused before it is decoded."""

from __future__ import annotations

import os
from pathlib import Path

BYTES_PER_PIXEL_VALUE = 6
"""Peak while loading: one byte decoded, four as float32, and room for the largest split's temporary."""
_SHARE = 0.8


def available_memory_bytes() -> int:
    """Estimate the bytes this process may still take: the machine's available memory or the container's rest."""
    machine = _meminfo_bytes() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = _number(Path("/sys/fs/cgroup/memory.max")), _number(Path("/sys/fs/cgroup/memory.current"))
    return machine if limit is None or used is None else min(machine, max(0, limit - used))


def check_fits(name: str, count: int, values_per_image: int, *, available_bytes: int | None = None) -> None:
    """Refuse a set of `count` images of `values_per_image` numbers that would not fit in memory.

    Raises:
        ValueError: with both sizes and what to do.
    """
    needed = count * values_per_image * BYTES_PER_PIXEL_VALUE
    available = available_memory_bytes() if available_bytes is None else available_bytes
    if needed > _SHARE * available:
        raise ValueError(
            f"{name}: {count:,} images of {values_per_image:,} values need about {needed / 1e9:.1f} GB of memory, "
            f"{available / 1e9:.1f} GB are available; give a smaller image_size or fewer images"
        )


def _meminfo_bytes() -> int | None:
    file = Path("/proc/meminfo")
    if not file.exists():
        return None
    for line in file.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _number(file: Path) -> int | None:
    """First integer of a kernel file, None when it is absent, unreadable or says 'max'."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
