"""Do the fused kernels answer as ONNX Runtime does?

python -m experiments.fused_agreement FILES... --data digits [--images 2000]
python -m experiments.fused_agreement --space mbconv --preset tiny --data digits [--subnets 8] [--seed 0]

Each int8 file runs in both over test images, which have the size of its input: printed are the share of outputs that
are within one code of each other, the share that are equal, and the share of images with the same largest output.
Files that the kernels do not cover are listed with the reason.  With a space, files are made of random subnets of it
besides, with fresh weights, whose norms and ranges are taken from training images as in a search.

The step of a code is that of the file's last rounding; of outputs that are not rounded, 1/255 of their range.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.kernels.contract import Dequantize, Program
from latency.kernels.intake import program_of
from latency.kernels.native import open_program
from latency.runtimes.opening import open_session
from nas.candidate import Builder
from nas.spec import build_network
from quant_search.policy import joint_space, uniform
from search_spaces.network import find_blocks
from supernet.data import Dataset, load_data

BATCH = 250
PRECISION = "int8"


@dataclass(frozen=True)
class Agreement:
    """How a file's outputs by the fused kernels compare with those by ONNX Runtime.

    Args:
        outputs: their number, over all images.
        within: the share that differ by one code at most.
        equal: the share that do not differ.
        same_top1: the share of images of which the largest output is the same.
    """

    images: int
    outputs: int
    within: float
    equal: float
    same_top1: float


def agreement(model: bytes, images: Callable[[int], np.ndarray]) -> Agreement:
    """Both run-times over the images (n, c, h, w) that there are for a height.

    Raises:
        ValueError: nodes that the kernels do not cover, or images of another shape than the file takes.
    """
    program = program_of(model)
    x = images(program.input_shape[1])
    if x.shape[1:] != program.input_shape:
        raise ValueError(f"takes images {program.input_shape}, the data has {x.shape[1:]}")
    session = open_session(model, parse_device("cpu"))
    expected = np.concatenate([session.run(x[i : i + BATCH]) for i in range(0, len(x), BATCH)])
    with open_program(program) as native:
        found = native.run(x)
    off = np.abs(found - expected) / _step(program, expected)
    same = found.argmax(1) == expected.argmax(1)
    return Agreement(len(x), off.size, np.mean(off < 1.5).item(), np.mean(found == expected).item(), same.mean().item())


def _step(program: Program, outputs: np.ndarray) -> float:
    last = program.steps[-1].operation
    return float(last.scale) if isinstance(last, Dequantize) else float(np.ptp(outputs)) / 255


def subnets(space: str, preset: str | None, data: Dataset, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Random subnets of a ready-made space with fresh weights, by name, in int8 throughout."""
    network, architectures = build_network(space, data.image_shape, data.num_classes, preset, seed)
    joint = joint_space(architectures, find_blocks(network), ("fp32", PRECISION))
    builder = Builder(network, BlockTracer(network, data.image_shape), data, ("fp32", PRECISION))
    for i, row in enumerate(joint.sample(count, np.random.default_rng(seed))):
        yield f"{space}, subnet {i}", builder.build(uniform(joint.row(row), PRECISION)).model


def line(name: str, value: Agreement | str, width: int) -> str:
    """A line of the table: a file's numbers, or why it was refused."""
    if isinstance(value, str):
        return f"{name:<{width}}  {value}"
    shares = (value.within, value.equal, value.same_top1)
    return f"{name:<{width}}  {value.images:>7}" + "".join(f"{share:>16.3%}" for share in shares)


def pooled(compared: Sequence[Agreement]) -> Agreement:
    """Over the outputs and images of several files."""
    images, outputs = (np.array([getattr(value, name) for value in compared]) for name in ("images", "outputs"))
    within, equal = (
        float(outputs @ [getattr(value, name) for value in compared] / outputs.sum()) for name in ("within", "equal")
    )
    same = float(images @ [value.same_top1 for value in compared] / images.sum())
    return Agreement(int(images.sum()), int(outputs.sum()), within, equal, same)


Subject = tuple[str, bytes, Callable[[int], np.ndarray]]


def subjects(given: argparse.Namespace) -> Iterator[Subject]:
    """Names, files, and the images that there are for a height."""
    load = functools.cache(lambda size: load_data(given.data, image_size=size))
    for path in given.files:
        yield str(path), path.read_bytes(), lambda size: load(size).x_test[: given.images]
    if given.space is not None:
        data = load(given.image_size)
        for name, model in subnets(given.space, given.preset, data, given.subnets, given.seed):
            yield name, model, lambda _: data.x_test[: given.images]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--data", required=True, help="a named data set, a folder or an .npz file")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--space")
    parser.add_argument("--preset")
    parser.add_argument("--image-size", type=int, help="of subnets")
    parser.add_argument("--subnets", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if missing := [str(path) for path in given.files if not path.is_file()]:
        parser.error(f"no file {missing[0]}")
    if not given.files and given.space is None:
        parser.error("name files, or a --space")
    width = max(len(str(path)) for path in [*given.files, f"{given.space}, subnet {given.subnets}"])
    print(f"{'file':<{width}}  {'images':>7}{'within one code':>16}{'equal':>16}{'same top-1':>16}")
    compared: list[Agreement] = []
    for name, model, images in subjects(given):
        try:
            found = agreement(model, images)
        except ValueError as error:
            print(line(name, str(error), width), flush=True)
        else:
            print(line(name, found, width), flush=True)
            compared.append(found)
    if len(compared) > 1:
        print(line(f"all {len(compared)}", pooled(compared), width))


if __name__ == "__main__":
    main()
