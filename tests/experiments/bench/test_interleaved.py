from experiments.bench import interleaved
from experiments.bench.interleaved import medians_s


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
