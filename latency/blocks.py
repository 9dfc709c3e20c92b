"""A network seen as a row of blocks: what each one computes at which input shape, for any architecture.

The latency model needs this for every architecture that an inner search looks at, so results are kept per
(block, its own choices, input shape): after a few hundred architectures hardly anything is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latency.count import Counts, Layer, count_
from search_spaces.elastic import Elastic, bound, plain_copy, sharing_layers
from search_spaces.network import Block, extract, find_blocks, is_chain
from search_spaces.space import Architecture


@dataclass(frozen=True)
class TracedBlock:
    """One block of one architecture.

    Args:
        name: of the block in the network.
        structure: a text that is equal for blocks that compute the same at the same input shape.
        input_shape: of one image (c, h, w) at the block's entry.
        weighted: whether it holds a convolution or linear layer.
        layers: of it, in the order in which they are run.
    """

    name: str
    structure: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    counts: Counts
    weighted: bool
    layers: tuple[Layer, ...] = ()


class BlockTracer:
    """Finds the blocks of architectures of one network.

    Args:
        input_shape: of one image (c, h, w).
    """

    def __init__(self, network: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.blocks = find_blocks(network)
        self.network = network
        self._input_shape = input_shape
        self._chain = is_chain(network)
        self._modules = {b.name: [network.get_submodule(m) for m in b.members] for b in self.blocks}
        self._own = {name: _own_choices(modules) for name, modules in self._modules.items()}
        self._choices = _own_choices([network])
        self._layers: dict[tuple[object, ...], nn.Module] = {}
        self._known: dict[tuple[object, ...], TracedBlock] = {}
        self._runs: dict[tuple[object, ...], tuple[TracedBlock, ...]] = {}

    def choices_of(self, block: Block) -> tuple[str, ...]:
        """The names of the choices that a block's own layers read."""
        return self._own[block.name]

    def trace(self, arch: Architecture) -> tuple[TracedBlock, ...]:
        """The blocks of `arch`, in the order in which the network runs them."""
        return self._trace_chain(arch) if self._chain else self._trace_run(arch)

    def _trace_chain(self, arch: Architecture) -> tuple[TracedBlock, ...]:
        assignment, shape, traced = arch.assignment, self._input_shape, []
        for block in self.blocks:
            if not block.exists(assignment):
                continue
            traced.append(self._block(block, shape, arch))
            shape = traced[-1].output_shape
        return tuple(traced)

    def _trace_run(self, arch: Architecture) -> tuple[TracedBlock, ...]:
        """For a network with a forward of its own: its blocks' input shapes are seen by running it."""
        key = tuple(arch.assignment[name] for name in self._choices)  # not those of a policy joined with it
        if key not in self._runs:
            plain = extract(self.network, arch).to("meta").eval()
            shapes: dict[str, tuple[int, ...]] = {}
            for block in self.blocks:
                first = _submodule(plain, block.members[0])
                if first is not None:
                    first.register_forward_hook(_recorder(shapes, block.name))
            with torch.no_grad():
                plain(torch.empty(1, *self._input_shape, device="meta"))
            by_name = {block.name: block for block in self.blocks}
            self._runs[key] = tuple(self._block(by_name[name], shape, arch) for name, shape in shapes.items())
        return self._runs[key]

    def _block(self, block: Block, shape: tuple[int, ...], arch: Architecture) -> TracedBlock:
        key = (block.name, shape, *(arch.assignment[name] for name in self._own[block.name]))
        if key not in self._known:
            with bound(arch), sharing_layers(self._layers):
                plain = nn.Sequential(*(plain_copy(m) for m in self._modules[block.name]))
            self._known[key] = _traced(block, plain, shape)
        return self._known[key]


def block_modules(network: nn.Module, arch: Architecture, blocks: Sequence[Block]) -> Mapping[str, nn.Module]:
    """Block name to a plain copy of the block, for the blocks that `arch` has."""
    plain = extract(network, arch)
    found = {b.name: [_submodule(plain, m) for m in b.members] for b in blocks}
    # Compared with None: an empty sequence is false.
    there = {name: [m for m in members if m is not None] for name, members in found.items()}
    return {name: nn.Sequential(*members) for name, members in there.items() if members}


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
    counts, layers, output = count_(plain.cpu(), shape)
    structure = f"{plain!r}{_attributes(plain)} at {shape}"
    return TracedBlock(block.name, structure, shape, output, counts, bool(counts.weight_elements), layers)


def _attributes(plain: nn.Module) -> str:
    """What `repr` does not show of modules that are not torch's: numbers, texts, truth values, and parameters' shapes.

    A forward may depend on them, as that of a residual block does on `residual`.
    """
    found = []
    for path, module in plain.named_modules():
        if not type(module).__module__.startswith("torch."):
            simple = {k: v for k, v in vars(module).items() if _simple(v) and k != "training"}
            shapes = {k: tuple(p.shape) for k, p in module.named_parameters(recurse=False)}
            found.append(f"{path}: {simple | shapes}")
    return " with " + "; ".join(found) if found else ""


def _simple(value: object) -> bool:
    return all(map(_simple, value)) if isinstance(value, (tuple, list)) else isinstance(value, (int, float, str))
