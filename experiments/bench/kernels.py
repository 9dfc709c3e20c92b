"""The fused int8 kernels against ONNX Runtime's int8 and fp32, and OpenVINO's int8 where it is installed.

All arms are timed in turns in one process, ours twice; outputs are checked before.  A block that can read what it makes
is timed as a chain of five less a chain of one, over four, in every arm, so that the session and the conversions at
both ends do not count; of others one call is, with both ends.  One thread is timed by the CPU time of the process,
since OpenVINO computes in a thread of its own; several are by the clock on the wall, and beside one.  Threads of ONNX
Runtime keep a core busy for milliseconds after a call, and are up to 1.4 times as fast for it, so that they are let:
with several threads, each sample begins when those of the arm before sleep.  Ours are kept off the core of the caller;
those of others are where the system puts them, which may be that core.

Layers with zero blocks of weights are held against the same layer without.  Those with as many outputs as inputs are
timed as chains; of others ours run five times on the same codes less once, which ONNX Runtime would not do.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.bench import kernel_arms, kernel_graphs, kernel_lists
from experiments.bench.kernel_arms import Subject
from experiments.bench.kernel_graphs import Block
from experiments.bench.vnni_peak import vnni_macs_per_s
from latency.device import parse_device
from latency.fused_prices import prices_of
from latency.fused_roofline import FusedPrices, program_s

WHAT = ("blocks", "bodies", "networks", "sparse", "all")
COPIES = 5  # in a chain


@dataclass(frozen=True)
class Row:
    """One line of the table; times are of one block, layer or network and one image, in microseconds.

    Args:
        others_us: those of other run-times, by their names.
        aa_ratio: of our second arm over the first, which is 1 but for noise.
        exact: whether outputs are those of the NumPy reference.
        with_ends: whether the session and the conversions at both ends are in the times.
        call_ratio: ONNX Runtime's int8 over ours in whole calls, where times are without the ends.
        peak: the share of the MACs that the cores could do by AVX-512 VNNI; None without it.
        estimate: the time over what it is in closed form; of one thread alone.
        dense_ratio: of the same layer without zeros over this one.
        factors: the time of one thread over that of several, by run-time.
    """

    block: str
    fused_us: float
    others_us: dict[str, float]
    aa_ratio: float
    exact: bool
    with_ends: bool
    call_ratio: float | None
    peak: float | None
    estimate: float | None
    dense_ratio: float | None
    factors: dict[str, float]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        us = {"ort_int8": self.others_us.get(kernel_arms.INT8), "ort_fp32": self.others_us.get(kernel_arms.FP32)}
        found: dict[str, Any] = {"block": self.block, "fused_us": self.fused_us}
        found |= {f"{name}_us": time for name, time in us.items()}
        found |= {f"ratio_{name}": None if time is None else time / self.fused_us for name, time in us.items()}
        found |= {"aa_ratio": self.aa_ratio, "exact": self.exact}
        extras = {"ratio_dense": self.dense_ratio, "over_one_thread": self.factors.get(kernel_arms.FUSED)}
        return found | {name: value for name, value in extras.items() if value is not None}

    def __str__(self) -> str:
        parts = [f"{self.block:<28} {self.fused_us:8.1f} us"]
        parts += [f"{name} {us:7.1f} {us / self.fused_us:5.2f}x" for name, us in self.others_us.items()]
        parts += [f"A/A {self.aa_ratio:.3f}", "exact" if self.exact else "NOT EXACT"]
        parts += [] if self.peak is None else [f"{self.peak:4.0%} of VNNI peak"]
        parts += [] if self.estimate is None else [f"{self.estimate:4.0%} of estimate"]
        parts += [] if self.dense_ratio is None else [f"dense {self.dense_ratio:.2f}x"]
        parts += [f"{name} {factor:.2f}x one thread" for name, factor in self.factors.items()]
        parts += ["with both ends"] if self.with_ends else []
        parts += [] if self.call_ratio is None else [f"whole call {self.call_ratio:.2f}x"]
        return "   ".join(parts)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `bench` takes."""
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--what", choices=WHAT, default="blocks", help="by default blocks, of a list of its own")
    fields = f"{kernel_graphs.FIELDS};..."
    chosen.add_argument("--blocks", type=_blocks, metavar=fields, default=kernel_lists.BLOCKS, help="H may be HxW")
    parser.add_argument("--threads", type=_threads, default=1)


def _blocks(text: str) -> tuple[Block, ...]:
    try:
        return kernel_graphs.parse_blocks(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _threads(text: str) -> int:
    try:
        return parse_device(f"cpu:threads={text}").threads
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def bench(what: str = "blocks", blocks: Sequence[Block] = kernel_lists.BLOCKS, threads: int = 1) -> Iterator[Row]:
    """Rows as they are measured.

    Raises:
        AssertionError: outputs too far from ONNX Runtime's.
        RuntimeError: there is no compiler, or it fails.
    """
    macs_per_s, prices = vnni_macs_per_s(), prices_of() if threads == 1 else None
    for subject in _subjects(what, blocks):
        yield _row(subject, threads, macs_per_s, prices)


def _subjects(what: str, blocks: Sequence[Block]) -> Iterator[Subject]:
    if what in ("blocks", "all"):
        yield from map(_block, blocks)
    if what in ("bodies", "all"):
        for name, body in kernel_lists.BODIES.items():
            yield Subject(f"{name}, body", kernel_graphs.sequence(body))
    if what in ("networks", "all"):
        for name, body in kernel_lists.BODIES.items():
            build = functools.partial(kernel_lists.network, blocks=body)
            yield Subject(f"{name}, whole", kernel_graphs.timed(kernel_lists.IMAGE, build))
    if what in ("sparse", "all"):
        yield from _sparse()


def _block(block: Block) -> Subject:
    one = kernel_graphs.sequence((block,))
    long = kernel_graphs.sequence((block,) * COPIES) if block.repeats else None
    return Subject(str(block), one, long, COPIES)


def _sparse() -> Iterator[Subject]:
    for side, inputs, outputs in kernel_lists.LAYERS:
        yield from _with_dense(_layer(side, inputs, outputs, density) for density in kernel_lists.DENSITIES)


def _with_dense(subjects: Iterable[Subject]) -> Iterator[Subject]:
    dense: Subject | None = None
    for subject in subjects:
        dense = dense or subject
        yield Subject(subject.name, subject.short, subject.long, subject.copies, subject.files, dense)


def _layer(side: int, inputs: int, outputs: int, density: float) -> Subject:
    one = kernel_graphs.layers(side, inputs, outputs, density, 1)
    chained = inputs == outputs
    long = kernel_graphs.layers(side, inputs, outputs, density, COPIES) if chained else one.repeated(COPIES)
    return Subject(f"{side}, {inputs} to {outputs}, {density:g}", one, long, COPIES, files=chained)


def _row(subject: Subject, threads: int, macs_per_s: float | None, prices: FusedPrices | None) -> Row:
    exact = kernel_arms.is_exact(subject, threads)
    kernel_arms.check_agreement(subject)
    once, call = kernel_arms.times_s(subject, threads)
    fused = once[kernel_arms.FUSED]
    singles = {kernel_arms.FUSED: kernel_arms.FUSED_ONE, kernel_arms.INT8: kernel_arms.INT8_ONE}
    with_ends = subject.long is None
    whole = not with_ends and kernel_arms.INT8 in call
    return Row(
        subject.name,
        1e6 * fused,
        {name: 1e6 * once[name] for name in (kernel_arms.INT8, kernel_arms.FP32, kernel_arms.OPENVINO) if name in once},
        once[kernel_arms.CONTROL] / fused,
        exact,
        with_ends,
        call[kernel_arms.INT8] / call[kernel_arms.FUSED] if whole else None,
        None if macs_per_s is None else subject.short.macs / (fused * threads * macs_per_s),
        None if prices is None else fused / subject.once(*(program_s(made.program, prices) for made in subject.parts)),
        once[kernel_arms.DENSE] / fused if subject.dense is not None else None,
        {name: once[single] / once[name] for name, single in singles.items() if single in once},
    )
