import errno

import pytest
from fake_clock import TICK_S, FakeClock

from latency import energy
from latency.clock import SYSTEM_CLOCK
from latency.device import parse_device
from latency.energy import (
    BoardCounter,
    Counter,
    Energy,
    EnergyMeasurement,
    counters_of,
    energy_of,
    find_counters,
    measure_energy,
)
from latency.installed import gpu
from latency.pace import Pace

LARGEST = 262_143_328_850


def zone(folder, name, label, uj=0):
    (folder / name).mkdir()
    for file, text in (("name", label), ("energy_uj", uj), ("max_energy_range_uj", LARGEST)):
        (folder / name / file).write_text(f"{text}\n")
    return folder / name / "energy_uj"


def test_packages_are_found_and_zones_inside_and_around_them_are_not(tmp_path):
    files = [zone(tmp_path, f"intel-rapl:{i}", f"package-{i}") for i in (0, 1)]
    zone(tmp_path, "intel-rapl:0:0", "core")
    zone(tmp_path, "intel-rapl:2", "psys")
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    assert find_counters(tmp_path) == tuple(Counter(file, LARGEST) for file in files)


def test_no_counters_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no energy counters: .*modprobe intel_rapl_msr"):
        find_counters(tmp_path)
    with pytest.raises(FileNotFoundError, match="virtual machines hide them"):
        find_counters(tmp_path / "none")


def test_counters_that_may_not_be_read_are_refused_with_what_to_do(tmp_path, monkeypatch):
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    read = type(file).read_text

    def guarded(path, **options):  # an administrator, who may run the tests, reads everything
        if path == file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, **options)

    monkeypatch.setattr(type(file), "read_text", guarded)
    with pytest.raises(PermissionError, match=r"administrator only: sudo chmod a\+r"):
        find_counters(tmp_path)


def test_a_file_without_a_number_is_refused(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", "none")
    with pytest.raises(ValueError, match="energy_uj must hold a whole number, got 'none'"):
        find_counters(tmp_path)


@pytest.mark.parametrize("start", [0, 1000, LARGEST, LARGEST - 2_500_000])
def test_energy_is_the_sum_over_packages_also_where_a_counter_starts_again(tmp_path, start):
    files = [zone(tmp_path, "intel-rapl:0", "package-0", start), zone(tmp_path, "intel-rapl:1", "package-1", 7)]
    clock, counters = FakeClock(), find_counters(tmp_path)
    tick = clock.call(2**18)  # a quarter of a second

    def call():
        for file, step in zip(files, (1_000_000, 500_000), strict=True):
            file.write_text(str((int(file.read_text()) + step) % (LARGEST + 1)))
        tick()

    found = measure_energy(call, counters, at_least_s=1.0, clock=clock)
    assert found == Energy(joules=pytest.approx(4 * 1.5), seconds=2**20 * TICK_S, calls=4)
    assert found.joules_per_call == pytest.approx(1.5) and found.watts == pytest.approx(6.0)
    assert clock.calls == 5  # the first one is not counted


def test_measuring_without_counters_or_time_is_refused(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    with pytest.raises(ValueError, match="needs counters and a positive time, got 0"):
        measure_energy(lambda: None, (), at_least_s=1.0)
    with pytest.raises(ValueError, match=r"and 0\.0 s"):
        measure_energy(lambda: None, find_counters(tmp_path), at_least_s=0.0)


def test_counters_that_stand_still_are_refused(tmp_path, monkeypatch):
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    with pytest.raises(ValueError, match=r"energy of a call on cpu cannot be measured: its counters stand still"):
        counters_of("cpu")
    with pytest.raises(ValueError, match="stood still for"):
        measure_energy(lambda: None, find_counters(tmp_path), at_least_s=0.01)


def test_a_gpu_without_its_library_or_driver_is_refused_with_what_to_do():
    if gpu() is not None:
        pytest.skip("there is a GPU here, whose energy can be measured")
    with pytest.raises(ValueError, match=r"on gpu cannot be measured: (the package nvidia-ml-py|no energy counter)"):
        counters_of("gpu")


def test_the_piece_with_least_energy_counts_and_all_are_kept(monkeypatch):
    millijoules = iter([0, 100, 100, 150, 150, 300])
    monkeypatch.setattr(energy, "counters_of", lambda kind: [BoardCounter(lambda: next(millijoules))])
    clock = FakeClock()
    found = energy_of(clock.call(2**18), parse_device("cpu"), 3, Pace(SYSTEM_CLOCK), clock)
    assert [round(piece.joules, 6) for piece in found.pieces] == [0.1, 0.05, 0.15]
    assert found.least == found.pieces[1] and found.joules_per_call == found.pieces[1].joules_per_call
    assert EnergyMeasurement.of(found.plain()) == found
