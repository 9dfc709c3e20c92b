from dataclasses import replace

import numpy as np
import pytest

from latency.graph import Kernel, Tensor
from latency.kernel_profile import KernelProfile
from predictors.kernel_level import KernelModel, fit_kernel_model
from predictors.ranking import agreement


def conv(name, c, wide, side, taps):
    x, w, y = ((1, c, side, side), (wide, c, taps, taps), (1, wide, side, side))
    x, w, y = (Tensor(f"{name}{n}", shape, "float32") for n, shape in zip("xwy", (x, w, y), strict=True))
    macs = y.elements * c * taps**2
    return Kernel(
        name,
        "com.microsoft.nchwc",
        "Conv",
        "Relu",
        (x,),
        (w,),
        (),
        (y,),
        (("group", 1),),
        macs,
        x.bytes,
        y.bytes,
        w.bytes,
    )


def relu(name, c, side):
    x, y = (Tensor(f"{name}{n}", (1, c, side, side), "float32") for n in "xy")
    return Kernel(name, "", "Relu", "", (x,), (), (), (y,), (), 0, x.bytes, y.bytes, 0)


def true_s(kernel):
    return 2e-6 + kernel.macs / 3e10 + (kernel.bytes_read + kernel.bytes_written + kernel.weight_bytes) / 2e10


def network(rng):
    kernels = []
    for i in range(int(rng.integers(4, 12))):
        c, wide, side = 8 * rng.integers(1, 12), 8 * rng.integers(1, 12), rng.integers(7, 40)
        kernels.append(conv(f"c{i}", int(c), int(wide), int(side), int(rng.choice((1, 3)))))
        kernels.append(relu(f"r{i}", int(wide), int(side)))
    return tuple(kernels)


def profile(kernels, rng):
    """Times known to 2 %."""
    times = [true_s(k) for k in kernels]
    seen = [t * np.exp(0.02 * rng.standard_normal()) for t in times]
    return KernelProfile(kernels, tuple(seen), 1e-5 + sum(times) * float(np.exp(0.01 * rng.standard_normal())))


@pytest.fixture(scope="module")
def profiles():
    rng = np.random.default_rng(0)
    return [profile(network(rng), rng) for _ in range(40)]


@pytest.fixture(scope="module")
def model(profiles):
    return fit_kernel_model(profiles, "here")


def test_networks_never_seen_are_predicted_within_the_interval(model):
    rng = np.random.default_rng(1)
    others = [network(rng) for _ in range(60)]
    truth = np.array([1e-5 + sum(map(true_s, kernels)) for kernels in others])
    found = model.predict(others)
    assert agreement(found.mean, truth).mape < 0.03
    assert 0.75 <= np.mean(np.abs(found.mean - truth) < 1.645 * found.std) <= 1


def test_the_time_of_each_kernel_is_known(model, profiles):
    kernels = profiles[0].kernels
    np.testing.assert_allclose(model.kernel_seconds(kernels), [true_s(k) for k in kernels], rtol=0.2, atol=1.5e-6)


def test_batch_equals_one_by_one_and_a_saved_model_predicts_the_same(model, profiles):
    networks = [p.kernels for p in profiles[:5]]
    together, loaded = model.predict(networks), KernelModel.from_json(model.to_json()).predict(networks)
    alone = [model.predict([kernels]) for kernels in networks]
    np.testing.assert_allclose(together.mean, [p.mean[0] for p in alone])
    np.testing.assert_allclose(together.std, [p.std[0] for p in alone])
    np.testing.assert_allclose(loaded.mean, together.mean, rtol=1e-6)
    np.testing.assert_allclose(loaded.std, together.std, rtol=1e-4)


def test_a_kernel_of_a_kind_never_seen_widens_the_interval(model, profiles):
    kernels = profiles[0].kernels
    strange = tuple(replace(k, op_type="Erf") if k.op_type == "Relu" else k for k in kernels)
    known, unknown = model.predict([kernels]), model.predict([strange])
    assert unknown.std[0] / unknown.mean[0] > known.std[0] / known.mean[0]


def test_integer_kernels_are_refused(model, profiles):
    first = profiles[0].kernels[0]
    with pytest.raises(ValueError, match="is a QLinearConv: the kernel model knows fp32 networks only"):
        model.predict([[replace(first, op_type="QLinearConv")]])


def test_too_few_networks_are_refused(profiles):
    with pytest.raises(ValueError, match="at least 10 measured networks, got 9"):
        fit_kernel_model([*profiles[:9], replace(profiles[9], kernel_s=())], "here")


def test_text_that_is_no_model_is_refused():
    for text in ("", "[]", '{"fingerprint": "x"}'):
        with pytest.raises(ValueError, match="not a kernel model"):
            KernelModel.from_json(text)
