"""The shapes that the kernels' benchmark times: blocks, bodies and whole networks at 224 pixels, and sparse layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.bench.kernel_graphs import Block, Graph, parse_blocks

# Blocks of mobile networks at 224 pixels.
USUAL = "112,16,6,24,3,2; 56,24,6,24,3,1; 28,40,6,40,5,1; 14,80,6,80,3,1; 14,112,6,112,5,1; 7,160,6,160,7,1"
OTHERS = (
    "80,16,6,24,3,2; 40,24,4,24,5,1; 20,40,6,40,5,1; 10,80,6,80,3,1; 5,160,6,160,7,1",  # at 160 pixels
    "96,16,6,24,3,2; 48,24,6,24,3,1; 24,32,6,32,3,1; 12,64,6,64,5,1; 6,96,6,96,3,1",  # at 192 pixels
    "13x17,44,6,44,5,1; 27,20,3,20,3,1; 11,56,4,56,7,1; 15x14,24,3,40,5,2",  # odd maps
    "28,36,5,36,3,1; 14,70,6,70,5,1; 19,50,3,50,3,1",  # channels off the multiples of 16 and 48
    "32,16,4,16,5,2; 16,16,3,16,3,1; 16,24,4,24,5,1; 8,40,3,40,3,1; 8,24,2,24,7,1; 4,64,4,64,5,1",  # of the preset tiny
)
BLOCKS = parse_blocks(";".join((USUAL, *OTHERS)))

# Outputs, blocks, stride of the first: MobileNetV2 (arXiv:1801.04381, table 2) behind its first block.
_STAGES = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
_SIDE, _INPUTS, _EXPANSION = 112, 16, 6
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
IMAGE = (3, 2 * _SIDE, 2 * _SIDE)


def body(kernels: Sequence[int]) -> tuple[Block, ...]:
    """MobileNetV2's blocks behind the first one at 224 pixels, with a kernel size for each stage."""
    found: list[Block] = []
    side, inputs = _SIDE, _INPUTS
    for (outputs, blocks, first), kernel in zip(_STAGES, kernels, strict=True):
        for stride in (first, *(1,) * (blocks - 1)):
            found.append(Block(side, side, inputs, _EXPANSION, outputs, kernel, stride))
            side, inputs = (side - 1) // stride + 1, outputs
    return tuple(found)


BODIES: Mapping[str, tuple[Block, ...]] = {
    "MobileNetV2": body((3, 3, 3, 3, 3, 3)),
    "mixed kernels": body((3, 5, 3, 5, 5, 7)),
}


def network(graph: Graph, blocks: Sequence[Block]) -> None:
    """MobileNetV2 from images of 224 pixels to logits, with these blocks as its body."""
    graph.convolve(_STEM, 3, 2)
    graph.relu()
    graph.block(Block(_SIDE, _SIDE, _STEM, 1, _INPUTS, 3, 1))
    for block in blocks:
        graph.block(block)
    graph.convolve(_HEAD)
    graph.relu()
    graph.logits(_CLASSES)


# Sides and channels of 1x1 layers, and how many of their blocks of weights are not zero.
LAYERS = ((14, 240, 240), (14, 480, 480), (7, 960, 960), (28, 240, 40), (14, 480, 80), (14, 672, 112), (7, 960, 160))
DENSITIES = (1.0, 0.5, 0.25)
