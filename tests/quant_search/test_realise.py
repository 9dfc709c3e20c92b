import numpy as np
from onnx import numpy_helper

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from quant_search.layers import layers
from quant_search.onnx_qdq import quantize
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions, rounded_weights
from quant_search.sensitivity.subject import by_layer
from quant_search.weight_codes import weight_format
from tests.quant_search.small_digits import digits, trained

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


def test_int8_everywhere_is_the_writers_own_file_and_fp32_the_model():
    model, groups = trained(), by_layer(trained())
    ranges, nodes = activation_ranges(model, digits()[0][:32]), [n for own in groups.values() for n in own]
    before = model.SerializeToString()
    assert in_precisions(model, groups, dict.fromkeys(groups, "int8"), ranges) == quantize(model, nodes, ranges)
    assert in_precisions(model, groups, dict.fromkeys(groups, "fp32"), ranges) == model
    assert model.SerializeToString() == before
