"""Networks that the user already has."""

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from nas.given import EXPORT, check_given, classes_of, read_given

NAME, SHAPE = "test_efficientnet", (3, 32, 32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = timm.create_model(NAME, num_classes=7).eval()
    file = tmp_path_factory.mktemp("given") / "weights.pth"
    torch.save(network.state_dict(), file)
    return network, file


def test_a_network_of_timm_is_exported_with_its_weights(weights):
    network, file = weights
    model = read_given(f"{NAME}:{file}", SHAPE)
    assert classes_of(model) == 7
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(x).numpy()
    found = open_session(model.SerializeToString(), parse_device("cpu")).run(x.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]


def test_an_onnx_file_is_read_for_images_of_its_size(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    onnx.save(to_onnx(network.eval(), SHAPE), tmp_path / "net.onnx")
    assert classes_of(read_given(str(tmp_path / "net.onnx"), SHAPE)) == 5
    with pytest.raises(ValueError, match=r"\(3, 32, 32\) .* has \(3, 64, 64\): give --image-size 32"):
        read_given(str(tmp_path / "net.onnx"), (3, 64, 64))
    with pytest.raises(ValueError, match=r"has \(1, 32, 32\)$"):
        read_given(str(tmp_path / "net.onnx"), (1, 32, 32))


def test_an_output_that_is_no_logits_is_refused(tmp_path):
    onnx.save(to_onnx(nn.Conv2d(3, 4, 3).eval(), SHAPE), tmp_path / "maps.onnx")
    with pytest.raises(ValueError, match=r"\['batch', 4, 30, 30\], expected logits \(batch, classes\): flatten it"):
        classes_of(read_given(str(tmp_path / "maps.onnx"), SHAPE))


def test_what_is_no_network_is_refused(weights, tmp_path):
    _, file = weights
    for source in ("net", ":weights.pth", f"{NAME}:"):
        with pytest.raises(ValueError, match="is no network: give FILE"):
            check_given(source)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        check_given(f"{NAME}:missing.pth")
    with pytest.raises(ValueError, match="test_resnet"):
        read_given(f"test_resnet:{file}", SHAPE)
    with pytest.raises(ValueError, match=r"'resnet20' is no network of timm.*: write one .* with torch\.onnx\.export"):
        read_given(f"resnet20:{file}", SHAPE)


def test_a_network_of_ones_own_is_written_as_the_hint_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 5))
    images = torch.zeros(2, *SHAPE)
    exec(EXPORT, {"torch": torch, "network": network, "images": images})  # the words that a user copies
    assert classes_of(read_given("net.onnx", SHAPE)) == 5
