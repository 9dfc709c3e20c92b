"""Two real processes, connected by gloo, against one that has all images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_supernet import RECIPE, small_dataset, small_net

from supernet.checkpoint import FILE_NAME
from supernet.distributed import average_, extremes_of, first_says, joined, mean_of, world
from supernet.train import train_supernet

ROOT = Path(__file__).parents[2]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


PROGRAM = """
import json, sys
from pathlib import Path
from small_supernet import RECIPE, small_dataset, small_net
from supernet.checkpoint import FILE_NAME
import torch
from supernet.distributed import extremes_of, joined, world
from supernet.train import train_supernet
net, losses, folder = small_net(), [], Path(sys.argv[1])
net.drop.p = 0.0
with joined():
    train_supernet(net, small_dataset(), RECIPE, folder, lambda state: losses.append(state.loss))
    weights = {name: value.tolist() for name, value in net.state_dict().items()}
    ends = [float(end) for end in extremes_of(torch.tensor([2.0, -1.0]) * (1 + 4 * world()[0]))]
    (folder.parent / f"{world()[0]}.json").write_text(json.dumps([losses, weights, ends]))
"""


def run_two(program, folder):
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    file = folder / "program.py"
    file.write_text(program)
    return subprocess.run(
        [*TWO, file, folder / "run"], env=environment, capture_output=True, text=True, timeout=250, check=False
    )


def test_alone_nothing_is_exchanged():
    with joined() as device:
        assert world() == (0, 1)
        tensor = torch.tensor([1.0, 3.0])
        average_([tensor])
        assert tensor.tolist() == [1.0, 3.0]
        assert mean_of(2.5, device) == 2.5
        assert first_says("mine") == "mine"
        assert [float(end) for end in extremes_of(torch.tensor([[1.0, -3.0], [2.0, 0.0]]))] == [-3.0, 2.0]


@pytest.fixture
def second_of_two(monkeypatch):
    """As `torchrun` starts the second of two processes, on a machine with some GPUs; what is done in order."""
    done = []
    for name, value in {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("torch.cuda.set_device", lambda device: done.append(("current", device)))
    monkeypatch.setattr("torch.distributed.init_process_group", lambda kind, device_id: done.append((kind, device_id)))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)

    def enter(gpus):
        monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
        with joined() as device:
            return device, done

    return enter


def test_each_process_has_a_gpu_that_is_its_current_one(second_of_two):
    gpu = torch.device("cuda", 1)
    assert second_of_two(2) == (gpu, [("current", gpu), ("nccl", gpu)])


def test_more_processes_than_gpus_are_refused_and_without_gpus_all_share_the_processor(second_of_two):
    with pytest.raises(ValueError, match="2 processes need a GPU each, and there are 1: give --nproc-per-node 1"):
        second_of_two(1)
    assert second_of_two(0) == (torch.device("cpu"), [("gloo", None)])


def test_two_processes_take_the_steps_of_one_with_the_joined_batch(tmp_path):
    done = run_two(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr
    (losses, trained, ends), other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert [losses, trained, ends] == other and ends == [-5.0, 10.0]
    states, net = [], small_net()
    net.drop.p = 0.0
    train_supernet(net, small_dataset(), RECIPE, None, states.append)
    assert losses == pytest.approx([state.loss for state in states], rel=1e-4)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(torch.tensor(trained[name]), value, rtol=1e-3, atol=1e-4)
    assert (tmp_path / "run" / FILE_NAME).exists()


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr("supernet.learner.world", lambda: (0, 3))
    with pytest.raises(ValueError, match="a batch of 16 images cannot be shared evenly by 3 processes"):
        train_supernet(small_net(), small_dataset(), RECIPE)
