"""Arrays that a user saved with `numpy.savez`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from supernet.images import Images, Part, class_count, make_part

KEYS = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL_KEYS = ("x_val", "y_val")
_VAL_FRACTION = 0.2


def load_npz(file: Path, image_size: int | None = None) -> Images:
    """Read `x_train, y_train, x_test, y_test` and perhaps `x_val, y_val` from an .npz file.

    Images are uint8 (n, h, w) or (n, h, w, c), or float (n, c, h, w); labels integers (n,), 0 to classes - 1.
    They are never mirrored in training, because an array does not say whether that is harmless; `image_size` is
    left to later.

    Raises:
        ValueError: not an .npz file, missing keys, or arrays that `make_part` refuses.
    """
    del image_size
    arrays = _read(file)
    missing = [key for key in KEYS if key not in arrays]
    own_val = [key in arrays for key in OPTIONAL_KEYS]
    if any(own_val) and not all(own_val):
        missing += [key for key, there in zip(OPTIONAL_KEYS, own_val, strict=True) if not there]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'no arrays'}")
    train, test = _part(arrays, "train", file), _part(arrays, "test", file)
    val = _part(arrays, "val", file) if all(own_val) else None
    return Images(file.stem, train, test, val, class_count(train.y, f"{file}: train"), False, _VAL_FRACTION)


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files if key in (*KEYS, *OPTIONAL_KEYS)}
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} is not an .npz file of plain arrays: {error}") from error


def _part(arrays: dict[str, np.ndarray], which: str, file: Path) -> Part:
    return make_part(arrays[f"x_{which}"], arrays[f"y_{which}"], f"{file}: {which}")
