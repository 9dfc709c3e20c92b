"""`python -m experiments.kernel_level STAGE FOLDER`: how well latency is predicted for published networks never seen.

Fitted on random networks, developed on some families of timm, reported on others: no architecture is in two sets.
Stages, each of which goes on where it stopped: `export` writes the ONNX files, `measure` visits those that have the
fewest visits for some minutes (call it several times, hours apart if the machine is shared), `report` fits and prints.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import timm
import torch

from latency.device import fingerprint, parse_device
from latency.graph import Kernel, executed_kernels
from latency.harness import worker
from latency.kernel_profile import KernelProfile, profile_of, undisturbed_s
from latency.lowering import to_onnx
from latency.node_times import NodeTimes
from latency.random_networks import sample_networks
from predictors.kernel_level import KernelModel, fit_kernel_model
from predictors.ranking import agreement

DEVICE = parse_device("cpu")
RANDOM = 200  # networks of the fit
CALLS = 14
# Families that were looked at while features and regressor were chosen; nothing is reported on them.
DEVELOPMENT = [
    "mnasnet_small",
    "semnasnet_075",
    "mnasnet_100",
    "lcnet_050",
    "lcnet_100",
    "regnetx_002",
    "regnetx_004",
    "dla46_c",
    "mobilevitv2_050",
    "mixer_s32_224",
    "selecsls42",
    "edgenext_xx_small",
]
TEST = [
    "resnet10t",
    "resnet18",
    "resnet26",
    "resnet34",
    "resnet50",
    "mobilenetv2_050",
    "mobilenetv2_100",
    "mobilenetv3_small_075",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "efficientnet_lite0",
    "efficientnet_b0",
    "regnety_002",
    "regnety_004",
    "ghostnet_050",
    "ghostnet_100",
    "convnext_atto",
    "convnext_femto",
    "repvgg_a0",
    "fbnetc_100",
    "tinynet_a",
    "tinynet_c",
    "tinynet_e",
    "hardcorenas_a",
    "spnasnet_100",
    "rexnet_100",
    "densenet121",
    "deit_tiny_patch16_224",
    "vit_tiny_patch16_224",
    "mobilevit_xxs",
    "mobilevit_xs",
]
SIDES = ((96, 160, 224), (128, 160, 192))  # in turn
_SIZED = ("vit_", "deit_", "mixer_")  # built for one image size


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.kernel_level", description=__doc__)
    parser.add_argument("stage", choices=("export", "measure", "report"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=4.5, help="how long to measure")
    parser.add_argument("--on", choices=("development", "test"), default="test", help="what to report on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.stage == "export":
        export(args.folder)
    elif args.stage == "measure":
        measure(args.folder, 60 * args.minutes)
    else:
        report(args.folder, args.on)


# -- files ---------------------------------------------------------------------------------------------


def export(folder: Path) -> None:
    """Writes the ONNX files that are not there yet."""
    for name, side in [*_pairs(DEVELOPMENT), *_pairs(TEST)]:
        kind = "development" if name in DEVELOPMENT else "test"
        file = folder / "models" / f"{kind}-{name}-{side}.onnx"
        if not file.exists():
            torch.manual_seed(0)
            size = {"img_size": side} if name.startswith(_SIZED) else {}
            _write(file, to_onnx(timm.create_model(name, pretrained=False, **size), (3, side, side)))
    for seed, network in sample_networks(RANDOM):
        file = folder / "models" / f"random-{seed}.onnx"
        if not file.exists():
            _write(file, to_onnx(network.module, network.input_shape))


def _pairs(names: list[str]) -> list[tuple[str, int]]:
    return [(name, side) for i, name in enumerate(names) for side in SIDES[i % 2]]


def _write(file: Path, model: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model.SerializeToString())  # type: ignore[attr-defined]
    print(file.name, flush=True)


# -- times ---------------------------------------------------------------------------------------------


def measure(folder: Path, seconds: float) -> None:
    """Visits networks, those with the fewest visits first, until the time is up."""
    files = sorted((folder / "models").glob("*.onnx"))
    visits = {file: len(found.call_s) if (found := _times(folder, file.stem)) else 0 for file in files}
    end = time.monotonic() + seconds
    for file in sorted(files, key=lambda file: visits[file]):
        if time.monotonic() > end:
            break
        new = worker(DEVICE).profile([file.read_bytes()], DEVICE, visits=1, calls=CALLS)[0]
        joined = (_times(folder, file.stem) or NodeTimes([], {})).joined(new)
        target = folder / "times" / f"{file.stem}.json.gz"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(gzip.compress(json.dumps(asdict(joined)).encode(), 1))


def _times(folder: Path, stem: str) -> NodeTimes | None:
    file = folder / "times" / f"{stem}.json.gz"
    return NodeTimes(**json.loads(gzip.decompress(file.read_bytes()))) if file.exists() else None


# -- the report ----------------------------------------------------------------------------------------


def report(folder: Path, on: str) -> None:
    """Fits on the random networks and prints how well the others are predicted."""
    fitted = [_profile(folder, file.stem) for file in sorted((folder / "times").glob("random-*.json.gz"), key=str)]
    model = fit_kernel_model(fitted, fingerprint(DEVICE))
    (folder / "model.json").write_text(model.to_json())
    print(f"fitted on {len(fitted)} random networks, {sum(len(p.kernels) for p in fitted)} kernels")
    print(f"left out in turn: MAPE {100 * np.abs(model.left_out).mean():.1f} %")
    stems = [_stem(file) for file in sorted((folder / "times").glob(f"{on}-*.json.gz"))]
    networks = [_profile(folder, stem) for stem in stems]
    truth = np.array([p.call_s for p in networks])
    found = model.predict([p.kernels for p in networks])
    inside = np.abs(found.mean - truth) <= 1.645 * found.std
    for stem, p, t, s, n in zip(stems, found.mean, truth, found.std, networks, strict=True):
        visits = len(_known(folder, stem).call_s)
        print(
            f"{stem:42} {1e3 * t:7.2f} ms  predicted {1e3 * p:7.2f} ms {100 * (p / t - 1):+6.1f} %"
            f"  ± {165 * s / p:.0f} %  in context {1e3 * _in_context(model, n):7.2f} ms  {visits} visits"
        )
    _print("kernel model", found.mean, truth)
    _print("MACs alone", _line([_macs(p) for p in fitted], fitted, [_macs(p) for p in networks]), truth)
    roofline = [_roofline(p) for p in (*fitted, *networks)]
    _print("plain roofline", _line(roofline[: len(fitted)], fitted, roofline[len(fitted) :]), truth)
    print(f"the 90 % interval covers {100 * inside.mean():.0f} %")
    floor = [_halves(_known(folder, stem).call_s) for stem in stems]
    _print("noise floor: every second visit against the others", *np.array(floor).T)


def _stem(file: Path) -> str:
    return file.name.removesuffix(".json.gz")


def _known(folder: Path, stem: str) -> NodeTimes:
    found = _times(folder, stem)
    assert found is not None
    return found


def _profile(folder: Path, stem: str) -> KernelProfile:
    stem = stem.removesuffix(".json")
    file = folder / "kernels" / f"{stem}.json.gz"
    kernels: tuple[Kernel, ...]
    if file.exists():
        kernels = KernelProfile.from_json(gzip.decompress(file.read_bytes()).decode()).kernels
    else:
        kernels = executed_kernels((folder / "models" / f"{stem}.onnx").read_bytes(), DEVICE)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(gzip.compress(KernelProfile(kernels, (), 0.0).to_json().encode(), 1))
    return profile_of(kernels, _known(folder, stem))


def _print(what: str, predicted: np.ndarray, truth: np.ndarray) -> None:
    a, within_5 = agreement(predicted, truth), np.mean(np.abs(predicted / truth - 1) <= 0.05)
    print(
        f"{what}: {a.items} pairs, MAPE {100 * a.mape:.1f} %, within 5 % {100 * within_5:.0f} %, "
        f"within 10 % {100 * a.within_10:.0f} %, Spearman {a.spearman:.4f}"
    )


def _in_context(model: KernelModel, network: KernelProfile) -> float:
    """The network's time from its own kernels' times, as they were profiled; NaN where they were not."""
    return float(sum(model.unprofiled_s(network))) if network.profiled_s else float("nan")


def _macs(network: KernelProfile) -> float:
    return sum(k.macs for k in network.kernels)


def _roofline(network: KernelProfile) -> float:
    """In units of a MAC: a byte moved counts as two, about what one core of a server does to both."""
    return sum(max(k.macs, 2 * (k.bytes_read + k.bytes_written + k.weight_bytes)) for k in network.kernels)


def _line(x: list[float], fitted: list[KernelProfile], at: list[float]) -> np.ndarray:
    """Relative least squares of a line through the fitted networks, at other places."""
    y = np.array([p.call_s for p in fitted])
    rows = np.column_stack([np.ones(len(y)), np.array(x)]) / y[:, None]
    price = np.linalg.lstsq(rows, np.ones(len(y)), rcond=None)[0]
    return np.asarray(price[0] + price[1] * np.array(at))


def _halves(visits: list[list[float]]) -> tuple[float, float]:
    first, second = visits[0::2], visits[1::2] or visits
    return undisturbed_s([t for v in first for t in v]), undisturbed_s([t for v in second for t in v])


if __name__ == "__main__":
    main()
