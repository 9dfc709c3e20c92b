"""With ONNX Runtime's own providers: the Azure one, which its packages for CPUs bring, takes no node of a network."""

import dataclasses

import onnxruntime
import pytest
from small_model import model
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.placement import Placed, check, elsewhere, placement

CPU = parse_device("cpu")
AZURE = ["AzureExecutionProvider", "CPUExecutionProvider"]
has_azure = pytest.mark.skipif(AZURE[0] not in onnxruntime.get_available_providers(), reason="no second provider")


class Tokens(nn.Module):
    """Its reshape reads a size that only the call knows."""

    def forward(self, x):
        return x.relu().flatten(2).mean(2)


def test_on_the_cpu_every_node_is_the_cpus():
    found = placement(model(4), CPU)
    assert [p.op_type for p in found if p.op_type in ("Conv", "Flatten")] == ["Conv", "Flatten"]
    assert {p.provider for p in found} == {"CPUExecutionProvider"}
    assert all(p.node and not p.node.endswith("_kernel_time") for p in found)
    check(model(4), CPU)


@has_azure
def test_nodes_that_a_provider_leaves_to_another_are_named():
    left = elsewhere(placement(model(4), CPU, providers=AZURE), AZURE[0])
    assert "Conv" in {p.op_type for p in left}
    with pytest.raises(
        ValueError, match=r"of \d+ nodes do not run on AzureExecutionProvider .*Conv, CPUExecution"
    ) as e:
        check(model(4), CPU, providers=AZURE)
    assert "\n" not in str(e.value)


def test_what_computes_shapes_may_be_elsewhere():
    found = placement(to_onnx(Tokens(), (3, 4, 4)).SerializeToString(), CPU)
    shapes = {p.op_type for p in found if not p.computes}
    assert "Shape" in shapes and "Relu" not in shapes
    mixed = [Placed("s", "Shape", "b", False), Placed("c", "Conv", "a", True), Placed("r", "Relu", "b", True)]
    assert [p.node for p in elsewhere(mixed, "a")] == ["r"]


def test_run_times_without_providers_are_refused():
    with pytest.raises(ValueError, match="'cpu:torch' does not run in ONNX Runtime"):
        placement(model(4), parse_device("cpu:torch"))


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is one")
def test_a_model_is_not_run_elsewhere_instead():
    with pytest.raises(ValueError, match="did not start CUDAExecutionProvider"):
        placement(model(4), dataclasses.replace(CPU, name="gpu", kind="gpu"))
