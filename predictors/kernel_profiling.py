"""A latency model of this device for any network, from nothing, in a few minutes."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from latency.contention import Contention
from latency.count import count
from latency.device import Device, fingerprint
from latency.graph import Kernel, executed_kernels
from latency.harness import PARTS, QUICK, grouped, measure_models, measure_parts
from latency.kernel_profile import KernelProfile, profile_of
from latency.lowering import to_onnx
from latency.parts import Parts, ProfilerCost, profiler_cost, usual_reference_s
from latency.random_networks import random_network, sample_networks
from latency.store import MeasurementStore
from predictors.kernel_level import KernelModel, fit_kernel_model

_WRITING = 0.4  # of the time, at most, goes by writing networks
_FITTING = 0.1  # and as much is for the fit
_LEAST_NETWORKS = 20
_CALIBRATING = 12  # networks that are timed both ways
_SHORT, _SHORT_MACS = 32, 3e6  # side of their images, and what they compute at most
_REFERENCES, _DRAWN = 2, 12  # chosen among so many
_ELSEWHERE = 10**9  # a seed far from those of the networks of the fit
_NOTHING = (1, 1, 1)  # the shape of an input that costs nothing to hand over


@dataclass(frozen=True)
class Network:
    """A model in ONNX, and what ONNX Runtime executes of it."""

    model: bytes
    kernels: tuple[Kernel, ...]


class KernelProfiler:
    """Times networks kernel by kernel, all against the same references.

    Args:
        store: serves what was measured before, and keeps what is.
        seed: of the random networks.

    Raises:
        ValueError: a device that is no CPU, or does not run ONNX Runtime.
    """

    def __init__(self, device: Device, store: MeasurementStore | None = None, seed: int = 0) -> None:
        if device.kind != "cpu" or device.runtime != "onnxruntime":
            raise ValueError(f"kernels are timed by ONNX Runtime's profiler on a CPU, got {device.name!r}: give cpu")
        self.contentions: list[Contention] = []  # while times were taken
        self._device, self._store, self._seed = device, store, seed
        self._usual_s: float | None = None  # that the references take

    def fit(
        self, networks: int = 120, seconds: float = 170.0, on_progress: Callable[[float], object] = lambda share: None
    ) -> KernelModel:
        """Measures random networks for about `seconds`, and fits a model on them.

        Args:
            networks: at most; twenty at least, however long that takes.
            on_progress: called with the share of the time that is over, up to 1.

        Raises:
            ValueError: a device that is no CPU, or does not run ONNX Runtime.
            ChildProcessError: the process that measures died.
        """
        begun_s = time.monotonic()

        def over() -> float:
            share = min(1.0, (time.monotonic() - begun_s) / seconds)
            on_progress(share)
            return share

        _ = self._references, self._cost  # which take their part of the time
        files: list[Network] = []
        for _, network in sample_networks(networks, start=self._seed * 100_000):
            model = to_onnx(network.module, network.input_shape).SerializeToString()
            files.append(Network(model, executed_kernels(model, self._device)))
            if over() > _WRITING and len(files) >= _LEAST_NETWORKS:
                break
        end_s = begun_s + (1 - _FITTING) * seconds
        model = fit_kernel_model(self.profile(files, end_s, over), fingerprint(self._device), self._seed)
        on_progress(1.0)
        return model

    def profile(
        self,
        networks: Sequence[Network],
        end_s: float = float("inf"),
        on_group: Callable[[], object] = lambda: None,
        anew: bool = False,
    ) -> list[KernelProfile]:
        """The times of the kernels of each network, and of a call of it, as in a usual minute of the machine.

        Args:
            end_s: on the clock `time.monotonic`, when it should be over; each network is measured even so.
            on_group: called after some networks.
            anew: whatever the store has.
        """
        parts, store = list[Parts](), None if anew else self._store
        for group in grouped((network, network.model) for network in networks):
            seconds = max(0.0, end_s - time.monotonic()) / (len(networks) - len(parts))
            effort = replace(PARTS, seconds=min(PARTS.seconds, seconds))
            models = [model for _, model in group]
            parts += measure_parts(models, self._device, effort, store, self.contentions.append, self._references)
            on_group()
        if self._usual_s is None:
            self._usual_s = usual_reference_s(parts)
        return [
            profile_of(network.kernels, p, self._cost, p.slower(self._usual_s))
            for network, p in zip(networks, parts, strict=True)
        ]

    @functools.cached_property
    def _references(self) -> list[bytes]:
        """Networks of middle size, the same for every seed."""
        drawn = [network for _, network in sample_networks(_DRAWN, start=_ELSEWHERE)]
        drawn.sort(key=lambda network: count(network.module, network.input_shape).macs)
        middle = drawn[(_DRAWN - _REFERENCES) // 2 :][:_REFERENCES]
        return [to_onnx(network.module, network.input_shape).SerializeToString() for network in middle]

    @functools.cached_property
    def _cost(self) -> ProfilerCost:
        """What the profiler adds, from networks so small that a call of them finds a free moment."""
        shape, drawn = (3, _SHORT, _SHORT), (random_network(_ELSEWHERE + i).module for i in itertools.count())
        short = itertools.islice((m for m in drawn if count(m, shape).macs < _SHORT_MACS), _CALIBRATING)
        models = [to_onnx(module, shape).SerializeToString() for module in short]
        call = to_onnx(nn.Identity(), _NOTHING).SerializeToString()
        whole = measure_models([*models, call], self._device, QUICK, self._store)
        *wall_s, call_s = (m.timing.undisturbed().median_s for m in whole)
        return profiler_cost(measure_parts(models, self._device, PARTS, self._store), wall_s, call_s)
