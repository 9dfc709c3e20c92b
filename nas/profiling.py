"""Measuring a device profile: networks of a space timed on a device, by their parts where the run-time tells them.

Speed does not depend on weight values, so everything is measured with weights drawn from a fixed seed: equal
structures are equal files, and the measurement store serves them to every run, whatever it trains.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from torch import nn

from latency.blocks import BlockTracer, block_modules
from latency.contention import Contention
from latency.device import Device, baseline_of, entry_of, environment, fingerprint, usable_cores
from latency.fused_prices import prices_for
from latency.harness import AT_ONCE, PARTS, QUICK, grouped, measure_models, measure_parts
from latency.lowering import to_onnx
from latency.parts import Parts, PartsEffort
from latency.runtimes.opening import check_covered
from latency.store import MeasurementStore
from latency.timing import Timing
from nas.anatomy import Anatomy
from nas.candidate import with_policy
from nas.executed import Executed
from nas.profile_data import ProfileData, ProfiledSpace, Subject, Way
from nas.progress import Stage
from quant_search.onnx_qdq import quantize
from quant_search.policy import policy_of, uniform
from quant_search.ranges import neutral_ranges
from search_spaces.network import extract
from search_spaces.space import Architecture

T = TypeVar("T")
U = TypeVar("U")
LONG_S = 0.5e-3  # beyond it, no call of a network is left alone on a busy machine
_NOTHING = (1, 1, 1)  # the shape of an input that costs nothing to hand over
_CALIBRATING = 10  # short blocks of each precision, timed both ways
_VISITS = 3  # to models whose calls were hardly left alone, when all the others are done
_LEAST_VISIT_S = 0.5  # each visit to a model must be worth the opening
_SAMPLED = 60  # architectures whose blocks are drawn from
_AHEAD = AT_ONCE  # models that are built while others are timed
# Of a run-time that takes whole networks only: blocks of a plan that are held against the baseline, and networks that
# are fitted, since in one precision there are so many fewer files of each.
_COMPARED, _INSTEAD = 1 / 3, 3


@dataclass(frozen=True)
class Plan:
    """How many architectures are measured.

    Args:
        fit, check: to fit the latency model, and to check it; of run-times in one precision alone, more are fitted.
        every: each architecture in every precision and mixed; otherwise in one of these, in turn.
        blocks: measured on their own, for run-times that do not tell the parts of a network; fewer of them where they
            are held against a baseline.
        repeats: of those that check, measured a second time, when all the others are done.
        seconds: after which the measuring should be over, on a machine however busy.
    """

    fit: int
    check: int
    every: bool
    blocks: int
    repeats: int
    seconds: float = math.inf


SEARCHING = Plan(fit=16, check=8, every=False, blocks=72, repeats=0)
WHOLE = Plan(fit=14, check=50, every=True, blocks=240, repeats=4, seconds=235.0)


_Task = tuple[Subject, tuple[Way, ...]]
"""A model, and how it is timed in one go."""


def _hardly_known(task: _Task, whole: bool) -> _Task | None:
    """What of a task was hardly left alone: of the ways in which its calls are timed whole, or of the others."""
    subject, ways = task
    ways = tuple(way for way in ways if subject.hardly_known(way) and way.startswith("parts") != whole)
    return (subject, ways) if ways else None


def _free(task: _Task) -> float:
    """For how many turns a model was left alone that was timed by parts."""
    subject, ways = task
    return min(float(subject.results[way]["free"]) for way in ways)


def _is_better(way: Way, result: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a result says more than the one before."""
    if way.startswith("parts"):
        return float(result["free"]) > float(before["free"])
    return Timing.of(result).is_better_than(Timing.of(before))


class Profiler:
    """Measures the profile of one space on one device.

    Args:
        executed: finds metrics of the networks besides; by default none.
    """

    def __init__(
        self,
        network: nn.Module,
        anatomy: Anatomy,
        image_shape: tuple[int, ...],
        device: Device,
        store: MeasurementStore | None,
        executed: Executed | None = None,
    ) -> None:
        self._executed = executed or Executed((), device)
        self._framed = entry_of(device).networks_only
        self._models = NeutralModels(network, anatomy, image_shape, self._framed)
        self._anatomy, self._device, self._store = anatomy, device, store
        self._references: list[bytes] = []
        self.contentions: list[Contention | None] = []  # while times were taken

    def run(self, plan: Plan, space: ProfiledSpace, seed: int, stage: Stage) -> ProfileData:
        """Measures what is planned; what the store holds is measured again only if it was hardly left alone.

        What the device's run-time has no kernels for is left out.
        """
        by_parts = self._by_parts()
        subjects = planned(self._anatomy, plan, seed, by_parts, self._framed)
        # Steps of our own kernels are so short, and the fastest of so many, that they are the same in every minute.
        compared = by_parts and not self._framed
        self._references = list(map(self._models.build, references(self._anatomy))) if compared else []
        tasks = [(subject, ways) for again in (False, True) for subject in subjects if (ways := subject.ways_of(again))]
        stage.expect(len(tasks))
        ahead = _AHEAD if usable_cores() > self._device.threads else 0  # builders need a core of their own
        end_s, left = time.monotonic() + plan.seconds, len(tasks)
        for group in grouped(self._covered(built_ahead(tasks, self._build, ahead), stage)):
            self._measure(group, max(0.0, end_s - time.monotonic()) / left)
            stage.advance(len(group))
            left -= len(group)
        subjects = [subject for subject in subjects if subject.results]
        # What time is left is for models that were hardly left alone; a search, which has no limit, goes on instead.
        if math.isfinite(end_s):
            self._visit_again(tasks, end_s, ahead)
        if self._executed.metrics:  # when nothing is built ahead any more, which would take energy too
            for subject in (s for s in subjects if s.role == "network"):
                subject.executed = self._executed.of(self._models.build(subject))
        contention = Contention.together(c for c in self.contentions if c is not None)
        prices = prices_for(self._device)
        return ProfileData(
            contention=None if contention is None else contention.plain(),
            prices=None if prices is None else _plain(asdict(prices)),
            device=self._device.name,
            threads=self._device.threads,
            batch=self._device.batch,
            runtime=self._device.runtime,
            fingerprint=fingerprint(self._device),
            environment=_plain(environment(self._device).plain()),
            space=space,
            seed=seed,
            subjects=subjects,
        )

    def _build(self, task: _Task) -> bytes:
        """The file of a task; its blocks are traced in passing, which the fit will need."""
        subject, _ = task
        if subject.role == "network":
            self._anatomy.tracer.trace(self._anatomy.joined(subject.arch))
        return self._models.build(subject)

    def _covered(self, built: Iterable[tuple[_Task, bytes]], stage: Stage) -> Iterator[tuple[_Task, bytes]]:
        """Those whose files the run-time takes."""
        for task, model in built:
            try:
                check_covered(model, self._device)
            except ValueError:
                stage.advance()
            else:
                yield task, model

    def _by_parts(self) -> bool:
        """Whether networks are timed by their parts: where the run-time tells these, and networks are long.

        ONNX Runtime's profiler adds more to a short one than it takes, and short ones can be timed whole on any
        machine; the clock of our own kernels costs next to nothing.
        """
        if self._framed:
            return self._device.threads == 1
        if self._device.runtime != "onnxruntime" or self._device.kind != "cpu" or len(_both_ways(self._anatomy)) < 2:
            return False
        measured = measure_models([self._models.build(middle(self._anatomy))], self._device, QUICK, self._store)[0]
        return measured.timing.undisturbed().median_s > LONG_S

    def _measure(self, group: Sequence[tuple[_Task, bytes]], seconds: float) -> None:
        """Times a few models, each in all its ways, by parts for so many seconds a model at most."""
        effort = replace(PARTS, seconds=min(PARTS.seconds, seconds))
        for way in dict.fromkeys(way for (_, ways), _ in group for way in ways):
            chosen = [(subject, model) for (subject, ways), model in group if way in ways]
            models = [model for _, model in chosen]
            store = None if way.endswith("again") else self._store
            if way.startswith("parts"):
                found = [parts.plain() for parts in self._parts(models, effort, store)]
            else:
                place = baseline_of(self._device) if way == "baseline" else self._device
                measured = measure_models(models, place or self._device, QUICK, store)
                self.contentions += [m.contention for m in measured]
                found = [_plain(asdict(m.timing)) for m in measured]
            for (subject, model), result in zip(chosen, found, strict=True):
                subject.size_bytes = len(model)
                if way not in subject.results or _is_better(way, result, subject.results[way]):
                    subject.results[way] = result

    def _visit_again(self, tasks: Sequence[_Task], end_s: float, ahead: int) -> None:
        """Measures what was hardly left alone anew, while there is time: parts, the worst first, then whole calls.

        Whole calls are timed for as long as it takes, a few seconds each on a busy machine, and so one by one.
        """
        poor = sorted((found for task in tasks if (found := _hardly_known(task, whole=False))), key=_free)
        for group in grouped(built_ahead(poor, self._build, ahead)):
            if (left_s := end_s - time.monotonic()) < _LEAST_VISIT_S * len(group):
                break
            self._measure(group, left_s / len(group))
        for _ in range(_VISITS):
            calls = [found for task in tasks if (found := _hardly_known(task, whole=True))]
            for built in built_ahead(calls, self._build, ahead):
                if (left_s := end_s - time.monotonic()) < _LEAST_VISIT_S:
                    return
                self._measure([built], left_s)

    def _parts(self, models: Sequence[bytes], effort: PartsEffort, store: MeasurementStore | None) -> list[Parts]:
        return measure_parts(models, self._device, effort, store, self.contentions.append, self._references)


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """`content` as it comes back from a file: with lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def middle(anatomy: Anatomy) -> Subject:
    """The network of middle size, whose latency says how the others are timed."""
    return Subject(key="middle", role="network", arch=dict(anatomy.space.scaled(0.5).values), ways=("wall",))


def references(anatomy: Anatomy) -> list[Subject]:
    """The networks that are timed with all others, to tell how fast the machine is meanwhile: one in each precision."""
    arch = anatomy.space.scaled(0.5)
    found = {p: anatomy.joined(arch, p) for p in anatomy.precisions}
    return [
        Subject(key=f"reference-{p}", role="network", arch=dict(joint.values), kind=p, ways=("parts",))
        for p, joint in found.items()
    ]


def planned(anatomy: Anatomy, plan: Plan, seed: int, by_parts: bool, framed: bool = False) -> list[Subject]:
    """The subjects of a plan, none of them measured.

    Args:
        framed: whether the run-time takes networks only: then blocks on their own have a frame, and are held against
            the baseline; where it tells the parts of networks, there are fewer of them.
    """
    whole: tuple[Way, ...] = ("parts",) if by_parts else ("wall",)
    again: tuple[Way, ...] = ("parts again",) if by_parts else ("wall again",)
    fitted = plan.fit
    if framed and by_parts:
        whole, again, fitted = ("parts", "wall"), ("wall again",), plan.fit * _INSTEAD
        subjects = _sampled_blocks(anatomy, round(_COMPARED * plan.blocks), seed, ("parts", "baseline"))
    elif framed:
        subjects = _sampled_blocks(anatomy, plan.blocks, seed, ("wall", "baseline"))
    else:
        subjects = [Subject(key="call", role="call", ways=("wall",))]
        subjects += _both_ways(anatomy) if by_parts else _sampled_blocks(anatomy, plan.blocks, seed, ("wall",))
    subjects += _frames(anatomy, subjects) if framed else []
    seen = {tuple(s.arch.items()) for s in subjects if s.role == "network"}
    by_arch = []
    for purpose, (n, held_out) in enumerate(((fitted, False), (plan.check, True))):
        for i, arch in enumerate(_drawn(anatomy, n, np.random.default_rng([seed, 2 + purpose]))):
            kinds = _kinds(anatomy, arch, i if not plan.every else None)
            # Of a small space, nothing is held out that was fitted on.
            fresh = {kind: found for kind, found in kinds.items() if tuple(found.values.items()) not in seen}
            by_arch.append(
                [
                    Subject(
                        key=f"network-{'check' if held_out else 'fit'}-{i:03d}-{kind}",
                        role="network",
                        arch=dict(found.values),
                        kind=kind,
                        held_out=held_out,
                        ways=whole + again if held_out and i < plan.repeats else whole,
                    )
                    for kind, found in fresh.items()
                ]
            )
        seen |= {tuple(s.arch.items()) for row in by_arch for s in row}
    # Those that check among those that fit: a machine that becomes slower must not look like a wrong model.
    order = np.random.default_rng([seed, 4]).permutation(len(by_arch))
    return subjects + [subject for i in order.tolist() for subject in by_arch[i]]


def _drawn(anatomy: Anatomy, n: int, rng: np.random.Generator) -> list[Architecture]:
    return list(dict.fromkeys(map(anatomy.space.row, anatomy.space.sample(n, rng))))


def _kinds(anatomy: Anatomy, arch: Architecture, turn: int | None) -> dict[str, Architecture]:
    """An architecture in each precision and as it is, mixed; or only one of these, in turn."""
    precisions = anatomy.precisions
    if len(precisions) == 1:
        return {precisions[0]: arch}
    kinds = {**{p: uniform(arch, p) for p in precisions}, "mixed": arch}
    if turn is None:
        return kinds
    kind = ("mixed", precisions[0], "mixed", precisions[-1])[turn % 4]
    return {kind: kinds[kind]}


def _both_ways(anatomy: Anatomy) -> list[Subject]:
    """The smallest network and its cheapest blocks, in every precision: short enough to be timed whole too.

    The blocks tell what the profiler adds, and the network whether that is so of networks.
    """
    both: tuple[Way, ...] = ("wall", "parts")
    arch = anatomy.space.smallest()
    networks = [
        Subject(key=f"network-smallest-{p}", role="network", arch=dict(found.values), kind=p, ways=both)
        for p, found in ((p, anatomy.joined(arch, p)) for p in anatomy.precisions)
    ]
    cheap = sorted((b for b in anatomy.tracer.trace(arch) if b.weighted), key=lambda b: (b.counts.macs, b.name))
    blocks = [
        Subject(
            key=f"block-{block.name}-{p}", role="block", arch=dict(arch.values), block=block.name, kind=p, ways=both
        )
        for p in anatomy.precisions
        for block in cheap[:_CALIBRATING]
    ]
    return networks + blocks


def _sampled_blocks(anatomy: Anatomy, n: int, seed: int, ways: tuple[Way, ...]) -> list[Subject]:
    """Up to `n` different blocks of random architectures, in one precision each; one at least in each precision."""
    rng = np.random.default_rng([seed, 1])
    found: dict[tuple[str, str], Subject] = {}
    for arch in _drawn(anatomy, _SAMPLED, rng):
        for block, p in anatomy.placed(arch):
            fresh = Subject(
                key=f"block-{len(found):04d}",
                role="block",
                arch=dict(arch.values),
                block=block.name,
                kind=p,
                ways=ways,
            )
            found.setdefault((block.structure, p), fresh)
    order = [list(found)[i] for i in rng.permutation(len(found))]
    first = {key[1]: key for key in reversed(order)}
    return [found[key] for key in list(dict.fromkeys([*first.values(), *order]))[:n]]


def _frames(anatomy: Anatomy, blocks: Sequence[Subject]) -> list[Subject]:
    """What blocks are framed by, one for each shape of their inputs."""
    found: dict[tuple[int, ...], Subject] = {}
    for subject in blocks:
        traced = anatomy.tracer.trace(anatomy.joined(subject.arch))
        shape = next(b.input_shape for b in traced if b.name == subject.block)
        key = f"frame-{'x'.join(map(str, shape))}"
        frame = Subject(key=key, role="frame", arch=subject.arch, block=subject.block, kind="int8", ways=subject.ways)
        found.setdefault(shape, frame)
    return list(found.values())


def built_ahead(subjects: Sequence[T], build: Callable[[T], U], ahead: int) -> Iterator[tuple[T, U]]:
    """Each subject with what `build` makes of it, in order; up to `ahead` of them are made in a thread meanwhile."""
    if not ahead:
        yield from ((subject, build(subject)) for subject in subjects)
        return
    waiting: deque[tuple[T, Future[U]]] = deque()
    with ThreadPoolExecutor(max_workers=1) as executor:
        try:
            for subject in subjects:
                waiting.append((subject, executor.submit(build, subject)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


class NeutralModels:
    """Makes the files of subjects, with neutral weights.

    Args:
        framed: whether a block is made a network, in int8, since nothing else can be measured.
    """

    def __init__(
        self, network: nn.Module, anatomy: Anatomy, image_shape: tuple[int, ...], framed: bool = False
    ) -> None:
        self._network, self._anatomy, self._image_shape, self._framed = network, anatomy, image_shape, framed
        self._known: tuple[Mapping[str, object], onnx.ModelProto] | None = None

    def build(self, subject: Subject) -> bytes:
        """The bytes of its file."""
        if subject.role == "call":
            return bytes(to_onnx(nn.Identity(), _NOTHING).SerializeToString())
        space, tracer = self._anatomy.space, self._anatomy.tracer
        arch = space.architecture({**space.smallest().assignment, **subject.arch})
        if subject.role in ("block", "frame"):
            block = next(b for b in tracer.trace(arch) if b.name == subject.block)
            module: nn.Module = nn.Identity()
            shape = block.input_shape
            if subject.role == "block":
                module = block_modules(self._network, arch, tracer.blocks)[block.name]
            if self._framed:
                module, shape = framed(module, shape, block.output_shape if subject.role == "block" else shape)
            model = to_onnx(neutral_(module), shape)
            if subject.kind == "int8" or self._framed:
                model = quantize(model, [node.name for node in model.graph.node], neutral_ranges(model))
            return bytes(model.SerializeToString())
        return bytes(self._network_model(arch).SerializeToString())

    def _network_model(self, arch: Architecture) -> onnx.ModelProto:
        """The model of `arch` with its policy; several policies of one architecture in a row share their export."""
        tracer, precisions = self._anatomy.tracer, self._anatomy.precisions
        own = {name: value for name, value in arch.values.items() if not name.endswith(".precision")}
        if self._known is None or self._known[0] != own:
            self._known = own, to_onnx(neutral_(extract(self._network, arch)), self._image_shape)
        return with_policy(self._known[1], tracer.blocks, policy_of(arch, tracer.blocks, precisions), images=None)


def framed(
    module: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> tuple[nn.Module, tuple[int, ...]]:
    """A part of a network as a network of its own, from images to logits, and the shape of its images.

    What follows the part reads one of its pixels, which costs next to nothing.
    """
    if len(input_shape) == 1:
        module, input_shape = nn.Sequential(nn.Flatten(), module), (*input_shape, 1, 1)
    if len(output_shape) > 1:
        pixel = nn.Conv2d(output_shape[0], 1, 1, stride=max(output_shape[1:]))
        module = nn.Sequential(module, pixel, nn.Flatten())
    return module, input_shape


def neutral_model(
    network: nn.Module, tracer: BlockTracer, arch: Architecture, precisions: Sequence[str], shape: tuple[int, ...]
) -> onnx.ModelProto:
    """The file of an untrained architecture for images of `shape` (c, h, w): as fast and as large as a trained one."""
    model = to_onnx(neutral_(extract(network, arch)), shape)
    return with_policy(model, tracer.blocks, policy_of(arch, tracer.blocks, precisions), images=None)


def neutral_(module: nn.Module) -> nn.Module:
    """Fills weights and statistics from a fixed seed, in place; no two values are equal by accident of training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.dim() else 1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
            elif name.endswith("running_var"):
                buffer.fill_(1.0)
    return module
