"""A latency model of this device for any network, from nothing, in a few minutes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from latency.device import Device, fingerprint
from latency.graph import executed_kernels
from latency.harness import worker
from latency.kernel_profile import profile_of
from latency.lowering import to_onnx
from latency.node_times import NodeTimes
from latency.random_networks import sample_networks
from predictors.kernel_level import KernelModel, fit_kernel_model

_NETWORKS, _LEAST_NETWORKS = 120, 20
_WRITING = 0.4  # of the time, at most, goes by writing networks
_FITTING = 0.9  # the rest is for the fit
_CALLS = 8  # in a visit: rather more visits, far apart, than more calls in one


def profile_kernels(
    device: Device,
    *,
    seconds: float = 170.0,
    seed: int = 0,
    on_progress: Callable[[float], object] = lambda share: None,
) -> KernelModel:
    """Measures random networks kernel by kernel for about `seconds`, and fits a model on them.

    Args:
        seed: of the networks.
        on_progress: called with the share of the time that is over, up to 1.

    Raises:
        ValueError: a device that is no CPU.
        ChildProcessError: the process that measures died.
    """
    begun_s = time.monotonic()

    def over() -> float:
        share = min(1.0, (time.monotonic() - begun_s) / seconds)
        on_progress(share)
        return share

    files, kernels = [], []
    for _, network in sample_networks(_NETWORKS, start=seed * 100_000):
        files.append(to_onnx(network.module, network.input_shape).SerializeToString())
        kernels.append(executed_kernels(files[-1], device))
        if over() > _WRITING and len(files) >= _LEAST_NETWORKS:
            break
    times = [NodeTimes([], {}) for _ in files]
    rng = np.random.default_rng(seed)
    while over() < _FITTING or not all(found.call_s for found in times):
        for i in rng.permutation(len(files)):
            if over() >= _FITTING and times[i].call_s:
                continue
            times[i] = times[i].joined(worker(device).profile([files[i]], device, visits=1, calls=_CALLS)[0])
    model = fit_kernel_model([profile_of(k, t) for k, t in zip(kernels, times, strict=True)], fingerprint(device), seed)
    on_progress(1.0)
    return model
