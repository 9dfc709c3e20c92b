import dataclasses

import numpy as np
import pytest

from latency.blocks import TracedBlock
from latency.count import Counts, Layer
from predictors.block_table import BlockTable, BlockTime, fit_block_table, fit_sited_table

PRECISIONS = ("fp32", "int8")


def traced(name, channels, side, expansion, kernel, weighted=True):
    """An inverted residual on (channels, side, side), or a pooling without weights."""
    pixels = side * side
    hidden = channels * expansion
    pointwise, depthwise = 2 * channels * hidden * pixels, hidden * pixels * kernel**2
    weights = 2 * channels * hidden + hidden * kernel**2
    counts = Counts(
        macs=pointwise + depthwise,
        parameters=weights,
        pointwise_macs=pointwise,
        depthwise_macs=depthwise,
        dense_macs=0,
        linear_macs=0,
        activation_elements=(2 * hidden + channels) * pixels,
        hswish_elements=0,
        layers=3,
        weight_elements=weights,
        input_elements=channels * pixels,
        output_elements=channels * pixels,
    )
    if not weighted:
        counts = Counts(*(0,) * 10, channels * pixels, channels * pixels)
    shape = (channels, side, side)
    return TracedBlock(name, f"{channels} {side} {expansion} {kernel} {weighted}", shape, shape, counts, weighted)


def all_blocks():
    return [
        traced(f"b{i}", c, side, e, k)
        for i, (c, side, e, k) in enumerate(
            (c, side, e, k) for c in (8, 16, 24, 40) for side in (8, 16, 32) for e in (2, 3, 4) for k in (3, 5, 7)
        )
    ]


def true_seconds(block, precision):
    """A law that is no sum of the model's terms: small channels and int8 waste part of a vector."""
    c = block.counts
    lanes = 16 if precision == "fp32" else 64
    waste = 1 + lanes / (4 * block.input_shape[0])
    macs_per_s = 4e10 if precision == "fp32" else 1.5e11
    return 2e-6 + waste * c.macs / macs_per_s + c.activation_elements * 1e-10


BLOCKS = all_blocks()
MEASURED = [BlockTime(b, p, true_seconds(b, p)) for b in BLOCKS for p in PRECISIONS]


@pytest.fixture(scope="module")
def table():
    return fit_block_table(MEASURED)


@pytest.fixture(scope="module")
def partial():
    """A third of the blocks was measured."""
    return fit_block_table(a_third())


def a_third():
    return [MEASURED[i] for i in sorted(np.random.default_rng(0).permutation(len(MEASURED))[::3])]


def networks(n, seed=0):
    """Rows of placed blocks of varying length and policy; each fourth all int8, each fourth all fp32."""
    rng = np.random.default_rng(seed)
    result = []
    for i in range(n):
        blocks = [BLOCKS[j] for j in rng.integers(len(BLOCKS), size=rng.integers(4, 14))]
        fixed = (None, "int8", None, "fp32")[i % 4]
        result.append([(b, fixed or PRECISIONS[rng.integers(2)]) for b in blocks])
    return result


def sums(rows):
    return np.array([sum(true_seconds(b, p) for b, p in network) for network in rows])


def test_a_sum_of_measured_blocks_is_exact(table):
    rows = networks(50)
    np.testing.assert_allclose(table.predict(rows).mean, sums(rows), rtol=1e-12)
    np.testing.assert_allclose(table.block_seconds(rows[0]), [true_seconds(b, p) for b, p in rows[0]], rtol=1e-12)


def test_terms_of_a_hand_case(table):
    a, b = BLOCKS[0], BLOCKS[50]
    ta, tb = true_seconds(a, "fp32"), true_seconds(b, "int8")
    elements = {block: block.counts.input_elements for block in (a, b)}
    expected = [
        [1, ta, 1, tb, 1, 2, elements[b]],  # into int8, and back for the logits
        [1, ta, 1, 0, 0, 0, 0],
        [1, 2 * ta, 2, 2 * tb, 2, 4, 2 * elements[b] + elements[a]],
        [1, 0, 0, 0, 0, 0, 0],
    ]
    rows = [[(a, "fp32"), (b, "int8")], [(a, "fp32")], [(a, "fp32"), (b, "int8")] * 2, []]
    np.testing.assert_allclose(table.summarise(rows), expected)
    assert table.summarise([]).shape == (0, 7) and table.predict([]).mean.shape == (0,)


def test_a_correction_recovers_known_coefficients(table):
    truth = np.array([6e-6, 0.9, 1e-6, 1.1, -0.5e-6, 4e-6, 2e-9])
    rows, held_out = networks(200), networks(100, seed=1)
    fitted = table.corrected(rows, table.summarise(rows) @ truth)
    np.testing.assert_allclose(fitted.correction[[1, 3, 5]], truth[[1, 3, 5]], rtol=0.1)
    np.testing.assert_allclose(fitted.correction[[0, 2, 4]], truth[[0, 2, 4]], atol=2e-6)
    np.testing.assert_allclose(fitted.predict(held_out).mean, table.summarise(held_out) @ truth, rtol=0.02)
    assert (fitted.relative_std < 0.01).all()


def test_additive_networks_need_no_correction(table):
    rows = networks(20)
    fitted = table.corrected(rows, sums(rows))
    np.testing.assert_allclose(fitted.correction, [0, 1, 0, 1, 0, 0, 0], atol=1e-6)
    assert (fitted.relative_std < 1e-5).all()


def test_what_the_data_leaves_open_stays_at_the_prior(table):
    rows = [[(b, "fp32") for b, _ in network] for network in networks(20)]
    fitted = table.corrected(rows, 1.2 * sums(rows))
    assert fitted.correction[3:].tolist() == pytest.approx([1, 0, 0, 0], abs=1e-9)
    one = table.corrected(rows[:1], 1.01 * sums(rows[:1]))
    np.testing.assert_allclose(one.predict(rows).mean, sums(rows), rtol=0.05)


def test_a_corrected_table_is_a_new_one(table):
    before = table.correction.copy()
    fitted = table.corrected(networks(8), 2 * sums(networks(8)))
    assert np.array_equal(table.correction, before) and np.isnan(table.relative_std).all()
    assert fitted.seconds is table.seconds and not np.array_equal(fitted.correction, before)
    assert (fitted.correction[[0, 1, 3, 5, 6]] >= 0).all()


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_the_relative_deviation_is_that_of_new_networks(table, noise):
    new, inside = networks(100, seed=100), []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = networks(24, seed)
        fitted = table.corrected(rows, sums(rows) * np.exp(noise * rng.normal(size=24)))
        prediction = fitted.predict(new)
        observed = sums(new) * np.exp(noise * rng.normal(size=100))
        inside.append(np.abs(observed - prediction.mean) < prediction.half_width(0.9))
    assert 0.86 < np.mean(inside) < 0.96


def test_each_kind_of_network_has_a_deviation_of_its_own(table):
    rows = networks(160)
    noise = {"fp32": 0.05, "int8": 0.01}
    rng = np.random.default_rng(0)
    level = np.array([noise.get(row[0][1] if len({p for _, p in row}) == 1 else "", 0.02) for row in rows])
    fitted = table.corrected(rows, sums(rows) * np.exp(level * rng.normal(size=160)))
    np.testing.assert_allclose(fitted.relative_std, [0.05, 0.01, 0.02], rtol=0.4)
    for row, std in (([(BLOCKS[0], "fp32")], 0), ([(BLOCKS[0], "int8")] * 12 + [(BLOCKS[1], "fp32")], 1)):
        prediction = fitted.predict([row])
        np.testing.assert_allclose(prediction.std, fitted.relative_std[std] * prediction.mean)


def test_leaving_out_is_what_refitting_without_would_give(table):
    rows = [row for row in networks(60) if len({p for _, p in row}) == 2][:12]
    seconds = sums(rows) * np.exp(0.05 * np.random.default_rng(0).normal(size=12)) + 1e-5
    others = [[j for j in range(12) if j != i] for i in range(12)]
    left_out = [
        table.corrected([rows[j] for j in some], seconds[some]).predict([rows[i]]).mean[0] / seconds[i] - 1
        for i, some in enumerate(others)
    ]
    expected = max(np.abs(left_out)) / 1.6449  # of twelve, the 90 % quantile that also holds for a new one
    assert table.corrected(rows, seconds).relative_std[2] == pytest.approx(expected, rel=0.1)


def test_unmeasured_blocks_are_modelled(partial):
    missing = [(m.block, m.precision) for m in MEASURED if m.key not in partial.seconds]
    truth = np.array([true_seconds(b, p) for b, p in missing])
    error = np.abs(partial.block_seconds(missing) / truth - 1)
    assert len(missing) > 100 and error.mean() < 0.03 and error.max() < 0.25


def test_what_an_estimate_knows_of_blocks_need_not_be_smooth():
    odd = dict(zip((block.name for block in BLOCKS), np.random.default_rng(0).uniform(1, 2, len(BLOCKS)), strict=True))

    def estimate(block):
        return odd[block.name] * block.counts.macs * 1e-10

    measured = [BlockTime(b, "int8", 1.2 * estimate(b)) for b in BLOCKS[::4]]
    found = {}
    for name, given in (("prices", None), ("estimate", estimate)):
        table = fit_block_table(measured, estimate=given)
        others = [b for b in BLOCKS if (b.structure, "int8", False, False) not in table.seconds]
        truth = np.array([1.2 * estimate(b) for b in others])
        found[name] = np.abs(table.block_seconds([(b, "int8") for b in others]) / truth - 1).mean()
    assert len(others) > 60 and found["estimate"] < 0.01 and found["prices"] > 0.1


def test_blocks_far_from_all_measured_ones_still_cost_something_sane(partial):
    for far in (traced("x", 512, 64, 6, 7), traced("x", 1, 1, 1, 1), traced("x", 8, 4, 1, 3, weighted=False)):
        for precision in PRECISIONS:
            (t,) = partial.block_seconds([(far, precision)])
            truth = true_seconds(far, precision)
            assert truth / 20 < t < 20 * truth


def test_a_kind_of_block_that_was_never_measured_is_not_free():
    free = [BlockTime(b, "fp32", b.counts.macs * 1e-11) for b in BLOCKS]  # nothing but MACs costs
    pooling = traced("pool", 8, 4, 1, 3, weighted=False)
    (t,) = fit_block_table(free).block_seconds([(pooling, "fp32")])
    assert 1e-10 < t < 1e-5


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_blocks_is_enough_to_go_on(n):
    few = fit_block_table(MEASURED[: 2 * n])
    seconds = few.block_seconds([(m.block, m.precision) for m in MEASURED])
    assert (seconds > 0).all() and np.isfinite(seconds).all()


def test_a_batch_equals_one_by_one(partial):
    rows = networks(30)
    fitted = partial.corrected(rows, 1.1 * sums(rows) + 1e-5)
    batch, single = fitted.predict(rows), [fitted.predict([row]) for row in rows]
    np.testing.assert_allclose(batch.mean, np.concatenate([p.mean for p in single]), rtol=1e-9)
    np.testing.assert_allclose(batch.std, np.concatenate([p.std for p in single]), rtol=1e-9)


def test_the_order_of_the_data_does_not_matter(partial):
    rng = np.random.default_rng(0)
    measured = a_third()
    shuffled = fit_block_table([measured[i] for i in rng.permutation(len(measured))])
    everything = [(m.block, m.precision) for m in MEASURED]
    assert np.array_equal(partial.block_seconds(everything), shuffled.block_seconds(everything))
    rows = networks(40)
    seconds = sums(rows) * np.exp(0.03 * rng.normal(size=40))
    order = rng.permutation(40)
    a = partial.corrected(rows, seconds).predict(rows)
    b = shuffled.corrected([rows[i] for i in order], seconds[order]).predict(rows)
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-6)
    np.testing.assert_allclose(a.std, b.std, rtol=1e-6)


def test_a_block_measured_several_times_stands_with_its_median():
    block = BLOCKS[0]
    for times in ([1e-5, 9e-5, 2e-5], [2e-5, 1e-5, 9e-5]):
        found = fit_block_table([BlockTime(block, "fp32", t) for t in times] + MEASURED[2:20])
        assert found.block_seconds([(block, "fp32")]) == pytest.approx(2e-5)


@pytest.mark.parametrize("t", [0.0, -1e-6, float("nan"), float("inf")])
def test_times_that_are_not_positive_are_refused(table: BlockTable, t):
    with pytest.raises(ValueError, match="block 'b0' in int8 must have a positive time"):
        fit_block_table([BlockTime(BLOCKS[0], "int8", t)])
    with pytest.raises(ValueError, match="as many positive truths"):
        table.corrected(networks(1), np.array([t if t == t and t < 1 else -1.0]))


def test_nothing_to_fit_on_is_refused(table):
    with pytest.raises(ValueError, match="needs measured blocks"):
        fit_block_table([])
    for rows, seconds in (([], []), (networks(2), [1.0])):
        with pytest.raises(ValueError, match="needs observations and as many"):
            table.corrected(rows, np.array(seconds))


# -- blocks that were timed where they stand ---------------------------------------------------------


def conversion_s(block):
    return 3e-6 + block.counts.input_elements * 2e-9


def seconds_inside(network):
    """The times of blocks inside a network, where int8 costs a conversion wherever it begins or ends."""
    precisions = ["fp32", *(p for _, p in network), "fp32"]
    return np.array(
        [
            true_seconds(b, p) + conversion_s(b) * ((p != precisions[i]) + (p != precisions[i + 2])) * (p == "int8")
            for i, (b, p) in enumerate(network)
        ]
    )


def whole(seconds):
    """Blocks of whose layers nothing is known."""
    return [np.array([t]) for t in seconds]


def test_blocks_in_their_places_know_what_boundaries_cost():
    rows, new = networks(60), networks(60, seed=1)
    call_s = 1.2e-5
    truth = np.array([seconds_inside(row).sum() + call_s for row in rows])
    fitted = fit_sited_table(rows, [whole(seconds_inside(row)) for row in rows], truth)
    expected = np.array([seconds_inside(row).sum() + call_s for row in new])
    prediction = fitted.predict(new)
    error = np.abs(prediction.mean / expected - 1)
    assert error.mean() < 0.02 and 0.8 < np.mean(np.abs(prediction.mean - expected) <= prediction.half_width(0.9)) <= 1
    alone = fit_block_table([BlockTime(b, p, true_seconds(b, p)) for row in rows for b, p in row])
    assert error.mean() < 0.7 * np.abs(alone.predict(new).mean / expected - 1).mean()


def test_the_deviation_is_that_of_networks_the_table_has_not_seen():
    rows = networks(40)
    inside = [seconds_inside(row) for row in rows]
    noise = np.random.default_rng(0)
    inside = [t * np.exp(0.1 * noise.normal(size=len(t))) for t in inside]  # which a table of its own would reproduce
    fitted = fit_sited_table(rows, list(map(whole, inside)), np.array([t.sum() for t in inside]))
    assert (fitted.relative_std > 0.02).all()


def test_one_network_is_a_table_too():
    row = networks(1)[0]
    inside = seconds_inside(row)
    fitted = fit_sited_table([row], [whole(inside)], np.array([inside.sum()]))
    assert fitted.predict([row]).mean[0] == pytest.approx(inside.sum(), rel=0.02)


def layered(channels, side, expansion, kernel):
    """A block with its three layers, and the time of each: alike in all blocks."""
    block, pixels, hidden = traced("", channels, side, expansion, kernel), side**2, channels * expansion
    narrow, wide, sizes = channels * hidden, hidden * kernel**2, (pixels, pixels)
    layers = (
        Layer("pointwise", "", narrow * pixels, narrow, (channels, hidden), sizes),
        Layer("depthwise", "", wide * pixels, wide, (hidden, hidden), sizes, kernel**2),
        Layer("pointwise", "", narrow * pixels, narrow, (hidden, channels), sizes),
    )
    speed = {"pointwise": 4e10, "depthwise": 5e9}
    times = [1e-6 + layer.macs / speed[layer.kind] * (1 + 20 / layer.channels[1]) for layer in layers]
    return dataclasses.replace(block, layers=layers), np.array(times)


LAYERED = [
    layered(c, side, e, k) for c in (8, 16, 24, 40) for side in (8, 16, 32) for e in (2, 3, 4) for k in (3, 5, 7)
]


def test_layers_tell_more_than_whole_blocks():
    order = np.random.default_rng(0).permutation(len(LAYERED)).tolist()
    rows = [[LAYERED[j] for j in order[i : i + 4]] for i in range(0, 16, 4)]
    networks, inside = [[(b, "fp32") for b, _ in row] for row in rows], [[t for _, t in row] for row in rows]
    seconds = np.array([sum(map(sum, row)) for row in inside])
    unseen, truth = zip(*((LAYERED[j][0], LAYERED[j][1].sum()) for j in order[16:]), strict=True)

    def error(inside):
        found = fit_sited_table(networks, inside, seconds).block_seconds([(block, "fp32") for block in unseen])
        return np.abs(found / np.array(truth) - 1)

    by_layers, as_wholes = error(inside).mean(), error([whole(map(sum, row)) for row in inside]).mean()
    assert by_layers < 0.02 and by_layers < 0.5 * as_wholes


def test_a_block_whose_layers_are_not_always_known_is_a_whole():
    (block, times), (other, others) = LAYERED[0], LAYERED[1]
    networks, total = [[(block, "fp32"), (other, "fp32")], [(block, "fp32")]], times.sum()
    fitted = fit_sited_table(networks, [[times, others], whole([total])], np.array([total + others.sum(), total]))
    assert fitted.block_seconds(networks[0]) == pytest.approx([total, others.sum()])
    assert not fitted.models["fp32"].by_layers


def test_blocks_that_compute_what_no_layer_stands_for_are_wholes():
    """As attention does: its products of activations are nodes, but no layers."""
    bare = [(block, times) for block, times in LAYERED if block.input_shape[0] < 40]
    extra = [
        (dataclasses.replace(b, structure=f"{b.structure} +", layers=b.layers[::2]), [t.sum() + 1e-4]) for b, t in bare
    ]
    order = np.random.default_rng(0).permutation(len(bare)).tolist()
    networks = [[(bare[i][0], "fp32"), (extra[j][0], "fp32")] for i, j in zip(order[:40], order[-40:], strict=True)]
    inside = [[bare[i][1], np.array(extra[j][1])] for i, j in zip(order[:40], order[-40:], strict=True)]
    fitted = fit_sited_table(networks, inside, np.array([sum(map(np.sum, row)) for row in inside]))
    model = fitted.models["fp32"]
    assert model.by_layers == {("pointwise", "depthwise", "pointwise")}
    unseen = [extra[j] for j in order[:-40]]
    found = fitted.block_seconds([(block, "fp32") for block, _ in unseen])
    assert np.mean(np.abs(found / [t[0] for _, t in unseen] - 1)) < 0.15
