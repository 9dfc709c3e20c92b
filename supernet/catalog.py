"""Names a user may give for data sets and optimizers, each in one visible table; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from supernet.images import Source
from supernet.sources.digits import load_digits
from supernet.sources.published import load_cifar10, load_cifar100, load_fashion_mnist

DATASETS: Final[Mapping[str, Source]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "fashion-mnist": load_fashion_mnist,
}

OPTIMIZERS: Final[Mapping[str, str]] = {
    "sgd": "stochastic gradient descent with Nesterov momentum",
    "adamw": "Adam with decoupled weight decay",
    "lamb": "Adam with layer-wise step sizes, for large batches",
    "lion": "sign of the momentum; wants a learning rate ten times smaller than adamw",
}
