import dataclasses

import numpy as np
import pytest

from supernet.catalog import DATASETS
from supernet.data import from_datasets, load_data, write_arrays


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def rows(x):
    return {row.tobytes() for row in x}


def test_digits_split_and_normalisation(digits):
    sizes = [len(digits.split(which)[1]) for which in ("train", "val", "test")]
    assert sum(sizes) == 1797
    np.testing.assert_allclose(np.array(sizes) / 1797, (0.48, 0.32, 0.2), atol=0.005)
    assert digits.image_shape == (1, 8, 8)
    assert digits.x_train.dtype == np.float32
    assert digits.y_train.dtype == np.int64
    np.testing.assert_allclose((digits.x_train.mean(), digits.x_train.std()), (0, 1), atol=1e-5)
    assert not digits.flip
    assert digits.num_classes == 10


def test_splits_never_overlap(digits):
    train, val, test = (rows(digits.split(which)[0]) for which in ("train", "val", "test"))
    assert len(train) + len(val) + len(test) == 1797
    assert not train & val
    assert not train & test
    assert not val & test


def test_same_each_time(digits):
    again = load_data("digits")
    assert again.fingerprint == digits.fingerprint
    assert np.array_equal(again.x_val, digits.x_val)


def test_test_images_do_not_depend_on_val_fraction(digits):
    other = load_data("digits", val_fraction=0.8)
    assert np.array_equal(other.y_test, digits.y_test)
    assert abs(len(other.y_val) - 2 * len(digits.y_val)) < 20
    assert other.fingerprint != digits.fingerprint


def test_fingerprint_sees_every_field(digits):
    x = digits.x_test.copy()
    x[0, 0, 0, 0] += 1e-3
    changes = ({"x_test": x}, {"y_val": digits.y_val[::-1]}, {"flip": True}, {"std": (1.0,)}, {"num_classes": 11})
    prints = {dataclasses.replace(digits, **change).fingerprint for change in changes}
    assert len(prints | {digits.fingerprint}) == len(changes) + 1
    assert dataclasses.replace(digits, name="other").fingerprint == digits.fingerprint


def test_resize(digits):
    big = load_data("digits", image_size=16)
    assert big.image_shape == (1, 16, 16)
    np.testing.assert_allclose((big.x_train.mean(), big.x_train.std()), (0, 1), atol=1e-5)
    assert np.corrcoef(big.x_test.mean((1, 2, 3)), digits.x_test.mean((1, 2, 3)))[0, 1] > 0.95


def test_bad_arguments(tmp_path, digits):
    with pytest.raises(ValueError, match=r"unknown data set 'cifar_10'; did you mean 'cifar10'\? Known: digits"):
        load_data("cifar_10")
    with pytest.raises(ValueError, match=r"data '/no/such\.npz' does not exist"):
        load_data("/no/such.npz")
    with pytest.raises(ValueError, match="image_size must be at least 1 pixel, got 0"):
        load_data("digits", image_size=0)
    with pytest.raises(ValueError, match="val_fraction must lie strictly between 0 and 1, got 1"):
        load_data("digits", val_fraction=1.0)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="neither a folder"):
        load_data(str(tmp_path / "a.txt"))
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'dev'"):
        digits.split("dev")


def test_every_name_gives_a_loader():
    assert {"digits", "cifar10", "cifar100", "fashion-mnist"} == set(DATASETS)
    assert all(callable(loader) for loader in DATASETS.values())


def test_from_datasets_splits_and_normalises():
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 256, (6, 6, 3), np.uint8), i % 2) for i in range(40)]
    data = from_datasets(pairs, pairs[:10], name="mine", flip=True)
    assert (len(data.y_train), len(data.y_val), len(data.y_test)) == (32, 8, 10)
    assert (data.name, data.flip, data.num_classes, data.image_shape) == ("mine", True, 2, (3, 6, 6))
    raw = data.x_test[3] * np.array(data.std)[:, None, None] + np.array(data.mean)[:, None, None]
    np.testing.assert_allclose(raw * 255, pairs[3][0].transpose(2, 0, 1), atol=1e-3)


def test_own_validation_images_exclude_a_fraction():
    pairs = [(np.full((4, 4), i, np.uint8), i % 2) for i in range(8)]
    assert len(from_datasets(pairs, pairs, pairs[:4]).y_val) == 4
    with pytest.raises(ValueError, match="own validation images; leave val_fraction out"):
        from_datasets(pairs, pairs, pairs[:4], val_fraction=0.5)


def test_constant_channel_is_not_divided_by_zero():
    pairs = [(np.full((2, 3, 3), 7, np.float32), i % 2) for i in range(8)]
    data = from_datasets(pairs, pairs)
    assert np.array_equal(data.x_train, np.zeros_like(data.x_train))


def test_write_arrays(tmp_path, digits):
    write_arrays(digits, "val", tmp_path / "all.npz")
    write_arrays(digits, "val", tmp_path / "some.npz", limit=20, seed=3)
    with np.load(tmp_path / "all.npz") as whole, np.load(tmp_path / "some.npz") as some:
        assert np.array_equal(whole["x"], digits.x_val)
        assert np.array_equal(whole["y"], digits.y_val)
        assert some["x"].shape == (20, 1, 8, 8)
        assert rows(some["x"]) <= rows(digits.x_val)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        write_arrays(digits, "val", tmp_path / "none.npz", limit=0)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["all.npz", "some.npz"]
