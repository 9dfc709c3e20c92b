import dataclasses
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_supernet
from small_supernet import RECIPE, SmallNet, same, small_dataset, small_net, weights

from supernet.checkpoint import FILE_NAME, load_checkpoint
from supernet.plan import Plan
from supernet.recipe import Recipe
from supernet.train import TrainingDiverged, train_supernet

ROOT = Path(__file__).parents[2]


class Stop(Exception):
    pass


def stop_after(step):
    def progress(state):
        if state.step == step:
            raise Stop

    return progress


@pytest.fixture(scope="module")
def straight():
    """Weights and history of a training that was never interrupted."""
    net = small_net()
    history = train_supernet(net, small_dataset(), RECIPE)
    return weights(net), history


def timeless(history):
    return [dataclasses.replace(entry, seconds=0.0) for entry in history.entries]


def test_history_and_progress(straight):
    states = []
    history = train_supernet(small_net(), small_dataset(), RECIPE, progress=states.append)
    assert [state.step for state in states] == list(range(1, 11))
    assert states[-1].entry == history.final
    assert [entry.step for entry in history.entries] == list(range(11))
    assert [entry.step for entry in history.evaluated] == [0, 5, 10]
    seconds = [entry.seconds for entry in history.entries]
    assert seconds == sorted(seconds)
    assert timeless(history) == timeless(straight[1])


def test_it_learns():
    net, data = small_net(), small_dataset(n=240)
    history = train_supernet(net, data, Recipe(epochs=8, batch=24, lr=0.1, evaluations=1, shift=0, clip=5.0))
    assert history.final.val_largest > 0.8
    assert history.final.loss < history.entries[1].loss


def test_the_network_ends_with_averaged_contiguous_weights(straight, tmp_path):
    net = small_net()
    train_supernet(net, small_dataset(), RECIPE, tmp_path)
    average = load_checkpoint(tmp_path / FILE_NAME).tensors
    assert all(bool((value == average[f"average/{name}"]).all()) for name, value in net.state_dict().items())
    assert all(value.is_contiguous() for value in net.state_dict().values())
    assert same(weights(net), straight[0])


@pytest.mark.parametrize("step", [1, 5, 9])
def test_resumed_equals_uninterrupted(step, straight, tmp_path):
    with pytest.raises(Stop):
        train_supernet(small_net(), small_dataset(), RECIPE, tmp_path, stop_after(step), checkpoint_every_s=0.0)
    net = small_net(seed=9)
    states = []
    history = train_supernet(net, small_dataset(), RECIPE, tmp_path, states.append)
    assert states[0].step == step + 1
    assert same(weights(net), straight[0])
    assert timeless(history) == timeless(straight[1])


def test_mean_loss_since_the_entry_before_survives_a_resume(tmp_path, monkeypatch):
    monkeypatch.setattr("supernet.plan._ENTRIES", 3)
    losses = []
    straight = train_supernet(small_net(), small_dataset(), RECIPE, None, lambda state: losses.append(state.loss))
    assert [entry.step for entry in straight.entries] == [0, 3, 5, 6, 9, 10]
    assert straight.entries[4].loss == sum(losses[6:9]) / 3
    with pytest.raises(Stop):
        train_supernet(small_net(), small_dataset(), RECIPE, tmp_path, stop_after(8), checkpoint_every_s=0.0)
    resumed = train_supernet(small_net(), small_dataset(), RECIPE, tmp_path)
    assert timeless(resumed) == timeless(straight)


def test_killed_process_resumes_to_the_bit(straight, tmp_path):
    command = [sys.executable, small_supernet.__file__, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert any(line.strip() == "4" for line in process.stdout)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    (tmp_path / f".{FILE_NAME}.half.safetensors").write_text("what a kill inside a write leaves")
    net = small_net(seed=9)
    states = []
    train_supernet(net, small_dataset(), RECIPE, tmp_path, states.append)
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]
    assert not states or states[0].step >= 4
    assert same(weights(net), straight[0])


def test_finished_training_is_loaded_without_a_step(straight, tmp_path):
    train_supernet(small_net(), small_dataset(), RECIPE, tmp_path)
    net = small_net(seed=9)
    history = train_supernet(net, small_dataset(), RECIPE, tmp_path, stop_after(0))
    assert same(weights(net), straight[0])
    assert timeless(history) == timeless(straight[1])


def test_budget_is_kept_and_its_steps_do_not_change_on_resume(tmp_path):
    # A generous budget, bounded by epochs: how many steps fit in seconds would depend on how busy the machine is.
    recipe = Recipe(budget_s=600.0, epochs=2, batch=16, evaluations=1)
    with pytest.raises(Stop):
        train_supernet(small_net(), small_dataset(), recipe, tmp_path, stop_after(1))
    planned = load_checkpoint(tmp_path / FILE_NAME).meta
    assert planned["step"] == 0  # written before the first step
    assert planned["plan"]["total_steps"] > 1
    history = train_supernet(small_net(), small_dataset(), recipe, tmp_path)
    assert history.total_steps == planned["plan"]["total_steps"] == history.final.step


class OtherNet(SmallNet):
    """The same weights in a space with another choice order would not be the same space."""

    def __init__(self):
        super().__init__()
        self.body.depth = self.body.values[0].__class__("layers", (1, 2))
        self.body.values = (self.body.depth,)


@pytest.mark.parametrize(
    ("net", "data", "recipe", "message"),
    [
        (small_net, small_dataset(), dataclasses.replace(RECIPE, lr=0.5), "recipe lr was 0.05, got 0.5; give the same"),
        (small_net, small_dataset(seed=1), RECIPE, "data fingerprint was"),
        (OtherNet, small_dataset(), RECIPE, "search space digest was"),
    ],
)
def test_another_training_is_not_resumed(net, data, recipe, message, tmp_path):
    with pytest.raises(Stop):
        train_supernet(small_net(), small_dataset(), RECIPE, tmp_path, stop_after(1))
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(ValueError, match=f"cannot resume: {message}"):
        train_supernet(net(), data, recipe, tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    recipe = dataclasses.replace(RECIPE, lr=1e30, clip=None, warmup=0.0)
    with pytest.raises(TrainingDiverged, match=r"diverged at step \d+: .* use a lower lr") as caught:
        train_supernet(small_net(), small_dataset(), recipe, tmp_path, checkpoint_every_s=0.0)
    assert isinstance(caught.value, ValueError)
    kept = load_checkpoint(tmp_path / FILE_NAME)
    assert kept.meta["step"] < 10
    assert all(bool(value.isfinite().all()) for value in kept.tensors.values())
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


def test_full_disk_passes_through(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        train_supernet(small_net(), small_dataset(), RECIPE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_becomes_slow_ends_in_time(tmp_path, monkeypatch):
    clock = itertools.count(0, 0.01)
    monkeypatch.setattr("supernet.train.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("supernet.train.make_plan", lambda *_: Plan(1000, 2))
    recipe = dataclasses.replace(RECIPE, epochs=None, budget_s=5.0)
    history = train_supernet(small_net(), small_dataset(), recipe, tmp_path)
    assert 50 < history.total_steps < 500 and history.entries[-1].step == history.total_steps
    assert history.entries[-1].seconds < 6.0 and history.entries[-1].val_largest is not None
    rates = [entry.lr for entry in history.entries]
    assert rates[-1] < 0.1 * max(rates)  # the schedule reached its end
    assert train_supernet(small_net(), small_dataset(), recipe, tmp_path).total_steps == history.total_steps
