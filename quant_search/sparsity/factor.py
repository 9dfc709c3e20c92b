"""Honesty about sparsity: the factor by which a device makes zeros faster, measured, and a refusal where it does not.

A small network of the layers that are searched (1x1, depthwise and 3x3 convolutions, a sum, a classifier) is timed
dense and with zeros by the pattern, or with really fewer channels, interleaved and with a control
(`latency.compare`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from latency.compare import LEAST_CLAIM, Comparison
from latency.device import Device, entry_of, fingerprint, parse_device
from latency.harness import COMPARING, compare_models
from latency.lowering import to_onnx
from latency.measurement import settings_of, subject_of
from latency.store import MeasurementStore
from latency.worker import Effort
from quant_search.precision import kind_of
from quant_search.sparsity.channels import channel_groups, prune_channels
from quant_search.sparsity.deployed import deployed
from quant_search.sparsity.masking import apply_masks, masks_of
from quant_search.sparsity.patterns import Channels, Dense, Pattern
from quant_search.sparsity.selection import score_units, uniform_keep

DENSE = Dense()
LEAST_FACTOR = 1 + LEAST_CLAIM
_METHOD = 1  # to be raised when the network or the way of measuring changes
_SHAPE = (3, 56, 56)
_ROUND_TO = 8


@dataclass(frozen=True)
class Factor:
    """How many times faster the sparse network is than the dense one.

    Args:
        pattern: its name.
        device: its name.
        speedup: median latency of the dense network over that of the sparse one.
        ci95: the ends of its bootstrap 95 % interval.
        control: of the dense network over itself; 1 but for noise.
    """

    pattern: str
    device: str
    precision: str
    speedup: float
    ci95: tuple[float, float]
    control: float

    @property
    def pays(self) -> bool:
        """Whether all of the interval, and what the control leaves of the factor, is more than 1.03."""
        return self.ci95[0] > LEAST_FACTOR and self.speedup > 1 + 3 * self._unsteady

    @property
    def trustworthy(self) -> bool:
        """Whether the control is steady enough for a factor of 1.03 to be seen."""
        return 3 * self._unsteady <= LEAST_CLAIM

    @property
    def decided(self) -> bool:
        """Whether it need not be measured again: it pays for all that was unsteady, or would be seen to."""
        return self.pays or self.trustworthy

    @property
    def _unsteady(self) -> float:
        return max(self.control, 1 / self.control) - 1

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{self.speedup:.2f} ({low:.2f} to {high:.2f})"

    @staticmethod
    def of(fields: Mapping[str, Any]) -> Factor:
        """The factor whose fields these are, as JSON has them.

        Raises:
            KeyError, TypeError, ValueError: they are none.
        """
        low, high = map(float, fields["ci95"])
        numbers = {name: float(fields[name]) for name in ("speedup", "control")}
        return Factor(
            str(fields["pattern"]), str(fields["device"]), str(fields["precision"]), ci95=(low, high), **numbers
        )


def measured_factor(
    pattern: Pattern,
    device: Device,
    precision: str = "fp32",
    store: MeasurementStore | None = None,
    effort: Effort = COMPARING,
    on_round: Callable[[], object] = lambda: None,
    seed: int = 0,
) -> Factor:
    """By what factor `device` makes a network of this pattern faster than the dense one; some seconds.

    What the store has is not measured again, unless the machine was too busy then for the factor to be seen.

    Raises:
        ValueError: a precision that the device does not turn into time.
        RuntimeError, ChildProcessError: as of `compare_models`.
    """
    dense = network(seed)
    whole, pruned = (deployed(model, device, precision) for model in (dense, sparse(dense, pattern)))
    return _measured(whole, pruned, (pattern.name, precision), device, store, effort, on_round, seed)


def measured_precision(
    precision: str,
    device: Device,
    store: MeasurementStore | None = None,
    effort: Effort = COMPARING,
    on_round: Callable[[], object] = lambda: None,
    seed: int = 0,
) -> Factor:
    """By what factor `device` runs a network in `precision` faster than in the one whose kernels it uses.

    Raises:
        ValueError: an unknown precision, or one whose kernels the device does not have.
        RuntimeError, ChildProcessError: as of `compare_models`.
    """
    dense = network(seed)
    whole, smaller = (deployed(dense, device, name) for name in (kind_of(precision), precision))
    return _measured(whole, smaller, (DENSE.name, precision), device, store, effort, on_round, seed)


def _measured(
    whole: bytes,
    pruned: bytes,
    names: tuple[str, str],
    device: Device,
    store: MeasurementStore | None,
    effort: Effort,
    on_round: Callable[[], object],
    seed: int,
) -> Factor:
    """The factor of a pair of files; `names` are those of the pattern and the precision."""
    subject, place = subject_of(whole + pruned), fingerprint(device)
    settings = settings_of({"sparsity": names[0], "method": _METHOD, "batch": device.batch, **asdict(effort)})
    known = _read(store.get_record(subject, place, settings)) if store else None
    if known is not None and known.decided:
        return known
    found = factor_of(*names, device, compare_models(whole, pruned, device, effort, on_round, seed))
    if store:
        store.put_record(subject, place, settings, json.dumps(asdict(found)))
    return found


def factor_of(pattern: str, precision: str, device: Device, comparison: Comparison) -> Factor:
    """The factor of a comparison of the sparse network with the dense one, by the name of its pattern."""
    low, high = comparison.ci95
    return Factor(
        pattern, device.name, precision, 1 / comparison.ratio, (1 / high, 1 / low), 1 / comparison.control_ratio
    )


def check_pays(
    pattern: Pattern,
    device: Device,
    precision: str = "fp32",
    *,
    for_size: bool = False,
    store: MeasurementStore | None = None,
    effort: Effort = COMPARING,
    on_round: Callable[[], object] = lambda: None,
) -> Factor | None:
    """The measured factor of a pattern; None of `dense`, which needs no proof.

    Args:
        for_size: whether size is what counts, so that it need not be faster.

    Raises:
        ValueError: `device` does not turn the pattern into time, with the measured factor; or as of `measured_factor`.
    """
    if isinstance(pattern, Dense):
        return None
    factor = measured_factor(pattern, device, precision, store, effort, on_round)
    if not (for_size or factor.pays):
        raise ValueError(refusal(factor))
    return factor


def check_precision_pays(
    precision: str,
    device: Device,
    *,
    store: MeasurementStore | None = None,
    effort: Effort = COMPARING,
    on_round: Callable[[], object] = lambda: None,
) -> Factor:
    """The measured factor of a precision that runs in the kernels of another.

    Raises:
        ValueError: it is not faster than that one, with the measured factor; or as of `measured_precision`.
    """
    factor = measured_precision(precision, device, store, effort, on_round)
    if not factor.pays:
        raise ValueError(
            f"precision {precision!r} runs in the kernels of {kind_of(precision)} on {device.name}: less accurate, and "
            f"measured factor {_measurement(factor)}; ask for size (--objective size), or leave it out"
        )
    return factor


def refusal(factor: Factor) -> str:
    """Why a pattern is refused, and what to do."""
    device = parse_device(factor.device)
    place = "" if "fp32" in entry_of(device).precisions else "--device cpu "  # files by their size are for others
    return (
        f"sparsity {factor.pattern!r} is not faster on {factor.device} in {factor.precision}: measured factor "
        f"{_measurement(factor)}; use channels:0.5, or ask for size ({place}--objective size)"
    )


def _measurement(factor: Factor) -> str:
    busy = "" if factor.trustworthy else f" on a busy machine (control {factor.control:.2f})"
    return f"{factor}{busy}, expected an interval above {LEAST_FACTOR:.2f}"


def sparse(model: onnx.ModelProto, pattern: Pattern) -> onnx.ModelProto:
    """`model` with the zeros of a pattern by magnitude, or with fewer channels, a multiple of 8 in each layer."""
    if not isinstance(pattern, Channels):
        return apply_masks(model, masks_of(model, pattern))
    groups = channel_groups(model)
    return prune_channels(model, uniform_keep(groups, score_units(model, groups), pattern.share, _ROUND_TO))


def network(seed: int = 0) -> onnx.ModelProto:
    """The dense network that is timed, for images (3, 56, 56): some 70 million MACs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(
            *_convolution(3, 32, 3, 2),
            *_convolution(32, 64, 3),
            _Inverted(64, 256, 64, 1),
            _Inverted(64, 256, 96, 2),
            *_convolution(96, 384, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(384, 100),
        )
    return to_onnx(body, _SHAPE)


def _convolution(c: int, wide: int, k: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(c, wide, k, stride, k // 2, groups=groups), nn.ReLU()]


class _Inverted(nn.Module):
    """An inverted residual (arXiv:1801.04381)."""

    def __init__(self, c: int, hidden: int, wide: int, stride: int) -> None:
        super().__init__()
        layers = [*_convolution(c, hidden, 1), *_convolution(hidden, hidden, 3, stride, hidden)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(hidden, wide, 1))
        self.added = stride == 1 and c == wide

    def forward(self, x: Tensor) -> Tensor:
        """The block's output (b, wide, h, w) of `x` (b, c, h, w)."""
        return self.layers(x) + x if self.added else self.layers(x)


def _read(record: str | None) -> Factor | None:
    """What a record holds; one that this version cannot read counts as absent."""
    try:
        return Factor.of(json.loads(record)) if record else None
    except (KeyError, TypeError, ValueError):
        return None
