"""What `nas quantize` leaves behind: the files, and a record that says what was chosen for each layer, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nas.format import amount, duration, interval, percent
from nas.quantizing import Final, Made, Quantized
from nas.throughout import only_int8, place_of
from quant_search.islands import Int8Share, share_in_int8
from quant_search.precision import kind_of
from supernet.atomic import write_bytes, write_json

MODEL, RECORD = "model.onnx", "quantize.json"
_LAYERS_SHOWN = 60
_ALL = Int8Share(1, 1, ())  # of a run-time that takes nothing else
_SMALL = 0.02  # of all damage, or of all time: not worth naming


def write_quantized(found: Quantized, folder: Path, source: str, data: str) -> dict[str, Any]:
    """Writes the chosen file and the record, and returns the record.

    Raises:
        OSError: the folder cannot be written; each file is written whole or not at all.
    """
    record = {"source": source, "data": data, **plain(found)}
    write_bytes(folder / MODEL, found.chosen.model)
    write_json(folder / RECORD, record)
    return record


def plain(found: Quantized) -> dict[str, Any]:
    """Everything that was found, as JSON."""
    return {
        "device": found.device.name,
        "wanted": {
            "precisions": list(found.wanted.precisions),
            "max_drop": found.wanted.max_drop,
            "objective": found.wanted.objective,
            "rounding": found.wanted.rounding,
            "sensitivity": found.wanted.sensitivity,
            "sparsity": found.wanted.sparsity,
            "seed": found.wanted.seed,
            "finetune": found.wanted.finetune,
            "integer_only": found.wanted.integer_only,
        },
        **({"finetuned": found.finetuned.plain()} if found.finetuned else {}),
        **({"in_integers": asdict(found.in_integers)} if found.in_integers else {}),
        **({"layers_add_up_within": found.costs.error} if found.costs.seconds else {}),
        "chosen": found.chosen.name,
        "tried": [{"name": t.name, "precision": t.precision, "kl": t.judged, "kept": t.kept} for t in found.trials],
        "files": [_file(made) for made in found.files],
        "final": {name: _final_of(found, final) for name, final in found.final.items()},
        "layers": [_layer(found, name) for name in found.costs.seconds],
    }


def _final_of(found: Quantized, final: Final) -> dict[str, Any]:
    """What was measured carefully, and what of it runs in int8 after the run-time's own optimisation."""
    place, seconds = place_of(final.made.chosen, found.device), final.measured.median_s
    share = _ALL if only_int8(place) else share_in_int8(final.made.model, place)
    return {
        **({"device": place.name} if place != found.device else {}),
        "accuracy": final.accuracy,
        "val_accuracy": final.made.val_accuracy,
        "latency_s": {"median": seconds, "ci95": list(final.measured.ci95_s)},
        "size_bytes": len(final.made.model),
        **({"dense_bytes": final.made.dense_bytes} if final.made.dense_bytes else {}),
        **({"twin": final.made.twin} if final.made.twin else {}),
        **({"baseline": final.baseline.plain(seconds)} if final.baseline else {}),
        "int8_share": share.share,
        "fp32_islands": list(share.islands),
    }


def _file(made: Made) -> dict[str, Any]:
    return {
        "name": made.name,
        "val_accuracy": made.val_accuracy,
        "agreement": made.agreement,
        "latency_s": made.latency_s,
        "size_bytes": len(made.model),
        **({"dense_bytes": made.dense_bytes} if made.dense_bytes else {}),
        **({"twin": made.twin} if made.twin else {}),
        "in_fp32": [layer for layer, precision in made.chosen.items() if precision == "fp32"],
    }


def _layer(found: Quantized, name: str) -> dict[str, Any]:
    precision, damage = found.chosen.chosen[name], found.damage
    damages = {option: damage.of(name, option) for option in damage.options}
    return {
        "layer": name,
        "precision": precision,
        "weights": found.weights.get(name, 0),
        "seconds": {kind: float(s) for kind, s in found.costs.seconds[name].items()},
        "damage": damages,
        "why": _why(found, name, precision, damages),
    }


def _why(found: Quantized, name: str, precision: str, damages: Mapping[str, float]) -> str:
    """What speaks for the precision of a layer."""
    seconds, total_s = found.costs.seconds[name], sum(s["fp32"] for s in found.costs.seconds.values())
    saved_s = seconds["fp32"] - seconds["int8"]
    lower = precision if precision != "fp32" else found.damage.options[0]
    everything = sum(max(0.0, found.damage.of(group, lower)) for group in found.costs.seconds)
    share = max(0.0, damages[lower]) / everything if everything else 0.0
    does = f"does {percent(share)} of the damage" if share >= _SMALL else "does hardly any damage"
    if found.wanted.objective == "size" and precision != "fp32":
        return f"{lower} is smaller and {does}"
    if kind_of(lower) == "fp32" or abs(saved_s) < _SMALL * seconds["fp32"]:
        return f"{lower} is as fast as fp32 here and {does}"
    change_s = max(found.costs.change[name].values())
    if saved_s < 0:
        rather = f", but conversions would cost {duration(change_s)}" if precision != "fp32" else ""
        return f"{lower} is slower here by {duration(-saved_s)}{rather}"
    return f"{lower} saves {duration(saved_s)} ({percent(saved_s / total_s)} of fp32) and {does}"


def quantized_view(record: Mapping[str, Any]) -> RenderableType:
    """The layers, what was measured before and after, and the choice."""
    layers = [_layers(record["layers"])] if record["layers"] else []
    training = [_training(record)] if "finetuned" in record else []
    return Group(*layers, *training, _final(record), Text(_verdict(record)))


def _training(record: Mapping[str, Any]) -> RenderableType:
    found, sparsity = record["finetuned"], record["wanted"]["sparsity"]
    outcome = "" if found["kept"] else ", left out since it made validation accuracy worse"
    table = Table(title=f"{sparsity} in fp32, trained on for {found['steps']} steps{outcome}", title_justify="left")
    for column in ("network", "test", "validation"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for when in ("before", "after"):
        table.add_row(f"{when} training", percent(found["accuracy"][when]), percent(found["val_accuracy"][when]))
    return table


def _layers(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = Table(title="Layers", title_justify="left")
    for column, justify in (("layer", "left"), ("precision", "left"), ("fp32", "right"), ("int8", "right")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_column("why", overflow="fold")
    for row in rows[:_LAYERS_SHOWN]:
        times = (duration(row["seconds"][kind]) for kind in ("fp32", "int8"))
        table.add_row(row["layer"], row["precision"], *times, row["why"])
    more = len(rows) - _LAYERS_SHOWN
    return table if more <= 0 else Group(table, Text(f"and {more} more in {RECORD}"))


def _final(record: Mapping[str, Any]) -> RenderableType:
    table = Table(title="Measured: accuracy, and the share of MACs in int8", title_justify="left")
    for column in ("file", "test", "validation", "latency", "95 % interval", "size", "in int8"):
        table.add_column(column, justify="left" if column == "file" else "right")
    for name, final in record["final"].items():
        latency, on = final["latency_s"], f" on {final['device']}" if "device" in final else ""
        table.add_row(
            name + on + (" (chosen)" if name == record["chosen"] else ""),
            percent(final["accuracy"]),
            percent(final["val_accuracy"]),
            duration(latency["median"]),
            interval(*latency["ci95"]),
            amount(final["size_bytes"], "B"),
            percent(final["int8_share"]),
        )
    return table


def _verdict(record: Mapping[str, Any]) -> str:
    islands = record["final"][record["chosen"]]["fp32_islands"]
    slow = f"\nMeant for int8, but run in fp32 by ONNX Runtime: {', '.join(islands)}." if islands else ""
    return _outcome(record) + slow + _integers(record)


def _integers(record: Mapping[str, Any]) -> str:
    if "in_integers" not in record:
        return ""
    found = record["in_integers"]
    return (
        f"\nIn integers alone (dyadic scales), {percent(found['same_class'])} of {found['images']} validation images "
        "fall into the same class as in ONNX Runtime."
    )


def _outcome(record: Mapping[str, Any]) -> str:
    before, after = record["final"]["fp32"], record["final"][record["chosen"]]
    points = f"{100 * record['wanted']['max_drop']:g} points"
    if record["chosen"] == "fp32":
        return f"Nothing is cheaper within {points}: the file stays in fp32."
    speed = before["latency_s"]["median"] / after["latency_s"]["median"]
    drop = 100 * (before["accuracy"] - after["accuracy"])
    how = f"{drop:.1f} points less accurate" if drop >= 0 else f"{-drop:.1f} points more accurate"
    smaller = before["size_bytes"] / after["size_bytes"]
    on = f" on {before['device']}" if "device" in before else ""
    said = (
        f"{record['chosen']}: {speed:.2f} times as fast as fp32{on}, {smaller:.1f} times smaller, {how} on test images."
    )
    if beside := after.get("baseline"):
        said += f" The same file is {beside['factor']:.2f} times as fast as on {beside['device']}."
    if dense := after.get("dense_bytes"):
        factor = dense / after["size_bytes"]
        said += f" Its zeros are not stored: with them it would be {factor:.2f} times as large, {amount(dense, 'B')}."
    twin, sparsity = after.get("twin", "fp32"), record["wanted"]["sparsity"]
    if twin != "fp32":
        gain = record["final"][twin]["latency_s"]["median"] / after["latency_s"]["median"]
        said += f" It is {gain:.2f} times as fast as its dense twin, {twin}."
    if "twin" not in after and sparsity != "dense":
        layers = f" Layers above are of {sparsity}." if record["layers"] else ""
        said += f" It is dense: no file of {sparsity} is cheaper within {points}.{layers}"
    return said
