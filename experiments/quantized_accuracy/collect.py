"""Inherited accuracies in fp32 and the accuracies of real quantized files, of one small supernet; kept in a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.lines import open_lines, read_lines
from experiments.small_data import read_small
from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from nas.anatomy import Anatomy
from nas.candidate import Builder
from quant_search.policy import SUFFIX, joint_space
from search_spaces.mbconv import mbconv
from search_spaces.network import find_blocks, find_space
from search_spaces.space import INDEX, SearchSpace
from supernet.calibrate import inherited_accuracy
from supernet.recipe import Recipe
from supernet.strategies.sandwich import Sandwich
from supernet.train import train_supernet

PRECISIONS = ("fp32", "int8", "w4a8", "w3a8", "w2a8")
_FILE = "points.jsonl"
_CONCENTRATION = 0.5  # of the policies' Dirichlet shares: from uniform policies to even mixtures


@dataclass(frozen=True)
class Effort:
    """What is trained and collected.

    Args:
        randoms: random subnets in a step of the sandwich rule.
    """

    data: str = "digits"
    steps: int = 1500
    inherited: int = 200
    files: int = 150
    randoms: int = 1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Points:
    """What was collected of a joint space.

    Args:
        architectures: the factor without policies.
        inherited: rows (n, d) of the joint space in fp32, and their accuracies (n,).
        files: rows (k, d), the accuracies of their files (k,) and the files' sizes in bytes (k,).
    """

    anatomy: Anatomy
    architectures: SearchSpace
    inherited: tuple[np.ndarray, np.ndarray]
    files: tuple[np.ndarray, np.ndarray, np.ndarray]


def collect(effort: Effort, data: Path, out: Path) -> Points:
    """Trains and collects what `out` does not hold yet; goes on where it was killed."""
    dataset = read_small(effort.data, data)
    network = mbconv(dataset.image_shape[1], dataset.image_shape[0], dataset.num_classes, "tiny")
    architectures = find_space(network, "mbconv")
    joint = joint_space(architectures, find_blocks(network), PRECISIONS)
    anatomy = Anatomy(joint, BlockTracer(network, dataset.image_shape), PRECISIONS)
    strategy = Sandwich(effort.randoms)
    recipe = Recipe(strategy=strategy, steps=effort.steps, batch=64, evaluations=2, seed=effort.seed)
    train_supernet(network, dataset, recipe, out)
    builder, device = Builder(network, anatomy.tracer, dataset, PRECISIONS), parse_device("cpu")
    rng = np.random.default_rng(effort.seed)
    single, mixed = architectures.sample(effort.inherited, rng), policies(joint, effort.files, rng)
    file = out / _FILE
    done = {kind: sum(row["kind"] == kind for row in read_lines(file)) for kind in ("inherited", "file")}
    with open_lines(file) as lines:
        for row in single[done["inherited"] :]:
            found = inherited_accuracy(network, architectures.row(row), dataset)
            lines.write(json.dumps({"kind": "inherited", "row": row.tolist(), "accuracy": found}) + "\n")
        for row in mixed[done["file"] :]:
            model = builder.build(joint.row(row)).model
            found = accuracy(open_session(model, device), dataset.x_val, dataset.y_val)
            content = {"kind": "file", "row": row.tolist(), "accuracy": found, "size_bytes": len(model)}
            lines.write(json.dumps(content) + "\n")
    return _points(anatomy, architectures, file, effort)


def policies(joint: SearchSpace, n: int, rng: np.random.Generator) -> np.ndarray:
    """n random rows (n, d) whose policies are from nearly uniform to evenly mixed."""
    rows = joint.sample(n, rng)
    columns = [j for j, choice in enumerate(joint.choices) if choice.name.endswith(SUFFIX)]
    options = len(joint.choices[columns[0]].options)
    shares = rng.dirichlet(np.full(options, _CONCENTRATION), size=n)
    for row, share in zip(rows, shares, strict=True):
        row[columns] = rng.choice(options, size=len(columns), p=share)
    return joint.canonical(rows)


def _points(anatomy: Anatomy, architectures: SearchSpace, file: Path, effort: Effort) -> Points:
    lines = read_lines(file)
    single = [row for row in lines if row["kind"] == "inherited"][: effort.inherited]
    files = [row for row in lines if row["kind"] == "file"][: effort.files]
    rows = anatomy.in_most_bits(np.array([row["row"] for row in single], dtype=INDEX))
    return Points(
        anatomy,
        architectures,
        (rows, np.array([row["accuracy"] for row in single])),
        (
            np.array([row["row"] for row in files], dtype=INDEX),
            np.array([row["accuracy"] for row in files]),
            np.array([float(row["size_bytes"]) for row in files]),
        ),
    )
