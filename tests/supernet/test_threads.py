import pytest
import torch
from small_supernet import same, small_net, weights

from search_spaces.network import find_space
from supernet import threads
from supernet.threads import fastest_threads, using_threads


class Clock:
    """Work takes one second with one thread, and `many_s` with more."""

    def __init__(self, many_s):
        self.now_s, self.many_s = 0.0, many_s

    def __call__(self):
        self.now_s += (1.0 if torch.get_num_threads() == 1 else self.many_s) / 2
        return self.now_s


@pytest.mark.parametrize(("many_s", "expected"), [(0.5, 2), (3.0, 1)])
def test_the_faster_number_is_taken_and_nothing_changed(many_s, expected):
    net = small_net()
    before = weights(net)
    with using_threads(2):
        assert fastest_threads(net, find_space(net), (1, 6, 6), 8, Clock(many_s)) == expected
        assert torch.get_num_threads() == 2
    assert same(before, weights(net)) and all(p.grad is None for p in net.parameters())


def test_one_thread_needs_no_trial(monkeypatch):
    monkeypatch.setattr(threads, "run", None)
    net = small_net()
    with using_threads(1):
        assert fastest_threads(net, find_space(net), (1, 6, 6), 8) == 1


def test_threads_are_given_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), using_threads(before + 1):
        raise RuntimeError
    assert torch.get_num_threads() == before
