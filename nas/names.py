"""The names that a user gives, looked up in the catalogs before anything heavy is loaded: loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from latency.device import Device, entry_of, parse_device
from latency.energy import counters_of
from nas.config import Settings, Training
from nas.metrics import COSTS, MOST_OBJECTIVES, untold
from nas.searchers.catalog import SEARCHERS
from quant_search.policy import PRECISIONS, check_precisions, checked_patterns, densities
from quant_search.precision import kind_of
from search_spaces.catalog import SPACES, SpaceEntry
from supernet.catalog import OPTIMIZERS, STRATEGIES, WEIGHT_FILES

_FLOORED = (("cpu", "onnxruntime"), ("cpu", "fused"))  # devices with roofline floors, by kind and run-time


def list_spaces() -> list[dict[str, str]]:
    """Name, summary and presets of every ready-made space."""
    return [{"name": n, "summary": e.summary, "presets": ", ".join(e.presets)} for n, e in SPACES.items()]


def check_training(settings: Training, by_name: bool = True, alone: bool = True) -> None:
    """Refuses a training's settings that name what does not exist; a space of the user's own is looked at later.

    Args:
        by_name: whether the strategy is one of the catalog.
        alone: whether nothing follows the training.

    Raises:
        ValueError: for the first such name, with the nearest one that exists; or a strategy that searches, alone.
    """
    if by_name and settings.strategy not in STRATEGIES:
        near = suggestion(settings.strategy, STRATEGIES)
        raise ValueError(f"unknown strategy {settings.strategy!r}{near}; there are {', '.join(STRATEGIES)}")
    if by_name and alone and STRATEGIES[settings.strategy].relaxed:
        raise ValueError(
            f"strategy {settings.strategy!r} searches as it trains, and a training alone ends with no architecture: "
            f"nas search --strategy {settings.strategy} goes on to measured files"
        )
    if settings.train_precisions:
        _check_train_precisions(settings)
    if settings.optimizer is not None and settings.optimizer not in OPTIMIZERS:
        near = suggestion(settings.optimizer, OPTIMIZERS)
        raise ValueError(f"unknown optimizer {settings.optimizer!r}{near}; there are {', '.join(OPTIMIZERS)}")
    file = Path((settings.pretrained or "").rpartition(":")[2])
    if file.suffix in WEIGHT_FILES and not file.is_file():
        raise ValueError(f"there is no file of weights {file}")
    if ":" not in settings.space:
        checked_preset(settings.space, settings.preset)


def _check_train_precisions(settings: Training) -> None:
    """Refuses precisions that there are not, and strategies that cannot train in them.

    Raises:
        ValueError: with what to leave out.
    """
    check_precisions(settings.train_precisions)
    if settings.strategy in STRATEGIES and STRATEGIES[settings.strategy].relaxed:
        raise ValueError(
            f"strategy {settings.strategy!r} mixes options, and trains in fp32 alone: leave the precisions "
            f"{','.join(settings.train_precisions)} of the training out, or take another strategy"
        )
    if settings.strategy == "once-for-all" or settings.strategy.startswith("OnceForAll("):  # by name, or as a value
        raise ValueError(
            "once-for-all sorts channels by the weights of a network in fp32: leave the precisions of the training "
            "out, or take the strategy 'sandwich'"
        )


def check_names(settings: Settings) -> None:
    """Refuses settings that name what does not exist; a space of the user's own is looked at later.

    Raises:
        ValueError: for the first such name, with the nearest one that exists; or costs that cannot be measured there.
    """
    check_objectives(settings.objectives)
    check_searcher(settings.searcher, len(settings.problem.objectives))
    check_precisions(settings.precisions)
    if settings.profile is not None and "size" not in settings.objectives:
        check_kernels(settings.precisions)
    if settings.profile is None:  # else the device need not be there
        _check_measurable(check_device(settings.device, settings.precisions), settings.problem.metrics)
    elif unknown := untold(settings.problem.metrics, graph=False):
        raise ValueError(
            f"{' and '.join(unknown)} cannot be an objective or a bound with a profile: it tells latencies, and the "
            "device is not here"
        )
    # Weights that are taken may come of a strategy that was given as a value, which has no name.
    check_training(settings, by_name=settings.supernet is None, alone=False)
    if settings.strategy in STRATEGIES and STRATEGIES[settings.strategy].relaxed:
        _check_relaxed(settings)


def _check_relaxed(settings: Settings) -> None:
    """Refuses what cannot be asked for beside a strategy that searches as it trains.

    Raises:
        ValueError: with what to leave out.
    """
    which = f"strategy {settings.strategy!r}"
    if settings.supernet is not None:
        raise ValueError(
            f"the weights in {settings.supernet} are those of the networks that {which} found: give the folder of a "
            "`nas train`"
        )
    if settings.searcher != Settings().searcher:
        raise ValueError(f"{which} is the search itself: leave searcher {settings.searcher!r} out")
    if settings.objectives != ("latency",):
        raise ValueError(
            f"{which} weighs accuracy against latency, got objectives {', '.join(settings.objectives)}: leave them "
            "out, or take another strategy"
        )
    bounded = [b.metric for b in settings.problem.bounds if b.metric not in ("latency_s", "val_accuracy")]
    if bounded:
        raise ValueError(f"{which} keeps to a bound on latency, got one on {bounded[0]}: leave it out")


def _check_measurable(device: Device, metrics: Collection[str]) -> None:
    """Refuses costs that cannot be measured on a device.

    Raises:
        ValueError: with the reason.
    """
    if "energy_joules" in metrics:
        counters_of(device.kind)
    if "roofline_s" in metrics and (device.kind, device.runtime) not in _FLOORED:
        raise ValueError(
            f"roofline floors are known of ONNX Runtime on a CPU and of fused kernels, got device {device.name!r}: "
            "give cpu or cpu:fused"
        )


def parse_precisions(text: str) -> tuple[str, ...]:
    """`fp32,int8` as a tuple.

    Raises:
        ValueError: a precision that there is not, one given twice, or none.
    """
    precisions = tuple(p.strip() for p in text.split(","))
    check_precisions(precisions)
    return precisions


def parse_sparsity(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """`channels,2:4`, or these in a list, as the names of patterns; `channels` stands for the usual densities.

    Raises:
        ValueError: no such pattern, or one given twice.
    """
    return checked_patterns(patterns.split(",") if isinstance(patterns, str) else patterns)


def parse_channels(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """As `parse_sparsity`, for what is trained and profiled: patterns of channels alone.

    Raises:
        ValueError: as of `parse_sparsity`, or zeros, which files alone have.
    """
    names = parse_sparsity(patterns)
    if zeros := [name for name in names if not densities([name])]:
        raise ValueError(f"sparsity {zeros[0]!r} puts zeros into files, which nothing here has: give channels:0.5")
    return names


def parse_objectives(text: str) -> tuple[str, ...]:
    """`latency,size` as a tuple.

    Raises:
        ValueError: as of `check_objectives`.
    """
    names = tuple(name.strip() for name in text.split(","))
    check_objectives(names)
    return names


def check_objectives(names: Sequence[str]) -> None:
    """Refuses objectives that do not exist, or one given twice, or none.

    Raises:
        ValueError: with the nearest name.
    """
    for name in names:
        if name == "accuracy":
            raise ValueError("accuracy is an objective of every search: give the costs to weigh against it")
        if name not in COSTS:
            raise ValueError(f"unknown objective {name!r}{suggestion(name, COSTS)}; there are {', '.join(COSTS)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"objectives must be different costs, one at least, got {', '.join(names) or 'none'}")
    if len(names) > MOST_OBJECTIVES:  # nearly all networks would be on the front, whose volume takes hours to compute
        raise ValueError(
            f"a search weighs accuracy against {MOST_OBJECTIVES} costs at most, got {len(names)}: bound some"
        )


def check_kernels(precisions: Sequence[str]) -> None:
    """Refuses precisions without kernels of their own, whose latencies are those of another.

    Raises:
        ValueError: with the kernels that they run in, and what to do.
    """
    smaller = [precision for precision in precisions if precision not in PRECISIONS]
    if smaller:
        raise ValueError(
            f"precision {smaller[0]!r} runs in the kernels of {kind_of(smaller[0])}, as fast as these: leave it out, "
            "or search for size (--objective size)"
        )


def usual_precisions(device: str) -> tuple[str, ...]:
    """The precisions of a search that asks for none: all that the device runs.

    Raises:
        ValueError: it is not there.
    """
    return entry_of(parse_device(device)).precisions


def check_device(name: str, precisions: Sequence[str]) -> Device:
    """The device of this name, which runs these precisions.

    Raises:
        ValueError: it is not there or runs others, and what to do.
    """
    device = parse_device(name)
    entry = entry_of(device)
    if not set(map(kind_of, precisions)) <= set(entry.precisions):
        raise ValueError(
            f"device {device.name!r} runs {', '.join(entry.precisions)} only ({entry.only}): "
            f"give --precision {','.join(entry.precisions)}"
        )
    return device


def check_searcher(name: str, objectives: int) -> None:
    """Refuses a searcher that does not exist, or that is not for so many objectives.

    Raises:
        ValueError: with the nearest name, or what to take instead.
    """
    if name not in SEARCHERS:
        raise ValueError(f"unknown searcher {name!r}{suggestion(name, SEARCHERS)}; there are {', '.join(SEARCHERS)}")
    if not _takes(name, objectives):
        others = [other for other in SEARCHERS if _takes(other, objectives)]
        instead = f"take one of {', '.join(others)}" if others else "give one at least"
        raise ValueError(f"searcher {name!r} cannot weigh {objectives} objectives: {instead}")


def _takes(searcher: str, objectives: int) -> bool:
    entry = SEARCHERS[searcher]
    return entry.least_objectives <= objectives and objectives <= (entry.most_objectives or objectives)


def catalog_entry(name: str) -> SpaceEntry:
    """The ready-made space of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in SPACES:
        raise ValueError(
            f"unknown space {name!r}{suggestion(name, SPACES)}; give one of {', '.join(SPACES)} or module:Class"
        )
    return SPACES[name]


def checked_preset(space: str, preset: str | None) -> str | None:
    """`preset`, if the ready-made space has it or it is None.

    Raises:
        ValueError: it has not.
    """
    presets = catalog_entry(space).presets
    if preset is not None and preset not in presets:
        raise ValueError(
            f"space {space!r} has no preset {preset!r}{suggestion(preset, presets)}; it has {', '.join(presets)}"
        )
    return preset


def suggestion(got: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(got, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
