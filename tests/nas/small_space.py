"""A space so small that a whole run takes seconds; it has what runs meet: depth, width, kernels, a condition."""

from torch import nn

import nas


class Small(nas.Network):
    """A stem and one or two blocks."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        width = nas.Choice("width", (4, 8))
        self.stem = self.block(in_channels, width, 3, 2)
        blocks = (self.block(width, width, nas.Choice(f"kernel{i}", (1, 3))) for i in range(2))
        self.body = nas.Sequence(*blocks, depth=nas.Choice("depth", (1, 2)))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nas.Linear(width, num_classes)

    @staticmethod
    def block(inputs, outputs, kernel, stride=1):
        return nn.Sequential(nas.Conv2d(inputs, outputs, kernel, stride=stride), nas.BatchNorm2d(outputs), nn.ReLU())
