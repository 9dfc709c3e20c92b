"""Profiling a device that cannot run this toolkit: `nas profile --bundle` and `nas profile --import`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from latency.contention import Contention
from latency.harness import PARTS, QUICK
from nas.bundle import BundleWriter, Result, read_result
from nas.device_profile import Profile, fit_profile
from nas.measuring import say_busy
from nas.names import check_device, check_kernels
from nas.profile_data import ProfileData, ProfiledSpace, Subject
from nas.profiles import anatomy_of, built_space, profiled_space
from nas.profiling import LONG_S, WHOLE, NeutralModels, Plan, middle, planned, references
from nas.progress import Reporter, SilentReporter
from nas.shared_weights import share_weights_, write_weights
from nas.spec import SpaceLike
from quant_search.policy import check_precisions

_AT_ONCE = 8  # models: a small device has little memory
_WEIGHTS = "models/weights.bin"
_PLANS = ("parts", "wall")  # how networks are timed: that depends on how long they take on the device


def write_profile_bundle(
    folder: Path | str,
    space: SpaceLike = "mbconv",
    *,
    precisions: Sequence[str] = ("fp32", "int8"),
    preset: str | None = None,
    image_size: int | None = None,
    in_channels: int = 3,
    num_classes: int | None = None,
    sparsity: Sequence[str] = (),
    plan: Plan = WHOLE,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Writes all that a device needs to be profiled for `space` without this toolkit; what was written, as JSON.

    Args:
        folder: new or empty.
        space, precisions, sparsity, preset, image_size, in_channels, num_classes, plan, seed: as of `measure_profile`.

    Raises:
        ValueError: an argument that cannot be met, found before anything is written.
    """
    check_precisions(precisions)
    check_kernels(precisions)
    check_device("cpu", precisions)
    writer, reporter = BundleWriter(Path(folder)), reporter or SilentReporter()
    profiled = profiled_space(space, preset, image_size, in_channels, num_classes, precisions, sparsity)
    network, anatomy, profiled = built_space(space, profiled, seed)
    plans = {way: planned(anatomy, plan, seed, by_parts=way == "parts") for way in _PLANS}
    first = middle(anatomy)
    against = references(anatomy)
    different = {_file(subject): subject for subject in (first, *against, *plans["parts"], *plans["wall"])}
    with reporter.stage("bundle", len(different)) as stage:
        models, weights_bytes = NeutralModels(network, anatomy, profiled.input_shape), 1
        sizes = {}
        for name, subject in different.items():
            content = models.build(subject)
            model, sizes[name] = onnx.load_model_from_string(content), len(content)
            weights_bytes = max(weights_bytes, share_weights_(model, Path(_WEIGHTS).name))
            writer.add(name, model.SerializeToString())
            stage.advance()
        write_weights(writer.folder / _WEIGHTS, weights_bytes)
    for subject in (*plans["parts"], *plans["wall"]):
        subject.size_bytes = sizes[_file(subject)]  # of the file as it would be used, with its weights inside
    writer.finish(
        kind="profile",
        what=f"Models of the space {profiled.name}, to measure how fast this device runs them.",
        plans={way: _items(subjects) for way, subjects in plans.items()},
        choice={"file": _file(first), "beyond_s": LONG_S, "long": "parts", "short": "wall"},
        efforts={"wall": asdict(QUICK), "parts": asdict(PARTS)},
        at_once=_AT_ONCE,
        references=list(map(_file, against)),
        about=_about(profiled, seed, plans),
        shared=[writer.note(_WEIGHTS)],
    )
    return {"bundle": str(folder), "models": len(different), "weights_bytes": weights_bytes}


def import_profile(file: Path | str, space: SpaceLike | None = None, reporter: Reporter | None = None) -> Profile:
    """The profile of the device on which `measure.py` wrote `file`, with the latency model fitted.

    Args:
        space: the class, for a space of one's own that was given as such.

    Raises:
        ValueError: no result of a bundle, one that is damaged or not complete, or a space that has changed since.
    """
    return profile_of(read_result(Path(file), "profile"), space, reporter)


def profile_of(result: Result, space: SpaceLike | None = None, reporter: Reporter | None = None) -> Profile:
    """The profile of the device that measured `result`; see `import_profile`.

    Raises:
        ValueError: a space that has changed since.
    """
    data = _data(result)
    profile = fit_profile(data, anatomy_of(data, space))
    say_busy(reporter or SilentReporter(), "profile", _contentions(result))
    return profile


def _items(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """What is measured in one go each: what is timed a second time, when all the others are done."""
    return [
        {"key": _key(subject, again), "file": _file(subject), "ways": ways, "role": subject.role}
        for again in (False, True)
        for subject in subjects
        if (ways := subject.ways_of(again))
    ]


def _key(subject: Subject, again: bool) -> str:
    return f"{subject.key} again" if again else subject.key


def _file(subject: Subject) -> str:
    """Its file; the blocks of the two plans have keys of their own, networks are the same."""
    return f"models/{re.sub(r'[^A-Za-z0-9_.-]+', '_', subject.key)}.onnx"


def _about(profiled: ProfiledSpace, seed: int, plans: Mapping[str, Sequence[Subject]]) -> dict[str, Any]:
    plain = {way: [subject.model_dump(mode="json") for subject in subjects] for way, subjects in plans.items()}
    return {"space": profiled.model_dump(mode="json"), "seed": seed, "plans": plain}


def _data(result: Result) -> ProfileData:
    """The profile as `nas profile` would have measured it there."""
    about = result.manifest["about"]
    subjects = [Subject.model_validate(plain) for plain in about["plans"][result.plan]]
    records = {record["key"]: record["results"] for record in result.records}
    for subject in subjects:
        for again in (False, True):
            subject.results |= records.get(_key(subject, again), {})
    return ProfileData(
        device=result.device.name,
        threads=result.device.threads,
        batch=result.device.batch,
        runtime=result.device.runtime,
        fingerprint=result.fingerprint,
        environment=dict(result.environment),
        space=ProfiledSpace.model_validate(about["space"]),
        seed=about["seed"],
        wall_s=result.wall_s,
        contention=together.plain() if (together := Contention.together(_contentions(result))) else None,
        subjects=subjects,
    )


def _contentions(result: Result) -> list[Contention]:
    return [Contention.of(record["contention"]) for record in result.records if record.get("contention")]
