import sys

import numpy as np
import pytest

from experiments import fused_agreement
from experiments.bench.kernel_graphs import layers, timed
from experiments.fused_agreement import Agreement, agreement, main, pooled


@pytest.fixture(scope="module")
def small():
    def build(graph):
        graph.convolve(16, 3, 2)
        graph.relu()
        graph.logits(10)

    return timed((1, 8, 8), build)


def test_a_file_agrees_with_itself(small):
    x = np.random.default_rng(5).standard_normal((30, 1, 8, 8)).astype(np.float32)
    found = agreement(small.int8, lambda height: x if height == 8 else x[:0])
    assert (found.images, found.outputs) == (30, 300)
    assert found.within >= 0.999 and found.same_top1 >= 0.97


def test_other_outputs_are_counted(small, monkeypatch):
    class Off:
        """A program whose outputs are off by 0, 1 and 2 codes in turn."""

        def __init__(self, program):
            self.program = program

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, x):
            made = self.program.run(x)
            return made + np.arange(made.size).reshape(made.shape) % 3 * self.program.steps[-1].operation.scale

    monkeypatch.setattr(fused_agreement, "open_program", Off)
    x = np.random.default_rng(5).standard_normal((30, 1, 8, 8)).astype(np.float32)
    found = agreement(small.int8, lambda height: x)
    assert found.within == pytest.approx(2 / 3, abs=0.01) and found.equal == pytest.approx(1 / 3, abs=0.01)
    assert found.same_top1 < 1


def test_files_count_by_their_outputs_and_images():
    both = pooled([Agreement(10, 100, 1.0, 0.5, 1.0), Agreement(30, 300, 0.6, 0.9, 0.8)])
    assert (both.images, both.outputs) == (40, 400)
    assert (both.within, both.equal, both.same_top1) == pytest.approx((0.7, 0.8, 0.85))


def test_refused_files_say_why_and_the_others_go_on(small, tmp_path, monkeypatch, capsys):
    files = {"int8": small.int8, "fp32": small.fp32, "map": layers(8, 1, 16, 1, 1).int8}
    for name, file in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(file)
    paths = [str(tmp_path / f"{name}.onnx") for name in ("fp32", "int8", "map", "int8")]
    monkeypatch.setattr(sys, "argv", ["fused_agreement", *paths, "--data", "digits", "--images", "40"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and "computes in fp32" in lines[1] and "gives the output" in lines[3]
    assert lines[2].split()[1] == "40" and lines[5].startswith("all 2 ")
    assert lines[5].split()[2] == "80"


def test_subnets_of_a_space_are_made_with_the_data(monkeypatch, capsys):
    arguments = ["--space", "nas_bench_macro", "--preset", "tiny", "--subnets", "1", "--data", "digits"]
    monkeypatch.setattr(sys, "argv", ["fused_agreement", *arguments])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [f"nas_bench_macro, subnet {i}" for i in range(1)]
    shares = [float(share.rstrip("%")) for share in lines[-1].split()[-3:]]
    assert shares[0] >= 99.9 and shares[2] >= 99.5


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "name files, or a --space"), (["nowhere.onnx"], "no file nowhere.onnx")]
)
def test_without_a_file_the_study_says_so(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fused_agreement", "--data", "digits", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
