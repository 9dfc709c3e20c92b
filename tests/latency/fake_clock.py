"""A clock that only the timed calls move, in steps that binary fractions hold exactly."""

TICK_S = 2.0**-20  # about a microsecond


class FakeClock:
    """Time moves by what `call` says; CPU time moves half as fast; every reading may cost `reading` ticks."""

    def __init__(self, reading=0):
        self.ticks = 0
        self.reading = reading
        self.calls = 0

    def wall(self):
        self.ticks += self.reading
        return self.ticks * TICK_S

    def cpu(self):
        return self.ticks * TICK_S / 2

    def call(self, *ticks):
        """A call that takes `ticks[0]`, then `ticks[1]`, ... and then for ever the last of them."""
        left = list(ticks)

        def run():
            self.calls += 1
            self.ticks += left.pop(0) if len(left) > 1 else left[0]

        return run
