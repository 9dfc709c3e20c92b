import re

import pytest
import timm
import torch

from search_spaces.elastic import Elastic
from search_spaces.mbconv import PRESETS, InvertedResidual, mbconv
from search_spaces.network import check_network, extract, find_blocks, find_space, is_chain
from search_spaces.value import Choice


@pytest.fixture(scope="module")
def tiny():
    return mbconv(8, 1, 10)


def test_the_tiny_space_has_the_choices_that_it_describes(tiny):
    names = [c.name for c in find_space(tiny).choices]
    assert names[:3] == ["resolution", "stem.width", "stage1.depth"]
    parts = {name.split(".", 1)[1] for name in names if name.startswith("stage2.")}
    blocks = {f"block{i}.{part}" for i in (1, 2, 3) for part in ("kernel", "expansion")}
    assert parts == {"depth", "width"} | blocks
    assert {"se", "act"} < set(names)  # one each for the whole network
    assert len(names) == 4 + 3 * (2 + 2 * 3)


def test_the_size_of_a_space_equals_the_formula():
    # squeeze-and-excitation, activation; per stage: width, and (kernel x expansion) for each block of its depth
    tiny = 3 * 2 * 2 * 2 * (3 * (9 + 9**2 + 9**3)) ** 3
    assert find_space(mbconv(32, 3, 10, "tiny")).size == tiny
    first, fixed = 2 * 2 * 3, 2 * 2 * (9**2 + 9**3 + 9**4)
    assert find_space(mbconv(224, 3, 10, "mobile")).size == 4 * first * fixed * (2 * fixed) ** 4


def test_the_tiny_network_runs_at_every_option(tiny):
    check_network(tiny, find_space(tiny), (1, 8, 8), 10)


def test_every_block_but_the_last_parts_is_conditional_on_depth(tiny):
    blocks = {b.name: b for b in find_blocks(tiny)}
    assert is_chain(tiny)
    assert [name for name, b in blocks.items() if b.when] == [f"stage{i}.{j}" for i in (1, 2, 3) for j in (1, 2)]


def test_the_lite_space_ends_with_efficientnet_lite0_but_for_its_kernels():
    net = mbconv(224, 3, 1000, "lite")
    space = find_space(net)
    kernels = {name: 3 for name in space.largest().values if re.match(r"stage[1247]\.\S+kernel", name)}
    plain = extract(net, space.architecture({**space.largest().values, **kernels}))
    lite0 = timm.create_model("efficientnet_lite0")
    assert [p.shape for p in plain.parameters()] == [p.shape for p in lite0.parameters()]
    assert not {"se", "act"} & {c.name for c in space.choices}
    assert sum(isinstance(m, torch.nn.ReLU6) for m in plain.modules()) == 33


@pytest.mark.parametrize(("stride", "outputs", "residual"), [(1, 8, True), (2, 8, False), (1, 16, False)])
def test_a_block_adds_its_input_where_shapes_allow(stride, outputs, residual):
    se, act = Choice("se", (False, True)), Choice("act", ("relu", "h-swish"))
    block = InvertedResidual(8, outputs, 3, 16, stride, se, act)
    torch.nn.init.zeros_(block.project[1].weight)  # what remains is the residual
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    y = extract(block, find_space(block).largest())(x)
    assert torch.equal(y, x if residual else torch.zeros(2, outputs, 4 // stride, 4 // stride))


def test_an_expansion_of_one_has_no_expanding_layer():
    first = mbconv(32, 3, 10, "mobile").stage1.get_submodule("0")
    assert isinstance(first.expand, torch.nn.Identity) and not isinstance(first.expand, Elastic)
    assert first.residual


@pytest.mark.parametrize("preset", PRESETS)
def test_resolutions_ascend_and_include_the_native_one(preset):
    for size in range(1, 300):
        resolutions = PRESETS[preset].resolutions(size)
        assert list(resolutions) == sorted(set(resolutions)) and size in resolutions


def test_the_resolutions_of_usual_images():
    assert PRESETS["tiny"].resolutions(8) == (6, 8, 12)
    assert PRESETS["tiny"].resolutions(32) == (16, 24, 32)
    assert PRESETS["mobile"].resolutions(224) == (128, 160, 192, 224)
    assert PRESETS["mobile"].resolutions(64) == (32, 64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mbconv(32, 3, 10, "huge"), "unknown mbconv preset 'huge': there are tiny, mobile, lite"),
        (lambda: mbconv(5000, 3, 10), "no mbconv preset is meant for images of 5000 pixels: shrink them to at most"),
        (lambda: mbconv(0, 3, 10), "mbconv takes image sizes from 1 pixel, got 0: resize images to 1"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
