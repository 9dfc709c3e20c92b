"""The command line.

Exit codes: 0, 1 (could not be done), 2 (wrong usage; nothing was written), 130 (interrupted; resumable).
With `--json`, one JSON object goes to standard output and everything else to standard error.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from nas.errors import CannotBeDone
from nas.metrics import COSTS
from nas.output import Output, check_file
from nas.searchers.catalog import SEARCHERS

if TYPE_CHECKING:
    from nas.device_profile import Profile

app = typer.Typer(
    help="Hardware-aware neural architecture search: every point on the front is a file that was measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random draw.")]
DeviceName = Annotated[
    str, typer.Option("--device", help="Where latency is measured: cpu, cpu:threads=N, cpu:torch, ... (`nas devices`).")
]
DataName = Annotated[
    str, typer.Option("--data", help="digits, cifar10, cifar100, fashion-mnist, a folder of class folders, or an .npz.")
]
ImageSize = Annotated[int | None, typer.Option(help="Resize images to this many pixels a side.")]
Remeasure = Annotated[bool, typer.Option("--remeasure", help="Measure anew what was measured before.")]
Precisions = Annotated[str, typer.Option(help="Precisions that a block may have, by commas.")]
Bundle = Annotated[
    Path | None, typer.Option("--bundle", help="Write a folder to measure with where this toolkit does not run.")
]
Import = Annotated[Path | None, typer.Option("--import", help="Read what the script of a bundle measured.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as printed by `nas search`.")]


@app.command()
def search(
    space: Annotated[str, typer.Option(help="A ready-made space (see `nas spaces`) or module:Class.")] = "mbconv",
    device: DeviceName = "cpu",
    data: DataName = "digits",
    preset: Annotated[str | None, typer.Option(help="Of the space; by default the one for the image size.")] = None,
    image_size: ImageSize = None,
    precision: Precisions = "fp32,int8",
    objective: Annotated[
        str, typer.Option(help=f"Costs to make small, beside accuracy, by commas: {', '.join(COSTS)}.")
    ] = "latency",
    searcher: Annotated[str, typer.Option(help=f"One of {', '.join(SEARCHERS)}.")] = "linas",
    budget: Annotated[str, typer.Option(help="For the whole run, roughly: 90s, 4m, 1h.")] = "4m",
    epochs: Annotated[int | None, typer.Option(help="Of training, instead of a share of the budget.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per training step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    evaluations: Annotated[int, typer.Option(help="Real evaluations of the search; each baseline gets as many.")] = 28,
    baselines: Annotated[bool, typer.Option(help="Compare with random search and uniform scaling.")] = True,
    max_latency: Annotated[str | None, typer.Option(help="Bound on the latency: 2ms, 500us.")] = None,
    max_energy: Annotated[str | None, typer.Option(help="Bound on the energy of a call: 5mJ.")] = None,
    max_size: Annotated[str | None, typer.Option(help="Bound on the file: 1MB, 200kB.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Bound on the MACs: 30M.")] = None,
    max_parameters: Annotated[str | None, typer.Option(help="Bound on the parameters: 1M.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Bound on the memory of activations: 2MB.")] = None,
    max_traffic: Annotated[str | None, typer.Option(help="Bound on activations read and written: 20MB.")] = None,
    max_roofline: Annotated[str | None, typer.Option(help="Bound on the roofline floor: 1ms.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Bound on the validation accuracy, 0 to 1.")] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Of a device that is not attached, by `nas profile`: latencies are predicted.")
    ] = None,
    remeasure: Remeasure = False,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default one below runs/.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search a space for the best networks on a device; repeat the command to resume."""
    from nas.config import Settings, data_setting, first_line, parse_duration, parse_quantity
    from nas.folder import default_folder
    from nas.names import check_names, parse_objectives

    try:
        settings = Settings(
            space=space,
            preset=preset,
            data=data_setting(data),
            image_size=image_size,
            device=device,
            precisions=tuple(p.strip() for p in precision.split(",")),
            objectives=parse_objectives(objective),
            searcher=searcher,
            seed=seed,
            budget_s=parse_duration(budget),
            epochs=epochs,
            batch=batch,
            lr=lr,
            evaluations=evaluations,
            baselines=baselines,
            max_latency_s=parse_quantity(max_latency, "s") if max_latency is not None else None,
            max_energy_joules=parse_quantity(max_energy, "J") if max_energy is not None else None,
            max_size_bytes=parse_quantity(max_size, "B") if max_size is not None else None,
            max_macs=parse_quantity(max_macs, "") if max_macs is not None else None,
            max_parameters=parse_quantity(max_parameters, "") if max_parameters is not None else None,
            max_memory_bytes=parse_quantity(max_memory, "B") if max_memory is not None else None,
            max_traffic_bytes=parse_quantity(max_traffic, "B") if max_traffic is not None else None,
            max_roofline_s=parse_quantity(max_roofline, "s") if max_roofline is not None else None,
            min_accuracy=min_accuracy,
        )
    except ValueError as error:
        raise ValueError(first_line(error)) from error
    if profile is None:
        check_names(settings)  # before torch is loaded, which takes seconds
    else:
        from nas.profile_data import read_profile

        read_profile(profile)
    from nas.absent import run_absent, with_profile
    from nas.pipeline import run
    from nas.spec import check_importable
    from nas.tables import result_view, space_table
    from supernet.data import load_data

    output = Output(as_json, quiet)
    if profile is not None:
        settings = with_profile(settings, profile)
        check_names(settings)
    check_importable(space)
    dataset = load_data(data, image_size=image_size)
    settings = settings.model_copy(update={"data_fingerprint": dataset.fingerprint})
    folder = out or default_folder(settings)
    try:
        with output.reporter() as reporter:
            shown = lambda found: output.amid(space_table(found), reporter)  # noqa: E731
            if profile is None:
                record = run(settings, space, dataset, folder, reporter, shown, remeasure)
            else:
                record = run_absent(settings, space, dataset, folder, reporter, shown)
    except KeyboardInterrupt:
        _say(f"interrupted; to go on, repeat the command (its run is in {folder})")
        raise
    output.result({"run": str(folder), **record}, result_view(record))
    from nas.report import headline

    output.show(headline(record))
    output.show(f"Run folder: {folder} (report.html, front.json, front/*.onnx)")


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(help="A space to describe.")] = None,
    preset: Annotated[str | None, typer.Option(help="By default, all presets of the space.")] = None,
    device: DeviceName = "cpu",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the description into this folder.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the ready-made spaces, or describe one: its choices, and its smallest, middle and largest network."""
    from latency.device import parse_device

    parse_device(device)  # before torch is loaded, which takes seconds
    from nas.describe import describe_presets, list_spaces
    from nas.tables import preset_view

    output = Output(as_json, quiet)
    if name is None:
        listing = list_spaces()
        content: dict[str, Any] = {"spaces": listing}
        output.result(content, "\n".join(f"{s['name']:<15} {s['summary']} (presets: {s['presets']})" for s in listing))
    else:
        with output.reporter() as reporter:
            described = describe_presets(name, preset, device, seed, reporter)
        content = {"space": name, "presets": described}
        output.result(content, Group(*(preset_view(name, part) for part in described)))
    if out is not None:
        from supernet.atomic import write_json

        write_json(out / "spaces.json", content)


@app.command()
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


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="A data set's name, folder or .npz.")],
    out: Annotated[Path, typer.Option(help="The .npz to write: x (n, c, h, w) float32 and y (n,).")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    image_size: ImageSize = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many images, drawn at random.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a split as a run sees it, preprocessed, so that anyone can check a result."""
    from supernet.find_source import find_source

    if split not in ("train", "val", "test"):
        raise ValueError(f"split must be train, val or test, got {split!r}")
    find_source(name)
    from supernet.data import load_data, write_arrays

    dataset = load_data(name, image_size=image_size)
    write_arrays(dataset, split, out, limit, seed)  # type: ignore[arg-type]
    images = min(limit or 10**9, len(dataset.split(split)[1]))  # type: ignore[arg-type]
    content = {"data": name, "split": split, "file": str(out), "images": images, "shape": list(dataset.image_shape)}
    shape = " x ".join(map(str, dataset.image_shape))
    Output(as_json, quiet).result(content, f"{out}: {images} {split} images of {shape}")


@app.command()
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


@app.command()
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
        _refuse_beside(context, "--import", allowed=("result", "out"))
        _import_verification(run_folder, result, out, seed, output)
        return
    if bundle is not None:
        _refuse_beside(context, "--bundle", allowed=("bundle",))
        from nas.verify_bundle import write_verify_bundle

        content = write_verify_bundle(run_folder, bundle)
        output.result(content, _bundle_line(content))
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


@app.command()
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


@app.command()
def retarget(
    run_folder: RunFolder,
    device: Annotated[str, typer.Option("--device", help="The new one: cpu:threads=2, cpu:torch, gpu, ...")],
    timings: Annotated[int, typer.Option(min=10, help="On the new device, besides the files of the front.")] = 50,
    out: Annotated[Path | None, typer.Option(help="The new run's folder; by default one below runs/.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry a finished run to another device, with few timings and without training; repeat to resume."""
    from latency.device import parse_device
    from nas.folder import read_record

    read_record(run_folder)
    parse_device(device)  # before torch is loaded, which takes seconds
    from nas.retarget import retarget as carry_over
    from nas.tables import result_view

    output = Output(as_json, quiet)
    with output.reporter() as reporter:
        folder, record = carry_over(run_folder, device, out, reporter, timings=timings)
    output.result({"run": str(folder), **record}, result_view(record))
    from nas.report import headline

    output.show(headline(record))
    output.show(f"Run folder: {folder} (report.html, front.json, front/*.onnx)")


@app.command()
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


@app.command()
def profile(
    context: typer.Context,
    space: Annotated[str, typer.Option(help="A ready-made space (see `nas spaces`) or module:Class.")] = "mbconv",
    device: DeviceName = "cpu",
    preset: Annotated[str | None, typer.Option(help="Of the space; by default its largest.")] = None,
    image_size: ImageSize = None,
    channels: Annotated[int, typer.Option(min=1, help="Of the images.")] = 3,
    classes: Annotated[int | None, typer.Option(min=2, help="Of the logits; by default the preset's.")] = None,
    precision: Precisions = "fp32,int8",
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
    from nas.names import check_device, parse_precisions

    check_file(out)
    output = Output(as_json, quiet)
    if onnx:
        _refuse_beside(context, "--onnx", allowed=("onnx", "device", "seed", "out", "remeasure"))
        _profile_files(onnx, device, out, seed, remeasure, output)
        return
    if result is not None:
        _refuse_beside(context, "--import", allowed=("result", "out"))
        _import_profile(result, out, output)
        return
    precisions = parse_precisions(precision)
    if bundle is not None:
        _refuse_beside(context, "--bundle", refused=("device", "remeasure", "out"))
        from nas.profile_bundle import write_profile_bundle

        with output.reporter() as reporter:
            content = write_profile_bundle(
                bundle,
                space,
                precisions=precisions,
                preset=preset,
                image_size=image_size,
                in_channels=channels,
                num_classes=classes,
                seed=seed,
                reporter=reporter,
            )
        output.result(content, _bundle_line(content))
        return
    place = check_device(device, precisions)
    from nas.profiles import measure_profile

    with output.reporter() as reporter:
        found = measure_profile(
            space,
            device=place.name,
            precisions=precisions,
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


def _bundle_line(content: Mapping[str, Any]) -> str:
    return f"{content['bundle']}: {content['models']} models, measure.py and README.txt, which says what to do"


def _refuse_beside(
    context: typer.Context, option: str, allowed: tuple[str, ...] | None = None, refused: tuple[str, ...] = ()
) -> None:
    """Refuses options that were given and say nothing beside `option`.

    Args:
        allowed: parameters that may be given; by default all but the `refused` ones.
    """
    always = ("run_folder", "seed", "as_json", "quiet")
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE" and parameter.opts[0] != option
        if given and (name in refused or (allowed is not None and name not in (*allowed, *always))):
            raise ValueError(f"{parameter.opts[0]} says nothing beside {option}: leave one of them out")


def _say(message: str) -> None:
    sys.stderr.write(f"nas: {message}\n")


def main() -> None:
    """Runs the command line and exits with its code."""
    # Threads that wait actively for a neighbour's time slice make small networks a hundred times slower on a
    # busy machine.  Read by OpenMP when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, _interrupt)
    sys.exit(_run(sys.argv[1:]))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C ends the command in order, a second one at once; a run can be resumed after either."""
    signal.signal(number, lambda *_: os._exit(130))
    raise KeyboardInterrupt


# Typer's usage errors and their base: newer versions of it carry a click of their own, which has no public name.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _run(arguments: list[str]) -> int:
    """The exit code of one command."""
    try:
        code = app(arguments or ["--help"], standalone_mode=False, prog_name="nas")
    except _UsageError as error:
        _say(_usage_message(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except ValueError as error:
        _say(" ".join(str(error).split()))
        return 2
    except CannotBeDone as error:
        _say(" ".join(str(error).split()))
        return 1
    except OSError as error:
        full = error.errno == errno.ENOSPC
        _say(f"the disk is full ({error.filename or error}): make room and repeat the command" if full else str(error))
        return 2 if full else 1
    return code if isinstance(code, int) else 0  # what typer makes of an interrupt: 130


def _usage_message(error: Any) -> str:
    """One line, with the nearest option where there is one."""
    message = " ".join(error.format_message().split())
    near = getattr(error, "possibilities", None)
    return f"{message} (did you mean {near[0]}?)" if near and near[0] not in message else message
