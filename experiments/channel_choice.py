"""How many channels of each layer to take out: all alike, by LAMP, or by rate and distortion, at equal MACs.

python -m experiments.channel_choice [--data DIR] [--shares 0.75 0.5]

ResNet-20 on CIFAR-10; channels are scored by Taylor's first order on 256 training images and the layers behind refitted
on them, as `nas quantize --sparsity channels:X` does.  KL of outputs from those of the whole network, and accuracy, on
1,024 validation images; rate and distortion get the MACs of each of the other two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx

from experiments.quantize_pretrained import cifar10
from latency.device import parse_device
from latency.runtimes.opening import open_session
from nas.sparsify import by_rate_and_distortion
from quant_search.ptq.intake import prepared
from quant_search.sensitivity.kl import divergence
from quant_search.sparsity.channels import channel_groups, prune_channels
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.rate_distortion import macs_of
from quant_search.sparsity.refit import refit
from quant_search.sparsity.selection import adaptive_keep, score_units, uniform_keep

_SCORING, _JUDGING, _ROUND_TO = 256, 1024, 8


def main() -> None:
    """Prints a row for each share and choice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5])
    arguments = parser.parse_args()
    given, dataset = cifar10(arguments.data)
    model = prepared(given)
    examples = Examples(dataset.x_train[:_SCORING], dataset.y_train[:_SCORING])
    x, y = dataset.x_val[-_JUDGING:], dataset.y_val[-_JUDGING:]
    wanted = _outputs(model, x)
    groups = channel_groups(model)
    scores = score_units(model, groups, "taylor", examples)
    print("| kept | choice | MACs | KL | accuracy |\n|---|---|---|---|---|", flush=True)
    for share in arguments.shares:
        choices = {"alike": uniform_keep, "LAMP": adaptive_keep}
        for name, choose in choices.items():
            keep = choose(groups, scores, share, _ROUND_TO)
            macs = macs_of(prune_channels(model, keep))
            other = by_rate_and_distortion(model, scores, examples, macs, share)
            for label, units in ((name, keep), (f"rate and distortion, MACs of {name}", other)):
                file = refit(model, units, examples.images)
                outputs = _outputs(file, x)
                kl, accuracy = divergence(outputs, wanted), float((outputs.argmax(1) == y).mean())
                print(f"| {share:g} | {label} | {macs_of(file) / 1e6:.2f} M | {kl:.3f} | {accuracy:.3f} |", flush=True)


def _outputs(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = open_session(model.SerializeToString(), parse_device("cpu"))
    return np.concatenate([session.run(part) for part in np.split(images, len(images) // 64)])


if __name__ == "__main__":
    main()
