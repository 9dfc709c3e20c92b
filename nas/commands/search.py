"""`nas search`, and `nas retarget`, which carries a search elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.commands.options import (
    DataName,
    DeviceName,
    ImageSize,
    Json,
    Preset,
    Quiet,
    Remeasure,
    RunFolder,
    RunPrecisions,
    SearchStrategyName,
    SearchTrainedIn,
    Seed,
    SpaceName,
    names_of,
    refuse_beside,
    say,
)
from nas.metrics import COSTS
from nas.output import Output
from nas.searchers.catalog import SEARCHERS


def search(
    context: typer.Context,
    space: SpaceName = "mbconv",
    device: DeviceName = "cpu",
    data: DataName = "digits",
    preset: Preset = None,
    image_size: ImageSize = None,
    precision: RunPrecisions = None,
    sparsity: Annotated[
        str, typer.Option(help="channels (or channels:0.5, ...), 2:4, 16x4:0.5, ...; refused where it gains no time.")
    ] = "dense",
    objective: Annotated[
        str, typer.Option(help=f"Costs to make small, beside accuracy, by commas: {', '.join(COSTS)}.")
    ] = "latency",
    strategy: SearchStrategyName = "sandwich",
    supernet: Annotated[
        Path | None, typer.Option(help="A run of `nas train`, whose space, data and weights are taken.")
    ] = None,
    searcher: Annotated[str, typer.Option(help=f"One of {', '.join(SEARCHERS)}.")] = "linas",
    budget: Annotated[str, typer.Option(help="For the whole run, roughly: 90s, 4m, 1h.")] = "4m",
    epochs: Annotated[int | None, typer.Option(help="Of training, instead of a share of the budget.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per training step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    train_precisions: SearchTrainedIn = None,
    evaluations: Annotated[int, typer.Option(help="Real evaluations of the search; each baseline gets as many.")] = 28,
    baselines: Annotated[bool, typer.Option(help="Compare with random search and uniform scaling.")] = True,
    finetune: Annotated[
        int, typer.Option(help="Steps that each network of the front, and its twins, is trained on, alone.")
    ] = 0,
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
    from nas.folder import OF_TRAINING, default_folder, with_supernet
    from nas.names import check_names, parse_objectives, parse_sparsity, usual_precisions

    if supernet is not None:
        refuse_beside(context, "--supernet", refused=OF_TRAINING)
    try:
        settings = Settings(
            space=space,
            preset=preset,
            data=data_setting(data),
            image_size=image_size,
            device=device,
            precisions=names_of(precision) or usual_precisions(device if profile is None else "cpu"),
            sparsity=parse_sparsity(sparsity),
            objectives=parse_objectives(objective),
            strategy=strategy,
            searcher=searcher,
            seed=seed,
            budget_s=parse_duration(budget),
            epochs=epochs,
            batch=batch,
            lr=lr,
            train_precisions=names_of(train_precisions),
            evaluations=evaluations,
            baselines=baselines,
            finetune=finetune,
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
    if supernet is not None:
        settings = with_supernet(settings, supernet)
        space, data, image_size = settings.space, settings.data, settings.image_size
    if profile is None:
        check_names(settings)  # before torch is loaded, which takes seconds
    else:
        from nas.profile_data import read_profile

        read_profile(profile)
    from nas.absent import with_profile
    from nas.running import run_search
    from nas.spec import check_importable
    from nas.tables import space_table
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
            record = run_search(settings, space, dataset, folder, reporter, shown, remeasure)
    except KeyboardInterrupt:
        say(f"interrupted; to go on, repeat the command (its run is in {folder})")
        raise
    _show(folder, record, output)


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

    output = Output(as_json, quiet)
    with output.reporter() as reporter:
        folder, record = carry_over(run_folder, device, out, reporter, timings=timings)
    _show(folder, record, output)


def _show(folder: Path, record: dict[str, Any], output: Output) -> None:
    """What a finished run found, and where."""
    from nas.report import headline
    from nas.tables import result_view

    output.result({"run": str(folder), **record}, result_view(record))
    output.show(headline(record))
    output.show(f"Run folder: {folder} (report.html, front.json, front/*.onnx)")
