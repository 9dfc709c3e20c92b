"""A network seen as a row of blocks: what each one computes at which input shape, for any architecture.

The latency model needs this for every architecture that an inner search looks at, so results are kept per
(block, its own choices, input shape): after a few hundred architectures hardly anything is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latency.count import Counts, count
from search_spaces.elastic import Elastic, bound, plain_copy
from search_spaces.network import Block, extract, find_blocks, is_chain
from search_spaces.space import Architecture


@dataclass(frozen=True)
class TracedBlock:
    """One block of one architecture.

    Args:
        name: of the block in the network.
        structure: a text that is equal for blocks that compute the same at the same input shape.
        input_shape: of one image (c, h, w) at the block's entry.
    """

    name: str
    structure: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    counts: Counts
    weighted: bool


class BlockTracer:
    """Finds the blocks of architectures of one network.

    Args:
        input_shape: of one image (c, h, w).
    """

    def __init__(self, network: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.blocks = find_blocks(network)
        self._network = network
        self._input_shape = input_shape
        self._chain = is_chain(network)
        self._modules = {b.name: [network.get_submodule(m) for m in b.members] for b in self.blocks}
        self._own = {name: _own_choices(modules) for name, modules in self._modules.items()}
        self._known: dict[tuple[object, ...], TracedBlock] = {}
        self._whole: dict[tuple[int, ...], tuple[TracedBlock, ...]] = {}

    def trace(self, arch: Architecture) -> tuple[TracedBlock, ...]:
        """The blocks of `arch`, in the order of the network."""
        return self._trace_chain(arch) if self._chain else self._trace_run(arch)

    def _trace_chain(self, arch: Architecture) -> tuple[TracedBlock, ...]:
        assignment, shape, traced = arch.assignment, self._input_shape, []
        for block in self.blocks:
            if not block.exists(assignment):
                continue
            key = (block.name, shape, *(assignment[name] for name in self._own[block.name]))
            if key not in self._known:
                with bound(arch):
                    plain = nn.Sequential(*(plain_copy(m) for m in self._modules[block.name]))
                self._known[key] = _traced(block, plain, shape)
            traced.append(self._known[key])
            shape = traced[-1].output_shape
        return tuple(traced)

    def _trace_run(self, arch: Architecture) -> tuple[TracedBlock, ...]:
        """For a network with a forward of its own: its blocks' input shapes are seen by running it."""
        if arch.indices not in self._whole:
            plain = extract(self._network, arch).to("meta").eval()
            shapes: dict[str, tuple[int, ...]] = {}
            for block in self.blocks:
                members = [_submodule(plain, m) for m in block.members]
                if members[0] is not None:
                    members[0].register_forward_hook(_recorder(shapes, block.name))
            with torch.no_grad():
                plain(torch.empty(1, *self._input_shape, device="meta"))
            self._whole[arch.indices] = tuple(
                _traced(b, nn.Sequential(*(plain.get_submodule(m) for m in b.members)), shapes[b.name])
                for b in self.blocks
                if b.name in shapes
            )
        return self._whole[arch.indices]


def block_modules(network: nn.Module, arch: Architecture, blocks: Sequence[Block]) -> Mapping[str, nn.Module]:
    """Block name to a plain copy of the block, for the blocks that `arch` has."""
    plain = extract(network, arch)
    found = {b.name: [_submodule(plain, m) for m in b.members] for b in blocks}
    return {name: nn.Sequential(*(m for m in members if m)) for name, members in found.items() if all(members)}


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:  # beyond the depth of this architecture
        return None


def _recorder(shapes: dict[str, tuple[int, ...]], name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        shapes.setdefault(name, tuple(inputs[0].shape[1:]))

    return hook


def _own_choices(modules: Sequence[nn.Module]) -> tuple[str, ...]:
    elastic = [m for module in modules for m in module.modules() if isinstance(m, Elastic)]
    return tuple(dict.fromkeys(choice.name for m in elastic for choice in m.choices()))


def _traced(block: Block, plain: nn.Module, shape: tuple[int, ...]) -> TracedBlock:
    plain = plain.to("meta").eval()
    with torch.no_grad():
        output = tuple(plain(torch.empty(1, *shape, device="meta")).shape[1:])
    structure = f"{plain!r} at {shape}"
    return TracedBlock(block.name, structure, shape, output, count(plain, shape), block.weighted)
