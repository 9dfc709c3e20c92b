"""The figures of the report: plain plotly JSON, made from the record of a run and drawn by plotly.js in the browser."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from nas.format import amount, duration, interval, percent
from nas.metrics import COSTS, Cost, costs_of

Record = Mapping[str, Any]
Figure = dict[str, Any]

GROUPS = {"search": "search", "random": "random sampling", "uniform": "uniform scaling"}
_COLOURS = {"search": "#2563ab", "random": "#7d858f", "uniform": "#d17a1e"}
_SYMBOLS = {"search": "circle", "random": "x-thin-open", "uniform": "square-open"}
_BARS = ("#2563ab", "#d17a1e", "#7a4fa3", "#3a8f5c", "#7d858f")
_GRID, _INK, _ROOM = "#e7e9ec", "#3b4149", 0.06
_MOST_BARS = 14
_RIGHT = {"overlaying": "y", "side": "right", "showgrid": False, "tickmode": "auto", "rangemode": "tozero"}


def figures(record: Record) -> dict[str, Figure]:
    """The figures that `record` has numbers for, by name; each is a dict of `data` and `layout`."""
    built = {name: build(record) for name, build in _FIGURES.items()}
    for i, (name, cost) in enumerate(costs_of(record).items()):
        of = f"_{name}" if i else ""
        built |= {f"front{of}": _front(record, cost), f"evaluated{of}": _evaluated(record, cost, i + 1)}
    return {name: figure for name, figure in built.items() if figure is not None}


def field(record: Record, *path: str) -> Any:
    """The value at `path` of nested mappings; None where a step is missing or null."""
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def items(record: Record, *path: str) -> list[Any]:
    """The list at `path`; empty where it is missing or null."""
    return list(field(record, *path) or ())


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def precision_words(point: Record) -> str:
    """How many blocks of a front point have which precision, such as `int8 in 3 of 5 blocks, fp32 in 2`."""
    counts = sorted(Counter(map(str, (field(point, "policy") or {}).values())).items(), reverse=True)
    if not counts:
        share = field(point, "int8_share")
        return f"{percent(share, 0)} int8" if is_number(share) else ""
    total = sum(n for _, n in counts)
    if len(counts) == 1:
        return f"{counts[0][0]} in all {total} blocks" if total > 1 else counts[0][0]
    (first, n), *others = counts
    return ", ".join([f"{first} in {n} of {total} blocks", *(f"{name} in {k}" for name, k in others)])


def latency_words(point: Record) -> str:
    """The median latency of a front point and its 95 % interval, such as `14 µs (13.8–14.3 µs)`."""
    median = field(point, "latency_s", "median")
    if not is_number(median):
        return ""
    low, high = _interval(point)
    return duration(median) if low == high else f"{duration(median)} ({interval(low, high)})"


def _front(record: Record, cost: Cost) -> Figure | None:
    points = [(i, p) for i, p in enumerate(items(record, "front")) if is_number(cost.of_point(p))]
    if not points:
        return None
    traces = [
        _front_trace(points, cost, "accuracy", "test accuracy", _COLOURS["search"]),
        {**_front_trace(points, cost, "val_accuracy", "validation accuracy", "#7a4fa3"), "visible": "legendonly"},
    ]
    seen = [value for _, p in points for value in (*_interval(p, cost), _value(p, cost))]
    return _figure(traces, _log_axis(f"{cost.words}, log scale", seen, cost.show), _accuracy_axis("accuracy"))


def _front_trace(points: Sequence[tuple[int, Record]], cost: Cost, key: str, name: str, colour: str) -> Figure:
    shown = [(i, p) for i, p in points if is_number(p.get(key))]
    medians = [_value(p, cost) for _, p in shown]
    ends = [_interval(p, cost) for _, p in shown]
    bars = {
        "array": [high - m for m, (_, high) in zip(medians, ends, strict=True)],
        "arrayminus": [m - low for m, (low, _) in zip(medians, ends, strict=True)],
    }
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": name,
        "x": medians,
        "y": [p[key] for _, p in shown],
        "text": [f"{i:02d}" for i, _ in shown],
        "textposition": "top center",
        "textfont": {"size": 10, "color": "#69707a"},
        "hovertext": [_hover(i, p) for i, p in shown],
        "hoverinfo": "text",
        "error_x": {"type": "data", "symmetric": False, "thickness": 1.2, "width": 4, **bars},
        "marker": {"color": colour, "size": 9},
        "cliponaxis": False,
    }


def _interval(point: Record, cost: Cost = COSTS["latency"]) -> tuple[float, float]:
    """The ends of the 95 % interval of a cost; its value twice where there is none."""
    ends, value = field(point, cost.metric, "ci95"), _value(point, cost)
    known = isinstance(ends, Sequence) and len(ends) == 2 and all(map(is_number, ends))
    return (ends[0], ends[1]) if known else (value, value)


def _value(point: Record, cost: Cost) -> float:
    """A cost of a point that has it."""
    return float(cost.of_point(point) or 0.0)


def _hover(index: int, point: Record) -> str:
    size, macs = point.get("size_bytes"), point.get("macs")
    lines = [
        f"point {index:02d}: {point.get('file') or 'no file'}",
        *(f"{name} {percent(point[k])}" for k, name in _ACCURACIES.items() if is_number(point.get(k))),
        f"latency {latency_words(point)}",
        *([f"size {amount(size, 'B')}"] if is_number(size) else []),
        *([f"{amount(macs)} MACs"] if is_number(macs) else []),
        *(f"{cost.words} {cost.show(value)}" for cost in _MORE if is_number(value := cost.of_point(point))),
        precision_words(point),
    ]
    return "<br>".join(html.escape(line) for line in lines if line)


_MORE = [COSTS[name] for name in ("energy", "memory", "traffic", "roofline")]
_ACCURACIES = {"accuracy": "test accuracy", "val_accuracy": "validation accuracy"}


def _evaluated(record: Record, cost: Cost, column: int) -> Figure | None:
    groups = {name: evaluated(record, name, column) for name in GROUPS}
    groups = {name: points for name, points in groups.items() if points}
    if not groups:
        return None
    traces = [trace for name in reversed(groups) for trace in _group_traces(name, groups[name], cost)]
    seen = [value for points in groups.values() for _, value in points]
    return _figure(
        traces, _log_axis(f"{cost.words}, log scale", seen, cost.show), _accuracy_axis("validation accuracy")
    )


def evaluated(record: Record, group: str, column: int = 1) -> list[tuple[float, float]]:
    """The evaluations of a group as (validation accuracy, cost), those with both numbers.

    Args:
        column: of the cost, in the order of the objectives, of which accuracy is the first.
    """
    pairs = [(row[0], row[column]) for row in items(record, "search", "groups", group)]
    return [(a, s) for a, s in pairs if is_number(a) and is_number(s) and s > 0]


def _group_traces(name: str, points: Sequence[tuple[float, float]], cost: Cost) -> list[Figure]:
    colour, faint = _COLOURS[name], 0.85 if name == "search" else 0.5
    steps = _staircase(points)
    marker = {"color": colour, "size": 7, "symbol": _SYMBOLS[name], "line": {"color": colour, "width": 1.4}}
    dots = {
        "type": "scatter",
        "mode": "markers",
        "name": f"{GROUPS[name]} ({len(points)})",
        "legendgroup": name,
        "opacity": faint,
        "x": [s for _, s in points],
        "y": [a for a, _ in points],
        "hovertext": [f"{GROUPS[name]}<br>validation accuracy {percent(a)}<br>{cost.show(s)}" for a, s in points],
        "hoverinfo": "text",
        "marker": marker,
    }
    line = {"color": colour, "width": 1.8 if name == "search" else 1.2, "shape": "hv"}
    best = {"type": "scatter", "mode": "lines", "legendgroup": name, "showlegend": False, "hoverinfo": "skip"}
    return [
        {**best, "opacity": faint, "x": [s for _, s in steps], "y": [a for a, _ in steps], "line": line},
        dots,
    ]


def _staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that are more accurate than all cheaper ones, by cost; the last step runs to the costliest point."""
    kept: list[tuple[float, float]] = []
    for accuracy, cost in sorted(points, key=lambda p: (p[1], -p[0])):
        if not kept or accuracy > kept[-1][0]:
            kept.append((accuracy, cost))
    return [*kept, (kept[-1][0], max(s for _, s in points))]


def _latency_pairs(record: Record) -> Figure | None:
    pairs = _pairs(items(record, "search", "predictions"), "latency_s")
    return _against(pairs, "predicted latency", "measured latency", seconds=True)


def _accuracy_pairs(record: Record) -> Figure | None:
    pairs = _pairs(items(record, "search", "predictions"), "val_accuracy")
    return _against(pairs, "predicted validation accuracy", "validation accuracy of the file", seconds=False)


def _pairs(predictions: Sequence[Record], metric: str) -> list[tuple[Any, Any]]:
    return [(field(p, metric, "predicted"), field(p, metric, "verified")) for p in predictions]


def _held_out(record: Record) -> Figure | None:
    pairs = [(field(p, "predicted_s"), field(p, "measured_s")) for p in items(record, "profile", "points")]
    return _against(pairs, "predicted latency", "measured latency", seconds=True)


def _against(pairs: Sequence[tuple[Any, Any]], x: str, y: str, *, seconds: bool) -> Figure | None:
    """Predictions against the truth, with the diagonal on which they agree; both axes show the same range."""
    known = [(p, t) for p, t in pairs if is_number(p) and is_number(t) and not (seconds and min(p, t) <= 0)]
    if not known:
        return None
    words = duration if seconds else percent
    seen = [value for pair in known for value in pair]
    axis = _seconds_axis if seconds else _ranged_accuracy_axis
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [p for p, _ in known],
        "y": [t for _, t in known],
        "hovertext": [f"{html.escape(x)} {words(p)}<br>{html.escape(y)} {words(t)}" for p, t in known],
        "hoverinfo": "text",
        "marker": {"color": _COLOURS["search"], "size": 8, "opacity": 0.75},
    }
    ends = _room(min(seen), max(seen), log=seconds)
    dash = {"color": "#9aa0a8", "width": 1.2, "dash": "dot"}
    line = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "line": dash, "hoverinfo": "skip"}
    return _figure([line, dots], axis(x, seen), axis(y, seen), legend=False)


def _fidelity(record: Record) -> Figure | None:
    pairs = [(field(n, "inherited"), field(n, "stand_alone")) for n in items(record, "fidelity", "networks")]
    return _against(pairs, "inherited accuracy", "stand-alone accuracy", seconds=False)


def _course(record: Record) -> Figure | None:
    course = items(record, "fidelity", "course")
    if not course:
        return None
    steps, taus = [c["step"] for c in course], [c["kendall_tau"] for c in course]
    low, high = ([c["kendall_tau_ci95"][end] for c in course] for end in (0, 1))
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [h - tau for h, tau in zip(high, taus, strict=True)],
        "arrayminus": [tau - lo for lo, tau in zip(low, taus, strict=True)],
        "color": _COLOURS["search"],
        "thickness": 1.2,
    }
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": steps,
        "y": taus,
        "error_y": bars,
        "line": {"color": _COLOURS["search"]},
        "hovertext": [f"step {step}<br>tau {tau:.2f}" for step, tau in zip(steps, taus, strict=True)],
        "hoverinfo": "text",
    }
    return _figure([trace], _axis("training step"), {**_axis("Kendall tau"), "range": [-1.05, 1.05]}, legend=False)


def _training(record: Record) -> Figure | None:
    entries = items(record, "training", "entries")
    curves = (
        ("val_largest", "largest subnet, validation accuracy", _COLOURS["search"], "y"),
        ("val_smallest", "smallest subnet, validation accuracy", _COLOURS["uniform"], "y"),
        ("loss", "loss (right)", "#9aa0a8", "y2"),
    )
    traces = [_curve(entries, key, name, colour, axis) for key, name, colour, axis in curves]
    traces = [trace for trace in traces if trace["x"]]
    if not traces:
        return None
    figure = _figure(traces, _axis("training step"), _accuracy_axis("validation accuracy"))
    figure["layout"]["yaxis2"] = {**_axis("loss"), **_RIGHT}
    figure["layout"]["margin"]["r"] = 64
    return figure


def _curve(entries: Sequence[Record], key: str, name: str, colour: str, axis: str) -> Figure:
    known = [e for e in entries if is_number(e.get(key)) and is_number(e.get("step"))]
    number = percent if axis == "y" else "{:.3g}".format
    return {
        "type": "scatter",
        "mode": "lines+markers" if axis == "y" else "lines",
        "name": name,
        "x": [e["step"] for e in known],
        "y": [e[key] for e in known],
        "yaxis": axis,
        "hovertext": [f"step {e['step']}<br>{name} {number(e[key])}" for e in known],
        "hoverinfo": "text",
        "line": {"color": colour, "width": 2, "dash": "solid" if axis == "y" else "dot"},
    }


def _entropies(record: Record) -> Figure | None:
    """How even the probabilities of each relaxed choice were, thin, and on average."""
    progress, found = items(record, "relaxed", "trace", "progress"), field(record, "relaxed", "trace", "entropy") or {}
    if not progress or not found:
        return None
    thin = [_entropy(progress, values, html.escape(str(name)), 1.0) for name, values in found.items()]
    means = [sum(at) / len(at) for at in zip(*found.values(), strict=True)]
    thick = _entropy(progress, means, "all choices, on average", 3.0)
    y = {**_axis("entropy, of the greatest"), "range": [0.0, 1.05], "tickformat": ".0%"}
    return _figure([*thin, thick], {**_axis("progress of the search"), "tickformat": ".0%"}, y, legend=False)


def _entropy(progress: Sequence[float], values: Sequence[float], name: str, width: float) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(progress),
        "y": list(values),
        "opacity": 0.4 if width < 2 else 1.0,
        "line": {"width": width, "color": _COLOURS["search"] if width < 2 else _INK},
        "hovertext": [
            f"{name}<br>entropy {percent(v, 0)} at {percent(p, 0)}" for p, v in zip(progress, values, strict=True)
        ],
        "hoverinfo": "text",
    }


def _importance(record: Record) -> Figure | None:
    names = {"val_accuracy": "validation accuracy", **{c.metric: c.words for c in costs_of(record).values()}}

    def largest(row: Record) -> float:
        return max((row[m] for m in names if is_number(row.get(m))), default=0.0)

    rows = [row for row in items(record, "search", "importance") if largest(row) > 0]
    rows = sorted(rows, key=largest, reverse=True)[:_MOST_BARS]
    if not rows:
        return None
    labels = [html.escape(str(row.get("choice"))) for row in rows]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": labels,
            "x": [row[metric] if is_number(row.get(metric)) else None for row in rows],
            "marker": {"color": _BARS[i % len(_BARS)]},
            "hovertemplate": "%{y}: %{x:.2f}",
        }
        for i, (metric, name) in enumerate(names.items())
    ]
    down = {**_axis(""), "autorange": "reversed", "automargin": True, "type": "category", "showgrid": False}
    figure = _figure(traces, {**_axis("importance"), "rangemode": "tozero"}, down)
    figure["layout"] |= {"barmode": "group", "bargap": 0.3, "height": 120 + 34 * len(rows)}
    return figure


def _figure(traces: list[Figure], x: Figure, y: Figure, *, legend: bool = True) -> Figure:
    layout = {
        "xaxis": x,
        "yaxis": y,
        "height": 430 if legend else 380,
        "margin": {"l": 72, "r": 24, "t": 40 if legend else 28, "b": 56},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        "hoverlabel": {"align": "left"},
        "hovermode": "closest",
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
    }
    return {"data": traces, "layout": layout}


def _axis(title: str) -> Figure:
    line = {"gridcolor": _GRID, "linecolor": "#b9bec5", "showline": True, "zeroline": False, "ticks": "outside"}
    return {**line, "title": {"text": title, "standoff": 10, "font": {"size": 13}}, "tickcolor": "#b9bec5"}


def _accuracy_axis(title: str) -> Figure:
    return {**_axis(title), "tickformat": ".3~p"}


def _ranged_accuracy_axis(title: str, values: Sequence[float]) -> Figure:
    return {**_accuracy_axis(title), "range": _room(min(values), max(values), log=False), "nticks": 7}


def _seconds_axis(title: str, values: Sequence[float]) -> Figure:
    return _log_axis(title, values, duration)


def _log_axis(title: str, values: Sequence[float], show: Callable[[float], str]) -> Figure:
    """A logarithmic axis over `values`, its ticks written with SI prefixes."""
    low, high = _room(min(values), max(values), log=True)
    ticks = _ticks(low, high)
    span = [math.log10(low), math.log10(high)]
    labels = {"tickmode": "array", "tickvals": ticks, "ticktext": [show(t) for t in ticks]}
    return {**_axis(title), "type": "log", "range": span, **labels}


def _room(low: float, high: float, *, log: bool) -> list[float]:
    """The range from `low` to `high` with some room at both ends."""
    if log:
        factor = max((high / low) ** _ROOM, 1.03)
        return [low / factor, high * factor]
    room = max(_ROOM * (high - low), 0.005)
    return [low - room, high + room]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones: some in each decade, or evenly spaced over less than a factor of 4."""
    ratio = high / low
    if ratio > 4:
        digits = (1, 2, 3, 5, 7) if ratio < 30 else (1, 2, 5) if ratio < 1e4 else (1,)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        return [t for k in decades for d in digits if low <= (t := d * 10.0**k) <= high]
    raw = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


_FIGURES: dict[str, Callable[[Record], Figure | None]] = {
    "latency_pairs": _latency_pairs,
    "accuracy_pairs": _accuracy_pairs,
    "held_out": _held_out,
    "training": _training,
    "fidelity": _fidelity,
    "course": _course,
    "entropies": _entropies,
    "importance": _importance,
}
