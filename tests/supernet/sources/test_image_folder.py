import numpy as np
import pytest
from PIL import Image

from supernet.data import load_data
from supernet.sources import image_folder


def fill(root, classes=("cat", "dog"), count=5, mode="RGB"):
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new(mode, (10 + i, 8), color=(40 * k + i if mode == "L" else (40 * k + i, 9, 200))).save(
                root / name / f"{i}.png"
            )


def test_single_tree(tmp_path):
    fill(tmp_path, count=10)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    data = load_data(str(tmp_path), image_size=4)
    assert [len(data.split(which)[1]) for which in ("train", "val", "test")] == [12, 4, 4]
    assert (data.image_shape, data.num_classes, data.flip) == ((3, 4, 4), 2, True)
    red = data.x_test[:, 0, 0, 0] * data.std[0] + data.mean[0]
    assert np.array_equal(red * 255 > 30, data.y_test == 1)


def test_three_trees_and_default_size(tmp_path):
    fill(tmp_path / "train", count=3)
    fill(tmp_path / "val", count=1)
    fill(tmp_path / "test", count=2, mode="L")
    data = load_data(str(tmp_path))
    assert [len(data.split(which)[1]) for which in ("train", "val", "test")] == [6, 2, 4]
    assert data.image_shape == (3, 64, 64)
    assert data.name == tmp_path.name


def test_refused_folders(tmp_path):
    with pytest.raises(ValueError, match="at least 2 class folders of images, found 0"):
        load_data(str(tmp_path))
    fill(tmp_path / "train")
    with pytest.raises(ValueError, match="has train/ but no test/"):
        load_data(str(tmp_path))
    fill(tmp_path / "test", ("cat", "cow"))
    with pytest.raises(ValueError, match="has class 'cow', which train/ does not have"):
        load_data(str(tmp_path))


def test_empty_class_and_broken_image(tmp_path):
    fill(tmp_path)
    (tmp_path / "eel").mkdir()
    with pytest.raises(ValueError, match="eel has no image files"):
        load_data(str(tmp_path))
    (tmp_path / "eel" / "a.png").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"cannot read image .*a\.png"):
        load_data(str(tmp_path))


def test_too_large_for_memory(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr("supernet.capacity.available_memory_bytes", lambda: 1000)
    monkeypatch.setattr(image_folder, "_decode", None)  # refused before anything is decoded
    with pytest.raises(ValueError, match="smaller image_size or fewer images"):
        load_data(str(tmp_path))
