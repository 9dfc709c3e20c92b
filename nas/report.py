"""The report of a run: one HTML file that opens offline, every number in it a field of the run's record."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from nas.advantage import SURE
from nas.figures import (
    GROUPS,
    Figure,
    Record,
    evaluated,
    field,
    figures,
    is_number,
    items,
    latency_words,
    precision_words,
)
from nas.format import amount, count, duration, interval, percent
from nas.metrics import Cost, columns_of, costs_of
from supernet.atomic import write_bytes

FILE = "report.html"
WORTH = 0.01
"""The smallest relative gain in hypervolume that counts as better."""
FEW_QUIET = 5
"""Sessions of a file with the core left to it, below which its latency is doubtful."""


def write_report(record: Record, folder: Path) -> Path:
    """Write `report.html` into `folder`, whole or not at all, and give its path.

    Sections whose part of the record is missing or null are left out.

    Raises:
        OSError: the file cannot be written.
    """
    file = Path(folder) / FILE
    write_bytes(file, page(record).encode())
    return file


def headline(record: Record) -> str:
    """What was found and whether the search was worth it, in plain sentences.

    A search is called better than a baseline when its hypervolume is larger by more than `WORTH`, relative, and chance
    would rarely do as much (`nas/advantage.py`).
    """
    return " ".join(
        part
        for part in (_found(record), _predictions(record), _disturbed(record), _carried(record) or _worth(record))
        if part
    )


def page(record: Record) -> str:
    """The whole report as HTML."""
    drawn = figures(record)
    sections = [
        _front(record, drawn),
        _worth_table(record, drawn),
        _predicted(record, drawn),
        _held_out(record, drawn),
        _verification(record),
        _importance(drawn),
        _training(record, drawn),
        _space(record),
        _setup(record),
    ]
    return _PAGE.substitute(
        title=_text(_title(record)),
        facts=_facts(record),
        headline=_text(headline(record)),
        body="\n".join(s for s in sections if s),
        record=_json(record),
        figures=_json(drawn),
        plotly=_plotly() if drawn else "",
    )


# The headline


def _found(record: Record) -> str:
    front = items(record, "front")
    if not front:
        return "No point was verified: the front is empty."
    measured = all(p.get("provenance") == "verified" for p in front)
    what = "ONNX file, measured after export" if measured else "ONNX file"
    many = f"one {what}" if len(front) == 1 else f"{len(front)} {what.replace('file', 'files')}"
    shares = [p["accuracy"] for p in front if is_number(p.get("accuracy"))]
    times = [t for p in front if is_number(t := field(p, "latency_s", "median"))]
    ranges = [f"latency {_range(times, duration, interval)}"] if times else []
    for cost in (cost for name, cost in costs_of(record).items() if name != "latency"):
        values = [value for p in front if is_number(value := cost.of_point(p))]
        ranges += [f"{cost.words} {_range(values, cost.show, _both(cost))}"] if values else []
    ranges += [f"test accuracy {_range(shares, percent, _percents)}"] if shares else []
    return f"Found {many}{': ' if ranges else ''}{', '.join(ranges)}."


def _disturbed(record: Record) -> str:
    """A warning, where others used the core nearly all the time."""
    sessions = [s for p in items(record, "front") if is_number(s := field(p, "latency_s", "quiet_rounds"))]
    few = sum(s < FEW_QUIET for s in sessions)
    if not few:
        return ""
    return (
        f"{few} of {len(sessions)} latencies may be too high: others used the core in all but at most "
        f"{FEW_QUIET - 1} of their sessions; `nas verify` measures them again."
    )


def _both(cost: Cost) -> Callable[[float, float], str]:
    return lambda low, high: f"{cost.show(low)} to {cost.show(high)}"


def _range(values: Sequence[float], one: Any, two: Any) -> str:
    low, high = min(values), max(values)
    return str(one(low) if one(low) == one(high) else two(low, high))


def _percents(low: float, high: float) -> str:
    return f"{percent(low).removesuffix(' %')}–{percent(high)}"


def _predictions(record: Record) -> str:
    """What latencies are that nobody has measured, and how to."""
    origin = field(record, "predicted")
    if not origin:
        return ""
    error = field(record, "profile", "held_out", "mape")
    missed = f" (mean error {percent(error)} on networks that it had not seen)" if is_number(error) else ""
    return (
        f"Accuracies are those of the files; latencies are predictions of a profile taken at {origin['device']}"
        f"{missed}, with their 95 % intervals. `nas verify {origin['run']}` measures them there, and "
        f"`nas verify {origin['run']} --bundle DIR` packs them for a device without this toolkit."
    )


def _carried(record: Record) -> str:
    """Where a retargeted run comes from, and what it cost on the new device."""
    counts, origin = field(record, "retarget", "timings"), field(record, "retarget", "from", "device")
    if not counts:
        return ""
    return (
        f"Carried over from a run on {origin} with {counts['all']} timings here ({counts['neutral']} of untrained "
        f"networks, {counts['evaluations']} of the search) and {field(record, 'retarget', 'verified_files')} files "
        "verified; nothing was trained."
    )


def _worth(record: Record) -> str:
    volumes = {g: v for g in GROUPS if is_number(v := field(record, "search", "hypervolume", g))}
    if "search" not in volumes:
        return ""
    others = [g for g in volumes if g != "search"]
    volume = ", ".join(f"{_volume(record, g)} for {GROUPS[g]}" for g in others)
    if not others:
        return "No baseline was run, so whether the search was worth it is not known."
    worse = [g for g in others if volumes["search"] <= volumes[g] * (1 + WORTH) or not _sure(record, g)]
    against = f"(hypervolume {_volume(record, 'search')}, against {volume})"
    if not worse:
        return f"The search was worth it: better than {' and '.join(GROUPS[g] for g in others)} {against}."
    better = [GROUPS[g] for g in others if g not in worse]
    than = " or ".join(GROUPS[g] for g in worse)
    also = f", though better than {' and '.join(better)}" if better else ""
    said = f"{than}{also} {against}{_chances(record, worse)}"
    return f"No advantage: the search was not surely better than {said}: it was not worth its evaluations."


def _sure(record: Record, group: str) -> bool:
    """Whether the search's advantage over a group is no chance; where it is not known, yes."""
    chance = field(record, "search", "advantage", group, "chance")
    return not is_number(chance) or chance <= SURE


def _chances(record: Record, groups: Sequence[str]) -> str:
    """How often chance alone is as good, in words; nothing where it is not known."""
    known = {g: chance for g in groups if is_number(chance := field(record, "search", "advantage", g, "chance"))}
    said = [f"{percent(chance)} of the time against {GROUPS[g]}" for g, chance in known.items()]
    return f", as good by chance {' and '.join(said)}" if said else ""


def _volume(record: Record, group: str) -> str:
    known = len(evaluated(record, group))
    return f"{field(record, 'search', 'hypervolume', group):.3f}" + (f" from {known} evaluations" if known else "")


# The header


def _title(record: Record) -> str:
    parts = [_name(record, part) for part in ("space", "data", "device")]
    return " · ".join(p for p in parts if p) or "run"


def _name(record: Record, part: str) -> str:
    return str(field(record, part, "name") or field(record, "settings", part) or "")


def _facts(record: Record) -> str:
    environment = field(record, "device", "environment") or {}
    versions = [f"{k} {environment[k]}" for k in _VERSIONS if environment.get(k)]
    facts = {
        "space": _name(record, "space"),
        "data": _name(record, "data"),
        "device": ", ".join(p for p in (_name(record, "device"), *_amounts(record)) if p),
        "processor": environment.get("gpu") or environment.get("cpu"),
        "fingerprint": field(record, "device", "fingerprint"),
        "seed": field(record, "settings", "seed"),
        "versions": ", ".join(versions),
    }
    shown = [(k, v) for k, v in facts.items() if v not in (None, "")]
    return "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in shown)


def _amounts(record: Record) -> list[str]:
    """Threads and images a call, those that are known; one image is not said."""
    threads, batch = (field(record, "device", key) for key in ("threads", "batch"))
    found = [f"{threads} thread{'' if threads == 1 else 's'}"] if threads else []
    return [*found, f"{batch} images a call"] if batch and batch > 1 else found


_VERSIONS = ("hwnas", "python", "torch", "onnx", "onnxruntime", "openvino", "cuda", "driver")


# The sections


def _front(record: Record, drawn: Mapping[str, Figure]) -> str:
    points = items(record, "front")
    if not points:
        return ""
    test = field(record, "data", "test")
    fine = f" One test image is {_points(1 / test)}." if is_number(test) and test > 0 else ""
    caption = (
        "Each point is a file. Bars at latencies are 95 % intervals of the median; accuracy is on test images, which "
        f"the search never saw.{fine} Click a name above the figure to show or hide it."
    )
    others = columns_of(record)
    head = (*_FRONT, *(cost.words for cost in others), "precision", "architecture")
    rows = [_front_row(i, p, others) for i, p in enumerate(points)]
    left = (1, len(head) - 2, len(head) - 1)
    return _section("The front", *_by_cost("front", record, drawn, caption), _table(head, rows, left, style="front"))


def _by_cost(name: str, record: Record, drawn: Mapping[str, Figure], caption: str) -> list[str]:
    """The figure of each cost that was made small, the caption under the first."""
    others = list(costs_of(record))[1:]
    return [_figure(name, drawn, caption), *(_figure(f"{name}_{other}", drawn, "") for other in others)]


_FRONT = ("point", "file", "test accuracy", "validation accuracy", "latency (95\u00a0%)", "size", "MACs")


def _front_row(index: int, point: Record, others: Sequence[Cost]) -> list[Any]:
    file = point.get("file")
    link = _Html(f'<a href="{_text(quote(str(file)))}">{_text(Path(str(file)).name)}</a>') if file else None
    size, macs = point.get("size_bytes"), point.get("macs")
    return [
        f"{index:02d}",
        link,
        _percent(point.get("accuracy")),
        _percent(point.get("val_accuracy")),
        latency_words(point),
        amount(size, "B") if is_number(size) else None,
        amount(macs) if is_number(macs) else None,
        *(cost.show(value) if is_number(value := cost.of_point(point)) else None for cost in others),
        precision_words(point),
        _architecture(point),
    ]


def _architecture(point: Record) -> _Html:
    """How the point came about, its parameters, choices and precisions, folded away."""
    choices = [f"{k} = {v}" for k, v in (field(point, "arch") or {}).items()]
    formats = [f"{k}: {v}" for k, v in (field(point, "policy") or {}).items()]
    found = f", found by {GROUPS.get(by, by)}" if (by := point.get("found_by")) else ""
    weights = f", {amount(n)} parameters" if is_number(n := point.get("parameters")) else ""
    said = _text(f"{_provenance(point)}{found}{weights}")
    lists = "".join(f"<pre>{_text(chr(10).join(lines))}</pre>" for lines in (choices, formats) if lines)
    return _Html(f'<details><summary>show</summary>{said}<div class="lists">{lists}</div></details>')


def _provenance(point: Record) -> str:
    said = point.get("provenance") or "provenance unknown"
    return ", ".join(f"{metric} {how}" for metric, how in said.items()) if isinstance(said, Mapping) else str(said)


def _worth_table(record: Record, drawn: Mapping[str, Figure]) -> str:
    volumes = field(record, "search", "hypervolume") or {}
    found = volumes.get("search")
    rows = [_group_row(record, name, found) for name in GROUPS if name in volumes or evaluated(record, name)]
    failed = field(record, "search", "failed")
    note = _paragraph(f"Evaluations that failed: {failed}.") if failed else ""
    caption = (
        "All files measured while searching, by validation accuracy (not test accuracy, so not comparable with the "
        "figure above). Lines join the best of each group."
    )
    head = ("group", "evaluations", "hypervolume", "gain of the search")
    table = _table(head, rows) if rows else ""
    return _section("Was the search worth it?", *_by_cost("evaluated", record, drawn, caption), table, note)


def _group_row(record: Record, name: str, found: Any) -> list[Any]:
    volume = field(record, "search", "hypervolume", name)
    gain = found / volume - 1 if name != "search" and is_number(found) and is_number(volume) and volume else None
    said = None if gain is None else f"{100 * gain:+.1f} %".replace("-", "−")
    return [GROUPS[name], len(evaluated(record, name)) or None, f"{volume:.3f}" if is_number(volume) else None, said]


def _predicted(record: Record, drawn: Mapping[str, Figure]) -> str:
    pair = _pair(
        _figure("latency_pairs", drawn, "Latency: the closer to the dotted line, the better."),
        _figure("accuracy_pairs", drawn, "Validation accuracy."),
    )
    what = _paragraph("What the predictors said before each evaluation, and what the file then showed.")
    score = field(record, "accuracy_predictor", "cross_validated")
    rows = [_score_row("accuracy predictor, cross-validated", score)] if score else []
    inherited = field(record, "accuracy_predictor", "inherited")
    note = f"Fitted to {inherited} accuracies measured with inherited weights." if inherited else ""
    table = _table(_SCORES, rows) + _paragraph(note) if rows else ""
    return _section("Predicted against verified", what if pair else "", pair, table)


def _held_out(record: Record, drawn: Mapping[str, Figure]) -> str:
    kinds = {
        "held_out": "latency predictor",
        "source": "that of the device before, scaled",
        "block_sum": "sum of blocks alone",
        "macs_only": "MACs alone",
    }
    rows = [_score_row(said, score) for key, said in kinds.items() if (score := field(record, "profile", key))]
    figure = _figure("held_out", drawn, "Networks that the predictor was not fitted to.")
    return _section("Latency prediction on held-out networks", _pair(figure, _table(_SCORES, rows) + _profiled(record)))


def _profiled(record: Record) -> str:
    blocks, networks, seconds = (field(record, "profile", k) for k in ("blocks", "networks", "seconds"))
    measured = [f"{n} {what}" for n, what in ((blocks, "blocks"), (networks, "whole networks")) if is_number(n)]
    took = f" in {duration(seconds)}" if is_number(seconds) else ""
    return _paragraph(f"Measured on the device: {' and '.join(measured)}{took}.") if measured else ""


_SCORES = ("", "held out", "mean error", "within 10 %", "Spearman", "Kendall")


def _score_row(name: str, score: Record) -> list[Any]:
    ranks = [f"{score[k]:.2f}" if is_number(score.get(k)) else None for k in ("spearman", "kendall")]
    return [name, score.get("items"), _percent(score.get("mape")), _percent(score.get("within_10"), 0), *ranks]


def _verification(record: Record) -> str:
    part = field(record, "verify")
    if not part:
        return ""
    dropped, candidates = items(record, "verify", "dropped"), part.get("candidates")
    latency, accuracy = part.get("latency_miss"), part.get("accuracy_miss")
    rows: list[list[Any]] = [
        *([["candidates exported and measured again", candidates]] if candidates is not None else []),
        ["dropped", len(dropped)],
        *([["median miss of predicted latency", percent(latency)]] if is_number(latency) else []),
        *([["median miss of predicted accuracy", _points(accuracy)]] if is_number(accuracy) else []),
    ]
    gone = _table(("dropped", "why"), [[d.get("arch"), d.get("why")] for d in dropped], left=(1,), style="prose")
    return _section("What verification changed", _table(("", ""), rows), gone if dropped else "")


def _importance(drawn: Mapping[str, Figure]) -> str:
    caption = "How much each choice moved accuracy and costs among the files evaluated, most important first."
    return _section("The choices that mattered", _figure("importance", drawn, caption))


def _training(record: Record, drawn: Mapping[str, Figure]) -> str:
    steps, seconds = field(record, "training", "total_steps"), field(record, "training", "seconds")
    told = [f"{steps} steps"] if is_number(steps) else []
    told += [duration(seconds)] if is_number(seconds) else []
    caption = f"Training of the supernet{': ' if told else ''}{', '.join(told)}."
    return _section("Training", _figure("training", drawn, caption))


def _space(record: Record) -> str:
    numbers = (("architectures", "architectures"), ("policies_included", "with precisions"), ("choices", "choices"))
    told = [f"{count(n)} {said}" for key, said in numbers if (n := field(record, "space", key))]
    head = ("subnet", "MACs", "parameters", "size", "latency")
    rows = [_space_row(row) for row in items(record, "space", "rows")]
    facts = _Html(_superscripts(_text(", ".join(told)))) if told else ""
    table = _table(head, rows) if rows else ""
    return _section("The search space", _paragraph(facts) if facts else "", table)


def _space_row(row: Record) -> list[Any]:
    units = (("macs", amount), ("parameters", amount), ("size_bytes", _bytes), ("latency_s", duration))
    return [row.get("what"), *(say(row[key]) if is_number(row.get(key)) else None for key, say in units)]


def _bytes(size: float) -> str:
    return amount(size, "B")


def _setup(record: Record) -> str:
    device = {k: v for k, v in (field(record, "device") or {}).items() if k != "environment"}
    groups = {
        "settings": field(record, "settings"),
        "data": field(record, "data"),
        "device": device,
        "environment": field(record, "device", "environment"),
    }
    tables = [_facts_table(name, values) for name, values in groups.items() if values]
    return _section("Settings and environment", f'<div class="grid">{"".join(tables)}</div>' if tables else "")


def _facts_table(name: str, values: Mapping[str, Any]) -> str:
    rows = [[key, _setting(key, value)] for key, value in values.items()]
    return f"<div><h3>{_text(name)}</h3>{_table(('', ''), rows, left=(1,), style='facts')}</div>"


def _setting(key: str, value: Any) -> str:
    if is_number(value) and key.endswith("_s"):
        return duration(value)
    if is_number(value) and key.endswith("_bytes"):
        return amount(value, "B")
    if isinstance(value, list | tuple):
        return " × ".join(map(str, value)) if key.endswith("_shape") else ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)


# HTML


@dataclass(frozen=True)
class _Html:
    """Text that is HTML already; everything else is escaped."""

    html: str


def _text(value: Any) -> str:
    return value.html if isinstance(value, _Html) else html.escape(str(value))


def _section(title: str, *parts: str) -> str:
    inside = "\n".join(p for p in parts if p)
    return f"<section><h2>{_text(title)}</h2>\n{inside}</section>" if inside else ""


def _paragraph(value: Any) -> str:
    return f"<p>{_text(value)}</p>" if value else ""


def _pair(*parts: str) -> str:
    inside = "".join(f"<div>{p}</div>" for p in parts if p)
    return f'<div class="grid">{inside}</div>' if inside else ""


def _figure(name: str, drawn: Mapping[str, Figure], caption: str) -> str:
    if name not in drawn:
        return ""
    height = drawn[name]["layout"]["height"]
    chart = f'<div class="chart" id="figure-{name}" style="height:{height}px"></div>'
    return f"<figure>{chart}<figcaption>{_text(caption)}</figcaption></figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], left: Sequence[int] = (), style: str = "") -> str:
    """A table; the first column and those in `left` are words, the others numbers.  No rows, no table."""
    if not rows:
        return ""
    sides = ["words" if i == 0 or i in left else "number" for i in range(len(head))]
    titles = "".join(f'<th class="{side}">{_text(t)}</th>' for side, t in zip(sides, head, strict=True))
    top = f"<thead><tr>{titles}</tr></thead>" if any(head) else ""
    body = "".join(f"<tr>{''.join(map(_cell, sides, row))}</tr>" for row in rows)
    return f'<div class="wide"><table class="{style}">{top}<tbody>{body}</tbody></table></div>'


def _cell(side: str, value: Any) -> str:
    return f'<td class="{side}">{_text("–" if value in (None, "") else value)}</td>'


def _percent(value: Any, digits: int = 1) -> str | None:
    return percent(value, digits) if is_number(value) else None


def _points(share: float) -> str:
    return f"{100 * share:.2f} percentage points"


def _superscripts(text: str) -> str:
    return re.sub(r"\^(\d+)", r"<sup>\1</sup>", text)


def _json(value: Any) -> str:
    """JSON that may stand inside a script element: no `<`, `>` or `&`, and null for what is not finite."""
    text = json.dumps(_finite(value), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not is_number(value) else value


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # plotly takes a moment to load, and `headline` does not need it

    return f"<script>{get_plotlyjs()}</script>"


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:;
 form-action 'none'; base-uri 'none'">
<title>$title</title>
<style>
:root { color-scheme: light; --ink: #22272e; --soft: #5c6570; --line: #dfe2e6; --accent: #2563ab; }
body { margin: 0; background: #f6f7f8; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 25px; margin: 0 0 10px; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 14px; margin: 8px 0 6px; color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 0 0 18px; }
dt { color: var(--soft); font-size: 12px; }
dd { margin: 0; }
.headline { font-size: 17px; padding: 14px 18px; background: #eaf1f9; border-left: 4px solid var(--accent); }
section { background: white; border: 1px solid var(--line); border-radius: 6px; padding: 18px 20px; margin-top: 20px; }
figure { margin: 0 0 14px; }
figcaption, p { color: var(--soft); font-size: 13.5px; margin: 6px 0 0; }
p.headline { color: var(--ink); font-size: 17px; margin: 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 8px 28px; }
.grid > * { min-width: 0; }
.wide { overflow-x: auto; margin-top: 10px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.words { text-align: left; }
.number { text-align: right; }
td.number, td:first-child, .front td { white-space: nowrap; }
.front details { white-space: normal; min-width: 90px; }
.prose td { white-space: normal; overflow-wrap: anywhere; }
.prose td + td { min-width: 240px; }
.lists { display: flex; gap: 18px; }
.facts td { overflow-wrap: anywhere; }
.facts td:first-child { color: var(--soft); }
a { color: var(--accent); }
summary { cursor: pointer; color: var(--accent); }
pre { font-size: 12px; line-height: 1.4; margin: 6px 0; }
@media (max-width: 520px) { .grid { grid-template-columns: 1fr; } }
@media print {
 body { background: white; } main { max-width: none; padding: 0; }
 section { border: none; padding: 8px 0; } figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
}
</style>
</head>
<body>
<main>
<h1>$title</h1>
<dl>$facts</dl>
<p class="headline">$headline</p>
<noscript><p>The figures need JavaScript; the tables and the record below them do not.</p></noscript>
$body
</main>
<script type="application/json" id="record">$record</script>
<script type="application/json" id="figures">$figures</script>
$plotly
<script>
const drawn = JSON.parse(document.getElementById("figures").textContent);
for (const [name, figure] of Object.entries(drawn)) {
  const buttons = [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]];  // not the one that uploads the figure
  const settings = {responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
                    displayModeBar: "hover", modeBarButtons: buttons};
  Plotly.newPlot("figure-" + name, figure.data, figure.layout, settings);
}
</script>
</body>
</html>
""")
