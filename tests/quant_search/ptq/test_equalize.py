import numpy as np
import pytest
import torch
from torch import nn

from latency.lowering import to_onnx
from quant_search.layers import layers, pairs, values_of, with_values
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.ptq.equalize import absorb_biases, equalize, without_clips
from quant_search.weight_codes import rounded
from tests.quant_search.small_digits import digits, every, run, trained

X = digits()[0][:200]


def unbalanced(model, seed=0):
    """An equal model whose channels differ in range by orders, as depthwise networks' do after folding."""
    rng, values = np.random.default_rng(seed), values_of(model)
    for pair in pairs(model):
        s = np.exp(rng.uniform(-2, 2, pair.first.out_channels)).astype(np.float32)
        values[pair.first.weight] = values[pair.first.weight] * pair.first.by_channel(s)
        values[pair.first.bias] = values[pair.first.bias] * s
        values[pair.second.weight] = values[pair.second.weight] / pair.second.by_input(np.repeat(s, pair.repeats))
    return with_values(model, values)


@pytest.fixture(scope="module")
def skewed():
    return unbalanced(trained())


def ranges_of(pair, values):
    first, second = values[pair.first.weight], np.abs(values[pair.second.weight])
    rows = np.abs(np.moveaxis(first, pair.first.out_axis, 0)).reshape(pair.first.out_channels, -1).max(axis=1)
    columns = []
    for channel in range(pair.first.out_channels):  # what is read of a channel: what counts when it alone is there
        alone = np.zeros(pair.second.in_channels)
        alone[channel * pair.repeats : (channel + 1) * pair.repeats] = 1
        columns.append((second * pair.second.by_input(alone)).max())
    return rows, np.array(columns)


def test_outputs_stay_and_ranges_meet(skewed):
    before, even = skewed.SerializeToString(), equalize(skewed)
    assert skewed.SerializeToString() == before
    y = run(skewed, X)
    np.testing.assert_allclose(run(even, X), y, atol=1e-4 * np.ptp(y))
    found = pairs(skewed)
    assert len(found) == 3  # through the block, and from the last convolution through pool and Flatten
    for pair in found:
        rows, columns = ranges_of(pair, values_of(even))
        np.testing.assert_allclose(rows, columns, rtol=0.02)
        assert not np.allclose(*ranges_of(pair, values_of(skewed)), rtol=0.5)


def test_one_scale_for_a_whole_weight_is_enough_then(skewed):
    y, off = run(skewed, X), []
    for model in (skewed, equalize(skewed)):
        codes = rounded(model, dict.fromkeys(every(model), 8), "max", channels=False)
        off.append(np.square(run(quantize(model, every(model), activation_ranges(model, X), codes), X) - y).mean())
    assert off[1] < 0.2 * off[0]


def test_equalized_models_stay_as_they_are(skewed):
    even = equalize(skewed)
    for name, value in values_of(equalize(even)).items():
        np.testing.assert_allclose(value, values_of(even)[name], rtol=0.01, atol=1e-6)


def test_channels_without_weights_are_left():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    with torch.no_grad():
        net[0].weight[0] = 0
        net[2].weight[:, 1] = 0
    model = to_onnx(net, (3, 4, 4))
    x = np.random.default_rng(0).standard_normal((5, 3, 4, 4)).astype(np.float32)
    even = equalize(model)
    assert all(np.isfinite(value).all() for value in values_of(even).values())
    np.testing.assert_allclose(run(even, x), run(model, x), atol=1e-5)


def test_no_scale_moves_through_a_clip():
    model = trained(nn.ReLU6)
    assert all(pair.clips for pair in pairs(model) if pair.second.name != "/last/Gemm")
    y = run(model, X)
    np.testing.assert_allclose(run(equalize(model), X), y, atol=1e-4 * np.ptp(y))


@pytest.mark.parametrize("limit", [0, 0.1, 10])
def test_clips_go_as_far_as_outputs_stay_within_the_limit(limit):
    model, bright = trained(nn.ReLU6), 4 * X  # of which the ReLU6 cut something
    clips = {name for pair in pairs(model) for name in pair.clips}
    free, gone = without_clips(model, bright, limit)
    y = run(model, bright)
    assert np.sqrt(np.square(run(free, bright) - y).mean() / np.square(y).mean()) <= limit * 1.001 + 1e-9
    kinds = {node.name: node.op_type for node in free.graph.node}
    assert all(kinds[name] == ("Relu" if name in gone else "Clip") for name in clips)
    assert {0: gone == (), 0.1: 0 < len(gone) < len(clips), 10: set(gone) == clips}[limit]
    even = equalize(free)
    np.testing.assert_allclose(run(even, bright), run(free, bright), atol=1e-4 * np.ptp(y))


def test_biases_that_all_images_share_are_absorbed():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1),
        nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    with torch.no_grad():
        for i in (0, 2, 4):
            net[i].bias[::2] += 3
    model = to_onnx(net, (1, 8, 8))
    moved = absorb_biases(model, X)
    y = run(model, X)
    np.testing.assert_allclose(run(moved, X), y, atol=1e-4 * np.ptp(y))
    first, second, third, last = (
        {"before": values_of(model)[la.bias], "after": values_of(moved)[la.bias]} for la in layers(model)
    )
    assert (first["after"][::2] < first["before"][::2] - 1).all()
    assert (second["after"] != second["before"]).any()
    # The third layer pads: nothing moves from the second into it.  What the second got is still there.
    assert (third["after"][::2] < third["before"][::2] - 1).all() and (last["after"] != last["before"]).all()


@pytest.mark.parametrize(("count", "limit"), [(0, 0.1), (10, -1)])
def test_clips_want_images_and_a_limit(count, limit):
    with pytest.raises(ValueError, match=f"got {count} images and the limit {limit}"):
        without_clips(trained(nn.ReLU6), X[:count], limit)
