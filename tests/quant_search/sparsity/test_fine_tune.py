import numpy as np
import pytest
from sparse_subject import accuracy, digits_model, run, train_examples

from quant_search.sparsity.channels import channel_groups, prune_channels
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.fine_tune import _draws, fine_tune
from quant_search.sparsity.masking import apply_masks, masks_of
from quant_search.sparsity.patterns import NofM, Unstructured
from quant_search.sparsity.selection import score_units, uniform_keep
from quant_search.sparsity.weighted import weights_of


def test_what_was_pruned_stays_zero_and_accuracy_comes_back():
    model = digits_model()
    for pattern in (NofM(1, 4), Unstructured(0.8)):
        masks = masks_of(model, pattern)
        tuned = fine_tune(model, train_examples(), 60, masks=masks)
        weights = weights_of(tuned)
        for name, kept in masks.items():
            assert not weights[name][~kept].any() and (weights[name][kept] != 0).mean() > 0.99
        assert accuracy(tuned) > accuracy(apply_masks(model, masks)) + 0.1


def test_pruned_networks_are_trained_too():
    model = digits_model()
    groups = channel_groups(model)
    pruned = prune_channels(model, uniform_keep(groups, score_units(model, groups), 0.5))
    tuned = fine_tune(pruned, train_examples(), 60)
    assert accuracy(tuned) > accuracy(pruned) + 0.1
    assert [t.dims for t in tuned.graph.initializer] == [t.dims for t in pruned.graph.initializer]
    changed = [a.raw_data != b.raw_data for a, b in zip(tuned.graph.initializer, pruned.graph.initializer, strict=True)]
    assert sum(changed) == 2 * len(weights_of(pruned))  # weights and biases


def test_the_same_seed_gives_the_same_model():
    model, examples = digits_model(), train_examples()
    one, again, other = (fine_tune(model, examples, 3, seed=seed).SerializeToString() for seed in (1, 1, 2))
    assert one == again != other


def test_every_image_comes_once_before_any_comes_again():
    images = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1)
    drawn = [int(x) for part, _ in _draws(Examples(images, np.arange(10), batch=4), 5, seed=0) for x in part.flatten()]
    assert len(drawn) == 20 and set(drawn[:10]) == set(drawn[10:]) == set(range(10))


def test_a_teacher_is_imitated():
    model, examples = digits_model(), train_examples()
    masks = masks_of(model, NofM(1, 4))
    wrong = Examples(examples.images, np.random.default_rng(0).permutation(examples.labels))
    wanted = run(model, examples.images).argmax(1)
    alike, steps = [], []
    for teacher in (None, model):
        tuned = fine_tune(model, wrong, 30, masks=masks, teacher=teacher, on_step=lambda: steps.append(1))
        alike.append((run(tuned, examples.images).argmax(1) == wanted).mean())
    assert alike[1] > alike[0] + 0.2 and len(steps) == 60


def test_images_are_changed_by_draws_of_the_seed():
    seen = []

    def augment(images, rng):
        seen.append(rng.random())
        return images * 0

    for seed in (0, 0, 1):
        fine_tune(digits_model(), train_examples(), 2, augment=augment, seed=seed)
    assert seen[:2] == seen[2:4] and len(set(seen)) == 4


def test_settings_that_train_nothing_are_refused():
    for steps, rate in ((0, 0.1), (1, 0), (1, float("nan"))):
        with pytest.raises(ValueError, match="needs steps and a positive rate"):
            fine_tune(digits_model(), train_examples(), steps, rate=rate)
