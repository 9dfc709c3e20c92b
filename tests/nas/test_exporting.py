import numpy as np
import pytest
import torch

import nas
from latency.device import parse_device
from latency.runtimes.onnx_runtime import int8_share, open_session
from nas.names import catalog_entry
from search_spaces.network import extract, find_space
from tests.nas.small_space import Small

CPU = parse_device("cpu")
ARCH = {"width": 8, "depth": 2, "kernel0": 3, "kernel1": 1}
SIZES = {"image_size": 8, "in_channels": 1, "num_classes": 3}


def images(n=8):
    return np.random.default_rng(0).standard_normal((n, 1, 8, 8)).astype(np.float32)


def test_a_supernet_is_exported_with_its_own_weights(tmp_path):
    net = Small(1, 3).eval()
    file = nas.export(net, ARCH, None, tmp_path / "a.onnx", **SIZES)
    plain = extract(net, find_space(net).architecture(ARCH)).eval()
    with torch.no_grad():
        expected = plain(torch.from_numpy(images())).numpy()
    np.testing.assert_allclose(open_session(file, CPU).run(images()), expected, rtol=1e-4, atol=1e-5)


def test_policies_are_followed(tmp_path):
    whole = nas.export(Small, ARCH, "int8", tmp_path / "int8.onnx", **SIZES)
    part = nas.export(Small, ARCH, {"stem": "int8"}, tmp_path / "part.onnx", **SIZES)
    assert int8_share(whole, CPU) == 1 and 0 < int8_share(part, CPU) < 1
    assert nas.export(Small, ARCH, "int8", tmp_path / "again.onnx", **SIZES).read_bytes() == whole.read_bytes()


def test_int8_of_trained_weights_needs_images(tmp_path):
    with pytest.raises(ValueError, match="int8 blocks need calibration images"):
        nas.export(Small(1, 3), ARCH, "int8", tmp_path / "a.onnx", **SIZES)
    assert not list(tmp_path.iterdir())
    file = nas.export(Small(1, 3), ARCH, "int8", tmp_path / "a.onnx", images=images(), **SIZES)
    assert int8_share(file, CPU) == 1


def test_what_the_space_does_not_have_is_refused(tmp_path):
    for arch, policy, message in (({"width": 5}, None, "width"), (ARCH, "int4", "int4"), (ARCH, {"x": "int8"}, "'x'")):
        with pytest.raises(ValueError, match=message):
            nas.export(Small, arch, policy, tmp_path / "a.onnx", **SIZES)
    assert not list(tmp_path.iterdir())


def test_blocks_with_fewer_channels_are_smaller_files(tmp_path):
    sizes = {"image_size": 32, "preset": "tiny", "sparsity": ["channels:0.5"]}
    smallest = nas.find_space(catalog_entry("mbconv").build(32, 3, 10, "tiny")).smallest().assignment
    files = {
        density: nas.export(
            "mbconv", {**smallest, "stage3.0.density": density}, None, tmp_path / f"{density}.onnx", **sizes
        )
        for density in (0.5, 1.0)
    }
    assert files[0.5].stat().st_size < files[1.0].stat().st_size
    with pytest.raises(ValueError, match=r"give channels:0\.5"):
        nas.export("mbconv", smallest, None, tmp_path / "a.onnx", image_size=32, sparsity="2:4")
