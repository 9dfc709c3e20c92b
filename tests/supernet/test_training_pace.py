import pytest
import torch
from small_supernet import same, small_net, weights

from search_spaces.network import find_space
from supernet import pace
from supernet.pace import Pace, measured_pace, using_threads


class Machine:
    """A forward pass takes one second with one thread in float32, and times these factors with more or in bfloat16."""

    def __init__(self, monkeypatch, many=2.0, bfloat16=2.0):
        self.now_s, self.many, self.bfloat16 = 0.0, many, bfloat16
        self.passes = []
        monkeypatch.setattr(pace, "run", self.run)

    def run(self, net, images, arch):
        threads, autocast = torch.get_num_threads(), torch.is_autocast_enabled("cpu")
        self.passes.append((threads, autocast, len(images)))
        self.now_s += (1.0 if threads == 1 else self.many) * (self.bfloat16 if autocast else 1.0)
        return net.classifier.weight

    def __call__(self):
        return self.now_s


def measured(clock, autocast=None, threads=1):
    net = small_net()
    before = weights(net)
    with using_threads(threads):
        found = measured_pace(net, find_space(net), (1, 6, 6), 8, autocast, clock=clock)
        assert torch.get_num_threads() == threads
    assert same(before, weights(net)) and all(p.grad is None for p in net.parameters())
    return found


@pytest.mark.parametrize(("many", "expected"), [(0.5, 2), (3.0, 1)])
def test_the_faster_number_of_threads_is_taken(many, expected, monkeypatch):
    assert measured(Machine(monkeypatch, many), threads=2) == Pace(expected, False)


@pytest.mark.parametrize(("bfloat16", "expected"), [(0.5, True), (0.89, True), (0.91, False), (1.2, False)])
def test_bfloat16_is_taken_where_it_is_clearly_faster(bfloat16, expected, monkeypatch):
    assert measured(Machine(monkeypatch, bfloat16=bfloat16)) == Pace(1, expected)


def test_bfloat16_is_tried_on_the_threads_that_are_taken(monkeypatch):
    machine = Machine(monkeypatch, many=0.5, bfloat16=0.5)
    assert measured(machine, threads=2) == Pace(2, True)
    assert (2, True, 8) in machine.passes and (1, True, 8) not in machine.passes


def test_what_is_hopeless_is_tried_on_a_few_images_only(monkeypatch):
    machine = Machine(monkeypatch, bfloat16=20.0)
    assert not measured(machine).autocast
    assert {images for _, autocast, images in machine.passes if autocast} == {4}


@pytest.mark.parametrize("autocast", [False, True])
def test_what_is_given_needs_no_trial(autocast, monkeypatch):
    monkeypatch.setattr(pace, "run", None)
    assert measured(None, autocast) == Pace(1, autocast)


def test_threads_are_given_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), using_threads(before + 1):
        raise RuntimeError
    assert torch.get_num_threads() == before
