"""A network made ready for rounding: of what is known to help post-training quantization, all that helps this one.

Each is tried on the network in int8 throughout and kept where the outputs on images that nothing was taken from come
closer to those in fp32: ranges by other rules, cross-layer equalization, learned rounding, bias correction.  Rounding
learned for fewer bits is tried with weights of so many throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import TensorsData

from quant_search.catalog import OBSERVERS
from quant_search.dyadic import with_dyadic_scales
from quant_search.layers import layers_of, values_of, with_values
from quant_search.precision import INT8, parse_precision
from quant_search.ptq.bias_correction import correct_biases
from quant_search.ptq.equalize import equalize, without_clips
from quant_search.ptq.fold import with_biases
from quant_search.ptq.reconstruct import reconstruct
from quant_search.ranges import activation_histograms, ranges_of
from quant_search.realise import codes_of, in_precisions, nodes_in_int8
from quant_search.weight_codes import WeightCodes

Groups = Mapping[str, Sequence[str]]
Judge = Callable[[onnx.ModelProto], float]
"""How far a file's outputs are from those in fp32; smaller is better."""

_CORRECTING = 64  # images: a mean over them and all positions is steady
_CLIPPING = 64


@dataclass(frozen=True, eq=False)
class Learned:
    """Weights of so many bits whose rounding was learned, by node, and the biases that belong to them."""

    codes: Mapping[str, WeightCodes]
    biases: Mapping[str, tuple[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Form:
    """A network from which a file can be made for every choice of precisions.

    Args:
        model: in fp32.
        groups: name to nodes that change their precision together.
        learned: by bits; other weights are rounded to the nearest.
        correcting: images (n, c, h, w) float32 on which biases are corrected in files whose weights have eight bits or
            are not quantized; none for no correction.
        dyadic: whether scales are dyadic numbers, so that integers alone can run the file.
    """

    model: onnx.ModelProto
    groups: Groups
    ranges: TensorsData
    learned: Mapping[int, Learned] = field(default_factory=dict)
    correcting: np.ndarray | None = None
    dyadic: bool = False

    def build(self, chosen: Mapping[str, str], pack: bool = True) -> onnx.ModelProto:
        """The file in which groups have the precisions chosen; those that are not named stay in fp32.

        Raises:
            ValueError: as `in_precisions`.
        """
        codes, biases = codes_of(self.model, self.groups, chosen), dict[str, np.ndarray]()
        for group, option in chosen.items():
            learned = self.learned.get(parse_precision(option).weight_bits or 0)
            if learned is None:
                continue
            for name in self.groups[group]:
                codes |= {name: learned.codes[name]} if name in learned.codes else {}
                biases |= [learned.biases[name]] if name in learned.biases else []
        model, nodes = with_values(self.model, biases), nodes_in_int8(self.groups, chosen)
        # Scales of least error, which few bits have, make outputs smaller, not shifted: correcting makes them worse.
        few = any((parse_precision(option).weight_bits or 8) < 8 for option in chosen.values())
        if self.correcting is not None and nodes and not few:
            model = correct_biases(model, nodes, self.ranges, self.correcting, codes, target=self.model)
        file = in_precisions(model, self.groups, chosen, self.ranges, codes, pack)
        return with_dyadic_scales(file) if self.dyadic else file


@dataclass(frozen=True)
class Trial:
    """One thing that was tried.

    Args:
        judged: how far the network in one precision is from fp32 with it, and with all that was kept before.
        precision: of the whole network.
    """

    name: str
    judged: float
    kept: bool
    precision: str = "int8"


def improve(
    model: onnx.ModelProto,
    groups: Groups,
    images: np.ndarray,
    judge: Judge,
    bits: Sequence[int] = (8,),
    rounding: str = "nearest",
    on_trial: Callable[[Trial], object] = lambda _: None,
) -> tuple[Form, tuple[Trial, ...]]:
    """The form of `model` that is best in int8, and what was tried.

    Args:
        images: (n, c, h, w) float32 for calibration.
        bits: of weights that may be chosen, for each of which rounding is learned.
        rounding: nearest, adaround or adaquant.

    Raises:
        ValueError: a model that is not in the form of `ptq.intake.prepared`, or no images.
    """
    return _Improver(model, groups, images, judge, on_trial).run(bits, rounding)


class _Improver:
    """Keeps the best form so far."""

    def __init__(
        self,
        model: onnx.ModelProto,
        groups: Groups,
        images: np.ndarray,
        judge: Judge,
        on_trial: Callable[[Trial], object],
    ) -> None:
        self._model, self._groups, self._images, self._judge, self._on_trial = model, groups, images, judge, on_trial
        self._trials: list[Trial] = []
        self._best: Form | None = None

    def run(self, bits: Sequence[int], rounding: str) -> tuple[Form, tuple[Trial, ...]]:
        histograms = activation_histograms(self._model, self._images)
        method = "min-max"
        for name in OBSERVERS:
            if self._try(f"ranges: {name}", Form(self._model, self._groups, ranges_of(histograms, name))):
                method = name
        self._equalize(method)
        if rounding != "nearest":
            self._learn(bits, rounding)
        self._try("bias correction", replace(self.best, correcting=self._images[:_CORRECTING]))
        return self.best, tuple(self._trials)

    @property
    def best(self) -> Form:
        """The best form; there is one once ranges were taken."""
        if self._best is None:
            raise RuntimeError("no ranges were tried")
        return self._best

    def _try(self, name: str, form: Form, precision: str = "int8") -> bool:
        judged = self._judge(form.build(dict.fromkeys(self._groups, precision)))
        kept = all(judged < t.judged for t in self._trials if t.kept and t.precision == precision)
        self._trials.append(Trial(name, judged, kept, precision))
        self._on_trial(self._trials[-1])
        if kept:
            self._best = form
        return kept

    def _equalize(self, method: str) -> None:
        """Clips give way to ReLUs only where scales are to move through them."""
        free, _ = without_clips(self._model, self._images[:_CLIPPING])
        model = equalize(free)
        ranges = ranges_of(activation_histograms(model, self._images), method)
        self._try("equalization", Form(model, self._groups, ranges))

    def _learn(self, bits: Sequence[int], rounding: str) -> None:
        form = replace(self.best, model=with_biases(self.best.model))
        for width in bits:
            precision = "int8" if width == INT8.weight_bits else f"w{width}a8"
            if precision != "int8":  # whose weights to the nearest were judged before
                self._try(f"nearest: {width} bits", self.best, precision)
            learned = {**self.best.learned, width: self._learned(form, width, rounding)}
            self._try(f"{rounding}: {width} bits", replace(form, learned=learned), precision)

    def _learned(self, form: Form, width: int, rounding: str) -> Learned:
        nodes = [name for group in self._groups.values() for name in group]
        found = layers_of(form.model, nodes)
        wanted = {layer.name: width for layer in found}
        result = reconstruct(form.model, nodes, form.ranges, self._images, wanted, rounding)
        values = values_of(result.model)
        return Learned(result.codes, {la.name: (la.bias, values[la.bias]) for la in found if la.bias in values})
