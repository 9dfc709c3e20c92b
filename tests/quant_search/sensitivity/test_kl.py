import numpy as np
from scipy.special import softmax
from scipy.stats import entropy

from quant_search.sensitivity.kl import divergence


def test_divergence_is_that_of_the_classes_in_fp32_from_those_after():
    rng = np.random.default_rng(0)
    y, z = (rng.standard_normal((5, 4)).astype(np.float32) * 3 for _ in range(2))
    expected = np.mean([entropy(softmax(p), softmax(q)) for p, q in zip(y, z, strict=True)])
    np.testing.assert_allclose(divergence(z, y), expected, rtol=1e-5)
    assert divergence(y, y) == 0 and abs(divergence(y + 7, y)) < 1e-6  # what is added to all logits changes nothing
    assert np.isfinite(divergence(np.array([[1e4, 0]]), np.array([[0, 1e4]])))
