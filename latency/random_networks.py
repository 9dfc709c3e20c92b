"""Random networks to learn the cost of operators from: convolutional, token-mixing and mixed ones.

A latency model for any graph must have seen operators in the company they keep (layout changes, cold weights, fused
activations), over shapes that no published network has.  Blocks are those that networks are made of; their widths,
kernels, strides, groups, activations, and their order are drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latency.count import count

Option = TypeVar("Option")

SIDES = (64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224)  # pixels
_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU)
_ACTIVATION_ODDS = (0.4, 0.15, 0.17, 0.18, 0.1)
_ALIGNMENTS, _ALIGNMENT_ODDS = (8, 16, 4, 2, 1), (0.5, 0.2, 0.12, 0.1, 0.08)
_LEAST_MACS, _MOST_MACS = 15e6, 1.6e9
_MOST_TOKENS_SIDE = 24  # pixels, of a map whose pixels attend to each other
_KERNELS, _KERNEL_ODDS = (3, 5, 7), (0.6, 0.27, 0.13)


@dataclass(frozen=True)
class RandomNetwork:
    """A network in eval mode for images of `input_shape` (c, h, w)."""

    module: nn.Module
    input_shape: tuple[int, ...]


@dataclass(frozen=True)
class _Style:
    """What the blocks of one network have in common."""

    activation: Callable[[], nn.Module]
    se_activation: Callable[[], nn.Module]
    gate: Callable[[], nn.Module]
    se: bool
    group_width: int


def random_network(seed: int) -> RandomNetwork:
    """The network of a seed: the same seed, the same network."""
    rng = np.random.default_rng([seed, 77])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        side = int(rng.choice(SIDES))
        module = _tokens(rng, side) if rng.random() < 0.15 else _convolutional(rng, side)
    return RandomNetwork(module.eval(), (3, side, side))


def sample_networks(n: int, start: int = 0) -> Iterator[tuple[int, RandomNetwork]]:
    """The first `n` networks, from the seed `start` on, that are neither trivial nor large, with their seeds."""
    found = 0
    for seed in itertools.count(start):
        if found == n:
            return
        network = random_network(seed)
        if _LEAST_MACS <= count(network.module, network.input_shape).macs <= _MOST_MACS:
            found += 1
            yield seed, network


def _convolutional(rng: np.random.Generator, side: int) -> nn.Module:
    """A stem, three to five stages of one kind of block each (or one kind throughout), and a head."""
    style = _Style(
        activation=_pick(rng, _ACTIVATIONS, _ACTIVATION_ODDS),
        se_activation=_pick(rng, (nn.ReLU, nn.SiLU), (0.7, 0.3)),
        gate=_pick(rng, (nn.Sigmoid, nn.Hardsigmoid), (0.6, 0.4)),
        se=rng.random() < 0.35,
        group_width=int(rng.choice((1, 4, 8, 8, 16, 16, 24, 32, 48, 64))),
    )
    kinds, most = tuple(_BLOCKS), float(rng.choice((256, 512, 1024)))
    throughout = kinds[rng.integers(len(kinds))] if rng.random() < 0.6 else None
    stem_kernel, stem_stride = int(rng.choice((3, 7, 4), p=(0.75, 0.15, 0.1))), 2
    stem_stride = 4 if stem_kernel == 4 else stem_stride
    c = _width(rng, 8, 64)
    layers: list[nn.Module] = [_conv(3, c, stem_kernel, stem_stride, style.activation)]
    size = side // stem_stride
    if rng.random() < 0.2:
        layers.append(nn.MaxPool2d(3, 2, 1))
        size //= 2
    growth = rng.uniform(1.2, 2.1)
    for stage in range(int(rng.integers(3, 6))):
        kind = throughout or kinds[rng.integers(len(kinds))]
        if kind == "hybrid" and size > _MOST_TOKENS_SIDE:  # attention among all pixels is for small maps
            kind = "separable"
        stride = 2 if size >= 6 and (stage > 0 or rng.random() < 0.5) else 1
        wide = _aligned(rng, min(c * growth, most))
        for i in range(int(rng.integers(1, 5))):
            layers.append(_BLOCKS[kind](rng, c, wide, stride if i == 0 else 1, style))
            c = wide
        size = -(-size // stride)
    if rng.random() < 0.5:
        head = _width(rng, 128, 1536)
        layers.append(_conv(c, head, 1, 1, style.activation))
        c = head
    classes = 1000 if rng.random() < 0.5 else _width(rng, 10, 2000)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


def _tokens(rng: np.random.Generator, side: int) -> nn.Module:
    """Patches, then attention and feed-forward blocks."""
    head = int(rng.choice((16, 24, 32, 48, 64)))
    dim = head * int(rng.integers(2, 8))
    patch = 16 if side % 16 == 0 else 8
    blocks = [_Attention(dim, dim // head, rng.choice((2.0, 3.0, 4.0)), True) for _ in range(int(rng.integers(2, 9)))]
    return nn.Sequential(
        nn.Conv2d(3, dim, patch, patch), _ToTokens(), *blocks, nn.LayerNorm(dim), _First(), nn.Linear(dim, 1000)
    )


# -- blocks: (rng, input channels, output channels, stride, style) -------------------------------------


def _conv(c: int, wide: int, k: int, stride: int, act: Callable[[], nn.Module] | None, groups: int = 1) -> nn.Module:
    layers = [nn.Conv2d(c, wide, k, stride, k // 2 if k != 4 else 0, groups=groups, bias=False), nn.BatchNorm2d(wide)]
    return nn.Sequential(*layers, *([act()] if act else []))


def _inverted(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    k, expansion = _pick(rng, _KERNELS, _KERNEL_ODDS), float(rng.choice((1, 2, 3, 4, 6)))
    hidden = int(c * expansion)
    layers = [_conv(c, hidden, 1, 1, style.activation)] if expansion > 1 else []
    layers.append(_conv(hidden, hidden, k, stride, style.activation, hidden))
    if style.se:
        layers.append(_SqueezeExcite(hidden, max(4, int(c * rng.choice((0.25, 0.5, 1.0)))), style))
    return _Residual([*layers, _conv(hidden, wide, 1, 1, None)], stride == 1 and c == wide)


def _separable(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    k = _pick(rng, _KERNELS, _KERNEL_ODDS)
    squeeze = [_SqueezeExcite(c, max(4, c // 4), style)] if style.se and rng.random() < 0.5 else []
    return nn.Sequential(_conv(c, c, k, stride, style.activation, c), *squeeze, _conv(c, wide, 1, 1, style.activation))


def _basic(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    layers = [_conv(c, wide, 3, stride, style.activation), _conv(wide, wide, 3, 1, None)]
    return _Residual(layers, True, _shortcut(c, wide, stride), style.activation)


def _bottleneck(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    hidden, groups = _aligned(rng, wide * rng.choice((0.25, 0.5, 1.0))), 1
    if rng.random() < 0.6:
        groups = max(1, round(hidden / style.group_width))
        hidden = groups * style.group_width
    layers = [_conv(c, hidden, 1, 1, style.activation), _conv(hidden, hidden, 3, stride, style.activation, groups)]
    if style.se:
        layers.append(_SqueezeExcite(hidden, max(4, c // 4), style))
    return _Residual([*layers, _conv(hidden, wide, 1, 1, None)], True, _shortcut(c, wide, stride), style.activation)


def _plain(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    return _conv(c, wide, int(rng.choice((3, 3, 3, 5, 1))), stride, style.activation)


def _dense(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    grown = _aligned(rng, float(rng.uniform(12, 48)))
    return _Dense(c, grown, wide, int(rng.integers(1, 4)), stride, style)


def _ghost(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    hidden = 2 * _aligned(rng, wide * rng.choice((0.5, 1.0, 1.5)))
    middle = [_conv(hidden, hidden, 3, stride, None, hidden)] if stride > 1 else []
    if style.se:
        middle.append(_SqueezeExcite(hidden, max(4, hidden // 4), style))
    return _Residual(
        [_Halves(c, hidden, style.activation), *middle, _Halves(hidden, wide, None)],
        True,
        _shortcut(c, wide, stride, depthwise=True),
    )


def _shuffle(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    return _Shuffle(c, wide, stride, _pick(rng, _KERNELS, _KERNEL_ODDS), style)


def _modern(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    k, expansion = int(rng.choice((3, 5, 7))), int(rng.choice((2, 3, 4)))
    down = [_LayerNorm(c), nn.Conv2d(c, wide, 2, 2)] if stride > 1 else [nn.Conv2d(c, wide, 1)]
    if rng.random() < 0.3:
        mixing: list[nn.Module] = [_TokenMlp(wide, expansion)]
    else:
        mixing = [
            _LayerNorm(wide),
            nn.Conv2d(wide, expansion * wide, 1),
            nn.GELU(),
            nn.Conv2d(expansion * wide, wide, 1),
        ]
    return nn.Sequential(*down, _Residual([nn.Conv2d(wide, wide, k, 1, k // 2, groups=wide), *mixing], True))


def _hybrid(rng: np.random.Generator, c: int, wide: int, stride: int, style: _Style) -> nn.Module:
    dim = int(rng.choice((16, 32))) * int(rng.integers(2, 6))
    return nn.Sequential(
        _separable(rng, c, wide, stride, style),
        nn.Conv2d(wide, dim, 1),
        _OnTokens(_Attention(dim, int(rng.choice((2, 4))), 2.0, bool(rng.integers(2)))),
        _conv(dim, wide, 1, 1, style.activation),
    )


_Maker = Callable[[np.random.Generator, int, int, int, _Style], nn.Module]
_BLOCKS: dict[str, _Maker] = {
    "inverted": _inverted,
    "inverted again": _inverted,  # the most frequent kind of small networks
    "separable": _separable,
    "basic": _basic,
    "bottleneck": _bottleneck,
    "bottleneck again": _bottleneck,
    "plain": _plain,
    "dense": _dense,
    "ghost": _ghost,
    "shuffle": _shuffle,
    "modern": _modern,
    "hybrid": _hybrid,
}


def _shortcut(c: int, wide: int, stride: int, depthwise: bool = False) -> nn.Module | None:
    if stride == 1 and c == wide:
        return None
    if depthwise:
        return nn.Sequential(_conv(c, c, 3, stride, None, c), _conv(c, wide, 1, 1, None))
    return _conv(c, wide, 1, stride, None)


class _Residual(nn.Module):
    def __init__(
        self,
        layers: Sequence[nn.Module],
        added: bool,
        shortcut: nn.Module | None = None,
        activation: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.shortcut, self.added = nn.Sequential(*layers), shortcut, added
        self.activation = activation() if activation else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        if self.added:
            y = y + (self.shortcut(x) if self.shortcut else x)
        return self.activation(y) if self.activation else y


class _SqueezeExcite(nn.Module):
    def __init__(self, c: int, hidden: int, style: _Style) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(c, hidden, 1), style.se_activation(), nn.Conv2d(hidden, c, 1), style.gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layers(x.mean((2, 3), keepdim=True))


class _Dense(nn.Module):
    """Layers that each see all outputs so far, and a transition (DenseNet, arXiv:1608.06993)."""

    def __init__(self, c: int, grown: int, wide: int, depth: int, stride: int, style: _Style) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(c + i * grown),
                style.activation(),
                _conv(c + i * grown, 4 * grown, 1, 1, style.activation),
                nn.Conv2d(4 * grown, grown, 3, 1, 1),
            )
            for i in range(depth)
        )
        last = c + depth * grown
        pool = [nn.AvgPool2d(2, 2)] if stride > 1 else []
        self.transition = nn.Sequential(nn.BatchNorm2d(last), style.activation(), nn.Conv2d(last, wide, 1), *pool)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return self.transition(torch.cat(seen, 1))


class _Halves(nn.Module):
    """Half of the channels by a 1x1 convolution, the others from them by a depthwise one (arXiv:1911.11907)."""

    def __init__(self, c: int, wide: int, activation: Callable[[], nn.Module] | None) -> None:
        super().__init__()
        half = -(-wide // 2)
        self.wide = wide
        self.first, self.second = _conv(c, half, 1, 1, activation), _conv(half, half, 3, 1, activation, half)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        return torch.cat([first, self.second(first)], 1)[:, : self.wide]


class _Shuffle(nn.Module):
    """Half of the channels are worked on, then the halves are mixed (ShuffleNetV2, arXiv:1807.11164)."""

    def __init__(self, c: int, wide: int, stride: int, k: int, style: _Style) -> None:
        super().__init__()
        self.split = stride == 1
        self.own = own = c // 2 if self.split else c
        half = own if self.split else max(1, wide // 2)
        self.work = nn.Sequential(
            _conv(own, half, 1, 1, style.activation),
            _conv(half, half, k, stride, None, half),
            _conv(half, half, 1, 1, style.activation),
        )
        self.side = nn.Identity() if self.split else _shortcut(own, half, stride, depthwise=True) or nn.Identity()
        self.out = nn.Conv2d(2 * half, wide, 1) if 2 * half != wide else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a, b = (x[:, : self.own], x[:, self.own : 2 * self.own]) if self.split else (x, x)
        y = torch.cat([self.side(a), self.work(b)], 1)
        n, c, h, w = y.shape
        return self.out(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class _LayerNorm(nn.LayerNorm):
    """Over the channels of images (b, c, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _TokenMlp(nn.Module):
    def __init__(self, c: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * c
        self.layers = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, wide), nn.GELU(), nn.Linear(wide, c))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Attention(nn.Module):
    """Attention and feed-forward layers on tokens (b, t, c), normalised first (ViT, arXiv:2010.11929)."""

    def __init__(self, dim: int, heads: int, expansion: float, gelu: bool) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        hidden = int(expansion * dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU() if gelu else nn.SiLU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        qkv = self.qkv(self.before(x)).reshape(b, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.between(x))


class _ToTokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class _First(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class _OnTokens(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return self.layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(b, c, h, w)


# -- draws ---------------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, options: Sequence[Option], odds: Sequence[float]) -> Option:
    return options[rng.choice(len(options), p=odds)]


def _aligned(rng: np.random.Generator, width: float) -> int:
    """Near `width`: mostly a multiple of 8, as networks have them, at times not even an even number."""
    step = int(_pick(rng, _ALIGNMENTS, _ALIGNMENT_ODDS))
    return max(step, 4, round(width / step) * step)


def _width(rng: np.random.Generator, low: int, high: int) -> int:
    return _aligned(rng, float(np.exp(rng.uniform(np.log(low), np.log(high)))))
