"""Where the windows of a convolution or pool lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from latency.kernels.intake_node import Node
from latency.kernels.intake_values import Unsupported


@dataclass(frozen=True)
class Window:
    """Where windows lie: padding is top, left, bottom, right; `places` are how many there are by axis."""

    size: tuple[int, ...]
    stride: int
    padding: tuple[int, int, int, int]
    places: tuple[int, int]

    @classmethod
    def of(cls, node: Node, sizes: Sequence[int], size: Sequence[int], stride: int) -> Window:
        """The windows of a convolution or pool over (h, w), as ONNX has them."""
        auto, pads = node.attribute("auto_pad", b"NOTSET").decode(), list(node.attribute("pads", [0, 0, 0, 0]))
        ceil = bool(node.attribute("ceil_mode", 0)) and auto == "NOTSET"
        places = []
        for i, (n, k) in enumerate(zip(sizes, size, strict=True)):
            if auto.startswith("SAME"):
                total = max((math.ceil(n / stride) - 1) * stride + k - n, 0)
                pads[i], pads[i + 2] = (
                    (total - total // 2, total // 2) if "LOWER" in auto else (total // 2, total - total // 2)
                )
            room = n + pads[i] + pads[i + 2] - k
            place = (math.ceil(room / stride) if ceil else room // stride) + 1
            if ceil and (place - 1) * stride >= n + pads[i]:
                place -= 1
            pads[i + 2] = max(pads[i + 2], (place - 1) * stride + k - n - pads[i])
            places.append(place)
        if min(pads) < 0 or min(places) < 1:
            raise Unsupported(f"windows {tuple(size)} with pads {pads} over {tuple(sizes)} pixels")
        return cls(tuple(size), stride, (pads[0], pads[1], pads[2], pads[3]), (places[0], places[1]))
