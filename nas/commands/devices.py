"""What is measured on a device: `nas devices`, `nas measure`, `nas profile`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.commands.options import (
    Bundle,
    DeviceName,
    ImageSize,
    Import,
    Json,
    Quiet,
    Remeasure,
    RunPrecisions,
    Seed,
    Sparsity,
    bundle_line,
    refuse_beside,
)
from nas.output import Output, check_file

if TYPE_CHECKING:
    from nas.device_profile import Profile


def devices(
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the list into this folder.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List what can be measured on here: each device with what was found for it, or what is missing."""
    from nas.devices import describe_devices
    from nas.tables import devices_view

    content = describe_devices()
    Output(as_json, quiet).result(content, devices_view(content))
    if out is not None:
        from supernet.atomic import write_json

        write_json(out / "devices.json", content)


def measure(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="ONNX files with one float32 input."),
    ],
    device: DeviceName = "cpu",
    batch: Annotated[int | None, typer.Option(min=1, help="Images in one call; by default the device's.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Say whether the second of two files is faster.")] = False,
    energy: Annotated[bool, typer.Option("--energy", help="Also the energy of a call, where it is counted.")] = False,
    remeasure: Remeasure = False,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the result, with every sample, as JSON.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the latency of ONNX files carefully, or compare two of them."""
    from latency.energy import counters_of
    from latency.store import MeasurementStore
    from nas.measuring import compare_files, measure_energy_files, measure_files, placed
    from nas.tables import comparison_view, measurements_table
    from supernet.atomic import write_json

    check_file(out)
    output, place = Output(as_json, quiet), placed(device, batch)
    if compare and energy:
        raise ValueError("--compare is about latency: leave out --energy")
    if energy:
        counters_of(place.kind)
    if compare:
        if len(files) != 2:
            raise ValueError(f"--compare takes two files, got {len(files)}")
        with output.reporter() as reporter:
            found = compare_files(files[0], files[1], place, reporter, seed)
        names = [str(file) for file in files]
        content: dict[str, Any] = {"files": names, "device": place.name, "batch": place.batch, **found.plain()}
        samples: dict[str, Any] = {"timings": {name: asdict(getattr(found, name)) for name in ("a", "control", "b")}}
        view = comparison_view(names, found)
    else:
        with output.reporter() as reporter, MeasurementStore(remeasure=remeasure, say=reporter.message) as store:
            measured = measure_files(files, place, store, reporter)
            joules = measure_energy_files(files, place, store, reporter) if energy else []
        rows = [{"file": str(file), **m.plain(seed)} for file, m in zip(files, measured, strict=True)]
        if energy:
            for row, taken in zip(rows, joules, strict=True):
                row |= {"energy_joules": taken.joules_per_call, "watts": taken.least.watts}
                row["warnings"] += [f"energy: {taken.contention.warning}"] if taken.contention.warning else []
        content = {"device": place.name, "batch": place.batch, "files": rows}
        samples = {"measurements": [json.loads(m.to_json()) for m in measured], "energies": [j.plain() for j in joules]}
        view = measurements_table(rows)
    if out is not None:
        write_json(out, content | samples)
    output.result(content, view)


def profile(
    context: typer.Context,
    space: Annotated[str, typer.Option(help="A ready-made space (see `nas spaces`) or module:Class.")] = "mbconv",
    device: DeviceName = "cpu",
    preset: Annotated[str | None, typer.Option(help="Of the space; by default its largest.")] = None,
    image_size: ImageSize = None,
    channels: Annotated[int, typer.Option(min=1, help="Of the images.")] = 3,
    classes: Annotated[int | None, typer.Option(min=2, help="Of the logits; by default the preset's.")] = None,
    precision: RunPrecisions = None,
    sparsity: Sparsity = "dense",
    remeasure: Remeasure = False,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="The profile; by default one below profiles/.")] = None,
    bundle: Bundle = None,
    result: Import = None,
    onnx: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Instead of a space: files to check a model on, one each."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a device for a space, and say how well latencies of networks it has not seen are predicted."""
    from nas.names import check_device, parse_channels, parse_precisions, usual_precisions

    check_file(out)
    output = Output(as_json, quiet)
    if onnx:
        refuse_beside(context, "--onnx", allowed=("onnx", "device", "seed", "out", "remeasure"))
        _profile_files(onnx, device, out, seed, remeasure, output)
        return
    if result is not None:
        refuse_beside(context, "--import", allowed=("result", "out"))
        _import_profile(result, out, output)
        return
    patterns = parse_channels(sparsity)
    precisions = usual_precisions(device) if precision is None else parse_precisions(precision)
    if bundle is not None:
        refuse_beside(context, "--bundle", refused=("device", "remeasure", "out"))
        from nas.profile_bundle import write_profile_bundle

        with output.reporter() as reporter:
            content = write_profile_bundle(
                bundle,
                space,
                precisions=precisions,
                sparsity=patterns,
                preset=preset,
                image_size=image_size,
                in_channels=channels,
                num_classes=classes,
                seed=seed,
                reporter=reporter,
            )
        output.result(content, bundle_line(content))
        return
    place = check_device(device, precisions)
    from nas.profiles import measure_profile

    with output.reporter() as reporter:
        found = measure_profile(
            space,
            device=place.name,
            precisions=precisions,
            sparsity=patterns,
            preset=preset,
            image_size=image_size,
            in_channels=channels,
            num_classes=classes,
            seed=seed,
            remeasure=remeasure,
            reporter=reporter,
        )
    _show_profile(found, out, output)


def _profile_files(
    files: list[Path], device: str, out: Path | None, seed: int, remeasure: bool, output: Output
) -> None:
    """Fits a latency model of any network, and prints what it says of files beside their measurements."""
    from latency.device import parse_device
    from latency.store import MeasurementStore
    from nas.any_graph import default_file, profile_files
    from nas.tables import files_profile_view
    from supernet.atomic import write_bytes

    place = parse_device(device)
    with output.reporter() as reporter, MeasurementStore(remeasure=remeasure, say=reporter.message) as store:
        found = profile_files(files, place, store, reporter, seed)
    file = out or default_file(place)
    write_bytes(file, found.model.to_json().encode())
    summary = found.summary()
    output.result({"profile": str(file), **summary}, files_profile_view(summary))


def _show_profile(found: Profile, out: Path | None, output: Output) -> None:
    """Writes a profile and prints how good it is."""
    from nas.profiles import default_file
    from nas.tables import profile_view

    file = out or default_file(found.data)
    found.data.write(file)
    summary = found.summary()
    output.result({"profile": str(file), **summary}, profile_view(summary))
    output.show(f"Profile: {file} (nas search --profile {file})")


def _import_profile(result: Path, out: Path | None, output: Output) -> None:
    """The profile of a device that measured a bundle."""
    from nas.bundle import read_result

    measured = read_result(result, "profile")  # before torch is loaded, which takes seconds
    from nas.profile_bundle import profile_of

    with output.reporter() as reporter:
        found = profile_of(measured, reporter=reporter)
    _show_profile(found, out, output)
