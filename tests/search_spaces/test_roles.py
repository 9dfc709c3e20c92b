from torch import nn

from search_spaces.catalog import SPACES
from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic, OneOf, Resize, Sequence
from search_spaces.network import Network, find_space
from search_spaces.roles import ROLES, roles
from search_spaces.value import Choice


def test_every_choice_of_mbconv_has_its_role():
    found = roles(SPACES["mbconv"].build(8, 1, 10, "tiny"))
    parts = {name.rsplit(".", 1)[-1]: role for name, role in found.items()}
    assert parts == {
        "resolution": "resolution",
        "se": "operation",
        "act": "operation",
        "kernel": "kernel",
        "depth": "depth",
        "width": "width",
        "expansion": "width",
    }


def test_every_choice_of_every_space_has_a_role():
    for entry in SPACES.values():
        for preset in entry.presets:
            network = entry.build(32, 3, 10, preset)
            found = roles(network)
            assert found.keys() == {choice.name for choice in find_space(network).choices}
            assert set(found.values()) <= set(ROLES)


class Own(Elastic):
    """A layer of one's own, whose arguments have names of their own."""

    def __init__(self, heads, bias) -> None:
        super().__init__()
        self.values, self.heads, self.bias = (heads, bias), heads, bias


def test_a_choice_read_in_several_roles_has_the_last_that_shrinking_opens():
    both, size, way = Choice("both", (3, 5)), Choice("size", (8, 16)), Choice("stride", (2, 1))
    network = nn.Sequential(
        Resize(size, 16), Conv2d(3, both * 2, both, way), BatchNorm2d(both * 2), Sequence(nn.ReLU(), depth=1)
    )
    assert roles(network) == {"size": "resolution", "both": "width", "stride": "operation"}


def test_arguments_of_other_names_are_told_by_their_options():
    op = Choice("op", ("a", "b"))
    network = Network()
    network.own = Own(Choice("heads", (2, 4)), Choice("bias", (False, True)))
    network.op = OneOf(op, {"a": nn.ReLU(), "b": nn.Identity()})
    assert roles(network) == {"heads": "width", "bias": "operation", "op": "operation"}
