"""How near networks come to the roofline: `python -m experiments.roofline [--device cpu|cpu:fused] [NAME ...]`.

Each network of timm, and the smallest and largest of each space of the toolkit in fp32 and int8, is exported and
measured; printed are the floor, the measured time, and its share, which must not be above 100 %.  On fused kernels,
which run what is in int8, it is followed by the share of the closed-form estimate, which may be on either side.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import timm
import torch

from latency import fused_roofline
from latency.device import Device, parse_device
from latency.fused_prices import prices_of
from latency.fused_roofline import macs, program_s
from latency.graph import executed_kernels, totals
from latency.harness import QUICK, measure_models
from latency.kernels.intake import program_of
from latency.lowering import to_onnx
from latency.peaks import peaks_of
from latency.roofline import floor_s
from quant_search.onnx_qdq import activation_ranges, quantize
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_space

NAMES = ("mobilenetv2_050", "mobilenetv3_small_050", "resnet18", "regnetx_002", "convnext_atto", "vit_tiny_patch16_224")
SHAPE = (3, 224, 224)


def models(names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Names and files: those of the spaces with random weights, in fp32 and int8, then networks of timm in fp32."""
    shape = (3, 64, 64)
    for name, entry in SPACES.items():
        network = entry.build(shape[1], 3, 10, next(iter(entry.presets)))
        space = find_space(network)
        for size, arch in (("smallest", space.smallest()), ("largest", space.largest())):
            model = to_onnx(extract(network, arch), shape)
            images = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
            int8 = quantize(model, [node.name for node in model.graph.node], activation_ranges(model, images))
            yield f"{name} {size} fp32", model.SerializeToString()
            yield f"{name} {size} int8", int8.SerializeToString()
    for name in names:
        yield name, to_onnx(timm.create_model(name), SHAPE).SerializeToString()


def main() -> None:
    """Prints the peaks or prices, and a line per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cpu:fused"), default="cpu")
    parser.add_argument("names", nargs="*", default=NAMES)
    given = parser.parse_args()
    torch.manual_seed(0)
    device = parse_device(given.device)
    if device.runtime == "fused":
        fused(device, [(name, model) for name, model in models(()) if name.endswith("int8")])
        return
    peaks = peaks_of(device)
    print(peaks)
    for name, model in models(tuple(given.names)):
        kernels = executed_kernels(model, device)
        print(line(name, totals(kernels).macs, floor_s(kernels, peaks), fastest_s(model, device)), flush=True)


def fused(device: Device, files: list[tuple[str, bytes]]) -> None:
    """A line for each file, or what fused kernels do not cover of it."""
    prices = prices_of()
    print(prices)
    for name, model in files:
        try:
            program = program_of(model)
        except ValueError as error:
            print(f"{name:28} {error}")
            continue
        measured = fastest_s(model, device)
        found = line(name, macs(program), fused_roofline.floor_s(program, prices), measured)
        print(f"{found}  estimate {program_s(program, prices) / measured:6.1%}", flush=True)


def fastest_s(model: bytes, device: Device) -> float:
    """The fastest sample of a file."""
    return min(measure_models([model], device, QUICK)[0].timing.samples_s)


def line(name: str, macs: float, floor: float, fastest: float) -> str:
    """A network with its floor, what it took, and the share; ABOVE: one of the two cannot be."""
    share = f"{floor / fastest:6.1%}{'  ABOVE' if floor > fastest else ''}"
    return f"{name:28} {macs / 1e6:8.1f} MMAC  floor {floor * 1e6:8.1f} us  measured {fastest * 1e6:8.1f} us  {share}"


if __name__ == "__main__":
    main()
