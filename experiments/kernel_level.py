"""`python -m experiments.kernel_level FOLDER`: how well latency is predicted for published networks never seen.

Fitted on random networks, and reported on families of timm that nobody looked at while it was made.  What is measured
is kept in the folder, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch

from latency.device import parse_device
from latency.graph import executed_kernels
from latency.kernel_profile import KernelProfile
from latency.lowering import to_onnx
from latency.store import MeasurementStore
from predictors.kernel_profiling import KernelProfiler, Network
from predictors.ranking import agreement

# Families that were looked at while features and regressor were chosen; nothing is reported on them.
DEVELOPMENT = (
    "mnasnet_small", "semnasnet_075", "lcnet_050", "lcnet_100", "regnetx_002", "dla46_c", "mobilevitv2_050",
    "mixer_s32_224", "selecsls42", "edgenext_xx_small", "resnet10t", "resnet18", "resnet50", "mobilenetv2_050",
    "mobilenetv2_100", "mobilenetv3_small_075", "mobilenetv3_large_100", "efficientnet_lite0", "efficientnet_b0",
    "regnety_002", "ghostnet_050", "ghostnet_100", "convnext_atto", "repvgg_a0", "fbnetc_100", "tinynet_a", "tinynet_e",
    "hardcorenas_a", "spnasnet_100", "rexnet_100", "densenet121", "deit_tiny_patch16_224", "mobilevit_xxs",
)  # fmt: skip
TEST = (
    "mobilenetv1_100", "mobilenetv4_conv_small", "mobilenet_edgetpu_v2_xs", "efficientnet_es", "mixnet_s",
    "repghostnet_050", "repghostnet_100", "ese_vovnet19b_slim_dw", "ese_vovnet19b_dw", "gernet_s", "skresnet18",
    "seresnet18", "cspresnet50", "resnext26ts", "resnext50_32x4d", "hrnet_w18_small", "dpn48b", "starnet_s1",
    "starnet_s2", "repvit_m0_9", "efficientvit_b0", "efficientvit_m0", "inception_next_atto", "poolformer_s12",
    "pvt_v2_b0", "levit_128s", "xcit_nano_12_p16_224", "tiny_vit_5m_224", "mobileone_s0", "fastvit_t8",
)  # fmt: skip
SIDES = ((96, 160, 224), (128, 160, 192))  # in turn
_SIZED = ("vit_", "deit_", "mixer_", "levit_", "xcit_", "efficientvit_m")  # built for one image size


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.kernel_level", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--on", choices=("development", "test"), default="test", help="what to report on")
    parser.add_argument("--networks", type=int, default=200, help="random ones, to fit on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = parse_device("cpu")
    with MeasurementStore(args.folder / "measurements.sqlite") as store:
        profiler = KernelProfiler(device, store)
        model = profiler.fit(args.networks, seconds=3600.0, on_progress=_shown())
        print(f"fitted on random networks; left out in turn: MAPE {100 * np.abs(model.left_out).mean():.1f} %")
        names, networks = [], []
        for name, side in _pairs(TEST if args.on == "test" else DEVELOPMENT):
            file = _exported(args.folder / "models", name, side)
            if file is not None:
                names.append(file.stem)
                networks.append(Network(file.read_bytes(), executed_kernels(file.read_bytes(), device)))
        measured = profiler.profile(networks)
        again = profiler.profile(networks[::10], anew=True)
    found, truth = model.predict([n.kernels for n in networks]), np.array([p.call_s for p in measured])
    for stem, p, t, s, profile in zip(names, found.mean, truth, found.half_width(0.9), measured, strict=True):
        kernels = model.kernel_seconds(profile.kernels).sum() / (sum(profile.kernel_s) or np.nan)
        print(
            f"{stem:36} {1e3 * t:7.2f} ms  predicted {1e3 * p:7.2f} ms {100 * (p / t - 1):+6.1f} % "
            f"± {100 * s / p:.0f} %  its kernels {100 * (kernels - 1):+6.1f} %"
        )
    inside = np.abs(found.mean - truth) <= found.half_width(0.9)
    _print("kernel model", found.mean, truth)
    _print("a line through MACs", _line([_macs(p) for p in measured], truth), truth)
    _print("a line through rooflines", _line([_roofline(p) for p in measured], truth), truth)
    print(f"the 90 % interval covers {100 * inside.mean():.0f} %")
    _print("every tenth measured again", np.array([p.call_s for p in again]), truth[::10])


def _shown() -> Callable[[float], None]:
    """Prints the share that is done, a tenth at a time."""
    last = [0.0]

    def show(share: float) -> None:
        if share >= last[0] + 0.1:
            last[0] = share
            print(f"{100 * share:.0f} % of the hour", flush=True)

    return show


def _pairs(names: tuple[str, ...]) -> list[tuple[str, int]]:
    return [(name, side) for i, name in enumerate(names) for side in SIDES[i % 2]]


def _exported(folder: Path, name: str, side: int) -> Path | None:
    """The file of a network of timm with random weights; None where it does not take images of this size."""
    file = folder / f"{name}-{side}.onnx"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        try:
            module = timm.create_model(
                name, pretrained=False, **({"img_size": side} if name.startswith(_SIZED) else {})
            )
            content = to_onnx(module, (3, side, side)).SerializeToString()
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            print(f"left out: {name} at {side} pixels ({str(error).splitlines()[0]})", flush=True)
            return None
        file.write_bytes(content)
    return file


def _print(what: str, predicted: np.ndarray, truth: np.ndarray) -> None:
    a = agreement(predicted, truth)
    print(
        f"{what}: {a.items} pairs, MAPE {100 * a.mape:.1f} %, within 5 % {100 * a.within_5:.0f} %, "
        f"within 10 % {100 * a.within_10:.0f} %, Spearman {a.spearman:.4f}"
    )


def _macs(network: KernelProfile) -> float:
    return sum(k.macs for k in network.kernels)


def _roofline(network: KernelProfile) -> float:
    """In units of a MAC: a byte moved counts as two, about what one core of a server does to both."""
    return sum(max(k.macs, 2 * (k.bytes_read + k.bytes_written + k.weight_bytes)) for k in network.kernels)


def _line(x: list[float], y: np.ndarray) -> np.ndarray:
    """Relative least squares of a line through the very networks that are reported: more than a baseline may know."""
    rows = np.column_stack([np.ones(len(y)), np.array(x)]) / y[:, None]
    price = np.linalg.lstsq(rows, np.ones(len(y)), rcond=None)[0]
    return np.asarray(price[0] + price[1] * np.array(x))


if __name__ == "__main__":
    main()
