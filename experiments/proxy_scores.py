"""Our zero-cost proxies on real NAS-Bench-201 networks, kept in a file so that a run can go on where it stopped."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.decode_images import decode
from experiments.lines import open_lines, read_lines
from predictors.zero_cost.catalog import PROXIES
from predictors.zero_cost.proxy import CannotScore
from search_spaces.cell import cell_network, operations_of

BATCH = 32  # images, as many as the tables' authors took (NASLib's zc_config.yaml)
_FIRST = 4_000  # training images that batches are drawn from
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's channels


@dataclass(frozen=True)
class Scored:
    """The scores of one cell's network, initialised and given images by one seed.

    Args:
        scores: by proxy; none where it has no meaning.
        seconds: what each took.
    """

    index: int
    seed: int
    scores: dict[str, float | None]
    seconds: dict[str, float]


def batch(data: Path, seed: int, photos: bool) -> tuple[Tensor, Tensor]:
    """Images (BATCH, 3, 32, 32), normalised by channel, and labels (BATCH,).

    Args:
        photos: whether to take shrunk photographs with labels at random in the place of CIFAR-10's images, whose lossy
            files lack the fine detail that gradients depend on.
    """
    rng = np.random.default_rng(seed)
    images, labels = _photos(data, rng) if photos else _cifar(data, rng)
    scaled = ((images / 255 - np.array(_MEAN)) / np.array(_STD)).astype(np.float32)
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def _cifar(data: Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    images, labels = decode(data / "cifar10_jpg_train.npz", _FIRST)
    chosen = rng.choice(len(images), BATCH, replace=False)
    return images[chosen], labels[chosen]


def _photos(data: Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    content = np.load(data / "imagenet_1per_class_256.npz")
    offset, body = content["offset"], content["body"].tobytes()
    chosen = rng.choice(len(offset) - 1, BATCH, replace=False)
    opened = (Image.open(io.BytesIO(body[offset[i] : offset[i + 1]])).convert("RGB") for i in chosen)
    images = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BOX)) for image in opened])
    return images, rng.integers(0, 10, BATCH)


def score_cells(
    cells: Sequence[tuple[int, str, int]], proxies: Collection[str], data: Path, cache: Path, photos: bool = False
) -> Iterator[Scored]:
    """The scores of cells (index in the table, cell, seed); those in the file `cache` are not computed again."""
    known = _read(cache)
    batches = {seed: batch(data, seed, photos) for seed in {seed for _, _, seed in cells}}
    for index, cell, seed in cells:
        scored = known.get((index, seed), Scored(index, seed, {}, {}))
        missing = [name for name in proxies if name not in scored.scores]
        if missing:
            scored = _complete(scored, missing, cell, *batches[seed])
            with open_lines(cache) as file:
                file.write(json.dumps(asdict(scored)) + "\n")
        yield scored


def _read(cache: Path) -> dict[tuple[int, int], Scored]:
    """What the file holds by cell and seed; a later line replaces an earlier one."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    return {(found.index, found.seed): found for found in (Scored(**row) for row in read_lines(cache))}


def _complete(known: Scored, missing: Sequence[str], cell: str, images: Tensor, labels: Tensor) -> Scored:
    """`known` with the scores of `missing` proxies."""
    network = cell_network(operations_of(cell), known.seed)
    scores, seconds = dict(known.scores), dict(known.seconds)
    for name in missing:
        start = time.perf_counter()
        try:
            scores[name] = PROXIES[name].score(network, images, labels, known.seed)
        except CannotScore:
            scores[name] = None
        seconds[name] = time.perf_counter() - start
    return Scored(known.index, known.seed, scores, seconds)
