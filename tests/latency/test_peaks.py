import json

import pytest

from latency import peaks
from latency.device import fingerprint, parse_device
from latency.graph import executed_kernels, totals
from latency.peaks import _chains, _peaks, peaks_of

CPU = parse_device("cpu")
NODE_S, CALL_S = 2e-6, 5e-6
RATES = {"float": 5e10, "int8": 2e11, "depthwise float": 1e10, "depthwise int8": 2e10}
LARGE = ("set 2097152", "set 67108864")
CHEAP = list({(c.kind, c.nodes): c for c in _chains() if c.kind not in LARGE}.values())  # one of each sort


def times_s(chains, rate_of):
    """What chains, short and long, take on a device of these rates."""
    for chain in chains:
        for links in chain.ends:
            work = chain.work / rate_of(chain) if chain.work else 0.0
            yield CALL_S + NODE_S * (chain.kind == "node") + links * (chain.nodes * NODE_S + work)


def rate_of(chain):
    return RATES.get(chain.kind) or 1e17 / int(chain.kind.removeprefix("set ")) / 1e6


def test_peaks_are_found_again_from_the_times_they_give():
    chains = _chains()
    found = _peaks("here", chains, list(times_s(chains, rate_of)))
    rates = (found.float_macs_per_s, found.int8_macs_per_s)
    depthwise = (found.depthwise_float_macs_per_s, found.depthwise_int8_macs_per_s)
    assert (*rates, *depthwise) == pytest.approx(tuple(RATES.values()))
    assert found.node_s == pytest.approx(NODE_S) and found.call_s == pytest.approx(CALL_S)
    assert [size for size, _ in found.bandwidths] == [2**15, 2**18, 2**21, 2**26]
    assert [rate for _, rate in found.bandwidths] == pytest.approx(
        [1e11 / 2**15, 1e11 / 2**18, 1e11 / 2**21, 1e11 / 2**26]
    )


def test_the_best_of_a_kind_is_its_peak_and_a_large_set_is_no_faster_than_a_small_one():
    chains = _chains()
    best = next(c for c in chains if c.kind == "float")
    fast = _peaks("here", chains, list(times_s(chains, lambda c: 9e10 if c is best else rate_of(c))))
    assert fast.float_macs_per_s == pytest.approx(9e10)
    odd = _peaks("here", chains, list(times_s(chains, lambda c: 3e10 if c.kind == "set 2097152" else 1e10)))
    assert [rate for _, rate in odd.bandwidths] == pytest.approx([3e10, 3e10, 3e10, 1e10])
    assert odd.int8_macs_per_s == odd.float_macs_per_s


@pytest.mark.parametrize("chain", CHEAP, ids=lambda c: f"{c.kind}-{c.work}")
def test_a_link_does_what_is_said_of_it(chain):
    short, long = (executed_kernels(chain.model(links), CPU) for links in chain.ends)
    added, links = len(long) - len(short), chain.ends[1] - chain.ends[0]
    assert added == links * chain.nodes
    work = [totals(k).macs for k in (short, long)]
    if chain.kind.startswith("set"):
        moved = [sum(k.bytes_read + k.bytes_written + k.weight_bytes for k in kernels) for kernels in (short, long)]
        assert chain.work <= (moved[1] - moved[0]) / links <= 1.05 * chain.work
    elif chain.kind != "node":
        assert (work[1] - work[0]) / links == chain.work


def test_peaks_are_measured_once(tmp_path, monkeypatch):
    asked = []

    def measured(device, place, on_round):
        asked.append(device)
        chains = _chains()
        return _peaks(place, chains, list(times_s(chains, rate_of)))

    monkeypatch.setattr(peaks, "_measure", measured)
    first = peaks_of(CPU, tmp_path / "new")
    assert peaks_of(CPU, tmp_path / "new") == first and asked == [CPU]
    (file,) = (tmp_path / "new").iterdir()
    assert fingerprint(CPU) in file.name and first.fingerprint == fingerprint(CPU)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"node_s": -1.0}))
    with pytest.raises(ValueError, match=r"holds no peaks .*delete it"):
        peaks_of(CPU, tmp_path / "new")
