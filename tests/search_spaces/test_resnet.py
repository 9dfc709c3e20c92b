import re

import pytest
import timm
import torch

from search_spaces.network import check_network, extract, find_space
from search_spaces.resnet import Residual, resnet
from search_spaces.value import choices_of, resolve


@pytest.fixture(scope="module")
def full():
    return resnet(64, 3, 1000, "imagenet")


def resnet50d(space):
    values = {c.name: 0.25 for c in space.choices if c.name.endswith(".expansion")}
    values |= {"resolution": 64, "stem.width": 64, "stem.inner": 32, "stem.second": True}
    for i, (depth, width) in enumerate(((3, 256), (4, 512), (6, 1024), (3, 2048)), start=1):
        values |= {f"stage{i}.depth": depth, f"stage{i}.width": width}
    return space.architecture(values)


@torch.no_grad()
def test_it_contains_resnet50d_but_for_the_sum_in_the_stem(full, monkeypatch):
    torch.manual_seed(0)
    known = timm.create_model("resnet50d", num_classes=1000).eval()
    found = extract(full, resnet50d(find_space(full))).eval()
    weights, names = list(known.state_dict().values()), list(found.state_dict())
    assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in known.parameters()) == 25_576_264
    found.load_state_dict(dict(zip(names, weights, strict=True)))
    monkeypatch.setattr(Residual, "forward", lambda self, x: self.conv(x))
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(found(x), known(x), rtol=1e-4, atol=1e-4)


def test_widths_and_inner_widths_are_the_released_ones(full):
    choices = {c.name: c.options for c in find_space(full).choices}
    assert choices["stem.width"] == (40, 48, 64) and choices["stem.inner"] == (24, 32)
    assert choices["stage1.width"] == (168, 208, 256) and choices["stage4.width"] == (1328, 1640, 2048)
    assert [choices[f"stage{i}.depth"] for i in (1, 2, 3, 4)] == [(2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4)]
    block = full.get_submodule("stage1.0")
    assert block.reduce[0].weight.shape[0] == 88  # 0.35 of 256


def test_the_tiny_network_runs_at_every_option():
    network = resnet(9, 1, 5)
    check_network(network, find_space(network), (1, 9, 9), 5)


@pytest.mark.parametrize("preset", ["tiny", "imagenet"])
def test_different_expansions_are_different_widths(preset):
    with torch.device("meta"):
        network = resnet(64, 3, 10, preset)
    for name, conv in network.named_modules():
        if name.endswith(".conv.0") and name.startswith("stage"):
            width, expansion = choices_of(conv.out_channels)
            for option in width.options:
                found = [resolve(conv.out_channels, {width.name: option, expansion.name: e}) for e in expansion.options]
                assert found == sorted(set(found)), name


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match=re.escape("unknown resnet preset 'huge': there are tiny, imagenet")):
        resnet(32, 3, 10, "huge")
