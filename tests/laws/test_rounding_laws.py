"""Laws of learned rounding: over every method and every pattern of zeros."""

import numpy as np
import pytest

from quant_search.formats.integer import Integer
from quant_search.ptq.learned_rounding import Problem, Setting
from quant_search.ptq.reconstruct import METHODS
from quant_search.ptq.rows import Rows
from quant_search.sparsity.catalog import PATTERNS
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import mask

FAST = Setting(steps=80, rounding_rate=0.1)


@pytest.mark.parametrize("kind", [kind for kind, entry in PATTERNS.items() if kind != "dense" and not entry.smaller])
@pytest.mark.parametrize("method", METHODS)
def test_zeros_stay_while_what_is_left_makes_up_for_them(method, kind):
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((32, 16)).astype(np.float32)
    x = (rng.standard_normal((300, 16)) + rng.standard_normal((300, 1)) + 0.5).astype(np.float32)
    kept = mask(dense, parse_pattern(PATTERNS[kind].example))
    weight = np.where(kept, dense, 0)
    number = Integer(4)
    scale = np.full(32, np.abs(dense).max() / 7, np.float32)
    rows = Rows(x[:, None], x @ dense.T)  # what went with the zeros pulls at them
    found = METHODS[method](Problem(rows, weight[None], np.zeros(32, np.float32), scale, number), FAST)
    assert not found.codes[0][~kept].any()
    assert found.after < found.before and np.count_nonzero(found.codes[0]) > 0.5 * kept.sum()
