import re

import numpy as np
import pytest
import torch
from torch import nn

from nas.spec import build_network
from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, OneOf, Resize, Sequence, activation
from search_spaces.mbconv import mbconv
from search_spaces.network import Network, extract, find_space
from search_spaces.value import Choice
from supernet.matching import domains_of, layers_of, match

WIDTH = Choice("width", (4, 6, 12))


class Small(Network):
    """Every kind of choice: of a resolution, an activation, depth, kernel, operation, and two with one product."""

    def __init__(self, classes=3) -> None:
        super().__init__()
        hidden = WIDTH * Choice("expansion", (1, 2, 3))
        act = Choice("act", ("relu", "h-swish"))
        self.resize = Resize(Choice("resolution", (6, 8)), 8)
        self.stem = nn.Sequential(nn.BatchNorm2d(3), Conv2d(3, hidden, 3, bias=False), activation(act))
        blocks = [self.block(i, hidden) for i in range(3)]
        self.body = Sequence(*blocks, depth=Choice("depth", (1, 2, 3)))
        self.project = Conv2d(hidden, WIDTH, stride=Choice("stride", (2, 1)))
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(WIDTH, classes)

    def block(self, i, hidden):
        conv = Conv2d(hidden, hidden, Choice(f"kernel{i}", (1, 3, 5)), groups=hidden, bias=False)
        op = OneOf(Choice(f"op{i}", ("none", "conv")), {"none": nn.Identity(), "conv": Conv2d(hidden, hidden)})
        return nn.Sequential(conv, BatchNorm2d(hidden), op)


def found_in(network, tensors, **known):
    return match(network, layers_of(tensors), domains_of(find_space(network), known))


def renamed(state):
    """The same tensors with names that say nothing."""
    names: dict[str, str] = {}
    return {
        f"{names.setdefault(k.rpartition('.')[0], f'l{len(names)}')}.{k.rpartition('.')[2]}": state[k] for k in state
    }


def test_every_architecture_is_found_up_to_what_shapes_do_not_tell():
    network = Small()
    space = find_space(network)
    telling = [c.name for c in space.choices if c.name not in ("resolution", "act", "stride")]
    for row in space.sample(4, np.random.default_rng(0)):
        arch = space.row(row)
        state = extract(network, arch).state_dict()
        found = found_in(network, renamed(state))
        assert [found.arch[name] for name in telling] == [arch[name] for name in telling]
        assert set(found.undetermined) == {"resolution", "act", "stride"} and found.left is None
        assert [found.arch[name] for name in ("resolution", "act", "stride")] == [8, "h-swish", 1]
        assert [t.shape for t in extract(network, found.arch).state_dict().values()] == [
            t.shape for t in state.values()
        ]
        known = found_in(network, state, resolution=6, act="relu", stride=2)
        assert known.undetermined == () and known.arch["act"] == "relu"


def test_a_space_of_billions_is_searched_without_enumeration():
    network = mbconv(32, 3, 10, "tiny")
    space = find_space(network)
    for row in space.sample(1, np.random.default_rng(0)):
        arch = space.row(row)
        state = extract(network, arch).state_dict()
        found = found_in(network, state)
        differing = {name for name, option in arch.values.items() if found.arch[name] != option}
        assert differing <= set(found.undetermined) <= {"resolution", "act"}
        state["head.0.weight"] = torch.zeros(7, 7)  # the end does not fit, so that every way is tried
        with pytest.raises(ValueError, match=re.escape("'head.0', has (7, 7) where the space has (")):
            found_in(network, state)


@pytest.mark.parametrize("space", ["mbconv", "nas_bench_macro"])
def test_densities_are_told_by_shapes_where_they_are_offered(space):
    network, found_space = build_network(space, (3, 32, 32), 10, sparsity=("channels:0.5", "channels:0.75"))
    for row in found_space.sample(3, np.random.default_rng(0)):
        arch = found_space.row(row)
        state = extract(network, arch).state_dict()
        found = found_in(network, state)
        shapes = [tensor.shape for tensor in extract(network, found.arch).state_dict().values()]
        assert shapes == [tensor.shape for tensor in state.values()]
        assert not any(name.endswith(".density") for name in found.undetermined)


def test_layers_are_grouped_by_their_module():
    state = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict()
    convolution, norm = layers_of(state)
    assert convolution.shapes == ((2, 1, 3, 3), (2,)) and norm.shapes == ((2,),) * 4 and norm.name == "1"


def test_a_head_of_other_classes_or_none_is_left():
    state = extract(Small(classes=7), find_space(Small()).largest()).state_dict()
    assert found_in(Small(), state).left == "classifier"
    headless = {name: tensor for name, tensor in state.items() if "classifier" not in name}
    found = found_in(Small(), headless)
    assert found.left == "classifier" and "classifier" not in found.layers and "project" in found.layers


def test_options_that_only_fit_together_are_kept_together():
    width = Choice("width", (4, 8))
    network = nn.Sequential(Conv2d(3, width * Choice("expansion", (1, 2)), bias=False), Conv2d(3, width, bias=False))
    state = {"a.weight": torch.zeros(8, 3, 1, 1), "b.weight": torch.zeros(4, 3, 1, 1)}
    assert found_in(network, state).arch.values == {"width": 4, "expansion": 2}


def test_what_does_not_fit_is_named():
    state = extract(Small(), find_space(Small()).largest()).state_dict()
    wide = {**state, "project.weight": torch.zeros(16, 36, 1, 1)}
    message = "'project', has (16, 36, 1, 1) and (12,) where the space has (12, 36, 1, 1) and (12,) at project"
    with pytest.raises(ValueError, match=re.escape(message)):
        found_in(Small(), wide)
    with pytest.raises(
        ValueError, match=re.escape("layer 1, 'x', has (5, 3) where the space has (3,) and (3,) at stem.0")
    ):
        found_in(Small(), {"x.weight": torch.zeros(5, 3)})
    with pytest.raises(
        ValueError, match=re.escape("the end has nothing where the space has (36, 1, 1, 1) at body.0.0 or ")
    ):
        found_in(Small(), {name: state[name] for name in list(state)[:6]})
    with pytest.raises(ValueError, match=r"'more', has .*where the space has no layer"):
        found_in(Small(), {**state, "more.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=re.escape("'classifier', has (3, 5) and (3,) where the space has (3, ")):
        found_in(Small(), {**state, "classifier.weight": torch.zeros(3, 5)})
    with pytest.raises(ValueError, match="has no choice 'colour'"):
        found_in(Small(), state, colour=3)
    with pytest.raises(ValueError, match=re.escape("choice 'depth' has options (1, 2, 3), got 5")):
        found_in(Small(), state, depth=5)
    with pytest.raises(ValueError, match="where the space has"):
        found_in(Small(), state, depth=1)
