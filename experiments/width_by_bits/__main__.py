"""Is a wide network of few bits better than a narrow one of many, at equal size and at equal bit operations?

python -m experiments.width_by_bits --out FOLDER [--data DIR] [--images cifar10] [--precisions fp32 int8 w4a8 w3a8 w2a8]
    [--steps N] [--tuning N] [--seed N]

Trains the tiny `resnet` in its five widths together, then every width in every precision by itself with quantization-
aware training (fp32 as well, by as many steps), first and last block in int8 as in LSQ (arXiv:1902.08153, section 2.3),
and judges the ONNX files on validation images: `nearest` without that training.  Sizes are those of the files, bit
operations MACs times bits of weights times bits of activations.  What is found is kept in `--out`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.lines import open_lines, read_lines
from experiments.small_data import read_small
from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.lowering import nodes_of, to_onnx
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from nas.anatomy import Anatomy
from nas.candidate import Builder
from nas.sweep import Made, Swept, best_within, front_by, sweep, widths_of
from quant_search.policy import joint_space, policy_of
from quant_search.qat import Recipe as Tuning
from quant_search.qat import train
from search_spaces.network import find_blocks, find_space
from search_spaces.resnet import resnet
from search_spaces.space import Architecture
from supernet.augment import shift_and_flip
from supernet.data import Dataset
from supernet.recipe import Recipe
from supernet.strategies.among import Among
from supernet.train import train_supernet

COSTS = {"size_bytes": ("KB", 1e3), "bit_operations": ("G bit operations", 1e9)}
_BUDGETS = 6  # between the least and most that any point costs, evenly in the logarithm


@dataclass(frozen=True)
class Maker:
    """Makes the file of a joint architecture and judges it."""

    builder: Builder
    anatomy: Anatomy
    dataset: Dataset
    tuning: Tuning

    def nearest(self, arch: Architecture) -> tuple[float, int]:
        """Accuracy and bytes of the file whose weights are rounded to nearest."""
        return self._judged(self.builder.build(arch).model)

    def tuned(self, arch: Architecture) -> tuple[float, int]:
        """The same after quantization-aware training."""
        blocks, precisions = self.anatomy.tracer.blocks, self.anatomy.precisions
        chosen = policy_of(arch, blocks, precisions)
        model = to_onnx(self.builder.network(arch), self.dataset.image_shape)
        groups = {b.name: nodes_of(model, b.members) for b in blocks if b.name in chosen}
        x, y = self.dataset.split("train")
        return self._judged(
            train(model, groups, chosen, x, y, self.tuning, augment=self._moved).file().SerializeToString()
        )

    def _moved(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        return shift_and_flip(x, max(1, x.shape[-1] // 8), self.dataset.flip, rng)

    def _judged(self, model: bytes) -> tuple[float, int]:
        return accuracy(open_session(model, parse_device("cpu")), *self.dataset.split("val")), len(model)


def swept(arguments: argparse.Namespace) -> dict[str, list[Swept]]:
    """All points: `nearest` and `tuned`."""
    dataset = read_small(arguments.images, arguments.data)
    channels, pixels, _ = dataset.image_shape
    with torch.random.fork_rng():
        torch.manual_seed(arguments.seed)
        network = resnet(pixels, channels, dataset.num_classes, "tiny")
    space = find_space(network, "resnet")
    widths = widths_of(space, space.architecture({**space.scaled(0.5).assignment, "resolution": pixels}))
    strategy = Among(tuple(arch.indices for arch in widths), paths=len(widths))
    recipe = Recipe(strategy=strategy, steps=arguments.steps, batch=64, lr=0.1, evaluations=1, seed=arguments.seed)
    train_supernet(network, dataset, recipe, arguments.out)
    tracer = BlockTracer(network, dataset.image_shape)
    joint = joint_space(space, find_blocks(network), arguments.precisions)
    anatomy = Anatomy(joint, tracer, arguments.precisions)
    tuning = Tuning(steps=arguments.tuning, lr=0.01, seed=arguments.seed)
    maker = Maker(Builder(network, tracer, dataset, arguments.precisions), anatomy, dataset, tuning)
    weighted = [block.name for block in tracer.blocks if block.weighted]
    return {
        name: kept(arguments.out / f"{name}.jsonl", anatomy, widths, made, (weighted[0], weighted[-1]))
        for name, made in (("nearest", maker.nearest), ("tuned", maker.tuned))
    }


def kept(
    file: Path, anatomy: Anatomy, widths: Sequence[Architecture], made: Made, ends: tuple[str, str]
) -> list[Swept]:
    """The points of a file, those that it lacks made."""
    known = {tuple(row["row"]): (row["accuracy"], row["size_bytes"]) for row in read_lines(file)}
    with open_lines(file) as lines:

        def remembered(arch: Architecture) -> tuple[float, int]:
            if arch.indices not in known:
                start = time.perf_counter()
                found, size = made(arch)
                known[arch.indices] = found, size
                row = {"row": arch.indices, "accuracy": found, "size_bytes": size, "s": time.perf_counter() - start}
                lines.write(json.dumps(row) + "\n")
            return known[arch.indices]

        return list(sweep(anatomy, widths, remembered, ends))


def grid(points: Sequence[Swept], title: str) -> Table:
    """Accuracy, size and bit operations of each width in each precision."""
    precisions = list(dict.fromkeys(p.precision for p in points))
    table = Table("width", *precisions, title=title)
    for width in sorted({p.width for p in points}):
        row = {p.precision: p for p in points if p.width == width}
        cells = (
            f"{100 * p.accuracy:.1f} %, {p.size_bytes / 1e3:.0f} KB, {p.bit_operations / 1e9:.2f} G"
            for p in (row[name] for name in precisions)
        )
        table.add_row(str(width), *cells)
    return table


def by_budget(points: Sequence[Swept], cost: str, title: str) -> Table:
    """The best point of each precision within each budget, and the precisions on the front."""
    unit, factor = COSTS[cost]
    precisions = list(dict.fromkeys(p.precision for p in points))
    table = Table(f"at most, {unit}", *precisions, "best", title=title)
    values = [getattr(p, cost) for p in points]
    for limit in np.geomspace(min(values), max(values), _BUDGETS + 1)[1:] * (1 + 1e-9):
        own = {name: best_within([p for p in points if p.precision == name], cost, limit) for name in precisions}
        best = best_within(points, cost, limit)
        cells = ("" if p is None else f"{100 * p.accuracy:.1f} % (width {p.width})" for p in own.values())
        table.add_row(f"{limit / factor:.3g}", *cells, "" if best is None else best.precision)
    return table


def main() -> None:
    """Makes the points and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", default="digits", help="digits, cifar10 or another data set")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8", "w4a8", "w3a8", "w2a8"])
    parser.add_argument("--steps", type=int, default=600, help="of all widths together")
    parser.add_argument("--tuning", type=int, default=150, help="steps of each width in each precision")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    console, found = Console(width=150), swept(arguments)
    for name, points in found.items():
        console.print(grid(points, name))
    points = found["tuned"]
    for cost, (unit, factor) in COSTS.items():
        console.print(by_budget(points, cost, f"tuned, by {unit}"))
        steps = (
            f"{p.precision}/{p.width} {100 * p.accuracy:.1f} % {getattr(p, cost) / factor:.3g}"
            for p in front_by(points, cost)
        )
        console.print(f"front: {'; '.join(steps)}")
    (arguments.out / "points.json").write_text(json.dumps([asdict_of(p) for p in points], indent=1))


def asdict_of(point: Swept) -> dict[str, object]:
    """As JSON."""
    return {**asdict(point), "arch": dict(point.arch.values)}


if __name__ == "__main__":
    main()
