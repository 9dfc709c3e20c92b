import numpy as np
import pytest
from onnx import numpy_helper
from sparse_subject import digits_model

from quant_search.onnx_qdq import quantize
from quant_search.ranges import neutral_ranges
from quant_search.sparsity.masking import apply_masks, maskable, masks_of
from quant_search.sparsity.patterns import Blocks, NofM, Unstructured
from quant_search.sparsity.weighted import layers_of, weights_of, zeros_of


def named(model):
    return {layer.node: layer for layer in layers_of(model)}


def test_depthwise_layers_and_those_that_do_not_fit_stay_dense():
    model = digits_model()
    layers = named(model)
    assert set(masks_of(model, Unstructured(0.5))) == {n.weight for n in layers.values() if not n.depthwise}
    assert set(masks_of(model, NofM(2, 4))) == {layers[name].weight for name in ("/2/Conv", "/6/Conv", "/10/Gemm")}
    assert set(masks_of(model, Blocks(16, 4, 0.5))) == {layers[name].weight for name in ("/2/Conv", "/6/Conv")}
    assert not maskable(layers["/4/Conv"], Unstructured(0.5)) and maskable(layers["/0/Conv"], Unstructured(0.5))


def test_each_layer_may_have_a_pattern_of_its_own():
    model = digits_model()
    layers = named(model)
    masks = masks_of(model, {"/2/Conv": NofM(2, 4), "/6/Conv": Unstructured(0.9)})
    assert masks[layers["/2/Conv"].weight].mean() == 0.5
    assert masks[layers["/6/Conv"].weight].mean() == pytest.approx(0.1, abs=1e-3)
    assert len(masks) == 2
    assert list(masks_of(model, NofM(2, 4), nodes=["/2/Conv"])) == [layers["/2/Conv"].weight]
    with pytest.raises(ValueError, match="is called '/1/Relu'"):
        masks_of(model, {"/1/Relu": NofM(2, 4)})


def test_masks_zero_what_they_do_not_keep_and_nothing_else():
    model = digits_model()
    masks = masks_of(model, Unstructured(0.5))
    before, after = weights_of(model), weights_of(apply_masks(model, masks))
    for name, weight in before.items():
        kept = masks.get(name, np.ones(weight.shape, bool))
        assert (after[name] == weight * kept).all()
    assert zeros_of(apply_masks(model, masks), [named(model)["/6/Conv"]]) == 0.5
    with pytest.raises(ValueError, match=r"has the shape \(2,\), the weight"):
        apply_masks(model, {next(iter(masks)): np.ones(2, bool)})


@pytest.mark.parametrize("pattern", [NofM(2, 4), Blocks(16, 4, 0.5), Unstructured(0.8)])
def test_zeros_are_zeros_in_the_int8_file_too(pattern):
    model = digits_model()
    masks = masks_of(model, pattern)
    masked = apply_masks(model, masks)
    int8 = quantize(masked, [node.name for node in masked.graph.node], neutral_ranges(masked))
    stored = {t.name: numpy_helper.to_array(t) for t in int8.graph.initializer}
    for name, kept in masks.items():
        codes = stored[f"{name}_quantized"]
        assert codes.dtype == np.int8 and not codes[~kept].any() and (codes[kept] != 0).mean() > 0.9


def test_scores_that_are_given_decide():
    model = digits_model()
    layer = named(model)["/6/Conv"]
    scores = {layer.weight: np.arange(np.prod(layer.shape), dtype=float).reshape(layer.shape)}
    kept = masks_of(model, Unstructured(0.5), scores, ["/6/Conv"])[layer.weight]
    assert not kept[:16].any() and kept[16:].all()
