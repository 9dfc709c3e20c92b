"""What is done with a finished run: `nas report`, `nas verify`, `nas export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.commands.options import Bundle, Import, Json, Quiet, RunFolder, Seed, bundle_line, refuse_beside
from nas.output import Output


def report(
    run_folder: RunFolder,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html; by default the run's.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the HTML report of a finished run again, and print its result."""
    from nas.folder import read_record
    from nas.report import write_report
    from nas.tables import result_view

    record = read_record(run_folder)
    (out or run_folder).mkdir(parents=True, exist_ok=True)
    file = write_report(record, out or run_folder)
    output = Output(as_json, quiet)
    output.result({"run": str(run_folder), "report": str(file), **record}, result_view(record))
    output.show(f"Report: {file}")


def verify(
    context: typer.Context,
    run_folder: RunFolder,
    bundle: Bundle = None,
    result: Import = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for verify.json; by default the run's.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure every file of a run's front again and say what moved."""
    output = Output(as_json, quiet)
    if result is not None:
        refuse_beside(context, "--import", allowed=("result", "out"))
        _import_verification(run_folder, result, out, seed, output)
        return
    if bundle is not None:
        refuse_beside(context, "--bundle", allowed=("bundle",))
        from nas.verify_bundle import write_verify_bundle

        content = write_verify_bundle(run_folder, bundle)
        output.result(content, bundle_line(content))
        return
    from nas.results import verify_again
    from nas.tables import verify_table
    from supernet.atomic import write_json

    with output.reporter() as reporter:
        rows = verify_again(run_folder, reporter, seed)
    write_json((out or run_folder) / "verify.json", rows)
    output.result({"run": str(run_folder), "points": rows}, verify_table(rows))


def _import_verification(run_folder: Path, result: Path, out: Path | None, seed: int, output: Output) -> None:
    """The front of a run on a device that measured a bundle of it."""
    from nas.tables import elsewhere_view
    from nas.verify_bundle import import_verification
    from supernet.atomic import write_json

    with output.reporter() as reporter:
        name, content = import_verification(run_folder, result, reporter, seed)
    file = (out or run_folder) / name
    write_json(file, content)
    output.result({"run": str(run_folder), "file": str(file), **content}, elsewhere_view(content))
    output.show(f"Written: {file}")


def export(
    run_folder: RunFolder,
    point: Annotated[int, typer.Option(help="Its number in the table of the front.")],
    to: Annotated[Path, typer.Option("--to", "--out", help="The folder to make.")],
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one point for deployment: model.onnx, model.pt2 (torch.export) and card.json."""
    from nas.results import export_point

    card = export_point(run_folder, point, to, seed)
    Output(as_json, quiet).result({"to": str(to), "card": card}, f"{to}: model.onnx, model.pt2, card.json")
