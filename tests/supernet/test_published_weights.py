import re
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from supernet import published
from supernet.published import read_weights

NAME = "test_efficientnet"  # timm's smallest


@pytest.fixture(scope="module")
def state():
    return timm.create_model(NAME).state_dict()


def same(tensors, state):
    return tensors.keys() == state.keys() and all(torch.equal(tensors[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": {"module." + name: tensor for name, tensor in state.items()}},
        lambda state: {"state_dict": {}, "state_dict_ema": state},
    ],
    ids=["plain", "checkpoint", "wrapped", "averages"],
)
@pytest.mark.parametrize("suffix", [".pt", ".th"])
def test_a_pickled_state_dict_is_read_in_order(wrap, suffix, state, tmp_path):
    file = tmp_path / f"weights{suffix}"
    torch.save(wrap(state), file)
    weights = read_weights(file)
    assert weights.ordered and list(weights.tensors) == list(state) and same(weights.tensors, state)


def test_a_safetensors_file_has_no_order_but_timm_knows_it(state, tmp_path):
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, file)
    assert not read_weights(file).ordered and same(read_weights(str(file)).tensors, state)
    named = read_weights(f"timm/{NAME}:{file}")
    assert named.ordered and list(named.tensors) == list(state) and same(named.tensors, state)
    assert named.eps == 1e-5 and NAME in named.source


def test_a_name_takes_the_weights_of_the_cache(state, tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, file)
    asked = []

    def cached(repository, name):
        asked.append((repository, name))
        return str(file) if name == file.name else None

    monkeypatch.setattr(published.huggingface_hub, "try_to_load_from_cache", cached)
    assert same(read_weights(f"timm/{NAME}").tensors, state)
    assert asked == [(f"timm/{NAME}.r160_in1k", "model.safetensors")]
    monkeypatch.setattr(published.huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=f"the weights of timm's '{NAME}' are not on this machine: fetch them once"):
        read_weights(NAME)


def code(file: Path):
    torch.save({"a": re.compile("x")}, file)  # a pickle that would call a function


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.pt", code, "holds no weights that can be read"),
        ("a.pt", lambda file: file.write_bytes(b"x"), "holds no weights that can be read"),
        ("a.safetensors", lambda file: file.write_bytes(b"x"), "holds no weights that can be read"),
        ("a.pt", lambda file: torch.save({"epoch": 3}, file), "holds no state dict: save it with torch.save("),
        ("a.pt", lambda file: None, "there is no file of weights"),
    ],
)
def test_files_of_another_form_are_named(name, write, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_unknown_names_and_the_file_of_another_network_are_named(state, tmp_path):
    with pytest.raises(ValueError, match=re.escape("did you mean 'efficientnet_lite0'?")):
        read_weights("efficientnet_lit0")
    file = tmp_path / "a.pt"
    torch.save({name: state[name] for name in list(state)[:-1]}, file)
    with pytest.raises(ValueError, match=f"has no tensor 'classifier.bias', which timm's '{NAME}' has"):
        read_weights(f"{NAME}:{file}")
