"""Graph-level truth: is a policy that was found faster than no policy, and is its accuracy what fake quantization says?

Each network of a front is built three times, with the policy that was found for it, all in fp32 and all in int8, and
all files are timed interleaved.  Its accuracy by fake quantization is that of the torch twin of the file, which rounds
where the file does; that of the file is ONNX Runtime's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData

from latency.harness import CAREFUL, measure_models
from latency.lowering import nodes_of, to_onnx
from latency.runtimes.onnx_runtime import open_session
from latency.runtimes.session import accuracy
from nas.candidate import RANGE_IMAGES, with_policy
from nas.measuring import count_rounds
from nas.pipeline import builder_of, train
from nas.record import Setup
from quant_search.policy import describe, policy_of, uniform
from quant_search.ranges import activation_ranges
from quant_search.realise import nodes_in_int8
from quant_search.twin import Twin
from search_spaces.space import Architecture
from supernet.atomic import write_json
from supernet.calibrate import accuracy as torch_accuracy
from supernet.calibrate import calibration_images

NO_RANGES = TensorsData(CalibrationMethod.MinMax, {})


def truth(setup: Setup, file: Path) -> dict[str, Any]:
    """Looks at every point of the joint front of a seed; what `file` holds is not measured again."""
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    train(setup)
    archs = _front(setup, file.with_name(f"seed-{setup.settings.seed}.json"))
    builder, precisions = builder_of(setup), setup.settings.precisions
    images, blocks = calibration_images(setup.dataset), setup.anatomy.tracer.blocks
    rows, files = [], []
    with setup.reporter.stage("files", len(archs)) as stage:
        for arch in archs:
            made = []
            for one in (arch, uniform(arch, "fp32"), uniform(arch, "int8")):
                policy = policy_of(one, blocks, precisions)
                plain = to_onnx(builder.network(one, policy), setup.dataset.image_shape)
                made.append((plain, policy, with_policy(plain, blocks, policy, images)))
            files += [model.SerializeToString() for _, _, model in made]
            own, fp32, int8 = (_accuracy(setup, model) for _, _, model in made)
            fake = _fake_accuracy(setup, *made[0][:2], images)
            accuracies = {"fake": fake, "file": own, "fp32_accuracy": fp32, "int8_accuracy": int8, "miss": own - fake}
            rows.append({"policy": describe(made[0][1]), **accuracies})
            stage.advance()
    with setup.reporter.stage("timings") as stage:
        rounds = count_rounds(stage, len(files))
        seconds = [m.median_s for m in measure_models(files, setup.device, CAREFUL, setup.store, rounds)]
    for row, (own, fp32, int8) in zip(rows, np.reshape(seconds, (-1, 3)).tolist(), strict=True):
        row |= {"latency_s": own, "fp32_s": fp32, "int8_s": int8, "ratio": own / min(fp32, int8)}
    result = {"points": rows}
    write_json(file, result)
    return result


def _front(setup: Setup, file: Path) -> list[Architecture]:
    found = json.loads(file.read_text())["fronts"]["joint"]
    return [setup.space.architecture(line["arch"]) for line in found]


def _accuracy(setup: Setup, model: onnx.ModelProto) -> float:
    session = open_session(model.SerializeToString(), setup.device)
    return accuracy(session, setup.dataset.x_val, setup.dataset.y_val)


def _fake_accuracy(setup: Setup, plain: onnx.ModelProto, policy: Mapping[str, str], images: np.ndarray) -> float:
    """Validation accuracy of the torch twin of a file."""
    members = {block.name: block.members for block in setup.anatomy.tracer.blocks}
    groups = {name: nodes_of(plain, members[name]) for name in policy}
    nodes = nodes_in_int8(groups, policy)
    ranges = activation_ranges(plain, images[:RANGE_IMAGES], nodes=nodes) if nodes else NO_RANGES
    with torch.no_grad():
        return torch_accuracy(Twin(plain, groups, policy, ranges), setup.dataset.x_val, setup.dataset.y_val)
