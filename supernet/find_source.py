"""From what a user calls a data set to what reads it; loads no torch."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path

from supernet.catalog import DATASETS
from supernet.images import Source
from supernet.sources.image_folder import load_folder
from supernet.sources.npz import load_npz


def find_source(name_or_path: str) -> Source:
    """The source of a named data set, a folder of class folders or an .npz file; nothing is read yet.

    Raises:
        ValueError: an unknown name (with the nearest one), or a path that does not exist or is of another kind.
    """
    if name_or_path in DATASETS:
        return DATASETS[name_or_path]
    if not name_or_path:
        raise ValueError(f"data must be named: {', '.join(DATASETS)}, a folder of class folders or an .npz file")
    try:
        path = Path(name_or_path).expanduser()
    except RuntimeError as error:  # ~somebody who is not there
        raise ValueError(f"data {name_or_path!r}: {error}") from error
    if path.is_dir():
        return partial(load_folder, path)
    if path.suffix == ".npz" and path.is_file():
        return partial(load_npz, path)
    if path.exists():
        raise ValueError(f"{path} is neither a folder of class folders nor an .npz file")
    if path.suffix or len(path.parts) > 1:
        raise ValueError(f"data {name_or_path!r} does not exist; known names: {', '.join(DATASETS)}")
    raise ValueError(_unknown_name(name_or_path))


def _unknown_name(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown data set {name!r}{hint} Known: {', '.join(DATASETS)}, a folder of class folders or an .npz file"
