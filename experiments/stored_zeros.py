"""How much smaller are files whose zeros are not stored, and do they take longer to open or to run?

python -m experiments.stored_zeros [--patterns 2:4 16x4:0.5 unstructured:0.8] [--precisions fp32 int8]

The largest network of mbconv tiny with random weights, masked by magnitude: sizes, kernels and times do not depend on
what it has learned.  Each file is timed beside its dense twin, interleaved, and both are opened in turn.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table

from latency.device import parse_device
from latency.harness import QUICK, compare_models
from latency.lowering import to_onnx
from latency.runtimes.opening import int8_share, open_session
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions, nodes_in_int8
from quant_search.sensitivity.subject import by_layer
from quant_search.sparsity.masking import apply_masks, masks_of
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.stored import stored_sparsely
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_space

_SHAPE, _OPENED, _CPU = (3, 32, 32), 7, parse_device("cpu")


def in_precision(model: onnx.ModelProto, precision: str, images: np.ndarray) -> onnx.ModelProto:
    """`model` with every layer in one precision."""
    if precision == "fp32":
        return model
    groups = by_layer(model)
    chosen = dict.fromkeys(groups, precision)
    ranges = activation_ranges(model, images, nodes=nodes_in_int8(groups, chosen))
    return in_precisions(model, groups, chosen, ranges, pack=True)


def opened_s(models: list[bytes]) -> list[float]:
    """Seconds in which each file is opened, the medians of several, in turn."""
    times: list[list[float]] = [[] for _ in models]
    for _ in range(_OPENED):
        for model, found in zip(models, times, strict=True):
            started_s = time.perf_counter()
            open_session(model, _CPU)
            found.append(time.perf_counter() - started_s)
    return [float(np.median(found)) for found in times]


def main() -> None:
    """Prints a row for each pattern and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patterns", nargs="+", default=["2:4", "16x4:0.5", "unstructured:0.8"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network = SPACES["mbconv"].build(_SHAPE[1], _SHAPE[0], 10, "tiny")
    model = to_onnx(extract(network, find_space(network).largest()).eval(), _SHAPE)
    images = np.random.default_rng(0).standard_normal((32, *_SHAPE)).astype(np.float32)
    table = Table("pattern", "precision", "dense", "stored", "smaller", "same bits", "int8", "opened in", "ratio")
    for name in arguments.patterns:
        masked = apply_masks(model, masks_of(model, parse_pattern(name)))
        for precision in arguments.precisions:
            dense = in_precision(masked, precision, images)
            files = [m.SerializeToString() for m in (dense, stored_sparsely(dense))]
            same = np.array_equal(*(open_session(file, _CPU).run(images) for file in files))
            shares = " / ".join(f"{100 * int8_share(file, _CPU):.0f} %" for file in files)
            before_s, after_s = opened_s(files)
            found = compare_models(*files, _CPU, QUICK)
            low, high = found.ci95
            table.add_row(
                *(name, precision, f"{len(files[0]):,}", f"{len(files[1]):,}", f"{len(files[0]) / len(files[1]):.2f}"),
                *(str(same), shares, f"{1e3 * before_s:.0f} → {1e3 * after_s:.0f} ms"),
                f"{found.ratio:.3f} ({low:.3f}-{high:.3f}), control {found.control_ratio:.3f}: {found.verdict}",
            )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
