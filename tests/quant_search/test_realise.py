import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from quant_search.layers import layers
from quant_search.onnx_qdq import quantize
from quant_search.precision import stored_bytes
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions, rounded_weights
from quant_search.sensitivity.subject import by_layer
from quant_search.weight_codes import weight_format
from tests.quant_search.small_digits import digits, trained
from tests.quant_search.tied import some_images, tied

CPU = parse_device("cpu")


def values(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_every_group_is_in_its_own_precision():
    model, groups = trained(), by_layer(trained())
    x = digits()[0][:32]
    ranges = activation_ranges(model, x)
    stem, _, spatial, project, down, classifier = groups
    file = in_precisions(model, groups, {stem: "int8", spatial: "w4", project: "w4a8", down: "fp32"}, ranges)
    before, after = values(model), values(file)
    weight = {layer.name: layer.weight for layer in layers(model)}
    for group in (down, classifier):
        assert np.array_equal(before[weight[group]], after[weight[group]])
    assert np.array_equal(after[weight[spatial]], rounded_weights(model, [spatial], 4)[spatial].weight(0))
    for group, ends in ((stem, (-weight_format(8).steps, weight_format(8).steps)), (project, (-8, 7))):
        codes = after[f"{weight[group]}_quantized"]
        assert codes.dtype == np.int8 and (codes.min(), codes.max()) == ends
    logits = open_session(file.SerializeToString(), CPU).run(x)
    assert np.isfinite(logits).all()


def test_files_are_as_small_as_their_precisions():
    model, groups = trained(), by_layer(trained())
    x = digits()[0][:64]
    ranges, size = activation_ranges(model, x), {}
    for option in ("fp32", "int8", "w4a8", "w2a8", "w8", "w4"):
        chosen = dict.fromkeys(groups, option)
        packed, wide = (in_precisions(model, groups, chosen, ranges, pack=pack) for pack in (True, False))
        tensors = [t for t in packed.graph.initializer if len(t.dims) > 1]
        size[option] = sum(len(t.raw_data) for t in tensors if option == "fp32" or t.data_type != TensorProto.FLOAT)
        outputs = [open_session(file.SerializeToString(), CPU).run(x) for file in (packed, wide)]
        np.testing.assert_allclose(*outputs, atol=1e-4)
    weights = size["fp32"] // 4
    for option in ("int8", "w4a8", "w2a8", "w8", "w4"):
        assert size[option] == pytest.approx(stored_bytes(option) * weights, abs=len(groups) + 64), option


def test_int8_everywhere_is_the_writers_own_file_and_fp32_the_model():
    model, groups = trained(), by_layer(trained())
    ranges, nodes = activation_ranges(model, digits()[0][:32]), [n for own in groups.values() for n in own]
    before = model.SerializeToString()
    assert in_precisions(model, groups, dict.fromkeys(groups, "int8"), ranges) == quantize(model, nodes, ranges)
    assert in_precisions(model, groups, dict.fromkeys(groups, "fp32"), ranges) == model
    assert model.SerializeToString() == before


@pytest.mark.parametrize("precision", ["int8", "w4a8", "w5", "w8"])
def test_layers_that_share_a_weight_have_one_precision(precision):
    x, _ = some_images()
    model, ranges = tied(), activation_ranges(tied(), x)
    y, *others = (
        open_session(file.SerializeToString(), CPU).run(x)
        for file in (
            model,
            *(in_precisions(model, by_layer(model), {"one": precision}, ranges, pack=p) for p in (0, 1)),
        )
    )
    for other in others:
        assert 0 < np.abs(other - y).max() < 0.4 * np.abs(y).max()
    np.testing.assert_allclose(*others, atol=1e-5 if precision in ("w5", "w8") else 0)


@pytest.mark.parametrize("options", [("w4", "int8"), ("w4", "fp32"), ("w4a8", "fp32"), ("w4a8", "w3a8")])
def test_a_shared_weight_has_one_precision(options):
    ranges, groups = activation_ranges(tied(), some_images()[0]), {"a": ["one"], "b": ["two"]}
    for first, second in (options, options[::-1]):
        message = f"'one' and 'two' share the weight 'w', got {first} and {second}: give both the same precision"
        with pytest.raises(ValueError, match=message):
            in_precisions(tied(), groups, {"a": first, "b": second}, ranges, pack=True)
    in_precisions(tied(), groups, {"a": "int8", "b": "fp32"}, ranges)
