import sys
import textwrap

import pytest
import torch
from torch import nn

from nas.profiles import built_space, profiled_space
from nas.spec import accepted_arguments, build_network, space_fingerprint, space_name
from search_spaces.catalog import SPACES
from search_spaces.elastic import Linear
from search_spaces.network import Network
from search_spaces.value import Choice

SHAPE = (1, 8, 8)
MODULE = """
    import nas
    from torch import nn

    class Net(nas.Network):
        def __init__(self, num_classes, in_channels, image_size, bias=True):
            super().__init__()
            width = nas.Choice("width", (4, 8))
            self.flat = nn.Flatten()
            self.hidden = nas.Linear(in_channels * image_size**2, width)
            self.classifier = nas.Linear(width, num_classes, bias=bias)

    class Other:
        pass

    helper = 3
"""


class Flat(Network):
    """Takes some of the arguments, in an order of its own."""

    def __init__(self, num_classes, **_):
        super().__init__()
        width = Choice("width", (4, 8))
        self.flat = nn.Flatten()
        self.hidden = Linear(64, width)
        self.classifier = Linear(width, num_classes)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)


class NeedsMore(Flat):
    def __init__(self, num_classes, hidden):
        super().__init__(num_classes)


class Raises(Flat):
    def __init__(self, num_classes):
        raise OSError("no such file\nsecond line")


class FailsWide(Flat):
    def forward(self, x):
        hidden = self.hidden(self.flat(x))
        if hidden.shape[1] == 4:
            raise RuntimeError("too narrow")
        return self.classifier(hidden)


class Draws(Flat):
    def forward(self, x):
        return super().forward(x + torch.rand(1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a module in it, which no other test imports."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def write(name, text=MODULE):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(text))

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


# -- what is found -----------------------------------------------------------------------------------


def test_a_ready_made_space_is_built_for_the_images():
    network, space = build_network("mbconv", (1, 8, 8), 10)
    assert space.name == "mbconv" and space.size > 1000
    assert network(torch.zeros(2, 1, 8, 8), space.smallest()).shape == (2, 10)


@pytest.mark.parametrize("module", ["spec_flat", "spec_package.spec_inner"])
def test_a_class_is_found_from_the_current_folder(folder, module):
    folder(module.replace(".", "/"))
    network, space = build_network(f"{module}:Net", SHAPE, 3)
    assert (type(network).__name__, space.name) == ("Net", "Net")
    assert network(torch.zeros(2, *SHAPE), space.largest()).shape == (2, 3)


def test_a_class_is_called_with_what_its_init_takes():
    network, space = build_network(Flat, SHAPE, 5)
    assert network(torch.zeros(2, *SHAPE), space.smallest()).shape == (2, 5)
    assert accepted_arguments(Flat) == ["num_classes"]


def test_of_an_instance_a_copy_is_taken():
    given = Flat(10)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    network, space = build_network(given, SHAPE, 10)
    assert network is not given and space.name == "Flat" and given.training
    assert all(a is not b for a, b in zip(network.parameters(), given.parameters(), strict=True))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_names_are_short():
    assert [space_name(s) for s in ("mbconv", "my.models:Net", Flat, Flat(10))] == ["mbconv", "Net", "Flat", "Flat"]


# -- seeds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["mbconv", Flat])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(space):
    first, again, other = (
        torch.cat([p.flatten() for p in build_network(space, (1, 8, 8), 10, seed=seed)[0].parameters()])
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("space", ["mbconv", Flat, Draws])
def test_the_global_random_state_is_left_alone(space):
    before = torch.random.get_rng_state()
    build_network(space, (1, 8, 8), 10, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "preset", "said"),
    [
        ("mbcon", None, r"unknown space 'mbcon' \(did you mean 'mbconv'\?\); give one of mbconv.* or module:Class"),
        ("zzz", None, r"unknown space 'zzz'; give one of"),
        ("", None, r"unknown space ''; give one of"),
        ("mbconv", "nope", r"space 'mbconv' has no preset 'nope'; it has "),
        (Flat, "small", "presets belong to the ready-made spaces, got preset 'small' for Flat"),
        (Flat(10), "small", "presets belong to the ready-made spaces, got preset 'small' for Flat"),
        (NeedsMore, None, r"NeedsMore\(\) needs an argument 'hidden'; .* give 'hidden' a default"),
        (Raises, None, r"^Raises\(num_classes=10\) failed: OSError: no such file$"),
        (Plain, None, "Plain has no choices"),
        (FailsWide, None, "the forward of FailsWide does not run at .*: too narrow"),
    ],
)
def test_spaces_that_do_not_work_are_refused_with_the_reason(space, preset, said):
    with pytest.raises(ValueError, match=said) as caught:
        build_network(space, SHAPE, 10, preset)
    assert "\n" not in str(caught.value)


def test_a_wrong_preset_is_met_with_the_nearest():
    known = next(iter(SPACES["mbconv"].presets))
    with pytest.raises(ValueError, match=f"has no preset '{known}x' .did you mean '{known}'"):
        build_network("mbconv", SHAPE, 10, f"{known}x")


def test_images_must_be_square():
    with pytest.raises(ValueError, match="images must be square, got 8 x 6 pixels"):
        build_network(Flat, (1, 8, 6), 10)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("spec_missing:Net", "cannot import 'spec_missing' for space .*ModuleNotFoundError: No module named"),
        ("spec_broken:Net", "cannot import 'spec_broken' for space 'spec_broken:Net': ZeroDivisionError: division by"),
        ("spec_syntax:Net", "cannot import 'spec_syntax' .*SyntaxError: "),
        (":Net", "cannot import '' for space ':Net': ValueError: Empty module name"),
        ("spec_models:Nett", r"module 'spec_models' has no 'Nett' \(did you mean 'Net'\?\)"),
        ("spec_models:", "module 'spec_models' has no ''"),
        ("spec_models:helper", "'spec_models:helper' is not a class derived from torch.nn.Module"),
        ("spec_models:Other", "is not a class derived from torch.nn.Module"),
        ("spec_models:nas", "is not a class derived from torch.nn.Module"),
    ],
)
def test_paths_that_lead_to_no_class_are_refused_with_the_reason(folder, path, said):
    folder("spec_models")
    folder("spec_broken", "1 / 0")
    folder("spec_syntax", "class Net(")
    with pytest.raises(ValueError, match=said) as caught:
        build_network(path, SHAPE, 10)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_of_a_space_tells_one_from_what_it_became(tmp_path, monkeypatch):
    def fingerprint(space):
        network, found = build_network(space, SHAPE, 10)
        return space_fingerprint(space, network, found)

    assert fingerprint("mbconv") == fingerprint("mbconv")
    assert fingerprint(Flat) == fingerprint(Flat) != fingerprint(Draws)
    narrow, wide = Flat(10), Flat(10)
    wide.hidden = Linear(64, Choice("width", (4, 16)))
    wide.classifier = Linear(Choice("width", (4, 16)), 10)
    assert fingerprint(narrow) != fingerprint(wide)


def test_sparsity_of_channels_is_part_of_a_space():
    dense, thin = (build_network("mbconv", (3, 32, 32), 10, "tiny", sparsity=s) for s in ((), ("channels:0.5",)))
    names = [{choice.name for choice in space.choices} for _, space in (dense, thin)]
    assert "stage1.0.density" in names[1] - names[0] and names[0] < names[1]
    assert space_fingerprint("mbconv", *dense) != space_fingerprint("mbconv", *thin)
    assert all(torch.equal(a, b) for a, b in zip(dense[0].parameters(), thin[0].parameters(), strict=True))
    _, anatomy, space = built_space(
        "mbconv", profiled_space("mbconv", "tiny", 32, 3, 10, ("fp32",), ["channels:0.5"]), 0
    )
    assert space.sparsity == ("channels:0.5",) and space.fingerprint == space_fingerprint("mbconv", *thin)
    assert anatomy.space.choices == thin[1].choices
    with pytest.raises(ValueError, match="no block has channels of its own"):
        build_network("nas_bench_201", (3, 16, 16), 10, "tiny", sparsity=("channels:0.5",))
