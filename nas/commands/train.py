"""`nas train`: a supernet alone, from which searches and studies go on; `nas fidelity`: whether it ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nas.commands.options import (
    DataName,
    ImageSize,
    Json,
    Preset,
    Quiet,
    RunFolder,
    Seed,
    SpaceName,
    Sparsity,
    StrategyName,
    TrainedIn,
    names_of,
    refuse_beside,
    say,
)
from nas.output import Output, check_file


def train(
    space: SpaceName = "mbconv",
    data: DataName = "digits",
    strategy: StrategyName = "sandwich",
    preset: Preset = None,
    image_size: ImageSize = None,
    sparsity: Sparsity = "dense",
    pretrained: Annotated[
        str | None, typer.Option("--from", help="Begin with these weights: a timm model, .safetensors, .pth or run.")
    ] = None,
    budget: Annotated[str, typer.Option(help="For the whole training: 90s, 4m, 1h.")] = "4m",
    epochs: Annotated[int | None, typer.Option(help="Instead of the budget.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adamw, lamb or lion.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="On weights of two or more dimensions.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Of the labels, 0 to 1.")] = None,
    ema_decay: Annotated[float | None, typer.Option(help="Of the weights' moving average, 0 for none.")] = None,
    clip: Annotated[float | None, typer.Option(help="Bound on the gradient's norm.")] = None,
    mixup: Annotated[float | None, typer.Option(help="Alpha of mixup, 0 for none.")] = None,
    erase: Annotated[float | None, typer.Option(help="Probability that a part of an image is erased.")] = None,
    autocast: Annotated[
        bool | None, typer.Option("--autocast/--no-autocast", help="In bfloat16 or not; by default what is faster.")
    ] = None,
    train_precisions: TrainedIn = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default one below runs/.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the shared weights of a space; repeat to resume. `nas search --supernet RUN` goes on from it."""
    from nas.config import Training, data_setting, first_line, parse_duration, pretrained_setting
    from nas.folder import default_folder
    from nas.names import check_training, parse_channels

    try:
        settings = Training(
            space=space,
            preset=preset,
            data=data_setting(data),
            image_size=image_size,
            sparsity=parse_channels(sparsity),
            strategy=strategy,
            seed=seed,
            budget_s=parse_duration(budget),
            epochs=epochs,
            batch=batch,
            lr=lr,
            optimizer=optimizer,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            ema_decay=ema_decay,
            clip=clip,
            mixup=mixup,
            erase=erase,
            autocast=autocast,
            train_precisions=names_of(train_precisions),
            pretrained=None if pretrained is None else pretrained_setting(pretrained),
        )
    except ValueError as error:
        raise ValueError(first_line(error)) from error
    check_training(settings)  # before torch is loaded, which takes seconds
    from nas.spec import check_importable
    from nas.tables import training_view
    from nas.training import train_run
    from supernet.data import load_data

    output = Output(as_json, quiet)
    check_importable(space)
    dataset = load_data(data, image_size=image_size)
    settings = settings.model_copy(update={"data_fingerprint": dataset.fingerprint})
    folder = out or default_folder(settings)
    try:
        with output.reporter() as reporter:
            trained = train_run(settings, space, dataset, folder, reporter)
    except KeyboardInterrupt:
        say(f"interrupted; to go on, repeat the command (its run is in {folder})")
        raise
    if int(os.environ.get("RANK", 0)) > 0:  # of the processes that torchrun started, the first one speaks
        return
    content = trained.plain()
    output.result(content, training_view(content))
    output.show(f"Run folder: {folder} (tensorboard/; nas search --supernet {folder})")


def fidelity(
    context: typer.Context,
    run_folder: RunFolder,
    networks: Annotated[int, typer.Option(min=5, help="To train alone, the smallest and largest among them.")] = 12,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each; by default as long as the supernet.")] = None,
    truth: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A CSV of stand-alone accuracies, instead of training."),
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the result as JSON into this file.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether accuracies that subnets inherit rank them as training each alone does; repeat to resume."""
    from nas.folder import read_training

    if truth is not None:
        refuse_beside(context, "--truth", refused=("networks", "epochs"))
    check_file(out)
    read_training(run_folder)  # before torch is loaded, which takes seconds
    from nas.fidelity_study import fidelity_report, measure_fidelity
    from nas.tables import fidelity_view
    from supernet.atomic import write_json

    output = Output(as_json, quiet)
    with output.reporter() as reporter:
        found = measure_fidelity(run_folder, reporter, networks=networks, epochs=epochs, truth=truth, seed=seed)
    file = fidelity_report(run_folder)
    if out is not None:
        write_json(out, found)
    output.result({"run": str(run_folder), **found}, fidelity_view(found))
    output.show(f"Report: {file}")
