"""What a space is, in numbers: how many architectures, and what networks in it cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from latency.blocks import BlockTracer
from latency.device import Device, entry_of, parse_device
from latency.harness import QUICK, measure_models
from latency.store import MeasurementStore
from nas.names import catalog_entry, checked_preset
from nas.profiling import neutral_model
from nas.progress import Reporter, Stage
from nas.spec import build_network
from quant_search.policy import PRECISIONS, joint_space
from search_spaces.network import find_blocks
from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice

_CHANNELS = 3
_SAMPLED = 200  # random architectures whose MACs are shown


def describe_space(
    network: nn.Module,
    architectures: SearchSpace,
    joint: SearchSpace,
    image_shape: tuple[int, ...],
    device: Device,
    store: MeasurementStore,
    stage: Stage,
) -> dict[str, Any]:
    """The sizes of a space, and what its smallest, middle and largest network cost; latency is measured.

    In fp32, or in what the device runs instead.
    """

    def measured(_: Architecture, model: bytes) -> float:
        return measure_models([model], device, QUICK, store)[0].median_s

    return describe_costs(network, architectures, joint, image_shape, stage, measured, entry_of(device).precisions[0])


def describe_costs(
    network: nn.Module,
    architectures: SearchSpace,
    joint: SearchSpace,
    image_shape: tuple[int, ...],
    stage: Stage,
    seconds: Callable[[Architecture, bytes], float],
    precision: str = "fp32",
) -> dict[str, Any]:
    """As `describe_space`; `seconds` says how long an architecture without policy, as a file in `precision`, takes."""
    tracer = BlockTracer(network, image_shape)
    archs = {
        "smallest": architectures.smallest(),
        "middle": architectures.scaled(0.5),
        "largest": architectures.largest(),
    }
    stage.expect(len(archs))
    rows = []
    for what, arch in archs.items():
        model = neutral_model(network, tracer, arch, (precision,), image_shape).SerializeToString()
        blocks = tracer.trace(arch)
        rows.append(
            {
                "what": what,
                "macs": sum(b.counts.macs for b in blocks),
                "parameters": sum(b.counts.parameters for b in blocks),
                "size_bytes": len(model),
                "latency_s": seconds(arch, model),
            }
        )
        stage.advance()
    return {
        "name": architectures.name,
        "architectures": architectures.size,
        "policies_included": joint.size,
        "choices": len(joint),
        "rows": rows,
    }


def describe_presets(
    name: str, preset: str | None, device_name: str, seed: int, reporter: Reporter
) -> list[dict[str, Any]]:
    """One description per preset of a ready-made space, with its choices and the MACs of random architectures.

    Raises:
        ValueError: an unknown space, preset or device.
    """
    presets, device = catalog_entry(name).presets, parse_device(device_name)
    chosen = checked_preset(name, preset)
    parts = []
    with MeasurementStore(say=reporter.message) as store:
        for each in presets if chosen is None else (chosen,):
            size, classes = presets[each]
            shape = (_CHANNELS, size, size)
            network, architectures = build_network(name, shape, classes, each, seed)
            joint = joint_space(architectures, find_blocks(network), PRECISIONS)
            with reporter.stage(each) as stage:
                described = describe_space(network, architectures, joint, shape, device, store, stage)
            extra = {"preset": each, "image_size": size, "classes": classes}
            extra["choice_list"] = [_choice(choice) for choice in architectures.choices]
            extra["random_macs"] = _random_macs(network, architectures, shape, seed)
            parts.append(described | extra)
    return parts


def _choice(choice: Choice) -> dict[str, Any]:
    clauses = (
        " and ".join(f"{c.choice} in {', '.join(map(str, c.options))}" for c in clause) for clause in choice.when
    )
    return {"name": choice.name, "options": list(choice.options), "when": " or ".join(clauses) or "always"}


def _random_macs(network: nn.Module, space: SearchSpace, shape: tuple[int, ...], seed: int) -> list[float]:
    """The 5th, 50th and 95th percentile of the MACs of random architectures."""
    tracer = BlockTracer(network, shape)
    rows = space.sample(_SAMPLED, np.random.default_rng(seed))
    macs = [sum(block.counts.macs for block in tracer.trace(space.row(row))) for row in rows]
    return [float(q) for q in np.quantile(macs, (0.05, 0.5, 0.95))]
