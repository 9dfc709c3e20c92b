"""Profiling a device for a space: `nas.profile` and the command `nas profile`."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from latency.blocks import BlockTracer
from latency.store import MeasurementStore
from nas.anatomy import Anatomy
from nas.covered import check_space_covered
from nas.device_profile import Profile, fit_profile
from nas.measuring import say_busy
from nas.names import catalog_entry, check_device, check_kernels, checked_preset
from nas.profile_data import ProfileData, ProfiledSpace, read_profile
from nas.profiling import WHOLE, Plan, Profiler
from nas.progress import Reporter, SilentReporter
from nas.spec import SpaceLike, build_network, space_fingerprint, space_name
from quant_search.policy import check_precisions, joint_space
from search_spaces.network import find_blocks
from search_spaces.space import SearchSpace

_LEAST_IMAGE = 4  # pixels, as of a run
_OWN = (32, 10)  # image size and classes of a space of one's own, where nothing is said


def measure_profile(
    space: SpaceLike = "mbconv",
    *,
    device: str = "cpu",
    precisions: Sequence[str] = ("fp32", "int8"),
    sparsity: Sequence[str] = (),
    preset: str | None = None,
    image_size: int | None = None,
    in_channels: int = 3,
    num_classes: int | None = None,
    plan: Plan = WHOLE,
    seed: int = 0,
    remeasure: bool = False,
    reporter: Reporter | None = None,
) -> Profile:
    """Measures networks of `space` on `device` and fits a latency model, checked on networks it has not seen.

    Args:
        space: a ready-made space's name, `module:Class`, or a class or instance of a module with elastic layers.
        sparsity: patterns of channels that blocks may have, such as `channels:0.5`.
        preset: of a ready-made space; by default the one for the image size, or its largest.
        image_size, num_classes: by default those of the preset; 32 and 10 for a space of one's own.
        plan: how many networks are measured.
        remeasure: measures what the store has anew.

    Raises:
        ValueError: an argument that cannot be met, found before anything is measured.
        RuntimeError, ChildProcessError: the run-time fails on a model, or the process that measures dies.
    """
    check_precisions(precisions)
    check_kernels(precisions)
    chosen = check_device(device, precisions)
    started_s = time.perf_counter()
    reporter = reporter or SilentReporter()
    profiled = profiled_space(space, preset, image_size, in_channels, num_classes, precisions, sparsity)
    network, anatomy, profiled = built_space(space, profiled, seed)
    check_space_covered(network, anatomy, profiled.input_shape, chosen, seed, reporter)
    with MeasurementStore(remeasure=remeasure, say=reporter.message) as store, reporter.stage("profile") as stage:
        profiler = Profiler(network, anatomy, profiled.input_shape, chosen, store)
        data = profiler.run(plan, profiled, seed, stage)
        data.wall_s = time.perf_counter() - started_s
        fitted = fit_profile(data, anatomy)
        data.wall_s = time.perf_counter() - started_s
    say_busy(reporter, "profile", profiler.contentions)
    return fitted


def default_file(data: ProfileData) -> Path:
    """`profiles/SPACE-PRESET-SIZE-DEVICE.json`."""
    space = data.space
    parts = (space.name.rpartition(":")[2], space.preset, str(space.input_shape[1]), data.device)
    name = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts if part)
    return Path("profiles") / f"{name}.json"


def load_profile(file: Path | str, space: SpaceLike | None = None) -> Profile:
    """The profile that `nas profile` wrote, fitted again; its device need not be attached.

    Args:
        space: the class, for a space of one's own that was given as such.

    Raises:
        ValueError: no profile, or the space has changed since.
    """
    data = read_profile(Path(file))
    return fit_profile(data, anatomy_of(data, space))


def anatomy_of(data: ProfileData, space: SpaceLike | None = None) -> Anatomy:
    """What predictors see of the profiled space.

    Raises:
        ValueError: the space has changed since.
    """
    _, anatomy, built = built_space(space or data.space.name, data.space, data.seed)
    if built.fingerprint != data.space.fingerprint:
        raise ValueError(f"the space {data.space.name} has changed since it was profiled: profile it again")
    return anatomy


def profiled_space(
    space: SpaceLike,
    preset: str | None,
    image_size: int | None,
    in_channels: int,
    num_classes: int | None,
    precisions: Sequence[str],
    sparsity: Sequence[str] = (),
) -> ProfiledSpace:
    """The space with what it is built for; nothing is built yet."""
    size, classes = _OWN
    if isinstance(space, str) and ":" not in space:
        presets = catalog_entry(space).presets
        checked_preset(space, preset)
        if preset is None and image_size is None:
            preset = max(presets, key=lambda name: presets[name][0])
        size, classes = presets[preset] if preset else (image_size or size, classes)
    size = size if image_size is None else image_size
    if size < _LEAST_IMAGE or in_channels < 1:
        raise ValueError(
            f"images must have {_LEAST_IMAGE} pixels a side and 1 channel at least, got {size} and {in_channels}"
        )
    return ProfiledSpace(
        name=space if isinstance(space, str) else space_name(space),
        preset=preset,
        input_shape=(in_channels, size, size),
        num_classes=num_classes or classes,
        precisions=tuple(precisions),
        sparsity=tuple(sparsity),
        fingerprint="",
    )


def built_space(space: SpaceLike, profiled: ProfiledSpace, seed: int) -> tuple[nn.Module, Anatomy, ProfiledSpace]:
    """The network, what predictors see of it, and the space with its fingerprint."""
    network, architectures = build_network(
        space, profiled.input_shape, profiled.num_classes, profiled.preset, seed, profiled.sparsity
    )
    joint: SearchSpace = joint_space(architectures, find_blocks(network), profiled.precisions)
    anatomy = Anatomy(joint, BlockTracer(network, profiled.input_shape), profiled.precisions)
    mark = space_fingerprint(space, network, architectures)
    return network, anatomy, profiled.model_copy(update={"fingerprint": mark})
