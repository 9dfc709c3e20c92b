"""A device profile as it is used: the latency model fitted on what was measured, and how well it does on the rest."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latency.attribution import layer_seconds
from latency.fused_layers import traced_s
from latency.fused_roofline import FusedPrices
from latency.parts import ProfilerCost, profiler_cost, usual_reference_s
from nas.anatomy import Anatomy
from nas.blocks_alone import BlocksAlone
from nas.dispatch import dispatch
from nas.profile_data import ProfileData, Subject, Way
from predictors.block_model import Estimate
from predictors.block_table import BlockTable, BlockTime, Placed, fit_block_table, fit_sited_table
from predictors.protocol import Prediction
from predictors.ranking import Agreement, agreement
from search_spaces.space import INDEX, Architecture

_FEW = 0.05  # of the networks
_NO_COST = ProfilerCost(0.0, 0.0, 0.0)  # where each network is timed whole besides
_AGAIN = "profile again when less goes on beside it, which times these anew"
_NOTHING_HELD_OUT = "the space is too small to hold networks out: these scores are of networks that were fitted on"


@dataclass(frozen=True, eq=False)
class Seen:
    """A measured network.

    Args:
        seconds: of one call.
        parts_s: the times of the layers of each block inside it, as `layer_seconds` has them, where the run-time tells.
        again_s: of one call, measured a second time.
        whole_s: of one call timed whole, where `seconds` comes from parts.
    """

    arch: Architecture
    placed: Sequence[Placed]
    kind: str
    held_out: bool
    seconds: float
    parts_s: Sequence[np.ndarray] | None
    again_s: float | None
    whole_s: float | None
    size_bytes: int

    @property
    def macs(self) -> float:
        """Of one image."""
        return float(sum(block.counts.macs for block, _ in self.placed))


@dataclass(frozen=True)
class Score:
    """How well latencies of networks are predicted that were not fitted on.

    Args:
        coverage_90: the share of them inside the stated 90 % interval; NaN for a predictor that states none.
        noise_floor: by how much the same network differs when it is measured again, on average; NaN if none was.
    """

    agreement: Agreement
    coverage_90: float
    noise_floor: float

    def plain(self) -> dict[str, float | int | None]:
        """As JSON, which has no NaN."""
        a = self.agreement
        values = {
            "mape": a.mape,
            "within_5pct": a.within_5,
            "within_10pct": a.within_10,
            "spearman": a.spearman,
            "coverage_90": self.coverage_90,
            "noise_floor": self.noise_floor,
        }
        return {"n": a.items, **{name: None if math.isnan(value) else value for name, value in values.items()}}


@dataclass(frozen=True, eq=False)
class Profile:
    """A latency model of one device for one space, and how well it did on networks it had not seen.

    Args:
        table: fitted on all measured networks.
        held_out: predictions of the model that had not seen these networks; beside it what a line through MACs, and
            block times without correction, say of the same ones.
        scores: name of the predictor (`heldout`, `macs_only`, `plain_sum`) to kind of network to its score.
        points: (predicted, measured) seconds of each held-out network.
    """

    data: ProfileData
    anatomy: Anatomy
    table: BlockTable
    seen: tuple[Seen, ...]
    held_out: Agreement
    macs_only: Agreement
    block_sum: Agreement
    scores: Mapping[str, Mapping[str, Score]]
    points: tuple[tuple[float, float], ...]

    @functools.cached_property
    def population(self) -> np.ndarray:
        """All measured networks (n, d)."""
        return np.array([seen.arch.indices for seen in self.seen], dtype=INDEX)

    @functools.cached_property
    def size_bytes(self) -> np.ndarray:
        """The sizes of their files (n,)."""
        return np.array([seen.size_bytes for seen in self.seen], dtype=float)

    @functools.cached_property
    def executed(self) -> Mapping[str, np.ndarray]:
        """Metrics of `nas.executed` of all measured networks (n,), by name; empty where nobody asked."""
        networks = [s.executed for s in self.data.subjects if s.role == "network"]
        return {name: np.array([found[name] for found in networks]) for name in networks[0]}

    def predict(
        self, arch: Architecture | Mapping[str, Any], policy: str | Mapping[str, str] | None = None
    ) -> Prediction:
        """The latency in seconds of one architecture, mean and deviation (1,).

        Args:
            arch: of the space, or its options by name.
            policy: one precision for all blocks, or block name to precision; by default that of a joint `arch`, or the
                first of the profile.

        Raises:
            ValueError: options, blocks or precisions that the profiled space does not have.
        """
        return self.table.predict([self.anatomy.placed(self.anatomy.joined(arch, policy))])

    def plain(self) -> dict[str, Any]:
        """As JSON for the record of a run."""
        fitted = sum(not seen.held_out for seen in self.seen)
        return {
            "blocks": len(self.table.seconds),
            "networks": fitted,
            "held_out": self.held_out.plain(),
            "macs_only": self.macs_only.plain(),
            "block_sum": self.block_sum.plain(),
            "contention": self.data.contention,
            **({"dispatch": self._dispatch} if self._dispatch else {}),
            "points": [{"predicted_s": p, "measured_s": m} for p, m in self.points],
        }

    def summary(self) -> dict[str, Any]:
        """What `nas profile --json` prints: the scores by kind of network, and where they come from."""
        data = self.data
        kinds = {name: {kind: s.plain() for kind, s in by.items()} for name, by in self.scores.items()}
        by_kind = {kind: {name: kinds[name][kind] for name in kinds} for kind in kinds["heldout"]}
        return {
            "device": data.device,
            "fingerprint": data.fingerprint,
            "environment": data.environment,
            "space": data.space.model_dump(mode="json"),
            "precisions": by_kind,
            "networks_fitted": sum(not seen.held_out for seen in self.seen),
            "timed": "by parts" if self.seen[0].parts_s is not None else "whole",
            **({"dispatch": self._dispatch} if self._dispatch else {}),
            "whole_over_parts": {s.kind: s.whole_s / s.seconds for s in self.seen if s.whole_s is not None},
            "wall_s": data.wall_s,
            "warnings": self._warnings(),
        }

    @functools.cached_property
    def _dispatch(self) -> dict[str, Any] | None:
        """Blocks here and on the baseline, which runs int8 in whole files alone."""
        *_, slope, each_s, _, _ = self.table.correction.tolist()
        return dispatch(self.data, self.anatomy, slope, each_s)

    def _warnings(self) -> list[str]:
        timed = [s for s in self.data.subjects if s.role == "network"]
        hardly = sum(any(map(s.hardly_known, s.results)) for s in timed)
        found = [] if any(s.held_out for s in self.seen) else [_NOTHING_HELD_OUT]
        if hardly > _FEW * len(timed):
            found.append(f"{hardly} of {len(timed)} networks were hardly left alone while they were timed: {_AGAIN}")
        return found


def fit_profile(data: ProfileData, anatomy: Anatomy) -> Profile:
    """Fits the latency model of a profile, first on the networks meant for it, to score it, and then on all.

    Raises:
        ValueError: a profile without networks.
    """
    seen = tuple(_seen(data, anatomy))
    fit = [s for s in seen if not s.held_out]
    check = [s for s in seen if s.held_out] or fit  # a small space: nothing to hold out
    if not fit:
        raise ValueError("a profile needs measured networks to fit on, got none")
    table = _fit(data, anatomy, fit)
    prediction = table.predict([s.placed for s in check])
    truth = np.array([s.seconds for s in check])
    macs = _macs_lines(fit, check)
    plain = table.summarise([s.placed for s in check])[:, [1, 3]].sum(axis=1)
    inside = np.abs(prediction.mean - truth) <= prediction.half_width(0.9)
    scores = {
        "heldout": _by_kind(check, prediction.mean, inside),
        "macs_only": _by_kind(check, macs, None),
        "plain_sum": _by_kind(check, plain, None),
    }
    return Profile(
        data=data,
        anatomy=anatomy,
        table=_fit(data, anatomy, seen, table) if len(check) < len(seen) else table,
        seen=seen,
        held_out=agreement(prediction.mean, truth),
        macs_only=agreement(macs, truth),
        block_sum=agreement(plain, truth),
        scores=scores,
        points=tuple(zip(prediction.mean.tolist(), truth.tolist(), strict=True)),
    )


def _seen(data: ProfileData, anatomy: Anatomy) -> list[Seen]:
    """The measured networks of a profile, with their times."""
    cost, usual_s = _profiler_cost(data.subjects), usual_reference_s(p for s in data.subjects if (p := s.parts))
    found = []
    for subject in (s for s in data.subjects if s.role == "network"):
        arch = anatomy.joined(subject.arch)
        parts, again = subject.parts, [way for way in subject.results if way.endswith("again")]
        traced, slower = anatomy.tracer.trace(arch), parts.slower(usual_s) if parts else 1.0
        layers_s = layer_seconds(parts, traced, anatomy.tracer.blocks, cost or _NO_COST) if parts else None
        found.append(
            Seen(
                arch=arch,
                placed=anatomy.placed(arch),
                kind=subject.kind,
                held_out=subject.held_out,
                seconds=_seconds(subject, "parts" if parts and cost else "wall", cost, usual_s),
                parts_s=None if layers_s is None else [times / slower for times in layers_s],
                again_s=_seconds(subject, again[0], cost, usual_s) if again else None,
                whole_s=subject.wall_s() if parts and cost and "wall" in subject.results else None,
                size_bytes=subject.size_bytes,
            )
        )
    return found


def _seconds(subject: Subject, way: Way, cost: ProfilerCost | None, usual_s: float | None) -> float:
    parts = subject.parts_of(way)
    return parts.seconds(cost) / parts.slower(usual_s) if parts and cost else subject.wall_s(way)


def _call_s(subjects: Sequence[Subject]) -> float:
    return next(s.wall_s() for s in subjects if s.role == "call")


def _profiler_cost(subjects: Sequence[Subject]) -> ProfilerCost | None:
    """From what was timed both ways, blocks if there are some; None where whole networks tell what calls take."""
    if all(s.role != "call" for s in subjects):
        return None
    timed = [s for s in subjects if {"parts", "wall"} <= set(s.results)]
    blocks = [s for s in timed if s.role == "block"]
    both = [(s.parts, s.wall_s()) for s in (blocks if len(blocks) > 1 else timed)]
    if not both:
        return None
    return profiler_cost([p for p, _ in both if p], [wall for _, wall in both], _call_s(subjects))


def _fit(data: ProfileData, anatomy: Anatomy, seen: Sequence[Seen], before: BlockTable | None = None) -> BlockTable:
    networks, seconds = [s.placed for s in seen], np.array([s.seconds for s in seen])
    parts = [s.parts_s for s in seen if s.parts_s is not None]
    if len(parts) == len(seen):
        tuned = before.models if before else None
        estimates = {m.estimate for m in tuned.values()} if tuned else dict.fromkeys((None, _estimate(data)))
        tables = [
            fit_sited_table(networks, parts, seconds, tuned=tuned, batch=data.batch, estimate=estimate)
            for estimate in estimates
        ]
        # Whether a closed form helps, the networks tell, each of them left out.
        return min(tables, key=lambda table: float(table.relative_std.sum()))
    if before is not None:  # the blocks are those of before, and only more networks to correct with
        fresh = [s for s in seen if s.held_out]
        return before.corrected([s.placed for s in fresh], np.array([s.seconds for s in fresh]))
    alone = BlocksAlone(data, anatomy)
    blocks = [BlockTime(alone.block_of(s), s.kind, alone.seconds(s)) for s in alone.subjects]
    return fit_block_table(blocks, batch=data.batch).corrected(networks, seconds)


def _estimate(data: ProfileData) -> Estimate | None:
    """What blocks take in closed form, where the profile has the prices for it.

    Raises:
        ValueError: the prices are of kernels that were changed since.
    """
    if data.prices is None:
        return None
    try:
        return functools.partial(traced_s, prices=FusedPrices(**data.prices))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the profile has prices of other kernels than these ({error}): profile again") from error


def _macs_lines(fit: Sequence[Seen], check: Sequence[Seen]) -> np.ndarray:
    """What a line through MACs says of each network that checks, a line per kind of network."""
    result = np.empty(len(check))
    for kind in {s.kind for s in check}:
        own = [s for s in fit if s.kind == kind] or list(fit)
        macs, seconds = np.array([s.macs for s in own]), np.array([s.seconds for s in own])
        line = np.polynomial.Polynomial.fit(macs, seconds, 1 if np.ptp(macs) else 0)
        for i, s in enumerate(check):
            if s.kind == kind:
                result[i] = line(s.macs)
    return result


def _by_kind(check: Sequence[Seen], predicted: np.ndarray, inside: np.ndarray | None) -> dict[str, Score]:
    scores = {}
    for kind in dict.fromkeys(s.kind for s in check):
        own = [i for i, s in enumerate(check) if s.kind == kind]
        truth = np.array([check[i].seconds for i in own])
        again = [abs(s.again_s / s.seconds - 1) for s in (check[i] for i in own) if s.again_s is not None]
        scores[kind] = Score(
            agreement=agreement(predicted[own], truth),
            coverage_90=math.nan if inside is None else float(inside[own].mean()),
            noise_floor=float(np.mean(again)) if again else math.nan,
        )
    return scores
