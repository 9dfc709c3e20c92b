import dataclasses
import os
import time

import pytest

from latency import contention
from latency.contention import Contention, Watch, read_stat
from latency.pace import Pace

QUIET = Contention(2.0, 0.1, 0.0, 0.05, 0.01)


def stat(file, busy, idle=0, stolen=0):
    """Ticks as the kernel writes them; user, nice, system, irq and softirq share `busy`."""
    file.write_text(f"cpu  {busy - 4} 1 1 {idle} 7 1 1 {stolen} 5 0\ncpu0 1 2 3 4\n")


def test_busy_is_all_but_waiting_and_stealing(tmp_path):
    stat(tmp_path / "stat", 250, idle=999, stolen=30)
    ticks = os.sysconf("SC_CLK_TCK")
    assert read_stat(tmp_path / "stat") == (250 / ticks, 30 / ticks)


@pytest.mark.parametrize("content", [None, "", "cpu x y", "cpu 1 2 3"])
def test_a_system_that_does_not_tell(tmp_path, content):
    if content is not None:
        (tmp_path / "stat").write_text(content)
    assert read_stat(tmp_path / "stat") == (None, None)


class Moments:
    """Wall and own time as the test sets them."""

    def __init__(self, monkeypatch):
        self.now = self.own = self.load = 0.0
        monkeypatch.setattr(contention.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(contention.os, "times", lambda: os.times_result((self.own, 0, 0, 0, 0)))
        monkeypatch.setattr(contention.os, "getloadavg", lambda: (self.load, 0, 0), raising=False)


def test_others_have_what_is_busy_less_our_own(tmp_path, monkeypatch):
    moments, ticks = Moments(monkeypatch), os.sysconf("SC_CLK_TCK")
    stat(tmp_path / "stat", 1000)
    watch = Watch(Pace(), tmp_path / "stat")
    moments.now, moments.own = 4.0, 3.0
    stat(tmp_path / "stat", 1000 + 5 * ticks, stolen=2 * ticks)
    found = watch.reading()
    assert found == Contention(4.0, 0.5, 0.5, 0.0, 0.0)
    assert found.warning == "the machine was busy: 0.5 other cores in use, 0.5 cores taken by the hypervisor"


def test_elsewhere_the_load_average_stands_in(tmp_path, monkeypatch):
    moments = Moments(monkeypatch)
    watch = Watch(Pace(), tmp_path / "none")
    moments.now, moments.own, moments.load = 4.0, 4.0, 2.5
    assert watch.reading() == Contention(4.0, 1.5, None, 0.0, 0.0)
    monkeypatch.delattr(contention.os, "getloadavg", raising=False)
    watch = Watch(Pace(), tmp_path / "none")
    moments.now = 5.0
    assert watch.reading().other_cores is None and watch.reading().warning is None


class Looped(Pace):
    """Loops take what the script says, on a clock of their own."""

    def __init__(self, loops):
        super().__init__()
        self.left = list(loops)

    def is_disturbed(self):
        took_s = self.left.pop(0)
        self._best_s, self._watched_best_s = min(self._best_s, took_s), min(self._watched_best_s, took_s)
        return took_s > 1.3 * self._best_s


def test_the_pace_shows_a_neighbour_and_drift(tmp_path):
    pace = Looped([1.0, 1.5, 1.2, 1.2, 1.2])
    pace.is_disturbed()
    watch = Watch(pace, tmp_path / "none")
    for _ in range(3):
        pace.wait(1.0)  # the first wait has two loops
    found = watch.reading()
    assert found.disturbed == 1 / 4 and found.drift == pytest.approx(0.2)
    assert "25 % of looks found a neighbour" in found.warning and "20 % slower" in found.warning


def test_a_quiet_machine_gives_no_warning():
    assert QUIET.warning is None and not QUIET.others_busy
    for change in ({"other_cores": 0.3}, {"stolen_cores": 0.1}):
        assert dataclasses.replace(QUIET, **change).others_busy
    assert (
        dataclasses.replace(QUIET, disturbed=0.9).warning and not dataclasses.replace(QUIET, disturbed=0.9).others_busy
    )


def test_several_are_averaged_by_time_and_each_counts_once():
    busy = Contention(6.0, 0.9, None, 0.45, 0.2)
    together = Contention.together([QUIET, busy, busy])
    assert together == Contention(8.0, pytest.approx(0.7), 0.0, pytest.approx(0.35), pytest.approx(0.1525))
    assert Contention.together([]) is None


def test_json_gives_back_an_equal_value():
    assert Contention.of(QUIET.plain()) == QUIET
    unknown = dataclasses.replace(QUIET, other_cores=None, stolen_cores=None)
    assert Contention.of(unknown.plain()) == unknown
    with pytest.raises(ValueError, match="finite"):
        Contention.of(QUIET.plain() | {"drift": float("nan")})


@pytest.mark.skipif(read_stat(contention._STAT) == (None, None), reason="no /proc/stat here")
def test_our_own_work_is_not_others():
    own_s, watch = time.process_time(), Watch(Pace())
    end = time.perf_counter() + 0.3
    while time.perf_counter() < end:
        pass
    found = watch.reading()
    own_cores = (time.process_time() - own_s) / found.seconds
    assert own_cores > 0 and 0 <= found.other_cores <= os.cpu_count() - own_cores + 0.2  # ticks are of 10 ms
