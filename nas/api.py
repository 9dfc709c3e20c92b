"""The Python API: `nas.search` and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from nas.absent import with_profile
from nas.config import IN_PYTHON, Settings, Training, data_setting, first_line, pretrained_setting
from nas.device_profile import Profile
from nas.folder import AnyTraining, default_folder, read_settings, with_supernet
from nas.names import check_names, check_training, parse_channels, parse_sparsity, usual_precisions
from nas.native_export import export_point as export_native
from nas.profiles import measure_profile
from nas.progress import LiveReporter, Reporter, SilentReporter
from nas.results import export_point, verify_again
from nas.retarget import TIMINGS
from nas.retarget import retarget as carry_over
from nas.running import run_search
from nas.spec import SpaceLike, check_importable
from nas.training import Trained, train_run
from nas.weights import run_data
from supernet.data import Dataset, from_datasets, load_data
from supernet.strategy import Strategy

Data = str | Path | Dataset | tuple[Any, Any]


@dataclass(frozen=True)
class Result:
    """A finished run.

    Args:
        record: everything its report shows, as JSON.
    """

    folder: Path
    record: dict[str, Any]
    space: SpaceLike
    dataset: Dataset

    @property
    def front(self) -> list[dict[str, Any]]:
        """The verified points as in `front.json`, from the fastest to the most accurate."""
        front: list[dict[str, Any]] = self.record["front"]
        return front

    def export(self, point: int, to: Path | str, format: str = "onnx") -> dict[str, Any]:
        """Writes one point for deployment and returns its card, or with `"native"` what was written; see `nas export`.

        Raises:
            ValueError: no such point or format, a folder that holds something already, or a point with blocks in fp32
                that is to be native.
        """
        if format == "native":
            return export_native(self.folder, point, Path(to), self._seed, self.dataset)
        if format != "onnx":
            raise ValueError(f"unknown format {format!r}: there are onnx and native")
        return export_point(self.folder, point, Path(to), self._seed, self.space, self.dataset)

    def verify(self) -> list[dict[str, Any]]:
        """Measures every file of the front again and says what moved; see `nas verify`."""
        return verify_again(self.folder, SilentReporter(), self._seed, self.dataset)

    def retarget(
        self, device: str, *, timings: int = TIMINGS, out: Path | str | None = None, quiet: bool = False
    ) -> Result:
        """Carries the run to another device with few timings and without training; see `nas.retarget`."""
        return _retargeted(self.folder, device, timings, out, quiet, self.space, self.dataset)

    @property
    def _seed(self) -> int:
        return int(self.record["settings"]["seed"])


def search(
    space: SpaceLike = "mbconv",
    *,
    data: Data = "digits",
    device: str = "cpu",
    out: Path | str | None = None,
    preset: str | None = None,
    image_size: int | None = None,
    precisions: Sequence[str] | None = None,
    sparsity: Sequence[str] = (),
    objectives: Sequence[str] = ("latency",),
    strategy: str = "sandwich",
    supernet: Path | str | None = None,
    searcher: str = "linas",
    seed: int = 0,
    budget_s: float = 240.0,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    train_precisions: Sequence[str] = (),
    evaluations: int = 28,
    baselines: bool = True,
    finetune: int = 0,
    max_latency_s: float | None = None,
    max_energy_joules: float | None = None,
    max_size_bytes: float | None = None,
    max_macs: float | None = None,
    max_parameters: float | None = None,
    max_memory_bytes: float | None = None,
    max_traffic_bytes: float | None = None,
    max_roofline_s: float | None = None,
    min_accuracy: float | None = None,
    profile: Path | str | None = None,
    remeasure: bool = False,
    quiet: bool = False,
) -> Result:
    """Searches `space` for the best networks for `data` on `device`; every point returned is a measured file.

    A run with the same arguments that was interrupted is resumed, and one that is finished is read.

    Args:
        space: a ready-made space's name, `module:Class`, or a class or instance of a module with elastic layers.
        data: a name, a path, a `Dataset`, or a pair of torch datasets (train, test).
        out: the run folder; by default one below `runs/` named after the settings.
        precisions: that blocks may have; by default all that the device runs of fp32 and int8.
        sparsity: patterns that blocks may have besides dense: `channels` (or `channels:0.5`, ...), `2:4`, `16x4:0.5`,
            `unstructured:0.8`; what the device does not turn into time is refused with the measured factor.
        objectives: costs to make small, beside accuracy: latency, energy, size, macs, parameters, memory, traffic and
            roofline.
        strategy: how shared weights are trained, a name in `supernet.catalog.STRATEGIES`; of those that search as they
            train, `searcher`, `supernet` and costs other than latency are not for.
        supernet: the folder of a training (`nas.train`) whose weights are taken; its space and data are those of the
            search, and need be given only where they were classes and objects.
        budget_s: of the whole run, roughly; training gets its share of it unless `epochs` is given.
        train_precisions: that shared weights are trained for, each block in any of them; in fp32 alone by default.
        evaluations: real ones of the search; each baseline gets as many.
        finetune: steps that each network of the front is trained on, alone and in its precisions, before its file is
            verified; what becomes worse by it stays as it was.
        max_energy_joules: of a call; CPU packages or GPU board, where their counters can be read.
        max_memory_bytes: of activations at once, as `latency.memory.peak_bytes` has it.
        max_traffic_bytes: of activations read and written, all operators together.
        max_roofline_s: of the least time that the operators can take, as `latency.roofline.floor_s` has it.
        profile: a file that `nas profile` wrote, for a device that is not attached: latencies are then predictions,
            accuracies those of the files.
        remeasure: measures anew what earlier runs measured; what this run has evaluated stays.

    Raises:
        ValueError: an argument that cannot be met; nothing was written.
        CannotBeDone: no architecture keeps to the bounds.
    """
    try:
        settings = Settings(
            space=_space_text(space),
            preset=preset,
            data=data_setting(str(data)) if isinstance(data, (str, Path)) else IN_PYTHON,
            image_size=image_size,
            device=device,
            precisions=tuple(
                usual_precisions(device if profile is None else "cpu") if precisions is None else precisions
            ),
            sparsity=parse_sparsity(sparsity),
            objectives=(objectives,) if isinstance(objectives, str) else tuple(objectives),
            strategy=strategy,
            searcher=searcher,
            seed=seed,
            budget_s=budget_s,
            epochs=epochs,
            batch=batch,
            lr=lr,
            train_precisions=tuple(train_precisions),
            evaluations=evaluations,
            baselines=baselines,
            finetune=finetune,
            max_latency_s=max_latency_s,
            max_energy_joules=max_energy_joules,
            max_size_bytes=max_size_bytes,
            max_macs=max_macs,
            max_parameters=max_parameters,
            max_memory_bytes=max_memory_bytes,
            max_traffic_bytes=max_traffic_bytes,
            max_roofline_s=max_roofline_s,
            min_accuracy=min_accuracy,
        )
    except ValueError as error:
        raise ValueError(first_line(error)) from error
    if supernet is not None:
        settings = with_supernet(settings, Path(supernet))
        space = settings.space if isinstance(space, str) else space
        data = settings.data if not settings.data.startswith(IN_PYTHON) else data
    if profile is not None:
        settings = with_profile(settings, Path(profile))
    check_names(settings)
    settings, dataset, folder = _opened(settings, space, data, out)

    def searched(reporter: Reporter) -> Result:
        record = run_search(settings, space, dataset, folder, reporter, remeasure=remeasure)
        return Result(folder, record, space, dataset)

    if quiet:
        return searched(SilentReporter())
    with LiveReporter(Console(stderr=True)) as reporter:
        return searched(reporter)


def train(
    space: SpaceLike = "mbconv",
    *,
    data: Data = "digits",
    strategy: str | Strategy = "sandwich",
    out: Path | str | None = None,
    preset: str | None = None,
    image_size: int | None = None,
    sparsity: Sequence[str] = (),
    seed: int = 0,
    budget_s: float = 240.0,
    epochs: int | None = None,
    quiet: bool = False,
    pretrained: str | None = None,
    autocast: bool | None = None,
    train_precisions: Sequence[str] = (),
    **recipe: float | str,
) -> Trained:
    """Trains the shared weights of `space`, from which `nas.search(supernet=...)` goes on.

    A training with the same arguments that was interrupted is resumed, and one that is finished is read.

    Args:
        space: a ready-made space's name, `module:Class`, or a class or instance of a module with elastic layers.
        data: a name, a path, a `Dataset`, or a pair of torch datasets (train, test).
        sparsity: `channels` (or `channels:0.5`, ...), where weights are to serve blocks with fewer channels too.
        strategy: a name in `supernet.catalog.STRATEGIES`, or a value such as `Sandwich(randoms=2)`.
        pretrained: whose weights to begin with; see `supernet.pretrained`.
        autocast: whether forward passes compute in bfloat16; by default where a trial shows that it is faster.
        train_precisions: that blocks may have, each in any of them at any step; in fp32 alone by default.
        recipe: batch, lr, optimizer, weight_decay, label_smoothing, ema_decay, clip, mixup or erase, as
            `supernet.recipe.Recipe` has them.

    Raises:
        ValueError: an argument that cannot be met; nothing was written.
    """
    try:
        settings = Training(
            space=_space_text(space),
            preset=preset,
            data=data_setting(str(data)) if isinstance(data, (str, Path)) else IN_PYTHON,
            image_size=image_size,
            sparsity=parse_channels(sparsity),
            strategy=strategy if isinstance(strategy, str) else repr(strategy),
            seed=seed,
            budget_s=budget_s,
            epochs=epochs,
            pretrained=None if pretrained is None else pretrained_setting(pretrained),
            autocast=autocast,
            train_precisions=tuple(train_precisions),
            **recipe,  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise ValueError(first_line(error)) from error
    check_training(settings, isinstance(strategy, str))
    settings, dataset, folder = _opened(settings, space, data, out)
    value = None if isinstance(strategy, str) else strategy
    if quiet:
        return train_run(settings, space, dataset, folder, SilentReporter(), value)
    with LiveReporter(Console(stderr=True)) as reporter:
        return train_run(settings, space, dataset, folder, reporter, value)


def profile(
    space: SpaceLike = "mbconv",
    *,
    device: str = "cpu",
    precisions: Sequence[str] | None = None,
    sparsity: Sequence[str] = (),
    preset: str | None = None,
    image_size: int | None = None,
    in_channels: int = 3,
    num_classes: int | None = None,
    seed: int = 0,
    remeasure: bool = False,
    out: Path | str | None = None,
    quiet: bool = False,
) -> Profile:
    """Measures networks of `space` on `device` and fits a latency model, checked on networks it has not seen.

    `profile.predict(arch, policy)` is a `Prediction` in seconds; `profile.summary()` says how good it is.

    Args:
        space: a ready-made space's name, `module:Class`, or a class or instance of a module with elastic layers.
        precisions: that blocks may have; by default all that the device runs of fp32 and int8.
        sparsity: `channels` (or `channels:0.5`, ...), of a space whose blocks may have fewer.
        preset: of a ready-made space; by default the one for the image size, or its largest.
        image_size, num_classes: by default those of the preset; 32 and 10 for a space of one's own.
        remeasure: measures what the store has anew.
        out: a file to write the profile to; `nas.load_profile` reads it, on any machine.

    Raises:
        ValueError: an argument that cannot be met, found before anything is measured.
    """

    def measured(reporter: Reporter) -> Profile:
        return measure_profile(
            space,
            device=device,
            precisions=usual_precisions(device) if precisions is None else precisions,
            sparsity=parse_channels(sparsity),
            preset=preset,
            image_size=image_size,
            in_channels=in_channels,
            num_classes=num_classes,
            seed=seed,
            remeasure=remeasure,
            reporter=reporter,
        )

    if quiet:
        found = measured(SilentReporter())
    else:
        with LiveReporter(Console(stderr=True)) as live:
            found = measured(live)
    if out is not None:
        found.data.write(Path(out))
    return found


def retarget(
    run: Path | str, device: str, *, timings: int = TIMINGS, out: Path | str | None = None, quiet: bool = False
) -> Result:
    """Carries a finished run to another device and returns the run there, whose front is verified on that device.

    Everything the run knows serves again: its weights, its accuracies, and its latency model, which `timings` timings
    on the new device correct.  Nothing is trained.  The files of the new front, at most 24, and their twins are
    measured on top.

    Args:
        run: the folder of a finished search.
        device: `cpu`, `cpu:threads=2`, `cpu:torch`, `gpu`, ...; also one of the same name on another machine.
        timings: at least 10, of which three fifths are of untrained networks.
        out: the new run's folder; by default one below `runs/`.

    Raises:
        ValueError: no finished search, or a device that is not there or is the run's own; nothing was written.
        CannotBeDone: no architecture keeps to the bounds of the run on the new device.
    """
    return _retargeted(Path(run), device, timings, out, quiet, None, None)


def _retargeted(
    source: Path,
    device: str,
    timings: int,
    out: Path | str | None,
    quiet: bool,
    space: SpaceLike | None,
    dataset: Dataset | None,
) -> Result:
    settings = read_settings(source)
    dataset = run_data(settings, dataset)
    to = Path(out) if out is not None else None
    if quiet:
        silent = SilentReporter()
        folder, record = carry_over(source, device, to, silent, timings=timings, space=space, dataset=dataset)
    else:
        with LiveReporter(Console(stderr=True)) as live:
            folder, record = carry_over(source, device, to, live, timings=timings, space=space, dataset=dataset)
    return Result(folder, record, space or settings.space, dataset)


def _opened(
    settings: AnyTraining, space: SpaceLike, data: Data, out: Path | str | None
) -> tuple[AnyTraining, Dataset, Path]:
    """The settings of a run with what tells its data apart, these data, and the run's folder."""
    if isinstance(space, str):
        check_importable(space)
    dataset = _dataset(data, settings.image_size)
    name = settings.data if isinstance(data, (str, Path)) else IN_PYTHON + dataset.name
    settings = settings.model_copy(update={"data": name, "data_fingerprint": dataset.fingerprint})
    return settings, dataset, Path(out) if out is not None else default_folder(settings)


def _dataset(data: Data, image_size: int | None) -> Dataset:
    if isinstance(data, (str, Path)):
        return load_data(str(data), image_size=image_size)
    if not isinstance(data, Dataset):
        train, test = data
        return from_datasets(train, test, image_size=image_size)
    if image_size is not None:
        raise ValueError(f"image_size={image_size} cannot be had of a Dataset: it is loaded in its size")
    return data


def _space_text(space: SpaceLike) -> str:
    if isinstance(space, str):
        return space
    found = type(space) if isinstance(space, nn.Module) else space
    return f"{found.__module__}:{found.__qualname__}"
