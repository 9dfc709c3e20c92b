"""What a search is given: `nas spaces` and `nas data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from nas.commands.options import DeviceName, ImageSize, Json, Quiet, Seed
from nas.output import Output


def spaces(
    name: Annotated[str | None, typer.Argument(help="A space to describe.")] = None,
    preset: Annotated[str | None, typer.Option(help="By default, all presets of the space.")] = None,
    device: DeviceName = "cpu",
    estimate: Annotated[
        int, typer.Option(min=0, help="Rank so many random networks in closed form, with no profile: cpu:fused.")
    ] = 0,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the description into this folder.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the ready-made spaces, or describe one: its choices, and its smallest, middle and largest network."""
    from latency.device import parse_device

    parse_device(device)  # before torch is loaded, which takes seconds
    output = Output(as_json, quiet)
    if name is None:
        if estimate:
            raise ValueError("networks of which space are to be ranked? name it: nas spaces mbconv --estimate N")
        from nas.names import list_spaces

        listing = list_spaces()
        content: dict[str, Any] = {"spaces": listing}
        output.result(content, "\n".join(f"{s['name']:<15} {s['summary']} (presets: {s['presets']})" for s in listing))
    else:
        from nas.describe import describe_presets
        from nas.tables import preset_view

        with output.reporter() as reporter:
            described = describe_presets(name, preset, device, seed, reporter, estimate)
        content = {"space": name, "presets": described}
        output.result(content, Group(*(preset_view(name, part) for part in described)))
    if out is not None:
        from supernet.atomic import write_json

        write_json(out / "spaces.json", content)


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
