from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

from supernet.data import load_data


def fake(shape, *, have=True, reachable=True):
    """A stand-in for a torchvision data set class that counts its downloads."""
    calls = []

    def kind(root, train, download):
        calls.append(download)
        if not (have or download):
            raise RuntimeError("Dataset not found or corrupted.")
        if not reachable:
            raise OSError("<urlopen error\n no route>")
        x = np.random.default_rng(train).integers(0, 256, (40, *shape), np.uint8)
        if len(shape) == 3:
            return SimpleNamespace(data=x, targets=[i % 10 for i in range(40)])
        return SimpleNamespace(data=torch.from_numpy(x), targets=torch.arange(40) % 10)

    return kind, calls


def test_cached_set_is_not_downloaded(monkeypatch):
    kind, calls = fake((32, 32, 3))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", kind)
    data = load_data("cifar10")
    assert calls == [False, False]
    assert (data.image_shape, data.flip, len(data.y_val), len(data.y_test)) == ((3, 32, 32), True, 10, 40)


def test_grey_tensors_and_download(monkeypatch, tmp_path):
    kind, calls = fake((28, 28), have=False)
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", kind)
    monkeypatch.setattr("supernet.sources.published.cache_folder", lambda: tmp_path / "data")
    data = load_data("fashion-mnist")
    assert calls == [False, True, False, True]
    assert (data.image_shape, data.flip) == ((1, 28, 28), False)


def test_no_network_is_one_clear_line(monkeypatch, tmp_path):
    kind, _ = fake((32, 32, 3), have=False, reachable=False)
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", kind)
    monkeypatch.setattr("supernet.sources.published.cache_folder", lambda: tmp_path / "data")
    with pytest.raises(ConnectionError, match=r"'cifar100' is not in .* and could not be downloaded") as caught:
        load_data("cifar100")
    assert "\n" not in str(caught.value)
