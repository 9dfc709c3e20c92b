"""Supernets that are trained for several precisions: what their runs hold, and what is refused."""

import numpy as np
import pytest
import torch
from command import nas as command
from small_space import Small

import nas
from nas.config import Settings, Training
from nas.folder import read_training, with_supernet
from nas.names import check_names
from nas.pipeline import pace_of, train
from nas.pipeline import run as search
from nas.progress import SilentReporter
from nas.training import costs_of, in_all_precisions, open_trained
from quant_search.policy import uniform
from supernet.checkpoint import FILE_NAME, averaged_weights, load_checkpoint
from supernet.pace import Pace
from supernet.snapshots import find_snapshots
from supernet.strategies.once_for_all import OnceForAll

PRECISIONS = ("fp32", "int8", "w2a8")
SETTINGS = {"strategy": "sandwich", "epochs": 1, "batch": 128, "lr": 0.1, "quiet": True}


@pytest.fixture(scope="module", autouse=True)
def pace():
    """One for all trainings: each would try what is faster, and come to other weights where another way is."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("nas.training", "nas.pipeline"):
            patch.setattr(f"{module}.pace_in", lambda *_: Pace(threads=1, autocast=False))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "t"
    return nas.train(Small, train_precisions=PRECISIONS, out=folder, **SETTINGS)


def test_a_run_holds_the_weights_of_the_network_under_their_own_names(trained):
    assert read_training(trained.folder).train_precisions == PRECISIONS
    again = open_trained(trained.folder, Small)
    last = list(find_snapshots(trained.folder).values())[-1]
    for weights in (averaged_weights(load_checkpoint(f)) for f in (trained.folder / FILE_NAME, last)):
        assert weights.keys() == again.network.state_dict().keys()
        assert all(torch.equal(value, trained.network.state_dict()[name]) for name, value in weights.items())
    assert trained.space == again.space and not any(".precision" in c.name for c in trained.space.choices)
    arch = trained.space.smallest()
    assert trained.accuracy(arch) == again.accuracy(arch)  # in fp32, whatever the smallest was trained in


def test_the_precisions_of_a_training_are_part_of_what_it_is(trained, tmp_path):
    again = nas.train(Small, train_precisions=PRECISIONS, out=trained.folder, **SETTINGS)
    assert again.history == trained.history
    with pytest.raises(ValueError, match=r"holds a run with train_precisions=.*, now train_precisions="):
        nas.train(Small, out=trained.folder, **SETTINGS)
    plain = nas.train(Small, out=tmp_path / "plain", **SETTINGS)
    assert Training(train_precisions=("int8",)).digest != Training().digest
    assert any(
        not torch.equal(value, plain.network.state_dict()[name]) for name, value in trained.network.state_dict().items()
    )


def test_searches_train_so_and_take_such_weights(trained, tmp_path):
    settings = with_supernet(Settings(), trained.folder)
    assert settings.train_precisions == PRECISIONS
    check_names(settings)
    seen = []

    def stages(setup, on_space):
        pace_of(setup)
        seen.append((train(setup), {name: value.clone() for name, value in setup.network.state_dict().items()}))
        return {}

    search(settings, Small, trained.dataset, tmp_path / "taken", SilentReporter(), stages=stages)
    own = Settings(train_precisions=PRECISIONS, epochs=1, batch=128, lr=0.1)
    search(own, Small, trained.dataset, tmp_path / "own", SilentReporter(), stages=stages)
    (history, taken), (_, weights) = seen
    assert history == trained.history
    for name, value in trained.network.state_dict().items():
        assert torch.equal(taken[name], value) and torch.equal(weights[name], value)


def test_costs_are_macs_times_bits(trained):
    network, space = in_all_precisions(trained.network, trained.space, trained.settings)
    largest = [uniform(space.largest(), name).indices for name in ("w2a8", "int8", "fp32")]
    costs = costs_of(network, space, trained.dataset)(np.array(largest))
    macs = costs_of(trained.network, trained.space, trained.dataset)(np.array([trained.space.largest().indices]))
    assert costs.tolist() == [macs[0] * bits for bits in (2 * 8, 8 * 8, 32 * 32)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_precisions": ("int9",)}, "unknown precision 'int9'"),
        ({"train_precisions": ("int8", "int8")}, "each once"),
        ({"train_precisions": ("int8",), "strategy": "once-for-all"}, "sorts channels by .* take the strategy"),
        ({"train_precisions": ("int8",), "strategy": OnceForAll()}, "sorts channels by .* take the strategy"),
    ],
)
def test_what_cannot_be_trained_so_is_refused_before_anything_is_written(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        nas.train(Small, out=tmp_path / "w", quiet=True, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_search_that_is_the_training_is_refused():
    with pytest.raises(ValueError, match="strategy 'darts' mixes options, and trains in fp32 alone: leave"):
        check_names(Settings(strategy="darts", train_precisions=("fp32", "int8")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--precision", "fp32,int9"], "unknown precision 'int9'"),
        (["search", "--train-precision", "fp32,w9"], "unknown precision 'w9'"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_a_line(arguments, message, tmp_path):
    done = command(*arguments, "--out", tmp_path / "r", cwd=tmp_path, cache=tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_command_line_leaves_it_out_beside_a_supernet(trained, tmp_path):
    given = ("search", "--supernet", trained.folder, "--train-precision", "int8")
    done = command(*given, cwd=tmp_path, cache=tmp_path)
    assert "--train-precision says nothing beside --supernet" in done.stderr
