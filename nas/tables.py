"""What the command line prints: spaces, fronts, hypervolumes and measurements as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from latency.compare import Comparison
from nas.advantage import SURE
from nas.format import amount, count, duration, interval, percent, small
from nas.metrics import Cost, columns_of
from quant_search.policy import describe

_MOST_ROWS = 20
_GROUPS = {"search": "search", "random": "random search", "uniform": "uniform scaling"}


def devices_view(found: Mapping[str, Any]) -> RenderableType:
    """The machine, and a row for each device: what was found for it or what is missing."""
    machine = found["machine"]
    here = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']} on {machine['machine']}"
    gpu = f"{machine['gpu']['name']}, driver {machine['gpu']['driver']}" if machine["gpu"] else "no NVIDIA GPU"
    table = _table(f"{here} ({' '.join(machine['isa'])}); {gpu}", "device", "precision", "found, or missing")
    for column in table.columns:
        column.justify = "left"
    for device in found["devices"]:
        table.add_row(
            device["name"] + (" (default)" if device["default"] else ""),
            ",".join(device["precisions"]) if device["available"] else "",
            _found(device),
        )
    lines = [why or f"the energy of a call on {kind} can be measured" for kind, why in found["no_energy"].items()]
    return Group(table, Text("\n".join(lines)))


def _found(device: Mapping[str, Any]) -> Text:
    if not device["available"]:
        return Text(f"not here: {device['missing']}")
    parts = [f"{name} {version}" for name, version in device["versions"].items()]
    if device["missing"]:
        parts = ["as gpu:torch"]
    elif device["provider"]:
        parts.append(device["provider"])
    return Text(", ".join(parts))


def space_table(space: Mapping[str, Any]) -> RenderableType:
    """How large a space is, and what its smallest, middle and largest network cost."""
    title = f"{space['name']}: {count(space['architectures'])} architectures"
    if space["policies_included"] != space["architectures"]:
        title += f", {count(space['policies_included'])} with their precision policies"
    table = _table(title, "network", "MACs", "parameters", "size", "latency")
    for row in space["rows"]:
        costs = (amount(row["macs"]), amount(row["parameters"]), amount(row["size_bytes"], "B"))
        table.add_row(row["what"], *costs, duration(row["latency_s"]))
    return table


def front_table(front: Sequence[Mapping[str, Any]], others: Sequence[Cost] = ()) -> RenderableType:
    """The verified front, from the fastest to the slowest.

    Args:
        others: columns besides those of every front.
    """
    thinned = any(kept_channels(point) is not None for point in front)
    beside = next((point["baseline"]["device"] for point in front if "baseline" in point), None)
    table = _table(
        f"Verified front: {len(front)} files",
        *("point", "accuracy (test)", "validation", "latency", "95 % interval", "size", "MACs"),
        *(cost.words for cost in others),
        *((f"against {beside}",) if beside else ()),
        *(("channels",) if thinned else ()),
        "precision",
    )
    for i, point in enumerate(front):
        latency = point["latency_s"]
        table.add_row(
            str(i),
            percent(point["accuracy"]),
            percent(point["val_accuracy"]),
            duration(latency["median"]),
            interval(*latency["ci95"]),
            amount(point["size_bytes"], "B"),
            amount(point["macs"]),
            *("" if (value := cost.of_point(point)) is None else cost.show(value) for cost in others),
            *((f"{point['baseline']['factor']:.2f} x",) if beside else ()),
            *(("" if (kept := kept_channels(point)) is None else percent(kept),) if thinned else ()),
            describe(point["policy"]),
        )
    return table


def kept_channels(point: Mapping[str, Any]) -> float | None:
    """The mean share of inner channels that the blocks of a point keep; None where they have no choice."""
    kept = [float(value) for name, value in point["arch"].items() if name.endswith(".density")]
    return sum(kept) / len(kept) if kept else None


def hypervolume_table(search: Mapping[str, Any]) -> RenderableType:
    """The hypervolume of the search beside its baselines, each with its number of verified evaluations."""
    table = _table("Hypervolume (share of the common box)", "by", "evaluations", "hypervolume", "search is better by")
    volumes = search["hypervolume"]
    for name, label in _GROUPS.items():
        if name not in volumes:
            continue
        gain = ""
        if name != "search" and volumes[name] > 0:
            gain = f"{100 * (volumes['search'] / volumes[name] - 1):+.1f} %"
            if (sure := search.get("advantage", {}).get(name)) is not None:
                low, high = (f"{100 * (end - 1):+.0f}" if end is not None else "any" for end in sure["interval"])
                gain += f" ({low} to {high})"
                gain += "" if sure["chance"] <= SURE else ": no advantage"
        table.add_row(label, str(len(search["groups"][name])), f"{volumes[name]:.3f}", gain)
    return table


def result_view(record: Mapping[str, Any]) -> RenderableType:
    """Front, hypervolumes and what verification changed."""
    verify, profile = record["verify"], record["profile"]
    lines = [f"{len(verify['dropped'])} of the points that the search had on its front were dropped by verification."]
    misses = [f"latency by {percent(verify['latency_miss'])}"] if "latency_miss" in verify else []
    misses += [f"accuracy by {100 * verify['accuracy_miss']:.1f} points"] if "accuracy_miss" in verify else []
    if misses:
        lines.append(f"Predictions missed what was then verified: {', '.join(misses)} (medians).")
    held_out = profile["held_out"]
    lines.append(
        f"Latency model on {held_out['items']} networks not used for fitting: mean error "
        f"{percent(held_out['mape'])}, Spearman {_rank(held_out)}; MACs alone: "
        f"{percent(profile['macs_only']['mape'])}, {_rank(profile['macs_only'])}."
    )
    tables = (front_table(record["front"], columns_of(record)), hypervolume_table(record["search"]))
    return Group(*tables, Text("\n".join(lines)))


def training_view(content: Mapping[str, Any]) -> RenderableType:
    """What a training came to."""
    accuracy, settings = content["val_accuracy"], content["settings"]
    return Text(
        f"{settings['strategy']}: {content['total_steps']:,} steps in {content['seconds']:.0f} s; validation accuracy "
        f"of the largest architecture {percent(accuracy['largest'])}, of the smallest {percent(accuracy['smallest'])}."
    )


def fidelity_view(found: Mapping[str, Any]) -> RenderableType:
    """Every network that was compared, and how well they are ranked."""
    rows = sorted(found["networks"], key=lambda row: -row["stand_alone"])
    title = f"Inherited against stand-alone accuracy of {found['n']} networks"
    table = _table(title, "stand-alone", "inherited", "architecture")
    table.columns[-1].justify, table.columns[-1].overflow = "left", "fold"
    for row in rows[:_MOST_ROWS]:
        arch = " ".join(f"{name}={option}" for name, option in row["arch"].items())
        table.add_row(percent(row["stand_alone"]), percent(row["inherited"]), arch)
    lines = [f"… and {len(rows) - _MOST_ROWS} more"] if len(rows) > _MOST_ROWS else []
    for name, key in (("Kendall tau", "kendall_tau"), ("Spearman", "spearman")):
        low, high = found[f"{key}_ci95"]
        lines.append(f"{name} {found[key]:.3f} (95 % interval {low:.3f} to {high:.3f}).")
    gaps = found["gap_points"] or {}
    if gaps:
        said = ", ".join(f"{name} {gap:+.1f}" for name, gap in gaps.items())
        lines.append(f"Stand-alone minus inherited, in points: {said}.")
    stale = [
        f"{n['out_of_date']} of {n['norms']} in the {name}" for name, n in found["uncalibrated"].items() if n["norms"]
    ]
    lines += [f"Batch norms that calibration had to put right: {', '.join(stale)}."] if stale else []
    lines += [found["advice"]] if found["advice"] else []
    return Group(table, Text("\n".join(lines)))


def _rank(agreement: Mapping[str, Any]) -> str:
    return "unknown" if agreement["spearman"] is None else f"{agreement['spearman']:.3f}"


_PREDICTORS = {"heldout": "latency model", "plain_sum": "sum of blocks", "macs_only": "MACs alone"}


def profile_view(summary: Mapping[str, Any]) -> RenderableType:
    """How well latencies of unseen networks are predicted, by kind of network, beside simpler predictors."""
    title = f"{summary['device']}: networks not used for fitting"
    columns = ("networks", "predictor", "n", "mean error", "within 5 %", "10 %", "Spearman", "90 % holds", "repeats to")
    table = _table(title, *columns)
    for kind, found in summary["precisions"].items():
        for name, label in _PREDICTORS.items():
            score = found[name]
            shares = (score[key] for key in ("within_5pct", "within_10pct"))
            table.add_row(
                kind if name == "heldout" else "",
                label,
                str(score["n"]),
                percent(score["mape"]),
                *map(percent, shares),
                _rank(score),
                _maybe(score["coverage_90"]),
                _maybe(score["noise_floor"]) if name == "heldout" else "",
            )
    how = f"Fitted on {summary['networks_fitted']} networks, timed {summary['timed']}, in {summary['wall_s']:.0f} s."
    how += _blocks_line(summary["dispatch"], summary["device"]) if "dispatch" in summary else ""
    found = summary["whole_over_parts"].items()
    both = [
        f"The smallest network takes {ratio:.3f} times as long whole as by parts ({kind})." for kind, ratio in found
    ]
    return Group(table, Text("\n".join([how, *both, *summary["warnings"]])))


def _blocks_line(found: Mapping[str, Any], device: str) -> str:
    """How many blocks are faster here than on the baseline, and by what."""
    least, middle, most = (f"{found['factor'][name]:.2f}" for name in ("least", "median", "most"))
    return (
        f"\n{found['faster']} of {found['blocks']} blocks are more than 3 % faster on {device} than on "
        f"{found['baseline']}: {least} to {most} times as fast, {middle} in the middle."
    )


def files_profile_view(summary: Mapping[str, Any]) -> RenderableType:
    """What a latency model of any network says of files, beside their measurements."""
    title = f"{summary['device']}: a model fitted on random networks"
    table = _table(title, "file", "MACs", "predicted", "90 % interval", "measured by parts", "off by", "timed whole")
    for row in summary["files"]:
        predicted, half = row["predicted_s"], row["half_width_s"]
        table.add_row(
            row["file"].rpartition("/")[2],
            amount(row["macs"]),
            duration(predicted),
            f"{duration(max(predicted - half, 0.0))} – {duration(predicted + half)}",
            duration(row["measured_s"]),
            f"{100 * (predicted / row['measured_s'] - 1):+.1f} %",
            duration(row["whole_s"]),
        )
    score = summary["heldout"]
    shares = f"{percent(score['within_5pct'])} within 5 %, {percent(score['within_10pct'])} within 10 %"
    how = f"Mean error {percent(score['mape'])}, {shares}, Spearman {_rank(score)}; {summary['wall_s']:.0f} s."
    return Group(table, Text(how))


def _maybe(share: float | None) -> str:
    return "" if share is None else percent(share)


def verify_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Every file measured again, beside what the run had."""
    table = _table("Verified again", "point", "accuracy", "was", "latency", "was", "moved", "verdict")
    for row in rows:
        table.add_row(
            str(row["point"]),
            percent(row["accuracy"]),
            percent(row["was"]["accuracy"]),
            duration(row["latency_s"]["median"]),
            duration(row["was"]["latency_s"]["median"]),
            f"{100 * row['moved']:+.1f} %",
            row["verdict"],
        )
    return table


def elsewhere_view(content: Mapping[str, Any]) -> RenderableType:
    """The front of a run as another device has it, beside what the run had."""
    columns = ("accuracy", "was", "latency", "95 % interval", "was", "size", "there")
    table = _table(f"Verified on {content['device']} ({content['environment']['cpu']})", "point", *columns)
    for row in content["points"]:
        table.add_row(
            str(row["point"]),
            percent(row["accuracy"]),
            percent(row["was"]["accuracy"]),
            duration(row["latency_s"]["median"]),
            interval(*row["latency_s"]["ci95"]),
            duration(row["was"]["latency_s"]["median"]),
            amount(row["size_bytes"], "B"),
            row["verdict"],
        )
    best, n = content["front"], len(content["points"])
    return Group(
        table, Text(f"{len(best)} of {n} points are on the front there: {', '.join(map(str, best)) or 'none'}.")
    )


def measurements_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Measured files, each with its latency, the tails of all samples, CPU time, throughput, and energy if known."""
    energy = ["energy"] if "energy_joules" in rows[0] else []
    columns = ("file", "latency", "95 % interval", "p10", "p90", "p99", "CPU time", "images/s", *energy)
    table = _table("Measured", *columns)
    for row in rows:
        table.add_row(
            row["file"],
            duration(row["median_s"]),
            interval(*row["ci95_s"]),
            *(duration(row[key]) for key in ("p10_s", "p90_s", "p99_s", "cpu_median_s")),
            amount(row["throughput"]),
            *(small(row["energy_joules"], "J") for _ in energy),
        )
    share = min(row["undisturbed_share"] for row in rows)
    note = "Latency and CPU time are medians of undisturbed samples ({} of all at least), tails are of all samples."
    said = dict.fromkeys(line for row in rows for line in row["warnings"])
    return Group(table, Text("\n".join((note.format(percent(share, 0)), *(said or ["the machine was quiet"])))))


def comparison_view(files: Sequence[str], found: Comparison) -> RenderableType:
    """Which of two files is faster, and by how much a difference could be told."""
    a, b = files
    slower, faster = found.ratio - 1, 1 / found.ratio - 1
    verdict = {
        "slower": f"{b} is {percent(slower)} slower than {a}.",
        "faster": f"{b} is {percent(faster)} faster than {a}.",
        "no difference": f"No difference between {a} and {b} beyond {percent(found.resolution)}.",
    }[found.verdict]
    table = _table("Compared", "file", "latency", "CPU time")
    for name, timing in ((a, found.a), (f"{a} (again)", found.control), (b, found.b)):
        undisturbed = timing.undisturbed()
        table.add_row(name, duration(undisturbed.median_s), duration(undisturbed.cpu_median_s))
    low, high = found.ci95
    ratio = f"Ratio {found.ratio:.3f} (95 % interval {low:.3f}–{high:.3f}), of the control {found.control_ratio:.3f}."
    busy = (found.contention and found.contention.warning) or "the machine was quiet"
    return Group(table, Text("\n".join((verdict, ratio, busy))))


def choices_table(choices: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The choices of a space with their options and conditions."""
    table = _table("Choices", "choice", "options", "active when")
    for choice in choices:
        options = ", ".join(map(str, choice["options"]))
        table.add_row(choice["name"], options, choice["when"])
    return table


def preset_view(space: str, described: Mapping[str, Any]) -> RenderableType:
    """One preset of a ready-made space: its choices, what its networks cost, and the spread of random ones."""
    low, middle, high = (f"{macs / 1e6:.3g} M" for macs in described["random_macs"])
    return Group(
        Text.from_markup(f"[bold]{space} / {described['preset']}[/], images of {described['image_size']} pixels"),
        choices_table(described["choice_list"]),
        space_table(described),
        Text(f"Random architectures: {middle} MACs, 90 % of them between {low} and {high}."),
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    return table
