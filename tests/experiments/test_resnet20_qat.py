import numpy as np
import pytest
import torch

from experiments.decode_images import decode
from experiments.resnet20 import ResNet20, normalised, resnet20
from experiments.resnet20_qat import policy
from experiments.tables import DATA
from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from quant_search.sensitivity.subject import by_layer


def test_the_first_and_the_last_layer_keep_eight_bits():
    groups = by_layer(to_onnx(ResNet20(), (3, 32, 32)))
    assert len(groups) == 20 and list(groups)[-1] == "/linear/Gemm"
    options = list(policy(groups, "w2a8", ends=False).values())
    assert options[0] == options[-1] == "int8" and set(options[1:-1]) == {"w2a8"}
    assert set(policy(groups, "w2a8", ends=True).values()) == {"w2a8"}
    assert set(policy(groups, "fp32", ends=False).values()) == {"fp32"}


def test_images_are_in_the_weights_units():
    x = normalised(np.full((2, 32, 32, 3), 255, np.uint8))
    assert x.shape == (2, 3, 32, 32) and x.dtype == np.float32
    np.testing.assert_allclose(
        x[0, :, 0, 0], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-5
    )


@pytest.mark.skipif(not DATA.is_dir(), reason=f"ResNet-20's weights and CIFAR-10 are not in {DATA}")
def test_the_published_weights_know_the_images():
    images, labels = (part[::40] for part in decode(DATA / "cifar10_jpg_test.npz"))  # sorted by class
    assert len(np.unique(labels)) == 10
    with torch.random.fork_rng(devices=[]):
        session = open_session(resnet20(DATA / "resnet20_cifar10.th").SerializeToString(), parse_device("cpu"))
    assert accuracy(session, normalised(images), labels) > 0.7
