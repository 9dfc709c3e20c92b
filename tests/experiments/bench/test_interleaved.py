from experiments.bench import interleaved
from experiments.bench.interleaved import medians_s, until_threads_sleep


class Machine:
    """A clock that calls move on, and what was called."""

    def __init__(self):
        self.now_s, self.opened, self.called = 0.0, [], []

    def clock(self):
        return self.now_s

    def opener(self, name, seconds):
        def call():
            self.called.append(name)
            self.now_s += next(seconds)

        def open_arm():
            self.opened.append(name)
            return call

        return open_arm


def forever(*times):
    while True:
        yield from times


def test_medians_are_those_of_undisturbed_calls(monkeypatch):
    monkeypatch.setattr(interleaved, "_calls", lambda call: 3)
    machine = Machine()
    steady, disturbed = forever(2e-3), forever(*[1e-3] * 15, *[50e-3] * 5)  # whole samples are: five calls each
    found = medians_s({"a": machine.opener("a", steady), ("b", 1): machine.opener("b", disturbed)}, machine.clock)
    assert {name: round(seconds, 9) for name, seconds in found.items()} == {"a": 2e-3, ("b", 1): 1e-3}


def test_arms_are_opened_in_every_visit_and_take_turns(monkeypatch):
    monkeypatch.setattr(interleaved, "_calls", lambda call: 1)
    machine = Machine()
    medians_s({name: machine.opener(name, forever(1e-3)) for name in "abc"}, machine.clock)
    assert machine.opened == [*"abc"] * interleaved.VISITS
    turns = [*"aabbcc", *"ccbbaa"] * (interleaved.ROUNDS // 2)  # each call once untimed before
    assert machine.called == turns * interleaved.VISITS


def test_something_is_done_before_each_sample(monkeypatch):
    monkeypatch.setattr(interleaved, "_calls", lambda call: 1)
    machine = Machine()
    medians_s({"a": machine.opener("a", forever(1e-3))}, machine.clock, lambda: machine.called.append("before"))
    assert machine.called == ["before", "a", "a"] * interleaved.VISITS * interleaved.ROUNDS


def test_threads_that_are_busy_are_waited_for(monkeypatch):
    used_s = iter([0.0, 5e-3, 5e-3, 9e-3, 9e-3, 9.2e-3])  # a thread sleeps in the third look
    monkeypatch.setattr(interleaved.time, "process_time", lambda: next(used_s))
    assert until_threads_sleep()
    assert not list(used_s)
    monkeypatch.setattr(interleaved, "LOOKS", 3)
    monkeypatch.setattr(interleaved.time, "process_time", iter(range(6)).__next__)
    assert not until_threads_sleep()
