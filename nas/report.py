"""The report of a run: one HTML file that opens offline, every number in it a field of the run's record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
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
from nas.html import (
    PAGE,
    Html,
    embedded_json,
    figure,
    pair,
    paragraph,
    percent_or_none,
    plotly_script,
    points,
    section,
    superscripts,
    table,
    text,
)
from nas.metrics import Cost, columns_of, costs_of
from nas.report_blocks import by_block
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
        for part in (
            _found(record),
            _predictions(record),
            _disturbed(record),
            _beside_baseline(record),
            _thinned(record),
            _mixed(record),
            _tuned(record),
            _carried(record) or _worth(record),
            _faithful(record),
        )
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
        by_block(record, _name(record, "device")),
        _verification(record),
        _importance(drawn),
        _sure_of(record, drawn),
        _training(record, drawn),
        _fidelity(record, drawn),
        _space(record),
        _setup(record),
    ]
    return PAGE.substitute(
        title=text(_title(record)),
        facts=_facts(record),
        headline=text(headline(record)),
        body="\n".join(s for s in sections if s),
        record=embedded_json(record),
        figures=embedded_json(drawn),
        plotly=plotly_script() if drawn else "",
    )


# The headline


def _found(record: Record) -> str:
    front = items(record, "front")
    if "front" not in record and "training" in record:  # a training alone
        return ""
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


def _tuned(record: Record) -> str:
    """What fine-tuning came to."""
    found = field(record, "verify", "finetuned")
    if not found:
        return ""
    said = (
        f"{found['trained']} candidates were trained {found['steps']} steps on, each in its own precisions: "
        f"{100 * found['median_gain']:+.1f} points of validation accuracy in the middle"
    )
    worse, failed = found["trained"] - found["kept"] - found["failed"], found["failed"]
    said += f"; {worse} became worse and {'stands' if worse == 1 else 'stand'} as before" if worse else ""
    return f"{said}; {failed} could not be trained." if failed else f"{said}."


def _beside_baseline(record: Record) -> str:
    """How many times as fast the files are as on the baseline of the device."""
    front = items(record, "front")
    ratios = [ratio for point in front if is_number(ratio := field(point, "baseline", "factor"))]
    if not ratios:
        return ""
    return f"They are {_span(ratios)} times as fast as the same files on {field(front[0], 'baseline', 'device')}."


def _thinned(record: Record) -> str:
    """What fewer channels came to."""
    front = items(record, "front")
    thinned = [point for point in front if _keeps_fewer(point)]
    if not thinned:
        return ""
    ratios = [ratio for point in thinned if (ratio := _speedups(point).get("dense")) is not None]
    said = f", {_span(ratios)} times as fast as with all{_of(ratios, thinned)}" if ratios else ""
    return f"{len(thinned)} of {len(front)} files keep fewer channels{said}."


def _keeps_fewer(point: Record) -> bool:
    arch = field(point, "arch") or {}
    return any(name.endswith(".density") and value < 1 for name, value in arch.items())


def _mixed(record: Record) -> str:
    """What precisions that differ between blocks came to."""
    front = items(record, "front")
    mixed = [point for point in front if len(set((field(point, "policy") or {}).values())) > 1]
    beside: dict[str, list[float]] = {}
    for point in mixed:
        for name, ratio in _speedups(point).items():
            beside.setdefault(name, []).append(ratio)
    beside.pop("dense", None)
    said = [
        f", {_span(ratios)} times as fast as in {name} throughout{_of(ratios, mixed)}"
        for name, ratios in beside.items()
    ]
    return f"{len(mixed)} of {len(front)} files mix precisions{''.join(said)}." if said else ""


def _of(known: Sequence[float], points: Sequence[Record]) -> str:
    """Of how many points something is known, where not of all."""
    return "" if len(known) == len(points) else f" ({len(known)} of them)"


def _speedups(point: Record) -> dict[str, float]:
    """How many times as fast a point is as each of its twins (`nas.twins`)."""
    own = field(point, "latency_s", "median")
    seconds = {name: field(twin, "latency_s") for name, twin in (field(point, "twins") or {}).items()}
    known = is_number(own) and own > 0
    return {name: s / own for name, s in seconds.items() if known and is_number(s)}


def _span(ratios: Sequence[float]) -> str:
    low, high = (f"{end:.2f}" for end in (min(ratios), max(ratios)))
    return low if low == high else f"{low} to {high}"


def _carried(record: Record) -> str:
    """Where a retargeted run comes from, and what it cost on the new device."""
    counts, origin = field(record, "retarget", "timings"), field(record, "retarget", "from", "device")
    if not counts:
        return ""
    return (
        f"Carried over from a run on {origin} with {counts['all']} timings here ({counts['neutral']} of untrained "
        f"networks, {counts['evaluations']} of the search) and {field(record, 'retarget', 'verified_files')} files "
        f"verified; {'no supernet' if field(record, 'verify', 'finetuned') else 'nothing'} was trained."
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
    return "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in shown)


def _amounts(record: Record) -> list[str]:
    """Threads and images a call, those that are known; one image is not said."""
    threads, batch = (field(record, "device", key) for key in ("threads", "batch"))
    found = [f"{threads} thread{'' if threads == 1 else 's'}"] if threads else []
    return [*found, f"{batch} images a call"] if batch and batch > 1 else found


_VERSIONS = ("hwnas", "python", "torch", "onnx", "onnxruntime", "openvino", "compiler", "kernels", "cuda", "driver")


# The sections


def _front(record: Record, drawn: Mapping[str, Figure]) -> str:
    found = items(record, "front")
    if not found:
        return ""
    test = field(record, "data", "test")
    fine = f" One test image is {points(1 / test)}." if is_number(test) and test > 0 else ""
    caption = (
        "Each point is a file. Bars at latencies are 95 % intervals of the median; accuracy is on test images, which "
        f"the search never saw.{fine} Click a name above the figure to show or hide it."
    )
    others, beside = columns_of(record), field(found[0], "baseline", "device")
    factor = (f"times as fast as on {beside}",) if beside else ()
    head = (*_FRONT, *(cost.words for cost in others), *factor, "precision", "architecture")
    rows = [_front_row(i, p, others) for i, p in enumerate(found)]
    left = (1, len(head) - 2, len(head) - 1)
    return section("The front", *_by_cost("front", record, drawn, caption), table(head, rows, left, style="front"))


def _by_cost(name: str, record: Record, drawn: Mapping[str, Figure], caption: str) -> list[str]:
    """The figure of each cost that was made small, the caption under the first."""
    others = list(costs_of(record))[1:]
    return [figure(name, drawn, caption), *(figure(f"{name}_{other}", drawn, "") for other in others)]


_FRONT = ("point", "file", "test accuracy", "validation accuracy", "latency (95\u00a0%)", "size", "MACs")


def _front_row(index: int, point: Record, others: Sequence[Cost]) -> list[Any]:
    file = point.get("file")
    link = Html(f'<a href="{text(quote(str(file)))}">{text(Path(str(file)).name)}</a>') if file else None
    size, macs = point.get("size_bytes"), point.get("macs")
    return [
        f"{index:02d}",
        link,
        percent_or_none(point.get("accuracy")),
        percent_or_none(point.get("val_accuracy")),
        latency_words(point),
        amount(size, "B") if is_number(size) else None,
        amount(macs) if is_number(macs) else None,
        *(cost.show(value) if is_number(value := cost.of_point(point)) else None for cost in others),
        *([f"{factor:.2f}"] if is_number(factor := field(point, "baseline", "factor")) else []),
        precision_words(point),
        _architecture(point),
    ]


def _architecture(point: Record) -> Html:
    """How the point came about, its parameters, choices and precisions, folded away."""
    choices = [f"{k} = {v}" for k, v in (field(point, "arch") or {}).items()]
    formats = [f"{k}: {v}" for k, v in (field(point, "policy") or {}).items()]
    found = f", found by {GROUPS.get(by, by)}" if (by := point.get("found_by")) else ""
    weights = f", {amount(n)} parameters" if is_number(n := point.get("parameters")) else ""
    words = {name: "with all channels" if name == "dense" else f"in {name} throughout" for name in _speedups(point)}
    twins = "".join(f", {ratio:.2f} times as fast as {words[name]}" for name, ratio in _speedups(point).items())
    said = text(f"{_provenance(point)}{found}{weights}{twins}")
    lists = "".join(f"<pre>{text(chr(10).join(lines))}</pre>" for lines in (choices, formats) if lines)
    return Html(f'<details><summary>show</summary>{said}<div class="lists">{lists}</div></details>')


def _provenance(point: Record) -> str:
    said = point.get("provenance") or "provenance unknown"
    return ", ".join(f"{metric} {how}" for metric, how in said.items()) if isinstance(said, Mapping) else str(said)


def _worth_table(record: Record, drawn: Mapping[str, Figure]) -> str:
    volumes = field(record, "search", "hypervolume") or {}
    found = volumes.get("search")
    rows = [_group_row(record, name, found) for name in GROUPS if name in volumes or evaluated(record, name)]
    failed = field(record, "search", "failed")
    note = paragraph(f"Evaluations that failed: {failed}.") if failed else ""
    caption = (
        "All files measured while searching, by validation accuracy (not test accuracy, so not comparable with the "
        "figure above). Lines join the best of each group."
    )
    head = ("group", "evaluations", "hypervolume", "gain of the search")
    shown = table(head, rows) if rows else ""
    return section("Was the search worth it?", *_by_cost("evaluated", record, drawn, caption), shown, note)


def _group_row(record: Record, name: str, found: Any) -> list[Any]:
    volume = field(record, "search", "hypervolume", name)
    gain = found / volume - 1 if name != "search" and is_number(found) and is_number(volume) and volume else None
    said = None if gain is None else f"{100 * gain:+.1f} %".replace("-", "−")
    return [GROUPS[name], len(evaluated(record, name)) or None, f"{volume:.3f}" if is_number(volume) else None, said]


def _predicted(record: Record, drawn: Mapping[str, Figure]) -> str:
    pairs = pair(
        figure("latency_pairs", drawn, "Latency: the closer to the dotted line, the better."),
        figure("accuracy_pairs", drawn, "Validation accuracy."),
    )
    what = paragraph("What the predictors said before each evaluation, and what the file then showed.")
    score = field(record, "accuracy_predictor", "cross_validated")
    rows = [_score_row("accuracy predictor, cross-validated", score)] if score else []
    inherited = field(record, "accuracy_predictor", "inherited")
    note = f"Fitted to {inherited} accuracies measured with inherited weights." if inherited else ""
    shown = table(_SCORES, rows) + paragraph(note) if rows else ""
    return section("Predicted against verified", what if pairs else "", pairs, shown)


def _held_out(record: Record, drawn: Mapping[str, Figure]) -> str:
    kinds = {
        "held_out": "latency predictor",
        "source": "that of the device before, scaled",
        "block_sum": "sum of blocks alone",
        "macs_only": "MACs alone",
    }
    rows = [_score_row(said, score) for key, said in kinds.items() if (score := field(record, "profile", key))]
    drawing = figure("held_out", drawn, "Networks that the predictor was not fitted to.")
    return section("Latency prediction on held-out networks", pair(drawing, table(_SCORES, rows) + _profiled(record)))


def _profiled(record: Record) -> str:
    blocks, networks, seconds = (field(record, "profile", k) for k in ("blocks", "networks", "seconds"))
    measured = [f"{n} {what}" for n, what in ((blocks, "blocks"), (networks, "whole networks")) if is_number(n)]
    took = f" in {duration(seconds)}" if is_number(seconds) else ""
    return paragraph(f"Measured on the device: {' and '.join(measured)}{took}.") if measured else ""


_SCORES = ("", "held out", "mean error", "within 10 %", "Spearman", "Kendall")


def _score_row(name: str, score: Record) -> list[Any]:
    ranks = [f"{score[k]:.2f}" if is_number(score.get(k)) else None for k in ("spearman", "kendall")]
    return [
        name,
        score.get("items"),
        percent_or_none(score.get("mape")),
        percent_or_none(score.get("within_10"), 0),
        *ranks,
    ]


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
        *([["median miss of predicted accuracy", points(accuracy)]] if is_number(accuracy) else []),
    ]
    gone = table(("dropped", "why"), [[d.get("arch"), d.get("why")] for d in dropped], left=(1,), style="prose")
    return section("What verification changed", table(("", ""), rows), gone if dropped else "")


def _importance(drawn: Mapping[str, Figure]) -> str:
    caption = "How much each choice moved accuracy and costs among the files evaluated, most important first."
    return section("The choices that mattered", figure("importance", drawn, caption))


def _sure_of(record: Record, drawn: Mapping[str, Figure]) -> str:
    """How a differentiable search went."""
    steps, error = field(record, "relaxed", "training", "total_steps"), field(record, "relaxed", "table", "error")
    caption = (
        "How even the probabilities of each choice's options were: at 100 % all are alike, at 0 % one is certain. The "
        "thick line is the mean."
    )
    told = [f"The search trained {steps} steps"] if is_number(steps) else []
    told += [f"with a table of costs that errs by {percent(error)} on average"] if is_number(error) else []
    note = (
        f"{', '.join(told)}. What it found, and as many random architectures of like cost, then went on training among "
        "themselves: random sampling here is of equal cost. Architectures that are alike help each other in this."
    )
    return section("How sure the search became", figure("entropies", drawn, caption), paragraph(note) if told else "")


def _training(record: Record, drawn: Mapping[str, Figure]) -> str:
    steps, seconds = field(record, "training", "total_steps"), field(record, "training", "seconds")
    told = [f"{steps} steps"] if is_number(steps) else []
    told += [duration(seconds)] if is_number(seconds) else []
    what = "among the candidates, of the dearest and the cheapest" if field(record, "relaxed") else "of the supernet"
    caption = f"Training {what}{': ' if told else ''}{', '.join(told)}."
    return section("Training", figure("training", drawn, caption))


def _faithful(record: Record) -> str:
    """How well inherited accuracies rank, and what to do if they do not."""
    found = field(record, "fidelity")
    if not found:
        return ""
    low, high = found["kendall_tau_ci95"]
    rank = (
        f"Inherited accuracies rank {found['n']} networks as training each alone does with Kendall tau "
        f"{found['kendall_tau']:.2f} (95 % interval {low:.2f} to {high:.2f})."
    )
    return f"{rank} {found['advice']}" if found["advice"] else rank


def _fidelity(record: Record, drawn: Mapping[str, Figure]) -> str:
    gaps = field(record, "fidelity", "gap_points") or {}
    said = ", ".join(f"{name} {gap:+.1f}" for name, gap in gaps.items())
    caption = "The closer to an order from bottom left to top right, the better accuracies rank that subnets inherit."
    course = "Rank correlation in the course of the training, with its 95 % interval."
    note = f"Stand-alone minus inherited accuracy, in percentage points: {said}." if said else ""
    figures = pair(figure("fidelity", drawn, caption), figure("course", drawn, course))
    return section("Does inherited accuracy rank?", figures, paragraph(note), paragraph(_norms(record)))


def _norms(record: Record) -> str:
    counts = field(record, "fidelity", "uncalibrated")
    if not isinstance(counts, Mapping):
        return ""
    told = [f"{field(n, 'out_of_date')} of {field(n, 'norms')} in the {name}" for name, n in counts.items()]
    return f"Batch norms that calibration had to put right: {', '.join(told)}." if told else ""


def _space(record: Record) -> str:
    numbers = (("architectures", "architectures"), ("policies_included", "with precisions"), ("choices", "choices"))
    told = [f"{count(n)} {said}" for key, said in numbers if (n := field(record, "space", key))]
    head = ("subnet", "MACs", "parameters", "size", "latency")
    rows = [_space_row(row) for row in items(record, "space", "rows")]
    facts = Html(superscripts(text(", ".join(told)))) if told else ""
    shown = table(head, rows) if rows else ""
    return section("The search space", paragraph(facts) if facts else "", shown)


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
    return section("Settings and environment", f'<div class="grid">{"".join(tables)}</div>' if tables else "")


def _facts_table(name: str, values: Mapping[str, Any]) -> str:
    rows = [[key, _setting(key, value)] for key, value in values.items()]
    return f"<div><h3>{text(name)}</h3>{table(('', ''), rows, left=(1,), style='facts')}</div>"


def _setting(key: str, value: Any) -> str:
    if is_number(value) and key.endswith("_s"):
        return duration(value)
    if is_number(value) and key.endswith("_bytes"):
        return amount(value, "B")
    if isinstance(value, list | tuple):
        return " × ".join(map(str, value)) if key.endswith("_shape") else ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
