import numpy as np
import pytest

from supernet.data import load_data


def arrays(n=20):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    return {
        "x_train": rng.integers(0, 256, (n, 5, 5), np.uint8),
        "y_train": y,
        "x_test": rng.integers(0, 256, (n, 5, 5), np.uint8),
        "y_test": y,
    }


def save(tmp_path, content):
    np.savez(tmp_path / "set.npz", **content)
    return str(tmp_path / "set.npz")


def test_with_and_without_own_validation(tmp_path):
    data = load_data(save(tmp_path, arrays()))
    assert (data.name, len(data.y_val), data.image_shape, data.flip) == ("set", 4, (1, 5, 5), False)
    own = arrays() | {"x_val": np.zeros((2, 5, 5), np.uint8), "y_val": np.array([0, 1])}
    data = load_data(save(tmp_path, own))
    assert (len(data.y_train), len(data.y_val)) == (20, 2)


def test_missing_keys_are_named(tmp_path):
    content = arrays()
    del content["x_test"], content["y_train"]
    with pytest.raises(ValueError, match="lacks y_train, x_test; it has x_train, y_test"):
        load_data(save(tmp_path, content))
    with pytest.raises(ValueError, match="lacks x_val"):
        load_data(save(tmp_path, arrays() | {"y_val": np.array([0])}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": np.full(20, 5)}, "test labels are out of range: got 5, expected 0 to 1"),
        ({"y_train": np.arange(19) % 2}, "train has 20 images but 19 labels"),
        ({"x_train": np.full((20, 1, 5, 5), np.inf)}, "NaN or infinite"),
        ({"x_test": np.zeros((20, 5, 6), np.uint8)}, "test images have shape"),
    ],
)
def test_bad_contents(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_data(save(tmp_path, arrays() | change))


def test_not_an_archive_and_no_pickles(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"is not an \.npz file of plain arrays"):
        load_data(str(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match=r"is not an \.npz file of plain arrays"):
        load_data(save(tmp_path, arrays() | {"x_train": np.array([{"a": 1}], object)}))
