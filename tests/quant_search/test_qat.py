import numpy as np
import pytest
import torch

from quant_search.qat import Recipe, train
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions, nodes_in_int8
from quant_search.sensitivity.subject import by_layer
from tests.quant_search.small_digits import accuracy_of, digits, run, trained

X, Y = (part[:1000] for part in digits())
X_TEST, Y_TEST = (part[1000:] for part in digits())
GROUPS = by_layer(trained())
SHORT = Recipe(steps=4, batch=32)


def to_nearest(chosen):
    ranges = activation_ranges(trained(), X[:300], nodes=nodes_in_int8(GROUPS, chosen))
    return in_precisions(trained(), GROUPS, chosen, ranges)


@pytest.fixture(scope="module", params=["w2a8", "mixed"])
def tuned(request):
    """A policy, and the network trained in it."""
    options = {"w2a8": ["w2a8"] * 6, "mixed": ["int8", "w2a8", "w3a8", "w2a8", "w4a8", "int8"]}[request.param]
    chosen = dict(zip(GROUPS, options, strict=True))
    return chosen, train(trained(), GROUPS, chosen, X, Y, Recipe(steps=80, lr=0.005))


def test_training_gives_back_what_rounding_took(tuned):
    chosen, found = tuned
    fp32, before, after = (accuracy_of(m, X_TEST, Y_TEST) for m in (trained(), to_nearest(chosen), found.file()))
    assert before < fp32 - 0.1  # two bits hurt
    assert after > before + 0.6 * (fp32 - before)
    assert np.mean(found.losses[-10:]) < 0.5 * np.mean(found.losses[:5])


def test_the_accuracy_that_training_believed_is_that_of_the_file(tuned):
    _, found = tuned
    with torch.no_grad():
        logits = found.twin(torch.from_numpy(X_TEST)).numpy()
    file = found.file()
    step = np.ptp(logits) / 255
    assert abs((logits.argmax(1) == Y_TEST).mean() - accuracy_of(file, X_TEST, Y_TEST)) <= 0.003
    assert np.mean(np.abs(run(file, X_TEST) - logits) > 0.01 * step) < 0.01
    assert np.array_equal(run(file, X_TEST), run(found.file(pack=False), X_TEST))
    assert len(file.SerializeToString()) < len(found.file(pack=False).SerializeToString())


def test_the_same_seed_gives_the_same_bytes():
    chosen = dict.fromkeys(GROUPS, "w3a8")
    files = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        found = train(trained(), GROUPS, chosen, X, Y, Recipe(steps=4, batch=32, seed=seed))
        files.append(found.file().SerializeToString())
    assert files[0] == files[1] != files[2]


def test_a_teacher_alone_needs_no_labels_and_the_model_stays_as_it_was():
    before, steps = trained().SerializeToString(), []
    chosen = dict.fromkeys(GROUPS, "w2a8")
    recipe = Recipe(steps=30, lr=0.005, distill=1.0)
    found = train(trained(), GROUPS, chosen, X, recipe=recipe, progress=lambda *done: steps.append(done))
    assert trained().SerializeToString() == before and steps == [(i + 1, 30) for i in range(30)]
    assert np.mean(found.losses[-5:]) < 0.5 * np.mean(found.losses[:3])
    assert accuracy_of(found.file(), X_TEST, Y_TEST) > accuracy_of(to_nearest(chosen), X_TEST, Y_TEST) + 0.1


def test_images_are_changed_by_draws_of_the_step():
    drawn = []

    def augment(x, rng):
        drawn.append((x.numpy().sum(), rng.integers(2**30)))
        return x.flip(-1)

    for _ in range(2):
        train(trained(), GROUPS, dict.fromkeys(GROUPS, "int8"), X, Y, SHORT, augment=augment)
    assert drawn[:4] == drawn[4:] and len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": X[:0]}, "training needs images of float32, one at least, got 0"),
        ({"labels": None}, "a loss of 50% labels needs labels"),
        ({"labels": Y[:3]}, r"got \(3,\) for 1000 images"),
        ({"chosen": dict.fromkeys(GROUPS, "w1a8")}, "unknown precision 'w1a8'"),
        ({"recipe": Recipe(steps=20, lr=1e20)}, "the loss is .* take a smaller rate"),
    ],
)
def test_what_cannot_be_trained_is_refused(arguments, message):
    given = {"model": trained(), "groups": GROUPS, "chosen": dict.fromkeys(GROUPS, "int8"), "images": X, "labels": Y}
    with pytest.raises(ValueError, match=message):
        train(**{**given, "recipe": SHORT} | arguments)


def test_a_recipe_out_of_its_range_is_refused():
    for settings in ({"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"distill": 1.5}):
        with pytest.raises(ValueError, match="a recipe has steps"):
            Recipe(**settings)
