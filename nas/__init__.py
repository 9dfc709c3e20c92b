"""Hardware-aware neural architecture search: every point on the front is a file that was measured."""

from __future__ import annotations

import importlib
from typing import Any

# Public name to the module that owns it.  Loaded on first use, so that `import nas` loads no torch.
_PUBLIC = {
    "Architecture": "search_spaces.space",
    "BatchNorm2d": "search_spaces.elastic",
    "Choice": "search_spaces.value",
    "Comparison": "latency.compare",
    "Condition": "search_spaces.value",
    "Conv2d": "search_spaces.elastic",
    "Dataset": "supernet.data",
    "FusedNetwork": "latency.kernels.torch_ops",
    "LayerPolicy": "quant_search.layer_policy",
    "Linear": "search_spaces.elastic",
    "Measurement": "latency.measurement",
    "Objective": "nas.objectives",
    "Optimization": "nas.optimization",
    "Network": "search_spaces.network",
    "OneOf": "search_spaces.elastic",
    "Resize": "search_spaces.elastic",
    "Result": "nas.api",
    "SearchSpace": "search_spaces.space",
    "Sequence": "search_spaces.elastic",
    "Trained": "nas.training",
    "SqueezeExcite": "search_spaces.elastic",
    "activation": "search_spaces.elastic",
    "add_densities_": "search_spaces.densities",
    "compare": "nas.measuring",
    "estimates": "nas.estimating",
    "extract": "search_spaces.network",
    "export": "nas.exporting",
    "export_file": "nas.native_export",
    "find_space": "search_spaces.network",
    "maximize": "nas.objectives",
    "measure": "nas.measuring",
    "measure_energy": "nas.measuring",
    "minimize": "nas.objectives",
    "optimize": "nas.optimization",
    "load_profile": "nas.profiles",
    "policies": "quant_search.layer_policy",
    "policy_space": "quant_search.layer_policy",
    "profile": "nas.api",
    "quantize": "nas.quantize_run",
    "retarget": "nas.api",
    "search": "nas.api",
    "train": "nas.api",
}

_MODULES = ("pareto",)

__all__ = sorted((*_PUBLIC, *_MODULES))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"nas.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
