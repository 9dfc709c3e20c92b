"""A folder of class folders with image files, as ImageNet and most private sets are kept."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from supernet.capacity import check_fits
from supernet.images import Images, Part
from supernet.split import stratified_split

DEFAULT_IMAGE_SIZE = 64
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_TEST_FRACTION = 0.2
_VAL_FRACTION = 0.2
_Listing = list[tuple[Path, int]]


def load_folder(folder: Path, image_size: int | None) -> Images:
    """Decode a folder into RGB squares of `image_size` pixels (64 by default), uint8 (n, 3, s, s).

    With subfolders `train/` and `test/` (and perhaps `val/`) each is a folder of class folders; otherwise the
    folder itself is, and a stratified fifth of it becomes the test part. Classes are the sorted names of the
    training class folders. Images are resized to the square without keeping their aspect ratio.

    Raises:
        ValueError: no classes or images, a class that training lacks, an unreadable image, or too many images
            for the memory.
    """
    size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
    listings, classes = _list_parts(folder)
    check_fits(str(folder), sum(len(listing) for listing in listings.values()), 3 * size * size)
    parts = {which: _decode_all(listing, size) for which, listing in listings.items()}
    name = folder.resolve().name
    if "test" in parts:
        return Images(name, parts["train"], parts["test"], parts.get("val"), len(classes), True, _VAL_FRACTION)
    whole = parts["train"]
    rest, held = stratified_split(whole.y, _TEST_FRACTION)
    train, test = (Part(whole.x[index], whole.y[index]) for index in (rest, held))
    return Images(name, train, test, None, len(classes), True, _VAL_FRACTION)


def _list_parts(folder: Path) -> tuple[dict[str, _Listing], list[str]]:
    has_train, has_test = (folder / "train").is_dir(), (folder / "test").is_dir()
    if has_train != has_test:
        have, lack = ("train", "test") if has_train else ("test", "train")
        raise ValueError(f"{folder} has {have}/ but no {lack}/; give both, or one folder of class folders")
    if not has_train:
        classes = _class_names(folder)
        return {"train": _list_classes(folder, classes)}, classes
    classes = _class_names(folder / "train")
    roots = {which: folder / which for which in ("train", "val", "test") if (folder / which).is_dir()}
    return {which: _list_classes(root, classes) for which, root in roots.items()}, classes


def _class_names(root: Path) -> list[str]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise ValueError(f"{root} must hold at least 2 class folders of images, found {len(names)}")
    return names


def _list_classes(root: Path, classes: Sequence[str]) -> _Listing:
    unknown = sorted(set(_class_names(root)) - set(classes))
    if unknown:
        raise ValueError(f"{root} has class {unknown[0]!r}, which train/ does not have")
    listing = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((root / name).rglob("*"))
        if file.suffix.lower() in EXTENSIONS and file.is_file()
    ]
    empty = sorted(set(classes) - {classes[label] for _, label in listing})
    if not listing or (empty and root.name != "val" and root.name != "test"):
        raise ValueError(f"{root / empty[0]} has no image files; expected one of {', '.join(EXTENSIONS)}")
    return listing


def _decode_all(listing: _Listing, size: int) -> Part:
    x = np.empty((len(listing), 3, size, size), np.uint8)

    def decode_into(index: int) -> None:
        x[index] = _decode(listing[index][0], size)

    with ThreadPoolExecutor() as pool:  # PIL lets go of the interpreter lock while it decodes
        for _ in pool.map(decode_into, range(len(listing))):
            pass
    return Part(x, np.array([label for _, label in listing], np.int64))


def _decode(file: Path, size: int) -> np.ndarray:
    """Read one image file as RGB (3, size, size) uint8."""
    try:
        with Image.open(file) as image:
            square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read image {file}: {error}") from error
    return np.asarray(square).transpose(2, 0, 1)
