import numpy as np
import pytest

from latency.runtimes.session import Session, accuracy, fixed_shape, read


class Identity(Session):
    """Logits are the input itself."""

    input_shape = (4,)

    def run(self, x):
        return x


def test_labels_and_accuracy_do_not_depend_on_the_batch():
    session = Identity()
    x = np.random.default_rng(0).standard_normal((11, 4)).astype(np.float32)
    for batch in (1, 4, 11, 256):
        assert np.array_equal(session.predict_labels(x, batch), x.argmax(axis=1))
        assert session.predict_labels(x, batch).dtype == np.int64
    y = x.argmax(axis=1)
    y[:3] = (y[:3] + 1) % 4
    assert accuracy(session, x, y, batch=4) == 8 / 11
    assert session.predict_labels(x[:0]).shape == (0,)


def test_accuracy_refuses_no_images_and_unequal_lengths():
    x = np.zeros((3, 4), np.float32)
    for images, labels in ((x, np.zeros(2)), (x[:0], np.zeros(0))):
        with pytest.raises(ValueError, match="as many labels as images"):
            accuracy(Identity(), images, labels)


def test_the_timed_call_is_a_run_unless_a_run_time_has_a_better_one():
    x = np.ones((1, 4), np.float32)
    assert Identity().call(x)() is x


def test_models_are_read_and_shapes_must_be_fixed(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"abc")
    assert read(b"abc") == read(tmp_path / "m.onnx") == b"abc"
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        read(tmp_path / "none.onnx")
    assert fixed_shape((3, 8)) == (3, 8)
    with pytest.raises(ValueError, match=r"fixed sizes besides the batch, got .'any', 8"):
        fixed_shape(("any", 8))
