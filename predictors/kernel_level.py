"""Latency of any ONNX graph from the kernels that ONNX Runtime executes for it.

A network's time is the sum of its kernels', each priced by what it computes and moves times a learnt ratio
(`kernel_ratio`), and a correction with few parameters fitted on whole networks:

    t = t0 + Σ_f α_f Σ_{kernels of family f} t_kernel + β · kernels

Kernels are understood after fusion, as in nn-Meter (Zhang et al., MobiSys 2021); here they are sampled in whole random
networks, where weights are cold and layouts change, and not one by one.  The interval is calibrated on networks left
out of the fit (split conformal, Lei et al., arXiv:1604.04173).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from latency.graph import Kernel
from latency.kernel_profile import KernelProfile
from predictors.held import LinearPrior, fit_held
from predictors.kernel_ratio import RatioModel, fit_ratio
from predictors.kernel_work import Work, work_of
from predictors.protocol import Prediction

FAMILIES = ("conv", "product", "elementwise", "view")
_PRIOR = LinearPrior(
    mean=np.array([0.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
    width=np.array([5e-6, 0.1, 0.1, 0.15, 0.15, 3e-7]),
    free=np.array([True, False, False, False, False, True]),
)
_LEAST_SAMPLES = 12  # of a kind, for a model of its own
_POOLED = 600  # samples of a family's model
_LEAST_KERNEL_S = 2e-7
_UNKNOWN = 0.3  # added to the deviation of a kernel of a kind that was hardly seen
_FOLDS = 5
_LEAST_SUM_S = 2e-3  # time of a kind that is believed of it before anything is measured
_COVERED, _DEVIATIONS = 0.9, 1.645  # a share, and how many deviations of a normal distribution cover it
_INTEGER = re.compile(r"^Q(Linear|Gemm|Attention)|Integer|QuantizeLinear|NBits")


@dataclass(frozen=True, eq=False)
class KernelModel:
    """A fitted latency model of one device, for any network of kernels like those it has seen.

    Args:
        fingerprint: of the device and its environment, as `latency.device.fingerprint` gives it.
        kinds: models of kernels by kind, and of families by their name.
        correction: the six coefficients (t0, α of each of `FAMILIES`, β).
        calibration: what the deviation that the kernels' models state is multiplied by.
        floor: the relative deviation of a network that is there whatever the kernels say.
        left_out: relative errors of the networks of the fit, each predicted without it (n,).
    """

    fingerprint: str
    kinds: Mapping[str, RatioModel]
    correction: np.ndarray
    calibration: float
    floor: float
    left_out: np.ndarray

    def kernel_seconds(self, kernels: Sequence[Kernel]) -> np.ndarray:
        """The time of each kernel (n,), not corrected: where a network's time goes.

        Raises:
            ValueError: an integer kernel; the model has seen none.
        """
        return _kernel_times([work_of(k) for k in floats(kernels)], self.kinds)[0]

    def predict(self, networks: Sequence[Sequence[Kernel]]) -> Prediction:
        """Latency in seconds of n networks, each its executed kernels (`latency.graph.executed_kernels`).

        1.645 deviations to both sides cover nine networks of ten.

        Raises:
            ValueError: as for `kernel_seconds`.
        """
        terms, doubt = _summarise([[work_of(k) for k in floats(network)] for network in networks], self.kinds)
        mean = np.maximum(terms @ self.correction, _LEAST_KERNEL_S)
        return Prediction(mean, mean * self.calibration * np.hypot(self.floor, doubt))

    def to_json(self) -> str:
        """Text that `from_json` turns back into an equal model."""
        record = {
            "fingerprint": self.fingerprint,
            "kinds": {kind: model.plain() for kind, model in self.kinds.items()},
            "correction": self.correction.tolist(),
            "calibration": self.calibration,
            "floor": self.floor,
            "left_out": self.left_out.tolist(),
        }
        return json.dumps(record, allow_nan=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> KernelModel:
        """The model that `to_json` wrote.

        Raises:
            ValueError: text that is none.
        """
        try:
            record = json.loads(text)
            return KernelModel(
                fingerprint=str(record["fingerprint"]),
                kinds={kind: RatioModel.of(plain) for kind, plain in record["kinds"].items()},
                correction=np.array(record["correction"], dtype=float),
                calibration=float(record["calibration"]),
                floor=float(record["floor"]),
                left_out=np.array(record["left_out"], dtype=float),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a kernel model in JSON: {error}") from error


def fit_kernel_model(profiles: Sequence[KernelProfile], fingerprint: str, seed: int = 0) -> KernelModel:
    """Fits the model on measured networks, those without times of their kernels left out.

    Raises:
        ValueError: fewer than ten networks left, or integer kernels.
    """
    profiles = [p for p in profiles if p.kernel_s]
    if len(profiles) < 2 * _FOLDS:
        raise ValueError(f"a kernel model needs at least {2 * _FOLDS} measured networks, got {len(profiles)}")
    works = [[work_of(k) for k in floats(p.kernels)] for p in profiles]
    seconds, call_s = [np.array(p.kernel_s) for p in profiles], np.array([p.call_s for p in profiles])
    kinds = _fit_kinds(works, seconds, seed)
    held = _left_out(works, seconds, seed, kinds)
    factors = _factors(works, seconds, held)
    times = [
        np.array([t * factors[w.kind] for w, t in zip(n, h[0], strict=True)]) for n, h in zip(works, held, strict=True)
    ]
    terms = np.array([_terms(network, t) for network, t in zip(works, times, strict=True)])
    doubt = np.array([_doubt(n, t, h[1]) for n, t, h in zip(works, times, held, strict=True)])
    fit = fit_held(terms, call_s, _PRIOR)
    floor = float(np.median(np.abs(fit.left_out)))
    score = np.abs(fit.left_out) / np.hypot(floor, doubt)
    calibration = float(np.quantile(score, min(1.0, _COVERED * (1 + 1 / len(score))), method="higher")) / _DEVIATIONS
    kinds = {name: replace(m, prices=m.prices * factors.get(name, 1.0)) for name, m in kinds.items()}
    return KernelModel(fingerprint, kinds, fit.coefficients, calibration, floor, fit.left_out)


_Held = tuple[np.ndarray, np.ndarray]  # time and doubt of each kernel of a network


def _left_out(
    works: Sequence[Sequence[Work]], seconds: Sequence[np.ndarray], seed: int, kinds: Mapping[str, RatioModel]
) -> list[_Held]:
    """Each network's kernels predicted by models that have not seen the network: its kernels are alike."""
    found: dict[int, _Held] = {}
    fold = np.random.default_rng(seed).permutation(len(works)) % _FOLDS
    for k in range(_FOLDS):
        seen = np.flatnonzero(fold != k).tolist()
        without = _fit_kinds([works[i] for i in seen], [seconds[i] for i in seen], seed, kinds)
        found.update({i: _kernel_times(works[i], without) for i in np.flatnonzero(fold == k).tolist()})
    return [found[i] for i in range(len(works))]


def _factors(works: Sequence[Sequence[Work]], seconds: Sequence[np.ndarray], held: Sequence[_Held]) -> dict[str, float]:
    """By kind, measured over predicted time: a mean of logarithms is less than the mean (Duan, JASA 1983)."""
    sums: dict[str, list[float]] = {}
    for network, times, (predicted, _) in zip(works, seconds, held, strict=True):
        for work, t, p in zip(network, times, predicted, strict=True):
            both = sums.setdefault(work.kind, [_LEAST_SUM_S, _LEAST_SUM_S])
            both[0] += t
            both[1] += p
    return {kind: measured / predicted for kind, (measured, predicted) in sums.items()}


def floats(kernels: Iterable[Kernel]) -> list[Kernel]:
    """The kernels, none of which computes with integers.

    Raises:
        ValueError: one that does, of which the model knows nothing.
    """
    kernels = list(kernels)
    for kernel in kernels:
        if _INTEGER.search(kernel.op_type):
            raise ValueError(f"kernel {kernel.name!r} is a {kernel.op_type}: the kernel model knows fp32 networks only")
    return kernels


def _fit_kinds(
    works: Sequence[Sequence[Work]],
    seconds: Sequence[np.ndarray],
    seed: int,
    tuned: Mapping[str, RatioModel] | None = None,
) -> dict[str, RatioModel]:
    """A model for each kind that was seen often enough, and one for each family; `tuned` gives their parameters."""
    rows: dict[str, list[tuple[Work, float]]] = {}
    for network, times in zip(works, seconds, strict=True):
        for work, t in zip(network, times, strict=True):
            rows.setdefault(work.kind, []).append((work, t))
            rows.setdefault(work.family, []).append((work, t))
    rng = np.random.default_rng(seed)
    models = {}
    for name, samples in sorted(rows.items()):
        pooled = name in FAMILIES
        if not pooled and len(samples) < _LEAST_SAMPLES:
            continue
        if pooled and len(samples) > _POOLED:
            samples = [samples[i] for i in rng.choice(len(samples), _POOLED, replace=False)]
        theta = tuned[name].theta if tuned and name in tuned else None
        models[name] = fit_ratio([w for w, _ in samples], np.array([t for _, t in samples]), seed, theta)
    return models


def _kernel_times(works: Sequence[Work], kinds: Mapping[str, RatioModel]) -> tuple[np.ndarray, np.ndarray]:
    """Time and deviation of its logarithm for each kernel (n,)."""
    times, doubt = np.zeros(len(works)), np.zeros(len(works))
    names = [w.kind if w.kind in kinds else w.family for w in works]
    for name in dict.fromkeys(names):
        rows = [i for i, other in enumerate(names) if other == name]
        times[rows], doubt[rows] = kinds[name].seconds([works[i] for i in rows])
        doubt[rows] += _UNKNOWN * (name in FAMILIES and name != "view")
    return times, doubt


def _summarise(networks: Sequence[Sequence[Work]], kinds: Mapping[str, RatioModel]) -> tuple[np.ndarray, np.ndarray]:
    """The terms of the formula (n, 6), and the relative deviation by what kernels are unsure of (n,)."""
    times, doubts = _kernel_times([work for network in networks for work in network], kinds)
    ends = np.cumsum([len(network) for network in networks])[:-1]
    parts = list(zip(networks, np.split(times, ends), np.split(doubts, ends), strict=True))
    terms = np.array([_terms(network, t) for network, t, _ in parts])
    return terms.reshape(-1, len(_PRIOR.mean)), np.array([_doubt(*part) for part in parts])


def _terms(network: Sequence[Work], times: np.ndarray) -> list[float]:
    family = np.array([w.family for w in network])
    return [1.0, *(float(times[family == name].sum()) for name in FAMILIES), len(network)]


def _doubt(network: Sequence[Work], times: np.ndarray, doubts: np.ndarray) -> float:
    """Relative deviation of a network's time: kernels of one kind err together, kinds independently."""
    by_kind: dict[str, float] = {}
    for work, t, d in zip(network, times, doubts, strict=True):
        by_kind[work.kind] = by_kind.get(work.kind, 0.0) + float(t * d)
    return math.hypot(*by_kind.values()) / max(float(times.sum()), _LEAST_KERNEL_S)
