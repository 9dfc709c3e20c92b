"""One supernet for any policy: shared weights that are trained while subnets and their precisions are sampled together.

Source: SpaceEvo (arXiv:2303.08308), section 4.2, quantized-for-all; APQ (arXiv:2006.08509), section 3.

`QuantizedForAll` is an elastic network itself, whose space is the joint one (`quant_search.policy.joint_space`): all
that trains a supernet trains it, and knows of no bits.  Precisions are listed from cheap to dear, so that the largest
architecture, which teaches the others, is that in the most bits, and the smallest is in the lowest precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from quant_search.layer_rounding import is_rounded, round_layers_, rounded_pair, rounded_weight, rounding_inputs
from quant_search.policy import SUFFIX, check_precisions, policy_choices
from quant_search.precision import parse_precision
from search_spaces.elastic import Conv2d, Elastic, Linear, current, plain_copy
from search_spaces.network import Network, find_blocks
from search_spaces.rounding import rounding
from search_spaces.space import Equivalence
from search_spaces.value import Choice


class QuantizedForAll(Network, Elastic):
    """`network`, whose blocks compute in the precisions of the bound architecture.

    Convolutions and linear layers, elastic or plain, round weights and, where activations have eight bits, what they
    read; other layers are left as they are.  It holds no weights of its own: its state is that of `network`, under the
    same names.  An extracted subnet rounds as well.

    Args:
        precisions: what blocks may have; in a single one, the space is that of `network`.

    Raises:
        ValueError: an unknown precision, one given twice, or none.
    """

    def __init__(self, network: nn.Module, precisions: Sequence[str]) -> None:
        super().__init__()
        check_precisions(precisions)
        self.network = network
        self.precisions = tuple(precisions)
        self.blocks = find_blocks(network)
        choices = policy_choices(self.blocks, precisions)
        self.policy = _Policy(choices)  # stands last, as policies do in a joint space
        by_block = {choice.name.removesuffix(SUFFIX): choice for choice in choices}
        self._known = {name: parse_precision(name) for name in precisions}
        self._precision_of: dict[nn.Module, Choice | str] = {}
        self._plain: dict[str, nn.Module] = {}
        names = {layer: name for name, layer in network.named_modules()}
        for block in self.blocks:
            for member in block.members:
                for layer in network.get_submodule(member).modules():
                    if isinstance(layer, (Conv2d, Linear)) or is_rounded(layer):
                        self._precision_of.setdefault(layer, by_block.get(block.name, precisions[0]))
                    if is_rounded(layer):
                        self._plain[names[layer]] = layer

    def forward(self, x: Tensor) -> Tensor:
        """The logits (b, classes) of images (b, c, h, w)."""
        now = {name: self._known[str(current(self._precision_of[layer]))] for name, layer in self._plain.items()}
        weights = {
            f"{name}.weight": rounded_weight(self._plain[name].get_parameter("weight"), precision.weight_bits)
            for name, precision in now.items()
            if precision.weight_bits is not None
        }
        reading = [self._plain[name] for name, precision in now.items() if precision.activation_bits is not None]
        with rounding(self._rounded), rounding_inputs(reading):
            # A tensor that is put in under two names of one layer would not be taken out again.
            logits: Tensor = functional_call(self.network, weights, (x,), tie_weights=False)
        return logits

    def _rounded(self, layer: nn.Module, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self._precision_of.get(layer)
        if chosen is None:  # in no block
            return x, weight
        return rounded_pair(x, weight, self._known[str(current(chosen))])

    def equivalence(self) -> Equivalence | None:
        """As `Network.equivalence`: that of the network."""
        return self.network.equivalence() if isinstance(self.network, Network) else None

    def plain(self) -> nn.Module:
        """The subnet of the bound architecture in plain layers, which round as those of its file."""
        plain = plain_copy(self.network)
        round_layers_(plain, self.blocks, self.bound_policy())
        return plain

    def bound_policy(self) -> Mapping[str, str]:
        """Block name to precision under the bound architecture, whether or not it has the block."""
        chosen = {choice.name.removesuffix(SUFFIX): str(current(choice)) for choice in self.policy.choices()}
        return chosen or {block.name: self.precisions[0] for block in self.blocks if block.weighted}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the network."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Into the network."""
        return self.network.load_state_dict(*args, **kwargs)


class _Policy(Elastic):
    """Where the precisions are found, which no layer reads by itself."""

    def __init__(self, choices: tuple[Choice, ...]) -> None:
        super().__init__()
        self.values = choices

    def plain(self) -> nn.Module:
        """Nothing."""
        return nn.Identity()
