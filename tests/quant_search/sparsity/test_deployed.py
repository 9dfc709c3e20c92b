import onnx
import pytest
from sparse_subject import CPU, digits_model

from latency.device import parse_device
from latency.runtimes.opening import int8_share
from latency.worker import Effort
from quant_search.sparsity.channels import prune_channels
from quant_search.sparsity.deployed import deployed, measured_latency

EFFORT = Effort(rounds=1, most_rounds=1, samples=2, sample_s=1e-5)


def test_the_file_is_in_its_precision():
    model = digits_model()
    assert deployed(model, CPU) == model.SerializeToString()
    int8 = deployed(model, CPU, "int8")
    onnx.checker.check_model(onnx.load_model_from_string(int8))
    assert int8_share(int8, CPU) == 1


def test_precisions_that_are_no_time_there_are_refused():
    with pytest.raises(ValueError, match="unknown precision 'int3'"):
        deployed(digits_model(), CPU, "int3")
    with pytest.raises(ValueError, match="'cpu:torch' does not turn int8 into time: torch has no int8 form"):
        deployed(digits_model(), parse_device("cpu:torch"), "int8")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_latencies_are_seconds_in_the_order_of_the_models(precision):
    model = digits_model()
    smaller = prune_channels(model, {"/2/Conv": [0]})
    found = measured_latency(CPU, EFFORT, precision)([model, smaller, model])
    assert len(found) == 3 and all(0 < t < 1 for t in found) and found[0] == found[2]
