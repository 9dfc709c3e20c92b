import itertools

import numpy as np
import pytest
from sparse_subject import digits, digits_model, run

from latency.graph import kernels_of, totals
from quant_search.sparsity.channels import channel_groups, prune_channels
from quant_search.sparsity.masking import apply_masks, masks_of
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Dense, NofM, Unstructured
from quant_search.sparsity.rate_distortion import (
    Curves,
    channel_curves,
    choose,
    distortion_of,
    macs_of,
    pattern_curves,
)
from quant_search.sparsity.selection import best_units, score_units
from quant_search.sparsity.weighted import layers_of, weights_of, with_weights

IMAGES = digits()[0][:128]
PATTERNS = (Dense(), Unstructured(0.5), Unstructured(0.8), Unstructured(0.9))


def test_distortion_is_the_relative_change_of_the_output():
    model = digits_model()
    other = apply_masks(model, masks_of(model, Unstructured(0.5)))
    before, after = run(model, IMAGES), run(other, IMAGES)
    expected = np.square(after - before).mean() / np.square(before).mean()
    assert distortion_of(model, IMAGES)(other) == pytest.approx(expected, rel=1e-4)
    assert distortion_of(model, IMAGES)(model) == 0
    last = [name for node in model.graph.node if node.name == "/10/Gemm" for name in node.input[1:]]
    silent = with_weights(model, {name: np.zeros_like(array) for name, array in weights_of(model, last).items()})
    with pytest.raises(ValueError, match="is 0 for all images"):
        distortion_of(silent, IMAGES)


def test_curves_of_layers_and_their_choice_beat_one_density_for_all():
    model = digits_model()
    curves = pattern_curves(model, PATTERNS, IMAGES)
    sites = [layer.node for layer in layers_of(model) if not layer.depthwise]
    assert list(curves.distortion) == list(curves.rate) == sites
    assert curves.base == 32 * 9  # the depthwise layer's
    assert all(
        row["dense"] == 0 < row["unstructured:0.5"] < row["unstructured:0.9"] for row in curves.distortion.values()
    )
    total = sum(np.prod(layer.shape) for layer in layers_of(model))
    uniform = Unstructured(0.8)
    budget = curves.base + sum(row[uniform.name] for row in curves.rate.values())
    chosen = choose(curves, budget)
    masks = masks_of(model, {site: parse_pattern(name) for site, name in chosen.items()})
    kept = sum(int(m.sum()) for m in masks.values()) + curves.base
    assert kept <= budget < total
    wanted = distortion_of(model, IMAGES)
    assert wanted(apply_masks(model, masks)) < wanted(apply_masks(model, masks_of(model, uniform)))
    assert len(set(chosen.values())) > 1


def test_patterns_that_fit_a_layer_are_its_options():
    curves = pattern_curves(digits_model(), (NofM(2, 4), NofM(1, 4)), IMAGES)
    assert {site: set(row) for site, row in curves.rate.items()} == {
        site: {"2:4", "1:4"} for site in ("/2/Conv", "/6/Conv", "/10/Gemm")
    }
    assert curves.base == 32 * 9 + 16 * 9


@pytest.mark.parametrize("method", ["dynamic-programming", "milp"])
def test_the_choice_is_the_best_of_all(method):
    rng = np.random.default_rng(0)
    rows = [{str(o): float(v) for o, v in enumerate(rng.random(3))} for _ in range(8)]
    curves = Curves({str(i): rows[i] for i in range(4)}, {str(i): rows[i + 4] for i in range(4)}, base=1.0)
    chosen = choose(curves, 3.0, method, steps=None)
    sums = {
        options: (
            sum(curves.distortion[str(i)][o] for i, o in enumerate(options)),
            1 + sum(curves.rate[str(i)][o] for i, o in enumerate(options)),
        )
        for options in itertools.product("012", repeat=4)
    }
    best = min((distortion, options) for options, (distortion, rate) in sums.items() if rate <= 3.0)
    assert tuple(chosen.values()) == best[1]


def test_curves_of_channels_say_what_pruning_saves():
    model = digits_model()
    scores = score_units(model, channel_groups(model))
    curves = channel_curves(model, scores, (0.25, 0.5, 1), IMAGES, macs_of, round_to=8)
    assert {site: list(row) for site, row in curves.rate.items()} == {
        "/0/Conv": ["8", "16"],
        "/2/Conv": ["8", "16", "32"],
        "/6/Conv": ["8", "16", "32"],
    }
    assert curves.base == macs_of(model) == totals(kernels_of(model)).macs
    alone = prune_channels(model, {"/2/Conv": best_units(scores["/2/Conv"], 8)})
    assert curves.rate["/2/Conv"]["8"] == macs_of(alone) - macs_of(model) < 0
    assert curves.rate["/2/Conv"]["32"] == curves.distortion["/2/Conv"]["32"] == 0
    assert set(choose(curves, curves.base).values()) == {"16", "32"}
    assert [(a, b) for a, b in curves.overlaps] == [("/0/Conv", "/2/Conv"), ("/2/Conv", "/6/Conv")]


@pytest.mark.parametrize("method", ["dynamic-programming", "milp"])
def test_with_overlaps_the_macs_of_any_choice_are_exact(method):
    model = digits_model()
    scores = score_units(model, channel_groups(model))
    curves = channel_curves(model, scores, (0.25, 0.5), IMAGES, macs_of)
    for budget in (0.2, 0.5, 0.8):
        chosen = choose(curves, budget * curves.base, method)
        told = curves.base + sum(curves.rate[site][option] for site, option in chosen.items())
        told += sum(amounts.get((chosen[a], chosen[b]), 0) for (a, b), amounts in curves.overlaps.items())
        keep = {site: best_units(scores[site], int(count)) for site, count in chosen.items()}
        assert macs_of(prune_channels(model, keep)) == told <= budget * curves.base
    with pytest.raises(ValueError, match="rate"):
        choose(curves, 0.01 * curves.base, method)
    without = channel_curves(model, scores, (0.25, 0.5), IMAGES, macs_of, overlaps=False)
    assert without.overlaps == {} and without.rate == curves.rate
