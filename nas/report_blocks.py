"""The section of a report on which of two devices each block of the profile is faster."""

from __future__ import annotations

from nas.figures import Record, field
from nas.format import duration
from nas.html import paragraph, section, table


def by_block(record: Record, here: str) -> str:
    """The blocks of the profile on the run's device, `here`, and on its baseline; nothing where it has none."""
    found = field(record, "profile", "dispatch")
    if not found:
        return ""
    there = found["baseline"]
    head = ("block", "input and layers", f"on {here}", f"on {there}", "times as fast", "faster")
    rows = []
    for row in found["rows"]:
        times = map(duration, (row["latency_s"], row["baseline_s"]))
        rows.append([row["block"], row["shape"], *times, f"{row['factor']:.2f}", row["faster"]])
    said = paragraph(
        f"{found['faster']} of {found['blocks']} blocks are more than 3 % faster on {here}, in the middle "
        f"{found['factor']['median']:.2f} times as fast. Each was timed on its own."
    )
    return section(f"Blocks on {here} and on {there}", said, table(head, rows, left=(0, 1, 5)))
