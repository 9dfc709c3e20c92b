"""What helps int8 is kept, what does not is left out."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from latency.runtimes.onnx_runtime import open_session
from quant_search.layers import layers, layers_of
from quant_search.post_training import Learned, improve
from quant_search.ptq import reconstruct
from quant_search.ptq.intake import prepared
from quant_search.ptq.learned_rounding import Setting
from quant_search.sensitivity.kl import divergence
from quant_search.sensitivity.subject import by_layer
from quant_search.weight_codes import rounded
from tests.quant_search.small_digits import CPU, digits, trained

X = digits()[0]


def outputs(model):
    return open_session(model.SerializeToString(), CPU).run(X[1200:1500])


@pytest.fixture(scope="module")
def model():
    return prepared(trained())


@pytest.fixture(scope="module")
def judge(model):
    fp32 = outputs(model)
    return lambda file: divergence(outputs(file), fp32)


def test_every_trial_is_judged_and_the_best_is_kept(model, judge):
    told = []
    form, trials = improve(model, by_layer(model), X[:128], judge, on_trial=told.append)
    assert tuple(told) == trials
    names = [f"ranges: {name}" for name in ("min-max", "percentile", "mse", "entropy")]
    assert [trial.name for trial in trials] == [*names, "equalization", "bias correction"]
    best = np.inf
    for trial in trials:
        assert trial.kept == (trial.judged < best)
        best = min(best, trial.judged)
    assert judge(form.build(dict.fromkeys(form.groups, "int8"))) == pytest.approx(best)
    assert judge(form.build({})) < 1e-4  # equalization leaves fp32 as it was, up to rounding


def test_learned_rounding_is_of_the_bits_chosen(model, judge, monkeypatch):
    monkeypatch.setattr(reconstruct, "Setting", functools.partial(Setting, steps=20))
    form, trials = improve(model, by_layer(model), X[:64], judge, bits=(8, 3), rounding="adaround")
    names = [(trial.name, trial.precision) for trial in trials]
    assert names[5:8] == [("adaround: 8 bits", "int8"), ("nearest: 3 bits", "w3a8"), ("adaround: 3 bits", "w3a8")]
    kept = {width: Learned(codes, {}) for width, codes in learned(form).items()}
    first, second, *_ = form.groups
    file = replace(form, learned=kept).build({first: "w3a8", second: "int8"}, pack=False)
    stored = {t.name: numpy_helper.to_array(t) for t in file.graph.initializer}
    weight = {layer.name: layer.weight for layer in layers(form.model)}
    for name, width in ((first, 3), (second, 8)):
        assert np.array_equal(stored[f"{weight[name]}_quantized"], kept[width].codes[name].values)


def test_rounding_that_does_not_help_eight_bits_may_help_four(model, monkeypatch):
    monkeypatch.setattr(reconstruct, "Setting", functools.partial(Setting, steps=1))
    after = {"int8": 3, "w4a8 to the nearest": 9, "w4a8": 5, "biases corrected": 4}
    files, judged = [], iter([1, 2, 2, 2, 2, *after.values()])  # first ranges and equalization

    def judge(file):
        files.append(file)
        return next(judged)

    form, trials = improve(model, by_layer(model), X[:32], judge, bits=(8, 4), rounding="adaround")
    assert [trial.kept for trial in trials[5:]] == [False, True, True, False]
    assert set(form.learned) == {4} and form.correcting is None
    in_four = [any(t.data_type == TensorProto.INT4 for t in file.graph.initializer) for file in files]
    assert in_four == [trial.precision == "w4a8" for trial in trials]


def learned(form):
    """Codes of three and eight bits that rounding to the nearest does not give."""
    nodes = [name for own in form.groups.values() for name in own]
    found = {}
    for width in (3, 8):
        codes = rounded(form.model, {layer.name: width for layer in layers_of(form.model, nodes)})
        found[width] = {name: replace(own, values=np.minimum(own.values, 1)) for name, own in codes.items()}
    return found


def test_biases_are_corrected_for_the_layers_chosen(model, judge):
    form, _ = improve(model, by_layer(model), X[:64], judge)
    first = next(iter(form.groups))
    for chosen in ({first: "int8"}, {}):
        assert np.isfinite(judge(form.build(chosen)))
    assert form.build({}).SerializeToString() == form.model.SerializeToString()
