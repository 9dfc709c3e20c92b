"""How near networks come to the roofline: `python -m experiments.roofline [NAME ...]`.

Each network of timm, and the smallest and largest of each space of the toolkit in fp32 and int8, is exported and
measured; printed are the floor, the measured time, and its share, which must not be above 100 %.
"""

import sys
from collections.abc import Iterator

import numpy as np
import timm
import torch

from latency.device import parse_device
from latency.graph import executed_kernels, totals
from latency.harness import QUICK, measure_models
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
    """Prints the peaks, and a line per network."""
    torch.manual_seed(0)
    device = parse_device("cpu")
    peaks = peaks_of(device)
    print(peaks)
    for name, model in models(tuple(sys.argv[1:]) or NAMES):
        kernels = executed_kernels(model, device)
        floor, fastest = floor_s(kernels, peaks), min(measure_models([model], device, QUICK)[0].timing.samples_s)
        macs = totals(kernels).macs / 1e6
        print(f"{name:28} {macs:8.1f} MMAC  floor {floor * 1e6:8.1f} us  measured {fastest * 1e6:8.1f} us", end="")
        print(f"  {floor / fastest:6.1%}{'  ABOVE' if floor > fastest else ''}", flush=True)


if __name__ == "__main__":
    main()
