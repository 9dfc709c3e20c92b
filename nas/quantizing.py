"""The best mixed precision of a network that the user already has: `nas.quantize` and the command `nas quantize`.

ranges -> what helps int8 -> damage of each layer -> time of each layer -> allocation -> files, measured -> the choice

Ranges come from training images, validation images decide, test images are only reported.  Every number that decides
at the end is taken on files: the accuracy and the latency on the device.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

from latency.compare import LEAST_CLAIM, is_faster
from latency.device import Device
from latency.harness import CAREFUL
from latency.measurement import Measurement
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from latency.store import MeasurementStore
from nas.baseline import Baseline, measure_both
from nas.errors import CannotBeDone
from nas.finetune_pruned import FinetunedPruned, finetune_pruned
from nas.integer_only import InIntegers, check_integers, in_integers
from nas.layer_costs import LayerCosts, latencies, measure_layers
from nas.measuring import count_rounds
from nas.progress import Reporter
from nas.sparsify import puts_zeros, sparsified
from nas.throughout import only_int8, place_of
from quant_search.allocate import Problem, allocate, dual, problem_of, without_gains
from quant_search.post_training import Form, Trial, improve
from quant_search.precision import kind_of, parse_precision, stored_bytes
from quant_search.sensitivity.catalog import MEASURES
from quant_search.sensitivity.kl import divergence
from quant_search.sensitivity.subject import Sensitivity, Subject, by_layer
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.stored import stored_sparsely
from supernet.data import Dataset

CALIBRATION = 256
"""Training images that ranges and roundings are taken from."""
JUDGING = 256
"""Validation images that damages of single layers are taken on; whole files are judged on all of them."""
_BATCH = 32
_CORRECTING = 16
"""Images on which biases are corrected for damages: for each a file is made, and few put layers in the same order."""
_SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of the way from the cheapest to the least damaged
SPARSE = "sparse "  # before the name of the dense twin
_COST = {"latency": "latency_s", "size": "size_bytes"}


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Args:
        precisions: of each layer.
        max_drop: of validation accuracy against fp32, as a share.
        objective: latency, or size.
        rounding: of weights: nearest, or learned layer by layer (`adaround`, `adaquant`).
        sensitivity: a measure of `MEASURES`.
        sparsity: the pattern of the network that is quantized, a name of `quant_search.sparsity`.
        finetune: steps that the network is trained on with its sparsity, before it is quantized.
        integer_only: whether the file is in int8 throughout, with dyadic scales.
    """

    precisions: tuple[str, ...] = ("fp32", "int8")
    max_drop: float = 0.005
    objective: str = "latency"
    rounding: str = "nearest"
    sensitivity: str = "kl"
    sparsity: str = "dense"
    seed: int = 0
    finetune: int = 0
    integer_only: bool = False


@dataclass(frozen=True, eq=False)
class Made:
    """A file with what was measured on it.

    Args:
        chosen: layer to precision.
        agreement: the share of validation images that fall into the same class as in fp32.
        dense_bytes: of the same file with its zeros stored as well, where they are not.
        twin: of a sparse file, the name of the dense one in the same precisions.
    """

    name: str
    chosen: Mapping[str, str]
    model: bytes
    val_accuracy: float
    agreement: float
    latency_s: float
    dense_bytes: int | None = None
    twin: str = ""

    def cost(self, objective: str) -> float:
        """Seconds of a call, or bytes of the file."""
        return self.latency_s if objective == "latency" else float(len(self.model))


@dataclass(frozen=True, eq=False)
class Final:
    """What is reported of a file: measured carefully, on the baseline too if the device has one, and on test images."""

    made: Made
    accuracy: float
    measured: Measurement
    baseline: Baseline | None = None


@dataclass(frozen=True, eq=False)
class Quantized:
    """What came out.

    Args:
        files: all that were measured, fp32 and int8 first; those in other precisions than were wanted only to compare.
        final: fp32, int8 throughout, what was chosen and its dense twin, by name; the last may be one of the first.
        trials: what was tried to make int8 better, in order.
        weights: layer to how many it has.
        finetuned: how the training of a pruned network went, where there was one.
        in_integers: what the integer reference said of an integer-only file.
    """

    chosen: Made
    files: tuple[Made, ...]
    final: Mapping[str, Final]
    trials: tuple[Trial, ...]
    damage: Sensitivity
    costs: LayerCosts
    wanted: Wanted
    device: Device
    weights: Mapping[str, int] = field(default_factory=dict)
    finetuned: FinetunedPruned | None = None
    in_integers: InIntegers | None = None


def quantize_model(
    model: onnx.ModelProto,
    dataset: Dataset,
    device: Device,
    wanted: Wanted,
    store: MeasurementStore | None,
    reporter: Reporter,
) -> Quantized:
    """Finds the fastest (or smallest) file of `model` that loses no more accuracy than is wanted.

    Args:
        model: in the form of `ptq.intake.prepared`.

    Raises:
        ValueError: a model without layers whose precision can be chosen, or that cannot be run.
        CannotBeDone: an integer-only file, or one of a device that runs int8 alone, loses more accuracy than is wanted.
        RuntimeError, ChildProcessError: as of `measure_models`.
    """
    return _Run(model, dataset, device, wanted, store, reporter).run()


class _Run:
    """One quantization, stage by stage."""

    def __init__(
        self,
        model: onnx.ModelProto,
        dataset: Dataset,
        device: Device,
        wanted: Wanted,
        store: MeasurementStore | None,
        reporter: Reporter,
    ) -> None:
        self.model, self.dataset, self.device, self.wanted = model, dataset, device, wanted
        self.store, self.reporter = store, reporter
        if not by_layer(model):
            raise ValueError("the network has no layers with weights, whose precision could be chosen")
        self.dense, rng = model, np.random.default_rng(wanted.seed)
        calibrating = _some(np.arange(len(dataset.x_train)), CALIBRATION, rng)
        self.calibration, self.classes = dataset.x_train[calibrating], dataset.y_train[calibrating]
        judging = _some(np.arange(len(dataset.x_val)), JUDGING, rng)
        self.judging, self.labels = dataset.x_val[judging], dataset.y_val[judging]
        self.anywhere = place_of({"": "fp32"}, device)  # where files in any precision run
        if wanted.integer_only:
            check_integers(model, by_layer(model), self.calibration[:1])

    def run(self) -> Quantized:
        self._sparsify()
        finetuned = self._finetune()
        self.groups = by_layer(self.model)
        form, trials = self._improve(self.model, "round")
        forms = {"": form}
        if self.model is not self.dense:
            forms = {"": self._improve(self.dense, "round dense")[0], SPARSE: form}
        if only_int8(self.device):  # nothing to choose: no layer may stay in fp32
            damage, costs = Sensitivity(self.wanted.sensitivity, (), (), np.zeros((0, 0)), 0.0), LayerCosts({}, {})
            plans = {p: dict.fromkeys(self.groups, p) for p in ("fp32", "int8")}
        else:
            damage, costs = self._damage(form), self._costs(form)
            plans = self._plans(damage, costs)
        files = self._files(forms, plans, costs)
        chosen, final = choose(files, self.wanted, self._final)
        weights = {group: sum(w.size for w in _weights(self.model, n)) for group, n in self.groups.items()}
        return Quantized(
            chosen, tuple(files), final, trials, damage, costs, self.wanted, self.device, weights, finetuned,
            self._in_integers(forms[SPARSE if chosen.twin else ""], chosen),
        )  # fmt: skip

    def _sparsify(self) -> None:
        if self.wanted.sparsity != "dense":
            with self.reporter.stage("prune") as stage:
                examples = Examples(self.calibration, self.classes)
                self.model = sparsified(self.model, self.wanted.sparsity, examples, self._judge)
                stage.say(f"KL {self._judge(self.model):.4g}")

    def _finetune(self) -> FinetunedPruned | None:
        steps = self.wanted.finetune
        if not steps:
            return None
        with self.reporter.stage("finetune", steps) as stage:
            found = finetune_pruned(
                self.model, self.dense, self.wanted.sparsity, self.dataset, self.anywhere, steps, self.wanted.seed,
                stage.advance,
            )  # fmt: skip
            gain = 100 * (found.after.val_accuracy - found.before.val_accuracy)
            stage.say(f"{gain:+.1f} points{'' if found.kept else ', left out'}")
        self.model = found.model
        return found

    def _in_integers(self, form: Form, chosen: Made) -> InIntegers | None:
        if not self.wanted.integer_only:
            return None
        with self.reporter.stage("integers") as stage:
            found = in_integers(form.build(chosen.chosen), chosen.model, self.anywhere, self.judging)
            stage.say(f"{100 * found.same_class:.1f} % in the same class")
        return found

    def _judge(self, file: onnx.ModelProto) -> float:
        """How far the outputs of a file are from those of the network that was given."""
        return divergence(_outputs(file.SerializeToString(), self.anywhere, self.judging), self._wanted_outputs)

    @cached_property
    def _wanted_outputs(self) -> np.ndarray:
        return _outputs(self.dense.SerializeToString(), self.anywhere, self.judging)

    def _improve(self, model: onnx.ModelProto, stage_name: str) -> tuple[Form, tuple[Trial, ...]]:
        bits = sorted({b for p in self.wanted.precisions if (b := parse_precision(p).weight_bits)} | {8}, reverse=True)
        with self.reporter.stage(stage_name) as stage:

            def told(trial: Trial) -> None:
                stage.advance()
                stage.say(f"{trial.name}: KL {trial.judged:.4g}{'' if trial.kept else ', left out'}")

            form, trials = improve(model, self.groups, self.calibration, self._judge, bits, self.wanted.rounding, told)
            least = min(t.judged for t in trials if t.precision == "int8")
            stage.say(f"int8 at KL {least:.2g}, {sum(t.kept for t in trials)} kept")
        return replace(form, dyadic=self.wanted.integer_only), trials

    def _damage(self, form: Form) -> Sensitivity:
        options = tuple(p for p in self.wanted.precisions if p != "fp32")
        entry = MEASURES[self.wanted.sensitivity]
        labels = self.labels if entry.labels else None
        quick = form if form.correcting is None else replace(form, correcting=form.correcting[:_CORRECTING])
        build = functools.partial(quick.build, pack=False)
        subject = Subject(form.model, self.groups, options, self.judging, labels, build)
        with self.reporter.stage("damage", len(self.groups) * len(options)) as stage:
            return entry.measure(subject, lambda *_: stage.advance())

    def _costs(self, form: Form) -> LayerCosts:
        with self.reporter.stage("time") as stage:
            plain = replace(form, correcting=None)  # which takes time, and changes no file's latency
            costs = measure_layers(form.model, self.groups, plain.build, self.device, self.store)
            stage.say(f"layers add up within {100 * costs.error:.0f} %")
        return costs

    def _plans(self, damage: Sensitivity, costs: LayerCosts) -> dict[str, dict[str, str]]:
        """What files to choose from are in, by name: uniform ones, and those on the front of damage and cost."""
        lower = ["int8", *(p for p in self.wanted.precisions if p not in ("fp32", "int8"))]
        plans = {p: dict.fromkeys(self.groups, p) for p in ("fp32", *lower)}
        problem = allocation_problem(self.model, self.groups, self.wanted, damage, costs)
        for found in proposals(problem, _COST[self.wanted.objective]):
            if found not in plans.values():
                plans[f"mixed {len(plans) - len(lower)}"] = found
        return plans

    def _files(
        self, forms: Mapping[str, Form], plans: Mapping[str, Mapping[str, str]], costs: LayerCosts
    ) -> list[Made]:
        """The files to choose from, each plan in each form, timed together: sparse ones behind their dense twins."""
        named = [(kind, name) for kind in forms for name in plans]
        with self.reporter.stage("files", len(named)) as stage:
            stored = []
            for kind, name in named:
                stored.append(self._stored(kind, forms[kind], plans[name]))
                stage.advance()
            models, places = [model for model, _ in stored], [place_of(plans[name], self.device) for _, name in named]
            measured = self._latencies(models, places, costs)
            classes = [_classes(model, place, self.dataset.x_val) for model, place in zip(models, places, strict=True)]
            right = [float((own == self.dataset.y_val).mean()) for own in classes]
            alike = [float((own == classes[0]).mean()) for own in classes]
            return [
                Made(kind + name, plans[name], model, accuracy, agreement, s, size, name if kind else "")
                for (kind, name), (model, size), accuracy, agreement, s in zip(
                    named, stored, right, alike, measured, strict=True
                )
            ]

    def _latencies(self, models: Sequence[bytes], places: Sequence[Device], costs: LayerCosts) -> list[float]:
        """Seconds of files to choose by, each where it runs; those of one device are timed together."""
        found: dict[int, float] = {}
        for place in dict.fromkeys(places):
            own = [i for i, other in enumerate(places) if other == place]
            found |= zip(own, latencies([models[i] for i in own], place, costs, self.store), strict=True)
        return [found[i] for i in range(len(models))]

    def _stored(self, kind: str, form: Form, plan: Mapping[str, str]) -> tuple[bytes, int | None]:
        """The bytes of a file, whose zeros are left out where size counts; and how many there were with them."""
        given = self.model if kind == SPARSE else self.dense
        model = given if set(plan.values()) == {"fp32"} else form.build(plan)
        dense = model.SerializeToString()
        if self.wanted.objective != "size" or kind != SPARSE or not puts_zeros(self.wanted.sparsity):
            return dense, None
        stored = stored_sparsely(model).SerializeToString()
        return stored, len(dense) if len(stored) < len(dense) else None

    def _final(self, files: Sequence[Made]) -> dict[str, Final]:
        unique = list({made.name: made for made in files}.values())
        x, y, final = self.dataset.x_test, self.dataset.y_test, dict[str, Final]()
        with self.reporter.stage("verify") as stage:
            for place in dict.fromkeys(place_of(made.chosen, self.device) for made in unique):
                own = [made for made in unique if place_of(made.chosen, self.device) == place]
                rounds = count_rounds(stage, len(unique), CAREFUL) if place == self.device else lambda: None
                pairs = zip(*measure_both([m.model for m in own], place, CAREFUL, self.store, rounds), strict=True)
                for made, (timing, beside) in zip(own, pairs, strict=True):
                    right = accuracy(open_session(made.model, place), x, y)
                    final[made.name] = Final(made, right, timing, beside)
                    stage.advance()
        return {made.name: final[made.name] for made in unique}


def allocation_problem(
    model: onnx.ModelProto,
    groups: Mapping[str, Sequence[str]],
    wanted: Wanted,
    damage: Sensitivity,
    costs: LayerCosts,
) -> Problem:
    """The damage and the cost of each precision of each layer; a layer has those precisions that are wanted."""
    rows = {g: {p: 0.0 if p == "fp32" else damage.of(g, p) for p in wanted.precisions} for g in groups}
    names = list(groups)
    if wanted.objective == "size":
        weights, zeros = {g: _weights(model, groups[g]) for g in names}, puts_zeros(wanted.sparsity)
        size = {g: {p: _bytes(weights[g], stored_bytes(p), zeros) for p in wanted.precisions} for g in names}
        return problem_of(without_gains(rows), {"size_bytes": size})
    kinds = {p: kind_of(p) for p in wanted.precisions}
    seconds = {g: {p: costs.seconds[g][kinds[p]] for p in wanted.precisions} for g in names}
    pairs = {
        (g, behind): {
            (p, q): costs.change[g][kinds[p]]
            for p in wanted.precisions
            for q in wanted.precisions
            if kinds[p] != kinds[q]
        }
        for g, behind in itertools.pairwise(names)
    }
    return problem_of(without_gains(rows), {"latency_s": seconds}, pairs={"latency_s": pairs})


def proposals(problem: Problem, cost: str) -> list[dict[str, str]]:
    """The choices with the least damage for several budgets of a cost, most of them near the least that is possible."""
    free = dual(problem, cost, math.inf)
    cheapest, best = allocate(free), allocate(problem)
    low, high = cheapest.costs[cost], best.costs[cost]
    found = [dict(cheapest.choice)]
    for share in _SHARES:
        budget = low + share * (high - low)
        found.append(dict(allocate(replace(problem, budgets={cost: budget})).choice))
    return found


def choose(
    files: Sequence[Made], wanted: Wanted, verify: Callable[[Sequence[Made]], dict[str, Final]]
) -> tuple[Made, dict[str, Final]]:
    """The best file and what is reported: fp32, int8 throughout, the file and its dense twin.

    Where time is the objective, a sparse file has to be faster than its twin when they are measured carefully, too.

    Args:
        verify: measures files carefully.
    """
    by_name, left = {made.name: made for made in files}, list(files)
    while True:
        chosen = best_of(left, wanted)
        final = verify([*(by_name[name] for name in ("fp32", "int8", chosen.twin) if name), chosen])
        if not chosen.twin or wanted.objective != "latency":
            return chosen, final
        seconds, twin_s = (final[name].measured.median_s for name in (chosen.name, chosen.twin))
        if is_faster(seconds, twin_s):
            return chosen, final
        left.remove(chosen)


def best_of(files: Sequence[Made], wanted: Wanted) -> Made:
    """The cheapest file that loses no more than is wanted; of those that are as cheap, the one that loses least.

    Latencies within 3 % count as equal, which is what a comparison can tell; where they are the objective, a sparse
    file has to be faster than its dense twin by more.  The first file is the one in fp32; files in precisions that are
    not wanted are there to compare.

    Raises:
        CannotBeDone: fp32 is not wanted, and all others lose too much.
    """
    seconds = {made.name: made.latency_s for made in files}

    def allowed(made: Made) -> bool:
        little = files[0].val_accuracy - made.val_accuracy <= wanted.max_drop + 1e-12
        pays = not made.twin or wanted.objective != "latency" or is_faster(made.latency_s, seconds[made.twin])
        return little and pays and set(made.chosen.values()) <= set(wanted.precisions)

    able = [made for made in files if allowed(made)]
    if not able:  # fp32 always is, where it is wanted
        drop = files[0].val_accuracy - next(made for made in files if made.name == "int8").val_accuracy
        rather = "leave --integer-only out" if wanted.integer_only else "give --device cpu, where layers may be in fp32"
        raise CannotBeDone(
            f"in int8 throughout {100 * drop:.2f} points of validation accuracy are lost, and "
            f"{100 * wanted.max_drop:g} may be: allow more with --max-drop, learn the rounding with "
            f"--rounding adaround, or {rather}"
        )
    least = min(made.cost(wanted.objective) for made in able)
    alike = 1 + (LEAST_CLAIM if wanted.objective == "latency" else 0.0)
    near = [made for made in able if made.cost(wanted.objective) <= alike * least]
    return max(near, key=lambda made: (made.val_accuracy, made.agreement, -made.cost(wanted.objective)))


def _some(x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return x[np.sort(rng.permutation(len(x))[:n])]


def _weights(model: onnx.ModelProto, nodes: Iterable[str]) -> list[np.ndarray]:
    """The weights that nodes read."""
    values, wanted = {t.name: t for t in model.graph.initializer}, set(nodes)
    read = dict.fromkeys(n.input[1] for n in model.graph.node if n.name in wanted and len(n.input) > 1)
    return [numpy_helper.to_array(values[name]) for name in read if name in values and len(values[name].dims) > 1]


def _bytes(weights: Iterable[np.ndarray], each: float, sparsely: bool) -> float:
    """Bytes of weights, of so many each.

    Args:
        sparsely: whether they may be stored as nonzero values beside a bit for each.
    """
    if not sparsely:
        return sum(weight.size for weight in weights) * each
    return float(sum(min(w.size * each, np.count_nonzero(w) * each + w.size / 8) for w in weights))


def _outputs(file: bytes, device: Device, images: np.ndarray) -> np.ndarray:
    session = open_session(file, device)
    return np.concatenate([session.run(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)])


def _classes(file: bytes, device: Device, images: np.ndarray) -> np.ndarray:
    result: np.ndarray = _outputs(file, device, images).argmax(axis=1)
    return result
