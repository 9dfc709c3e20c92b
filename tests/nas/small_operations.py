"""A space of operations, so small that a whole differentiable search takes seconds; and one with nothing to relax."""

from torch import nn

import nas


class Operations(nas.Network):
    """A stem and three layers, each of which is nothing or one of two convolutions."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.stem = self.layer(in_channels, 3, 2)
        for i in range(3):
            layers = {"none": nn.Identity(), "1x1": self.layer(8, 1), "3x3": self.layer(8, 3)}
            self.add_module(f"layer{i}", nas.OneOf(nas.Choice(f"op{i}", tuple(layers)), layers))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nas.Linear(8, num_classes)

    @staticmethod
    def layer(inputs, kernel, stride=1):
        return nn.Sequential(nas.Conv2d(inputs, 8, kernel, stride=stride), nas.BatchNorm2d(8), nn.ReLU())


class Rigid(nas.Network):
    """A network of which only the resolution can be chosen, which no layer mixes."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        self.resize = nas.Resize(nas.Choice("resolution", (image_size // 2, image_size)), native=image_size)
        self.stem = nn.Sequential(nas.Conv2d(in_channels, 4, 3), nas.BatchNorm2d(4), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nas.Linear(4, num_classes)
