import json
import sys
from dataclasses import replace

import pytest

from experiments.bench import interleaved, kernel_arms, kernels
from experiments.bench.__main__ import main
from experiments.bench.kernel_arms import AGREEING, Subject, check_agreement, is_exact
from experiments.bench.kernel_graphs import layers, parse_blocks, sequence
from experiments.bench.kernels import Row
from latency.fused_roofline import FusedPrices
from latency.fused_work import TERMS

KEYS = ["block", "fused_us", "ort_int8_us", "ort_fp32_us", "ratio_ort_int8", "ratio_ort_fp32", "aa_ratio", "exact"]
PRICES = FusedPrices("avx512", dict.fromkeys(TERMS, 1e-9), 1e-10, 1e-6)


@pytest.fixture
def quick(monkeypatch):
    """A few samples, of one call each; prices that need no measuring."""
    monkeypatch.setattr(interleaved, "VISITS", 1)
    monkeypatch.setattr(interleaved, "ROUNDS", 3)
    monkeypatch.setattr(interleaved, "SAMPLE_S", 1e-6)
    monkeypatch.setattr(kernels, "prices_of", lambda: PRICES)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    main()


def test_json_is_all_that_is_printed(quick, monkeypatch, capsys):
    run(monkeypatch, "kernels", "--blocks", "5x7,8,2,8,3,1;6,8,1,12,5,2", "--json")
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert err == "" and [list(row) for row in rows] == [KEYS, KEYS]
    assert [row["block"] for row in rows] == ["5x7,8,2,8,3,1", "6,8,1,12,5,2"]
    for row in rows:
        assert row["exact"] is True
        for other in ("ort_int8", "ort_fp32"):
            assert row[f"ratio_{other}"] == pytest.approx(row[f"{other}_us"] / row["fused_us"])


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_outputs_that_are_not_exact_are_printed_and_end_with_1(options, quick, monkeypatch, capsys):
    monkeypatch.setattr(kernel_arms, "is_exact", lambda subject, threads: False)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "kernels", "--blocks", "5x7,8,2,8,3,1", *options)
    out = capsys.readouterr().out
    assert ended.value.code == 1 and ('"exact": false' if options else "NOT EXACT") in out


def test_a_line_says_what_is_in_the_times(quick, monkeypatch, capsys):
    run(monkeypatch, "kernels", "--blocks", "5x7,8,2,8,3,1;6,8,1,12,5,2")
    chained, single = capsys.readouterr().out.splitlines()
    assert chained.startswith("5x7,8,2,8,3,1 ") and "whole call" in chained and "with both ends" not in chained
    assert single.startswith("6,8,1,12,5,2 ") and "whole call" not in single and single.endswith("with both ends")
    for line in (chained, single):
        assert "ort int8" in line and "ort fp32" in line and "exact" in line and "of estimate" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--blocks", "5,8"], "--blocks: block '5,8' is not H,Cin,expansion,Cout,k,stride"),
        (["--threads", "0"], "--threads: device 'cpu:threads=0'"),
        (["--what", "sparse", "--blocks", "5,8,2,8,3,1"], "--blocks: not allowed with argument --what"),
        (["--what", "all of it"], "--what: invalid choice"),
    ],
)
def test_wrong_options_end_with_one_line(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "kernels", *arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("python -m experiments.bench kernels: ") and message in err


def test_other_benchmarks_take_no_options_of_these(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "depthwise", "--blocks", "5,8,2,8,3,1")
    assert "unrecognized arguments: --blocks" in capsys.readouterr().err


def test_sparse_layers_are_held_against_dense_ones(quick, monkeypatch):
    monkeypatch.setattr(kernels.kernel_lists, "LAYERS", ((5, 64, 64), (5, 64, 16)))
    rows = list(kernels.bench("sparse"))
    assert [row.block for row in rows] == [
        *(f"5, 64 to 64, {density}" for density in ("1", "0.5", "0.25")),
        *(f"5, 64 to 16, {density}" for density in ("1", "0.5", "0.25")),
    ]
    assert all(row.exact and row.dense_ratio is not None for row in rows)
    assert [row.plain()["ort_int8_us"] is None for row in rows] == [False] * 3 + [True] * 3


def test_bodies_and_networks_are_chosen_by_name(monkeypatch):
    monkeypatch.setattr(kernels.kernel_graphs, "sequence", lambda body: body)
    monkeypatch.setattr(kernels.kernel_graphs, "timed", lambda shape, build: shape)
    named = {what: [subject.name for subject in kernels._subjects(what, ())] for what in ("bodies", "networks")}
    assert named["bodies"] == ["MobileNetV2, body", "mixed kernels, body"]
    assert named["networks"] == ["MobileNetV2, whole", "mixed kernels, whole"]


def test_several_threads_are_held_against_one(monkeypatch):
    found = {"fused": 2e-6, "control": 2e-6, "ort int8": 4e-6, "fused, one thread": 3e-6, "ort int8, one thread": 4e-6}
    monkeypatch.setattr(kernel_arms, "times_s", lambda subject, threads: (found, found))
    row = kernels._row(Subject("", layers(3, 16, 16, 1, 1)), 2, 1e9, None)
    assert row.factors == {"fused": 1.5, "ort int8": 1.0}
    assert row.plain()["over_one_thread"] == 1.5
    assert row.peak == pytest.approx(9 * 16 * 16 / (2e-6 * 2 * 1e9))


def test_a_chain_counts_once_without_its_ends():
    short, long = (sequence(parse_blocks("5,8,2,8,3,1") * n) for n in (1, 5))
    assert Subject("", short).once(3.0) == 3.0
    assert Subject("", short, long, 5).once(3.0, 11.0) == 2.0


def test_other_outputs_are_seen(monkeypatch):
    right = layers(3, 16, 16, 1.0, 1)
    subject = Subject("a layer", right)
    check_agreement(subject)
    assert is_exact(subject, 1)
    other = layers(3, 16, 16, 0.5, 1).program
    with pytest.raises(AssertionError, match=r"a layer: .* of outputs are within one code of ONNX Runtime's"):
        check_agreement(replace(subject, short=replace(right, program=other)))
    opened = kernel_arms.open_program
    monkeypatch.setattr(kernel_arms, "open_program", lambda program: opened(other))
    assert not is_exact(subject, 1)
    assert 0.99 < AGREEING < 1


def test_a_row_without_another_run_time_has_no_ratio():
    row = Row("x", 2.0, {"ort int8": 3.0}, 1.0, True, False, None, None, None, None, {}).plain()
    assert list(row.values()) == ["x", 2.0, 3.0, None, 1.5, None, 1.0, True]
