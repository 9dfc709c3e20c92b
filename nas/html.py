"""The HTML of reports: sections, tables, figures and the page around them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

from nas.figures import Figure, is_number
from nas.format import percent


@dataclass(frozen=True)
class Html:
    """Text that is HTML already; everything else is escaped."""

    html: str


def text(value: Any) -> str:
    """As HTML."""
    return value.html if isinstance(value, Html) else html.escape(str(value))


def section(title: str, *parts: str) -> str:
    """A section with what there is of its parts; nothing, if there is none."""
    inside = "\n".join(p for p in parts if p)
    return f"<section><h2>{text(title)}</h2>\n{inside}</section>" if inside else ""


def paragraph(value: Any) -> str:
    """A paragraph, if there is anything to say."""
    return f"<p>{text(value)}</p>" if value else ""


def pair(*parts: str) -> str:
    """Parts beside each other."""
    inside = "".join(f"<div>{p}</div>" for p in parts if p)
    return f'<div class="grid">{inside}</div>' if inside else ""


def figure(name: str, drawn: Mapping[str, Figure], caption: str) -> str:
    """The place of a figure that was drawn, with its caption."""
    if name not in drawn:
        return ""
    height = drawn[name]["layout"]["height"]
    chart = f'<div class="chart" id="figure-{name}" style="height:{height}px"></div>'
    return f"<figure>{chart}<figcaption>{text(caption)}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], left: Sequence[int] = (), style: str = "") -> str:
    """A table; the first column and those in `left` are words, the others numbers.  No rows, no table."""
    if not rows:
        return ""
    sides = ["words" if i == 0 or i in left else "number" for i in range(len(head))]
    titles = "".join(f'<th class="{side}">{text(t)}</th>' for side, t in zip(sides, head, strict=True))
    top = f"<thead><tr>{titles}</tr></thead>" if any(head) else ""
    body = "".join(f"<tr>{''.join(map(_cell, sides, row))}</tr>" for row in rows)
    return f'<div class="wide"><table class="{style}">{top}<tbody>{body}</tbody></table></div>'


def _cell(side: str, value: Any) -> str:
    return f'<td class="{side}">{text("–" if value in (None, "") else value)}</td>'


def percent_or_none(value: Any, digits: int = 1) -> str | None:
    """A share as a percentage, if it is a number."""
    return percent(value, digits) if is_number(value) else None


def points(share: float) -> str:
    """A difference of shares in words."""
    return f"{100 * share:.2f} percentage points"


def superscripts(text: str) -> str:
    """Powers set as such."""
    return re.sub(r"\^(\d+)", r"<sup>\1</sup>", text)


def embedded_json(value: Any) -> str:
    """JSON that may stand inside a script element: no `<`, `>` or `&`, and null for what is not finite."""
    text = json.dumps(_finite(value), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not is_number(value) else value


def plotly_script() -> str:
    """The library that draws the figures, whole: a report opens offline."""
    from plotly.offline import get_plotlyjs  # plotly takes a moment to load, and `headline` does not need it

    return f"<script>{get_plotlyjs()}</script>"


PAGE = Template("""<!doctype html>
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
