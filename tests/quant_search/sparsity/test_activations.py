import numpy as np
import pytest
from sparse_subject import digits, digits_model, run

from quant_search.sparsity.activations import activations

IMAGES = digits()[0][:50]


def tensor(node_name):
    return next(node.output[0] for node in digits_model().graph.node if node.name == node_name)


def test_tensors_inside_come_batch_by_batch_with_input_and_output():
    model = digits_model()
    names = [model.graph.input[0].name, tensor("/0/Conv"), tensor("/1/Relu"), model.graph.output[0].name]
    parts = list(activations(model, [*names, names[0]], IMAGES, batch=20))
    assert [len(part[names[1]]) for part in parts] == [20, 20, 10] and list(parts[0]) == names
    whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
    assert (whole[names[0]] == IMAGES).all()
    assert np.allclose(np.maximum(whole[names[1]], 0), whole[names[2]]) and (whole[names[1]] < 0).any()
    assert np.allclose(whole[names[3]], run(model, IMAGES), atol=1e-5)


def test_the_input_alone_needs_no_run():
    name = digits_model().graph.input[0].name
    assert (next(activations(digits_model(), [name], IMAGES))[name] == IMAGES[:32]).all()


def test_no_images_and_unknown_names_are_refused_before_the_first_batch():
    with pytest.raises(ValueError, match="those of images, got none"):
        activations(digits_model(), [], IMAGES[:0])
    with pytest.raises(ValueError, match="no tensor 'x'"):
        activations(digits_model(), ["x"], IMAGES)
