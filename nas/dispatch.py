"""Which blocks of a profile a device runs faster than its baseline: a table by measurement, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

from latency.attribution import LEAST_S
from latency.blocks import TracedBlock
from latency.compare import is_faster
from latency.count import Layer
from latency.device import Device, baseline_of
from nas.anatomy import Anatomy
from nas.blocks_alone import BlocksAlone
from nas.profile_data import ProfileData

_KINDS = {"pointwise": "1x1", "linear": "linear"}


def dispatch(data: ProfileData, anatomy: Anatomy, slope: float = 1.0, each_s: float = 0.0) -> dict[str, Any] | None:
    """The time of each block here and on the baseline, and which is faster, as JSON; None where there is no baseline.

    Args:
        slope, each_s: of blocks timed by their steps, t seconds of which make slope * t + each_s of a call, as a block
            table is corrected: the fastest of many times and the clock between steps are not what a call shows.

    Blocks without weights cost next to nothing and are left out, and so are those whose call takes hardly longer than
    that of what is around them, here or on the baseline: their difference is noise.  A file is run in one run-time
    throughout, since each change between two costs a call and two conversions; the table says where the device's gain
    comes from.
    """
    device = Device(data.device, data.device.partition(":")[0], data.threads, data.runtime, data.batch)
    baseline, alone, rows = baseline_of(device), BlocksAlone(data, anatomy), list[dict[str, Any]]()
    for subject in alone.subjects:
        block = alone.block_of(subject)
        if "baseline" not in subject.results or not block.weighted:
            continue
        if alone.tells(subject) and alone.tells(subject, "baseline"):
            here_s, there_s = alone.seconds(subject), alone.seconds(subject, "baseline")
            if subject.parts:
                here_s = max(slope * here_s + each_s, LEAST_S)
            winner = data.device if is_faster(here_s, there_s) else baseline.name if baseline else ""
            times = {"latency_s": here_s, "baseline_s": there_s, "factor": there_s / here_s, "faster": winner}
            rows.append({"block": block.name, "shape": in_words(block), "macs": block.counts.macs, **times})
    if baseline is None or not rows:
        return None
    rows.sort(key=lambda row: row["factor"])
    return {
        "baseline": baseline.name,
        "blocks": len(rows),
        "faster": sum(row["faster"] == data.device for row in rows),
        "factor": {name: float(q) for name, q in zip(("least", "median", "most"), _spread(rows), strict=True)},
        "rows": rows,
    }


def _spread(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.quantile([row["factor"] for row in rows], (0.0, 0.5, 1.0))


def in_words(block: TracedBlock) -> str:
    """A block by its layers: `24x12x12: 1x1 96, depthwise 5x5 96, 1x1 24`."""
    layers = ", ".join(_layer_words(layer) for layer in block.layers if layer.kind != "none")
    return f"{'x'.join(map(str, block.input_shape))}: {layers}"


def _layer_words(layer: Layer) -> str:
    side = round(layer.taps**0.5)
    kind = _KINDS.get(layer.kind) or f"{layer.kind} {side}x{side}"
    shrunk = f"/{round((layer.sizes[0] / layer.sizes[1]) ** 0.5)}" if layer.sizes[0] > layer.sizes[1] else ""
    return f"{kind}{shrunk} {layer.channels[1]}"
