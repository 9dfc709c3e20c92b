"""From what a user asks of `nas quantize` to the run, and the function `nas.quantize`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import onnx
from rich.console import Console

from latency.device import Device, parse_device
from latency.store import MeasurementStore
from nas.given import classes_of, read_given
from nas.names import check_device, usual_precisions
from nas.paying import check_precisions_pay, check_sparsity
from nas.pixels import in_pixels
from nas.progress import LiveReporter, Reporter, SilentReporter
from nas.quantizing import Quantized, Wanted, quantize_model
from nas.throughout import check_asked, check_int8, only_int8
from quant_search.precision import kind_of, parse_precision
from quant_search.ptq.intake import prepared
from quant_search.ptq.reconstruct import METHODS
from quant_search.sensitivity.catalog import MEASURES
from quant_search.sensitivity.subject import by_layer
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Dense
from supernet.data import Dataset, load_data

OBJECTIVES = ("latency", "size")


def quantize(
    model: str | Path | onnx.ModelProto,
    data: str | Dataset,
    *,
    device: str = "cpu",
    max_drop: float = 0.005,
    precisions: str | Sequence[str] | None = None,
    objective: str = "latency",
    rounding: str = "nearest",
    sensitivity: str = "kl",
    sparsity: str = "dense",
    finetune: int = 0,
    integer_only: bool = False,
    pixels: str = "data",
    image_size: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Quantized:
    """Chooses the precision of each layer of a network, and returns its file with all that was measured.

    Args:
        model: an ONNX model or file, as `torch.onnx.export` writes it, or `NAME:WEIGHTS` of a network of timm.
        data: a name, a folder, an .npz file or a `nas.Dataset`: ranges are taken from its training images, validation
            images decide, test images are reported.
        max_drop: of validation accuracy against fp32, as a share.
        precisions: `fp32`, `int8`, `w4a8` and others of fewer bits, in a list or between commas; those of fewer bits
            only where size is the objective.  By default all that the device runs: fp32 and int8, or on `cpu:fused`,
            where nothing may stay in fp32, int8.
        rounding: of weights: `nearest`, or learned layer by layer: `adaround` (arXiv:2004.10568), `adaquant`
            (arXiv:2006.10518).
        sensitivity: how the damage of single layers is found, a name of `quant_search.sensitivity.catalog.MEASURES`;
            where all layers are in int8, nothing asks for it.
        sparsity: `dense`, `channels:0.75` (smaller dense layers), or zeros as `2:4`, `16x4:0.5`, `unstructured:0.8`,
            which are refused, with the factor that was measured, where the device does not turn them into time.
        finetune: steps that the network is trained on with its sparsity, on training images and taught by the network
            that was given, before it is quantized; zeros stay zeros.
        integer_only: a file in int8 throughout with dyadic scales (HAWQ-V3, arXiv:2011.10680), which hardware without
            floats can run; of precisions ("int8",).
        pixels: what the network was trained on; see `nas.pixels.FORMS`.

    Raises:
        ValueError: what is asked for cannot be done, and what to do; nothing is measured before that is clear.
        OSError: a file cannot be read.
        CannotBeDone: an integer-only file, or one of `cpu:fused`, loses more accuracy than `max_drop`.
    """
    names = precisions if precisions is None or isinstance(precisions, str) else ",".join(precisions)
    wanted, place = check_wanted(
        names, max_drop, objective, rounding, sensitivity, sparsity, seed, device, finetune, integer_only
    )
    dataset = data if isinstance(data, Dataset) else load_data(data, image_size=image_size)
    if quiet:
        return quantize_given(model, dataset, pixels, place, wanted, SilentReporter())
    with LiveReporter(Console(stderr=True)) as reporter:
        return quantize_given(model, dataset, pixels, place, wanted, reporter)


def quantize_given(
    model: str | Path | onnx.ModelProto,
    dataset: Dataset,
    pixels: str,
    device: Device,
    wanted: Wanted,
    reporter: Reporter,
    remeasure: bool = False,
) -> Quantized:
    """Reads the network and does the run.

    Raises:
        ValueError: a network or data that do not fit, or as `quantize_model`.
    """
    given = prepared(model) if isinstance(model, onnx.ModelProto) else read_given(str(model), dataset.image_shape)
    if classes_of(given) < dataset.num_classes:
        raise ValueError(
            f"the network tells {classes_of(given)} classes apart, and {dataset.name} has {dataset.num_classes}"
        )
    pixels_of = in_pixels(dataset, pixels)
    check_int8(given, by_layer(given), pixels_of.x_train[:1], device)
    with MeasurementStore(remeasure=remeasure, say=reporter.message) as store:
        lower = kind_of(next(p for p in wanted.precisions if p != "fp32"))
        for_size = wanted.objective == "size"
        check_precisions_pay(wanted.precisions, device, for_size, store, reporter)
        check_sparsity(wanted.sparsity, device, lower, for_size, store, reporter)
        return quantize_model(given, pixels_of, device, wanted, store, reporter)


def check_wanted(
    precisions: str | None,
    max_drop: float,
    objective: str,
    rounding: str,
    sensitivity: str,
    sparsity: str,
    seed: int,
    device: str,
    finetune: int = 0,
    integer_only: bool = False,
) -> tuple[Wanted, Device]:
    """What is asked for and where, refused where it cannot be had.

    Args:
        precisions: between commas; by default the device's.

    Raises:
        ValueError: an unknown name, a precision that costs accuracy and gains no time, a training of nothing, or floats
            in an integer-only file.
    """
    asked = parse_device(device)
    if asked.runtime != "onnxruntime" and not only_int8(asked):
        raise ValueError(f"layers are timed in ONNX Runtime, and {device!r} is another run-time: give --device cpu")
    if precisions is None:
        precisions = ",".join(usual_precisions(device))
    names = tuple(dict.fromkeys(name.strip() for name in precisions.split(",")))
    for name in names:
        parse_precision(name)
    lower = [name for name in names if name != "fp32"]
    if integer_only and names != ("int8",):
        raise ValueError(
            f"an integer-only file is in int8 throughout, and precisions {precisions!r} would leave the rest of it in "
            "fp32: give --precision int8, or leave integer-only out"
        )
    if not integer_only and not only_int8(asked) and ("fp32" not in names or not lower):
        raise ValueError(f"precisions are fp32 and what may take its place, such as fp32,int8; got {precisions!r}")
    _check_among("objective", objective, OBJECTIVES)
    _check_among("rounding", rounding, ("nearest", *METHODS))
    _check_among("sensitivity", sensitivity, tuple(MEASURES))
    check_asked(names, objective, sensitivity, asked)
    _check_finetune(finetune, sparsity)
    if not 0 <= max_drop <= 1:
        raise ValueError(f"max_drop is a share of the validation images, 0 to 1, got {max_drop}")
    place = check_device(device, [kind_of(name) for name in names])
    return Wanted(names, max_drop, objective, rounding, sensitivity, sparsity, seed, finetune, integer_only), place


def _check_finetune(steps: int, sparsity: str) -> None:
    pattern = parse_pattern(sparsity)
    if steps < 0:
        raise ValueError(f"finetune is a number of steps, 0 or more, got {steps}")
    if steps and isinstance(pattern, Dense):
        raise ValueError(
            f"finetune trains a network on with its sparsity, got {steps} steps and sparsity {sparsity!r}: name one, "
            "such as 2:4 for size, or leave finetune out; points of a search are trained on by `nas search --finetune`"
        )


def default_folder(network: str) -> Path:
    """`quantized/NAME`, or with the first number behind it that is free."""
    file, colon, _ = network.partition(":")
    name = file if colon and not network.endswith(".onnx") else Path(network).stem
    first = Path("quantized") / name
    return next(folder for folder in (first, *(Path(f"{first}-{i}") for i in range(2, 10_000))) if not folder.exists())


def _check_among(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {what} {name!r}{hint} There are {', '.join(known)}")
