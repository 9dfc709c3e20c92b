"""Decodes the benchmark's CIFAR-10 JPEGs, once, into an .npz that `nas search --data FILE.npz` takes.

python -m experiments.decode_images --out cifar10.npz [--data DIR] [--train N]
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from supernet.data import Dataset, from_datasets

VALIDATION = 5_000  # of the training images, on which inherited accuracies are taken


def decode(file: Path, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) uint8 and labels (n,) of one file of JPEG bytes; `limit` of them, evenly spread.

    Files may be sorted by class, so that the first ones would be of two classes alone.
    """
    content = np.load(file)
    prefix, offset, body = content["prefix"].tobytes(), content["offset"], content["body"].tobytes()
    n = len(offset) - 1
    taken = np.arange(n) if limit is None else np.linspace(0, n - 1, min(limit, n)).round().astype(int)
    jpegs = (prefix + body[offset[i] : offset[i + 1]] for i in taken)
    images = np.stack([np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs])
    return images, content["label"][taken].astype(np.int64)


def read_cifar10(data: Path, image_size: int) -> Dataset:
    """CIFAR-10 with 45,000 images to train on and 5,000 to take inherited accuracies on."""
    parts = [decode(data / f"cifar10_jpg_{split}.npz") for split in ("train", "test")]
    train, test = (list(zip(x, y.tolist(), strict=True)) for x, y in parts)
    share = VALIDATION / len(train)
    return from_datasets(train, test, name="cifar10", flip=True, image_size=image_size, val_fraction=share)


def main() -> None:
    """Decodes both splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, help="only N training images, evenly spread over the file")
    arguments = parser.parse_args()
    x_train, y_train = decode(arguments.data / "cifar10_jpg_train.npz", arguments.train)
    x_test, y_test = decode(arguments.data / "cifar10_jpg_test.npz")
    np.savez(arguments.out, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    print(f"{arguments.out}: {len(x_train)} training and {len(x_test)} test images")


if __name__ == "__main__":
    main()
