"""What is done with a finished run: `nas report`, `nas verify`, `nas export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

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


_SOURCE = "A run folder, as printed by `nas search`; or FILE.onnx, in int8, for --format native."
_FORMATS = {
    "onnx": "model.onnx, model.pt2 (torch.export) and card.json",
    "native": "C++ source, weights and an example, of what is in int8 throughout",
}


def export(
    source: Annotated[Path, typer.Argument(metavar="RUN", help=_SOURCE)],
    to: Annotated[Path, typer.Option("--to", "--out", help="The folder to make.")],
    point: Annotated[int | None, typer.Option(help="Of a run: its number in the table of the front.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="; ".join(f"{name}: {what}" for name, what in _FORMATS.items()) + ".")
    ] = "onnx",
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one point for deployment: as an ONNX file with what belongs to it, or as C++ source."""
    if form not in _FORMATS:
        raise ValueError(f"unknown format {form!r}: there are {' and '.join(_FORMATS)}")
    if source.suffix == ".onnx" and not source.is_dir():
        _export_file(source, to, point, form, seed, Output(as_json, quiet))
        return
    if point is None:
        raise ValueError("which point is to be exported? give --point, its number in the table of the front")
    output = Output(as_json, quiet)
    if form == "native":
        from nas.native_export import export_point as export_native

        written = export_native(source, point, to, seed)
        output.result(written, _native_line(written))
        return
    from nas.results import export_point

    card = export_point(source, point, to, seed)
    output.result({"to": str(to), "card": card}, f"{to}: model.onnx, model.pt2, card.json")


def _export_file(file: Path, to: Path, point: int | None, form: str, seed: int, output: Output) -> None:
    """An ONNX file as C++ source."""
    if point is not None:
        raise ValueError(f"--point says nothing beside {file}: leave it out, or give a run folder")
    if form != "native":
        raise ValueError(f"{file} is an ONNX file already: give --format native for C++ source, or a run folder")
    from nas.native_export import export_file

    written = export_file(file, to, seed=seed)
    output.result(written, _native_line(written))


def _native_line(written: Mapping[str, Any]) -> str:
    return f"{written['to']}: {', '.join(written['files'])}; README.md says how to build it"
