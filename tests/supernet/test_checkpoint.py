import errno
from pathlib import Path

import pytest
import torch

from supernet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

VIEW = torch.arange(12.0).reshape(3, 4)
CHECKPOINT = Checkpoint({"a/b": VIEW.T, "tied": VIEW, "count": torch.tensor(7)}, {"step": 3, "list": [None, 0.1, "é"]})


def test_round_trip(tmp_path):
    file = tmp_path / "c.safetensors"
    save_checkpoint(CHECKPOINT, file)
    loaded = load_checkpoint(file)
    assert loaded.meta == CHECKPOINT.meta
    assert loaded.tensors.keys() == CHECKPOINT.tensors.keys()
    for name, value in CHECKPOINT.tensors.items():
        assert torch.equal(loaded.tensors[name], value)


def test_full_disk_passes_through_and_keeps_the_old_one(tmp_path, monkeypatch):
    file = tmp_path / "c.safetensors"
    save_checkpoint(CHECKPOINT, file)
    before = file.read_bytes()

    def full(self, content):
        self.open("wb").write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(Checkpoint({}, {}), file)
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]


def test_not_a_checkpoint(tmp_path):
    file = tmp_path / "c.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_checkpoint(file)
    file.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_checkpoint(file)
    import safetensors.torch

    safetensors.torch.save_file({"a": VIEW}, file)
    with pytest.raises(ValueError, match="has checkpoint format None, expected 1"):
        load_checkpoint(file)
