"""Options that several commands take, and what they refuse together."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from supernet.catalog import STRATEGIES

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
RunPrecisions = Annotated[
    str | None,
    typer.Option("--precision", help="Precisions that a block may have, by commas; by default the device's."),
]
_IN_ANY = "Precisions that shared weights are trained for, by commas, each block in any; else fp32 alone."
TrainedIn = Annotated[str | None, typer.Option("--precision", help=_IN_ANY)]
SearchTrainedIn = Annotated[str | None, typer.Option("--train-precision", help=_IN_ANY)]
Sparsity = Annotated[str, typer.Option(help="channels (or channels:0.5, ...): blocks may have fewer; dense: not.")]
Bundle = Annotated[
    Path | None, typer.Option("--bundle", help="Write a folder to measure with where this toolkit does not run.")
]
Import = Annotated[Path | None, typer.Option("--import", help="Read what the script of a bundle measured.")]
_SHARED, _RELAXED = ([n for n, s in STRATEGIES.items() if s.relaxed is relaxed] for relaxed in (False, True))
_HOW = f"How shared weights are trained: {', '.join(_SHARED)}"
StrategyName = Annotated[str, typer.Option(help=f"{_HOW}.")]
SearchStrategyName = Annotated[
    str, typer.Option("--strategy", help=f"{_HOW}; or a search that is the training: {', '.join(_RELAXED)}.")
]
SpaceName = Annotated[str, typer.Option("--space", help="A ready-made space (see `nas spaces`) or module:Class.")]
Preset = Annotated[str | None, typer.Option(help="Of the space; by default the one for the image size.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as printed by `nas search`.")]


def names_of(text: str | None) -> tuple[str, ...]:
    """`fp32, int8` as a tuple, empty where nothing was given."""
    return () if text is None else tuple(name.strip() for name in text.split(","))


def bundle_line(content: Mapping[str, Any]) -> str:
    """What was written for another machine."""
    return f"{content['bundle']}: {content['models']} models, measure.py and README.txt, which says what to do"


def refuse_beside(
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


def say(message: str) -> None:
    """A line for a person, on standard error."""
    sys.stderr.write(f"nas: {message}\n")
