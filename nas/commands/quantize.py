"""`nas quantize`: the best mixed precision of a network that the user already has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.commands.options import DataName, DeviceName, ImageSize, Json, Quiet, Remeasure, RunPrecisions, Seed
from nas.output import Output


def quantize(
    network: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An ONNX file, as torch.onnx.export writes one of yours, or NAME:WEIGHTS of a timm network.",
        ),
    ],
    data: DataName = "digits",
    device: DeviceName = "cpu",
    max_drop: Annotated[float, typer.Option(min=0, max=100, help="Points of accuracy that may be lost.")] = 0.5,
    precision: RunPrecisions = None,
    objective: Annotated[str, typer.Option(help="What is to become less: latency or size.")] = "latency",
    rounding: Annotated[str, typer.Option(help="Of weights: nearest, adaround or adaquant.")] = "nearest",
    sensitivity: Annotated[str, typer.Option(help="sqnr, kl, leave-one-out, hessian or fisher.")] = "kl",
    sparsity: Annotated[
        str, typer.Option(help="dense, channels:0.75, 2:4, 16x4:0.5, unstructured:0.8; refused where it gains no time.")
    ] = "dense",
    finetune: Annotated[
        int,
        typer.Option(min=0, help="Steps that the network is trained on with its --sparsity, before rounding."),
    ] = 0,
    integer_only: Annotated[
        bool, typer.Option("--integer-only", help="A file for integers alone (dyadic scales), of --precision int8.")
    ] = False,
    pixels: Annotated[str, typer.Option(help="As trained on: data, unit, symmetric, raw, imagenet, M/S.")] = "data",
    image_size: ImageSize = None,
    remeasure: Remeasure = False,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; by default one below quantized/.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose each layer's precision of a network you have, by measured latency and accuracy."""
    from nas.given import check_given
    from nas.pixels import check_pixels
    from nas.quantize_run import check_wanted, default_folder, quantize_given

    check_given(network)
    check_pixels(pixels)
    wanted, place = check_wanted(
        precision, max_drop / 100, objective, rounding, sensitivity, sparsity, seed, device, finetune, integer_only
    )
    folder = out or default_folder(network)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something already: name another folder with --out")
    from nas.quantized import MODEL, quantized_view, write_quantized
    from supernet.data import load_data

    output = Output(as_json, quiet)
    dataset = load_data(data, image_size=image_size)
    with output.reporter() as reporter:
        found = quantize_given(network, dataset, pixels, place, wanted, reporter, remeasure)
    record = write_quantized(found, folder, network, dataset.name)
    output.result({"folder": str(folder), **record}, quantized_view(record))
    output.show(f"File: {folder / MODEL}")
