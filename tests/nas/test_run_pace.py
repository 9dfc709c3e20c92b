import json

import pytest
from small_space import Small

import nas
from nas import training
from nas.training import PACE_FILE
from supernet.checkpoint import FILE_NAME, load_checkpoint
from supernet.pace import Pace


@pytest.mark.parametrize("faster", [False, True])
def test_a_training_computes_as_measured_once(faster, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "measured_pace", lambda *args: asked.append(args[4]) or Pace(1, faster))
    for _ in range(2):
        nas.train(Small, data="digits", out=tmp_path / "run", epochs=1, batch=512, quiet=True)
    assert asked == [None]
    assert json.loads((tmp_path / "run" / PACE_FILE).read_text()) == {"threads": 1, "autocast": faster}
    assert load_checkpoint(tmp_path / "run" / FILE_NAME).meta["identity"]["recipe"]["autocast"] is faster


def test_a_training_computes_as_it_is_told(tmp_path):
    nas.train(Small, data="digits", out=tmp_path / "run", epochs=1, batch=512, autocast=True, quiet=True)
    assert load_checkpoint(tmp_path / "run" / FILE_NAME).meta["identity"]["recipe"]["autocast"] is True
