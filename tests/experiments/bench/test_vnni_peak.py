import pytest

from experiments.bench import vnni_peak
from latency.kernels import build
from latency.kernels.native import instruction_sets


def test_without_avx512_there_is_no_peak(monkeypatch):
    monkeypatch.setattr(vnni_peak, "instruction_sets", lambda: ("avx2", "portable"))
    assert vnni_peak.vnni_macs_per_s() is None


@pytest.mark.skipif("avx512" not in instruction_sets(), reason="this processor has no AVX-512 VNNI")
def test_a_core_multiplies_billions_of_times_a_second(monkeypatch):
    assert vnni_peak.vnni_macs_per_s() > 1e9
    monkeypatch.setattr(build, "compiler", lambda: "false")
    with pytest.raises(RuntimeError, match=r"^vnni_peak\.c was not compiled: "):
        vnni_peak.vnni_macs_per_s()
