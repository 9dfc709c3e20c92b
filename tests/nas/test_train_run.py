"""Supernets trained on their own: run folders, events, what searches take from them."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from small_space import Small
from tensorboardX.proto.event_pb2 import Event

import nas
from nas.config import Settings, Training
from nas.folder import TRAINING, read_settings, read_training, with_supernet
from nas.names import check_names
from nas.pipeline import pace_of, train
from nas.pipeline import run as search
from nas.progress import SilentReporter
from nas.spec import build_network
from nas.training import begin_with_, open_trained, recipe_of, take_weights
from supernet.checkpoint import (
    FILE_NAME,
    Checkpoint,
    averaged_weights,
    load_averaged_,
    load_checkpoint,
    save_checkpoint,
)
from supernet.relaxed.darts import Darts
from supernet.snapshots import find_snapshots
from supernet.strategies.once_for_all import OnceForAll
from supernet.strategies.only import Only
from supernet.strategies.sandwich import Sandwich


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "t"
    return nas.train(Small, strategy="single-path", epochs=2, batch=64, lr=0.1, out=folder, quiet=True)


def test_the_folder_says_how_it_was_trained_and_opens_again(trained):
    settings = read_training(trained.folder)
    assert (settings.strategy, settings.epochs, settings.batch) == ("single-path", 2, 64)
    again = open_trained(trained.folder, Small)
    arch = trained.space.scaled(0.5)
    assert again.accuracy(arch) == trained.accuracy(arch)
    assert again.history == trained.history
    x = torch.from_numpy(trained.dataset.x_val[:4])
    torch.testing.assert_close(again.extract(arch)(x), trained.extract(arch)(x))


def test_the_same_call_reads_and_another_one_is_refused(trained):
    again = nas.train(Small, strategy="single-path", epochs=2, batch=64, lr=0.1, out=trained.folder, quiet=True)
    assert again.history == trained.history
    with pytest.raises(ValueError, match="holds a run with strategy=single-path, now strategy=fair"):
        nas.train(Small, strategy="fair", epochs=2, batch=64, lr=0.1, out=trained.folder, quiet=True)


def test_events_and_snapshots_tell_the_course(trained):
    evaluated = [entry.step for entry in trained.history.evaluated if entry.step]
    assert list(find_snapshots(trained.folder)) == evaluated
    last = averaged_weights(load_checkpoint(find_snapshots(trained.folder)[evaluated[-1]]))
    assert all(torch.equal(last[name], value) for name, value in trained.network.state_dict().items())
    (file,) = (trained.folder / "tensorboard").iterdir()
    seen = {(v.tag, e.step) for e in events(file) for v in e.summary.value}
    assert {("val_accuracy/largest", step) for step in evaluated} <= seen
    assert {("train/loss", evaluated[-1]), ("train/lr", evaluated[-1])} <= seen


def events(file):
    with file.open("rb") as stream:
        while length := stream.read(8):
            stream.read(4)
            event = Event()
            event.ParseFromString(stream.read(int.from_bytes(length, "little")))
            stream.read(4)
            yield event


def test_a_strategy_may_be_a_value(tmp_path):
    run = nas.train(Small, strategy=Sandwich(randoms=1), epochs=1, batch=128, out=tmp_path / "v", quiet=True)
    assert run.settings.strategy == "Sandwich(randoms=1)"
    assert open_trained(run.folder, Small).history == run.history
    settings = with_supernet(Settings(), run.folder)
    check_names(settings)
    weights = []

    def stages(setup, on_space):
        assert pace_of(setup).threads >= 1
        weights.append((train(setup), setup.network.state_dict()))
        return {}

    search(settings, Small, run.dataset, tmp_path / "s", SilentReporter(), stages=stages)
    ((history, taken),) = weights
    assert history == run.history
    assert all(torch.equal(taken[name], value) for name, value in run.network.state_dict().items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strategy": "sandwhich"}, "unknown strategy 'sandwhich' .did you mean 'sandwich'"),
        ({"strategy": "darts"}, "'darts' searches as it trains, .* nas search --strategy darts goes on to measured"),
        ({"strategy": Darts()}, r"Darts searches as it trains, .* nas.search\(strategy=NAME\) goes on to measured"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam' .did you mean 'adamw'"),
        ({"epochs": 0}, "epochs"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"learning_rate": 1.0}, "learning_rate"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        nas.train(Small, out=tmp_path / "w", quiet=True, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_batch_that_processes_cannot_share_is_refused_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr("supernet.learner.world", lambda: (0, 3))
    with pytest.raises(ValueError, match="a batch of 64 images cannot be shared evenly by 3 processes"):
        nas.train(Small, epochs=1, batch=64, out=tmp_path / "w", quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_search_has_all_but_its_seed_and_time_from_the_training(trained):
    settings = with_supernet(Settings(seed=5, budget_s=60), trained.folder)
    assert (settings.space, settings.strategy, settings.seed, settings.budget_s) == (
        trained.settings.space,
        "single-path",
        5,
        60,
    )
    assert settings.supernet == str(trained.folder.absolute()) and len(settings.supernet_fingerprint) == 16
    with pytest.raises(ValueError, match="holds no run: give the folder that `nas train`"):
        with_supernet(Settings(), trained.folder.parent)
    with pytest.raises(ValueError, match="holds no run"):
        read_settings(trained.folder)


def test_a_search_goes_on_from_the_trained_weights(trained, tmp_path):
    network, _ = build_network(Small, trained.dataset.image_shape, trained.dataset.num_classes)
    assert take_weights(tmp_path, trained.folder, network) == trained.history
    assert all(torch.equal(network.state_dict()[name], value) for name, value in trained.network.state_dict().items())
    assert open_trained_weights(tmp_path, trained)


def open_trained_weights(folder, trained):
    """Whether a run's own checkpoint is enough, once the training's folder is gone."""
    network, _ = build_network(Small, trained.dataset.image_shape, trained.dataset.num_classes)
    load_averaged_(network, folder / FILE_NAME)
    return all(torch.equal(network.state_dict()[n], value) for n, value in trained.network.state_dict().items())


def test_kernel_transforms_come_with_the_weights(tmp_path):
    run = nas.train(Small, strategy=OnceForAll(), epochs=1, batch=128, out=tmp_path / "o", quiet=True)
    arch = run.space.smallest()
    assert open_trained(run.folder, Small).accuracy(arch) == run.accuracy(arch)
    assert any("transform_3to1" in name for name in run.network.state_dict())


def test_a_training_may_begin_with_the_weights_of_another(trained, tmp_path):
    source = trained.folder / "checkpoint.safetensors"
    run = nas.train(Small, pretrained=str(source.parent), epochs=1, batch=64, lr=1e-9, out=tmp_path / "f", quiet=True)
    for name, value in run.network.named_parameters():
        torch.testing.assert_close(value, trained.network.get_parameter(name), rtol=1e-4, atol=1e-5)
    assert len(run.settings.pretrained_fingerprint) == 16
    messages = []
    begin_with_(run.network, run.settings, SimpleNamespace(message=messages.append))
    assert messages == [f"{trained.folder} is a supernet"]
    with pytest.raises(ValueError, match=r"nothing\.safetensors"):
        nas.train(Small, pretrained=str(tmp_path / "nothing.safetensors"), epochs=1, out=tmp_path / "g", quiet=True)
    assert not (tmp_path / "g").exists()


def test_an_unfinished_training_is_no_supernet(trained, tmp_path):
    (tmp_path / TRAINING).write_text((trained.folder / TRAINING).read_text())
    for use in (lambda: open_trained(tmp_path, Small), lambda: with_supernet(Settings(), tmp_path)):
        with pytest.raises(ValueError, match="holds no trained supernet"):
            use()


def test_no_search_begins_from_a_training_that_has_not_ended(trained, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / TRAINING).write_text((trained.folder / TRAINING).read_text())
    kept = load_checkpoint(trained.folder / FILE_NAME)
    save_checkpoint(Checkpoint(kept.tensors, {**kept.meta, "step": 3}), source / FILE_NAME)
    with pytest.raises(ValueError, match=r"the training in .*source stands at step 3 of .*: repeat its command"):
        nas.search(Small, supernet=source, out=out, quiet=True)
    assert not out.exists()


def test_the_recipe_is_what_the_settings_say():
    recipe = recipe_of(Training(epochs=3, lr=0.5, clip=1.0, mixup=0.1), Only((0,)))
    assert (recipe.epochs, recipe.lr, recipe.clip, recipe.mixup, recipe.strategy) == (3, 0.5, 1.0, 0.1, Only((0,)))
    assert recipe_of(Training(budget_s=100.0), share=0.5).budget_s == 50.0
    assert dataclasses.replace(recipe_of(Training()), budget_s=None, epochs=1).lr == recipe_of(Training(epochs=1)).lr
