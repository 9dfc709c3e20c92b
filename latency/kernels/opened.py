"""Opened programs, kept by their content: what is run again and again is opened once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from latency.kernels.native import Native

_MOST = 32  # programs that are kept open; each has a copy of its file, and memory for its tensors

_lock = threading.Lock()
_kept: OrderedDict[bytes, Native] = OrderedDict()


def digest_of(data: bytes | memoryview) -> bytes:
    """What tells the content of a program's file apart."""
    return hashlib.sha256(data).digest()


def opened(digest: bytes, data: bytes | memoryview) -> Native:
    """The opened program of a file with that digest.

    The one that was not used for longest makes room, and closes when nobody runs it any more.

    Raises:
        ValueError: no program.
        RuntimeError: there is no compiler, or it fails.
    """
    with _lock:
        found = _kept.get(digest)
        if found is None:
            found = _kept[digest] = Native(bytes(data))
        _kept.move_to_end(digest)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    return found
