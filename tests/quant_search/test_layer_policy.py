import pytest
from torch import nn

from quant_search.formats import Granularity, Integer
from quant_search.layer_policy import LayerPolicy, layer_policy, policies, policy_space
from quant_search.policy import joint_space
from quant_search.sparsity.patterns import Channels
from search_spaces.catalog import SPACES
from search_spaces.densities import add_densities_
from search_spaces.network import find_blocks, find_space


def test_a_name_says_what_files_hold():
    assert layer_policy("fp32") == LayerPolicy()
    few = layer_policy("w4a8", 0.5)
    assert (few.weight.bits, few.activation, few.sparsity) == (4, Integer(8, False, False), Channels(0.5))
    assert few.granularity == Granularity(0) and layer_policy("w4").activation is None
    assert str(few) == "weights int4 per channel:0, activations uint8, channels:0.5"
    with pytest.raises(ValueError, match="unknown precision"):
        layer_policy("int4")


def test_every_block_of_a_joint_architecture_has_its_policy():
    net = SPACES["mbconv"].build(32, 3, 10, "tiny")
    add_densities_(net, (0.5,))
    space = policy_space(net)
    assert space.choices == joint_space(find_space(net), find_blocks(net), ("fp32", "int8")).choices
    arch = space.smallest()
    found = policies(arch, find_blocks(net), ("fp32", "int8"))
    assert found["stage1.0"] == layer_policy("int8", 0.5) and found["stem"] == layer_policy("int8")
    assert "stage1.1" not in found


def test_a_plain_network_has_policies_alone():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    space = policy_space(net, ("fp32", "int8", "w4a8"))
    assert [c.name for c in space.choices] == [f"{b.name}.precision" for b in find_blocks(net) if b.weighted]
    assert set(space.choices[0].options) == {"fp32", "int8", "w4a8"}
    with pytest.raises(ValueError, match="give two at least"):
        policy_space(net, ("int8",))
