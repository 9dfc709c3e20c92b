"""What is shipped, built by the compiler as its README says, computes what Python's native code does."""

import re
import subprocess

import numpy as np
import pytest
from native_programs import program_of, some_network
from shipped_library import FLAGS, compiled, run

from latency.kernels import build, native
from latency.kernels.contract import AveragePool, Multiply, Rounding
from latency.kernels.program import encoded
from latency.kernels.source import files_of, source
from latency.kernels.toolchain import compiler


@pytest.fixture(scope="module")
def network():
    return some_network(np.random.default_rng(1))


def images(program, n=5):
    return np.random.default_rng(2).normal(0, 1, (n, *program.input_shape)).astype(np.float32)


@pytest.fixture(scope="module")
def files(network):
    return files_of(network, images(network, 1))


@pytest.fixture(scope="module")
def library(files):
    return compiled(files["hwnas.h"].decode())


def test_outputs_are_those_of_native_code_in_python(network, library):
    x, data = images(network), encoded(network)
    with native.open_program(network) as opened:
        for batch in (1, 3, 5):
            for threads in (1, 2):
                made = run(library, data, x[:batch], threads)
                np.testing.assert_array_equal(made, opened.run(x[:batch], threads))
                assert len(np.unique(made)) > 20


def test_every_instruction_set_of_this_processor_is_there(network, library):
    x = images(network, 2)
    expected = network.run(x)
    for name in native.instruction_sets():
        np.testing.assert_array_equal(run(library, encoded(network), x, 1, name.encode()), expected, name)


def where_contraction_shows():
    """A product, rounded, less what it rounds to: nothing is left, and 14 if it is not rounded before."""
    scale = np.float32(2097151.75)
    product = np.float32(200) * scale
    assert abs(float(product) - 200 * 2097151.75) == 14
    one = Rounding(np.zeros(1, np.float32), np.ones(1, np.float32))
    multiply = Multiply(0, 0, Rounding(np.array([scale]), np.array([-product]), zero=100))
    return program_of((19, 3, 4), AveragePool(one), (multiply, (1, 2)))


def test_compilers_do_not_join_products_and_sums(library):
    program, x = where_contraction_shows(), np.full((1, 19, 3, 4), 200, np.float32)
    assert (program.run(x) == 100).all()
    for name in native.instruction_sets():
        assert (run(library, encoded(program), x, 1, name.encode()) == 100).all(), name


def test_the_source_needs_nothing_but_its_header(files):
    text = files["hwnas.cpp"].decode()
    assert re.findall(r'#\s*include\s*"(.*)"', text) == ["hwnas.h"] and "#pragma once" not in text
    kernels = "void run(const Step &step, int phase, int64_t item, const Work &work) {"
    assert text.count(kernels) == (build.SOURCES / "engine.cpp").read_text().count('#include "kernels.hpp"') > 1
    assert text == source()


def test_the_header_has_three_functions(files, tmp_path):
    header = files["hwnas.h"].decode()
    assert re.findall(r"(hwnas_\w+)\(", header) == ["hwnas_open", "hwnas_run", "hwnas_close"]
    (tmp_path / "hwnas.h").write_text(header)
    (tmp_path / "plain.c").write_text('#include "hwnas.h"\n')
    subprocess.run([compiler(), "-x", "c", "-std=c99", "-fsyntax-only", "-Wall", "-Werror", "plain.c"],
                   cwd=tmp_path, check=True)  # fmt: skip


def test_the_library_gives_away_three_names(library):
    listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"\bhwnas_\w+$", listed, re.MULTILINE)) == {"hwnas_open", "hwnas_run", "hwnas_close"}


@pytest.fixture
def example(files, library, tmp_path):
    """The example, built beside the library that it is linked to."""
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    options = [*FLAGS, "example.cpp", str(library), f"-Wl,-rpath,{library.parent}", "-o", "example"]
    subprocess.run([compiler(), *options], cwd=tmp_path, check=True)
    return lambda: subprocess.run(["./example"], cwd=tmp_path, capture_output=True, text=True, check=False), tmp_path


def test_the_example_names_the_class_and_compares(example, network):
    run_example, folder = example
    top = network.run(images(network, 1)).argmax()
    done = run_example()
    assert done.returncode == 0 and done.stdout == f"class {top}; outputs are as expected\n"
    expected = folder / "sample-output.bin"
    expected.write_bytes(expected.read_bytes()[:-1] + b"\0")
    assert run_example().returncode == 1 and "NOT as expected" in run_example().stdout
    (folder / "weights.bin").write_bytes(b"no program")
    assert run_example().returncode == 1 and "the program is damaged" in run_example().stdout
    for name in ("weights.bin", "sample-input.bin"):
        (folder / name).unlink()
        assert run_example().returncode == 1 and "have to be in the current folder" in run_example().stdout


def test_samples_of_another_shape_are_refused(network):
    with pytest.raises(ValueError, match=r"the sample is float32 \(2, 3, 23, 26\), expected float32 \(1, 3, 23, 26\)"):
        files_of(network, images(network, 2))
