"""Runs native code under the address and undefined-behaviour sanitizers: `python tests/latency/kernels/sanitized.py`.

No test of the suite, since compiling takes a minute.  While a step runs, all memory but its tensors is forbidden.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from native_programs import program_of, some_block, some_codes, some_convolution, some_depthwise, some_network

from latency.kernels import build, toolchain
from latency.kernels.contract import Convolution
from latency.kernels.program import encoded

_FLAGS = ("-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def put_zero_blocks(rng, operation):
    """Zeros in half the blocks of 16 outputs and 4 inputs of all layers but depthwise ones."""
    layers = [getattr(operation, name, None) for name in ("expand", "project")] + [operation]
    for layer in layers:
        if isinstance(layer, Convolution) and not layer.depthwise:
            for at in np.ndindex(*(-(-n // m) for n, m in zip(layer.weight.shape, (16, 4, 1, 1), strict=True))):
                if rng.random() < 0.5:
                    out, into, row, column = at
                    layer.weight[16 * out : 16 * out + 16, 4 * into : 4 * into + 4, row, column] = 0


def programs(count):
    """Random programs and their images."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        inputs, wide, outputs = (int(n) for n in rng.integers(1, 60, 3))
        kernel, stride = int(rng.choice([3, 5, 7])), int(rng.choice([1, 2]))
        shape = (inputs, int(rng.integers(7, 18)), int(rng.integers(7, 18)))
        padding = tuple(int(n) for n in rng.integers(0, 4, 4))
        operation = (
            some_block(rng, inputs, wide, outputs, kernel, stride, padding),
            some_block(rng, inputs, wide, outputs, kernel, stride, padding, expands=False),
            some_convolution(rng, inputs, outputs, (kernel, 3), stride, padding),
            some_depthwise(rng, inputs, (kernel, 4), stride, padding),
        )[seed % 4]
        if seed % 8 >= 4:
            put_zero_blocks(rng, operation)
        yield program_of(shape, operation), some_codes(rng, 4, shape)
        network = some_network(rng)
        yield network, rng.normal(0, 1, (4, *network.input_shape)).astype(np.float32)


def main(count):
    with tempfile.TemporaryDirectory() as made:
        binary = Path(made) / "sanitized"
        sources = (Path(__file__).with_suffix(".cpp"), build.SOURCES / "inspect.cpp")
        options = [*_FLAGS, f"-I{build.SOURCES}", "-pthread", "-o", str(binary), *map(str, sources)]
        subprocess.run([toolchain.compiler(), *options], check=True)
        folders = []
        for number, (program, images) in enumerate(programs(count)):
            folder = Path(made) / str(number)
            folder.mkdir()
            (folder / "program").write_bytes(encoded(program))
            (folder / "images").write_bytes(images.tobytes())
            (folder / "outputs").write_bytes(program.run(images).tobytes())
            folders.append(str(folder))
        done = subprocess.run([str(binary), *folders], check=False)
    sys.stdout.write(f"{len(folders)} programs: {'clean' if done.returncode == 0 else 'not clean'}\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
