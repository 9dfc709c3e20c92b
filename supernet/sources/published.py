"""Published image sets fetched through torchvision into the user's cache folder."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_dir

from supernet.images import Images, make_part

_VAL_FRACTION = 0.1


def cache_folder() -> Path:
    """Folder where downloaded data sets are kept, `<user cache>/hwnas/data`."""
    return Path(user_cache_dir("hwnas")) / "data"


def load_cifar10(image_size: int | None) -> Images:
    """CIFAR-10: 50,000 + 10,000 photos of 10 classes, (n, 3, 32, 32). Source: Krizhevsky, 2009."""
    del image_size
    return _load("cifar10", "CIFAR10", 10, flip=True)


def load_cifar100(image_size: int | None) -> Images:
    """CIFAR-100: 50,000 + 10,000 photos of 100 classes, (n, 3, 32, 32). Source: Krizhevsky, 2009."""
    del image_size
    return _load("cifar100", "CIFAR100", 100, flip=True)


def load_fashion_mnist(image_size: int | None) -> Images:
    """Fashion-MNIST: 60,000 + 10,000 pictures of clothes, (n, 1, 28, 28). Source: Xiao et al., 2017."""
    del image_size
    return _load("fashion-mnist", "FashionMNIST", 10, flip=False)


def _load(name: str, kind: str, num_classes: int, *, flip: bool) -> Images:
    train, test = (_fetch(name, kind, train=train) for train in (True, False))
    parts = [
        make_part(np.asarray(data.data), np.asarray(data.targets, np.int64), f"{name} {which}")
        for which, data in (("train", train), ("test", test))
    ]
    return Images(name, parts[0], parts[1], None, num_classes, flip, _VAL_FRACTION)


def _fetch(name: str, kind: str, *, train: bool) -> Any:
    """Open the set from the cache folder, downloading it when it is not there or damaged."""
    from torchvision import datasets  # takes seconds to load

    make, folder = getattr(datasets, kind), cache_folder()
    try:
        return make(str(folder), train=train, download=False)
    except RuntimeError:  # torchvision's answer when files are missing or their checksums differ
        pass
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):
            return make(str(folder), train=train, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConnectionError(
            f"data set {name!r} is not in {folder} and could not be downloaded ({reason}); "
            "connect to the network, or give an .npz file or a folder of class folders"
        ) from error
