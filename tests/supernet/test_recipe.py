import pytest

from supernet.catalog import OPTIMIZERS
from supernet.recipe import Recipe


def test_needs_a_length():
    assert Recipe(epochs=1).budget_s is None
    assert Recipe(budget_s=2.5).epochs is None
    assert Recipe(steps=3).epochs is None
    with pytest.raises(ValueError, match="needs epochs, steps or budget_s, got none"):
        Recipe()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("epochs", 1.5), ("steps", 0), ("budget_s", 0.0), ("budget_s", float("nan")), ("batch", 1),
        ("lr", 0.0), ("lr", float("inf")), ("weight_decay", -1.0), ("momentum", 0.0), ("warmup", 1.0),
        ("label_smoothing", -0.1), ("ema_decay", 1.0), ("clip", 0.0), ("shift", -1), ("erase", 1.1), ("mixup", -0.1),
        ("evaluations", 0), ("seed", -1),
    ],
)  # fmt: skip
def test_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        Recipe(**({"epochs": 1} | {name: value}))


def test_unknown_optimizer():
    with pytest.raises(ValueError, match=r"^unknown optimizer 'adam'; did you mean 'adamw'\? Known: sgd, adamw"):
        Recipe(epochs=1, optimizer="adam")
    with pytest.raises(ValueError, match=r"^unknown optimizer 'x'\. Known: sgd, adamw"):
        Recipe(epochs=1, optimizer="x")
    assert all(Recipe(epochs=1, optimizer=name) for name in OPTIMIZERS)
