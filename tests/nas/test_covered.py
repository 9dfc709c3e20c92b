"""Spaces whose networks have no kernels on a device are refused before a run's folder is there."""

import pytest
from compiled import share_kernels
from rich.console import Console
from small_space import Small
from torch import nn

import nas
from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.worker import Effort
from nas import profiling
from nas.anatomy import Anatomy
from nas.config import Settings
from nas.covered import check_space_covered
from nas.pipeline import run
from nas.profiles import measure_profile
from nas.progress import SilentReporter
from nas.tables import profile_view
from search_spaces.network import find_space
from supernet.data import load_data


class Odd(nas.Network):
    """Networks of which some have an activation without kernels."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        width = nas.Choice("width", (4, 8))
        self.stem = nn.Sequential(nas.Conv2d(in_channels, width, 3), nn.Softmax(dim=1))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nas.Linear(width, num_classes)


def checked(space, device):
    network = space(1, 10)
    anatomy = Anatomy(find_space(network), BlockTracer(network, (1, 8, 8)), ("int8",))
    check_space_covered(network, anatomy, (1, 8, 8), parse_device(device), 0, SilentReporter())


def test_a_space_that_is_covered_passes_and_other_devices_take_any():
    checked(Small, "cpu:fused")
    checked(Odd, "cpu")


def test_a_space_that_is_not_covered_is_refused_with_nodes_and_what_to_do():
    with pytest.raises(ValueError) as caught:
        checked(Odd, "cpu:fused")
    said = str(caught.value)
    assert said.startswith("2 of 2 networks of the space do not run on cpu:fused (fused kernels do not cover 1 of ")
    assert "(Softmax): an operator that has no counterpart" in said and "\n" not in said
    assert said.endswith("leave these operators out of the space, or give --device cpu")


def test_what_turns_out_not_to_be_covered_is_left_out_of_a_profile(tmp_path, monkeypatch):
    share_kernels(tmp_path)
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path))
    monkeypatch.setattr(profiling, "QUICK", Effort(rounds=1, most_rounds=1, samples=2))
    seen = []

    def refuse_some(model, device):
        seen.append(model)
        if len(seen) % 5 == 0:
            raise ValueError("no kernels")

    monkeypatch.setattr(profiling, "check_covered", refuse_some)
    plan = profiling.Plan(fit=6, check=3, every=False, blocks=6, repeats=0)
    found = measure_profile(
        Small, device="cpu:fused", precisions=("int8",), image_size=8, in_channels=1, num_classes=10, plan=plan
    )
    assert len(found.data.subjects) == len(seen) - len(seen) // 5
    assert all(subject.results for subject in found.data.subjects)
    assert "blocks are more than 3 % faster on cpu:fused than on cpu: " in shown(profile_view(found.summary()))


def shown(view):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(view)
    return captured.get()


def test_neither_search_nor_profile_begin(tmp_path, monkeypatch):
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    dataset = load_data("digits")
    settings = Settings(
        space="odd:Odd", data_fingerprint=dataset.fingerprint, device="cpu:fused", precisions=("int8",), epochs=1
    )
    with pytest.raises(ValueError, match="networks of the space do not run on cpu:fused"):
        run(settings, Odd, dataset, tmp_path / "run", SilentReporter())
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="networks of the space do not run on cpu:fused"):
        measure_profile(Odd, device="cpu:fused", precisions=("int8",), image_size=8, in_channels=1)
