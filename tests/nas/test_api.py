"""The Python API: the README's example as it stands there, and what it refuses."""

import json
import re
import runpy
from pathlib import Path

import pytest

import nas

ROOT = Path(__file__).parents[2]


def example():
    text = (ROOT / "README.md").read_text()
    return re.search(r"<!-- example: custom space -->\n```python\n(.*?)```", text, re.S)[1]


def test_the_example_is_short():
    assert len([line for line in example().splitlines() if line.strip()]) <= 25


def test_the_example_of_a_custom_space_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_module.py").write_text(example())
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    runpy.run_path("my_module.py", run_name="__main__")  # as a script, less the seconds that torch takes to load
    front = json.loads((tmp_path / "runs" / "mynet" / "front.json").read_text())
    assert len(front) == len(capsys.readouterr().out.splitlines()) > 0
    assert "depth" in front[0]["arch"] and (tmp_path / "runs" / "mynet" / front[0]["file"]).exists()


def test_bad_arguments_are_named_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="evaluations"):
        nas.search("mbconv", evaluations=1)
    with pytest.raises(ValueError, match="unknown space 'mbcnv'"):
        nas.search("mbcnv")
    with pytest.raises(ValueError, match="unknown searcher 'randm'"):
        nas.search("mbconv", searcher="randm")
    with pytest.raises(ValueError, match="min_accuracy"):
        nas.search("mbconv", min_accuracy=1.5)
    assert not list(tmp_path.iterdir())


def test_public_names_exist():
    for name in nas.__all__:
        assert getattr(nas, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nas.nothing
