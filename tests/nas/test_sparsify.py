"""Networks with fewer channels or with zeros."""

import numpy as np
import pytest

from latency.device import parse_device
from nas.paying import check_sparsity
from nas.progress import SilentReporter
from nas.sparsify import sparsified
from quant_search.ptq.intake import prepared
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.rate_distortion import macs_of
from quant_search.sparsity.weighted import zeros_of
from tests.quant_search.small_digits import digits, trained

X, Y = digits()


@pytest.fixture(scope="module")
def model():
    return prepared(trained())


def test_channels_make_tensors_smaller(model):
    judged = []

    def judge(file):
        judged.append(len(file.SerializeToString()))
        return float(len(judged))

    found = sparsified(model, "channels:0.5", Examples(X[:64], Y[:64]), judge)
    assert len(judged) == 3 and len(found.SerializeToString()) == judged[0] < len(model.SerializeToString())


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_layers_are_chosen_by_rate_and_distortion_within_the_macs_of_the_others(model, share):
    seen = []

    def judge(file):
        seen.append(file)
        return -len(seen)  # the last is best

    best = sparsified(model, f"channels:{share}", Examples(X[:64], Y[:64]), judge)
    macs = [macs_of(file) for file in seen]
    assert len(seen) == 3 and best is seen[2] and macs[2] <= max(macs[:2]) < macs_of(model)


def test_zeros_leave_them_as_large(model):
    found = sparsified(model, "unstructured:0.8", Examples(X[:8], Y[:8]), float)
    assert 0.65 < zeros_of(found) <= 0.8 and zeros_of(model) < 0.1  # depthwise layers stay dense
    sizes = [{t.name: tuple(t.dims) for t in m.graph.initializer} for m in (found, model)]
    assert sizes[0] == sizes[1]


def test_what_needs_no_proof_is_not_measured(model):
    for text, for_size in (("dense", False), ("2:4", True), ("channels:0.5", False)):
        check_sparsity(text, parse_device("cpu"), "int8", for_size, None, SilentReporter())
    assert sparsified(model, "dense", Examples(X[:8], Y[:8]), float) is model
    assert np.isfinite(zeros_of(sparsified(model, "2:4", Examples(X[:8], Y[:8]), float)))
