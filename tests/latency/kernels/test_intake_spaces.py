"""Int8 files of every ready-made space, on real images: programs' reference against ONNX Runtime."""

import numpy as np
import pytest

from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.kernels.contract import (
    Convolution,
    Dequantize,
    InvertedResidual,
    Multiply,
    Quantize,
    Resize,
    WindowAverage,
)
from latency.kernels.intake import program_of
from latency.runtimes.onnx_runtime import open_session
from nas.candidate import Builder
from quant_search.policy import joint_space, uniform
from search_spaces.catalog import SPACES
from search_spaces.network import find_blocks, find_space
from supernet.data import load_data
from tests.laws.entries import SMALLEST

PRECISIONS = ("fp32", "int8", "w4a8")
# What the smallest networks are changed in, to have what is special to their spaces.
CHANGED = {
    "mbconv": {"resolution": 12, "se": True, "act": "h-swish", "stage1.depth": 2, "stage1.block2.kernel": 5},
    "resnet": {"resolution": 6, "stem.second": True, "stage1.depth": 2},
    "fbnet": {"layer1": "k3_e1", "layer2": "k5_e1_g2", "layer3": "k3_e3", "layer5": "k5_e6"},
    "nas_bench_macro": {"layer1": "mb3_k3", "layer2": "mb6_k5", "layer4": "mb3_k3"},
    "nas_bench_201": {
        "edge0": "avg_pool_3x3",
        "edge1": "nor_conv_3x3",
        "edge3": "skip_connect",
        "edge5": "nor_conv_1x1",
    },
}
SPECIAL = {"mbconv": {Resize, Multiply}, "resnet": {Resize, WindowAverage}, "nas_bench_201": {WindowAverage}}
FILES = [*((name, preset, "int8") for name, preset in SMALLEST), ("nas_bench_macro", "tiny", "w4a8")]


class Made:
    """A file of a space, its program, and what both make of real images."""

    def __init__(self, name, preset, precision, pixels=8, images=300):
        self.name = name
        data = load_data("digits", image_size=pixels)
        network = SPACES[name].build(pixels, data.image_shape[0], data.num_classes, preset)
        space = joint_space(find_space(network), find_blocks(network), PRECISIONS)
        builder = Builder(network, BlockTracer(network, data.image_shape), data, PRECISIONS)
        changed = space.architecture({choice.name: choice.options[0] for choice in space.choices} | CHANGED[name])
        arch = uniform(changed, precision)
        self.x = data.x_train[:images]
        self.builder, self.arch, self.file = builder, arch, builder.build(arch).model
        self.program = program_of(self.file)
        self.found = self.program.run(self.x)
        self.expected = open_session(self.file, parse_device("cpu")).run(self.x)
        self.operations = [step.operation for step in self.program.steps]

    def off(self):
        """How many codes outputs are off by."""
        return np.abs(self.found - self.expected) / self.operations[-1].scale


@pytest.fixture(scope="module", params=FILES, ids="-".join)
def made(request):
    return Made(*request.param)


def test_outputs_are_those_of_onnx_runtime(made):
    assert made.found.shape == made.expected.shape and made.found.dtype == np.float32
    assert (made.off() < 1.5).mean() >= 0.999
    assert (made.found.argmax(1) == made.expected.argmax(1)).mean() >= 0.995
    assert len(np.unique(made.expected.argmax(1))) > 1


def test_programs_hold_together(made):
    program, tensors = made.program, {0: made.x[:2]}
    assert isinstance(made.operations[-1], Dequantize)
    assert sum(isinstance(operation, Quantize) for operation in made.operations) == 1
    for step in program.steps:
        tensors[step.output] = step.operation.run(*(tensors[i] for i in step.inputs))
        assert tensors[step.output].shape == (2, *program.shapes[step.output]), step.name
    assert set(program.shapes) == set(tensors) and program.input_shape == made.x.shape[1:]
    read = {i for step in program.steps for i in step.inputs}
    assert read == set(tensors) - {program.steps[-1].output}


def test_a_program_is_found_from_bytes_models_and_files_alike(tmp_path):
    made = Made("nas_bench_macro", "tiny", "int8", images=20)
    (tmp_path / "model.onnx").write_bytes(made.file)
    again = program_of(tmp_path / "model.onnx")
    assert np.array_equal(again.run(made.x), made.found)


def test_inverted_residuals_are_one_step_each():
    made = Made("nas_bench_macro", "tiny", "int8", images=20)
    blocks = sum(str(value).startswith("mb") for value in made.arch.values.values())
    assert sum(isinstance(operation, InvertedResidual) for operation in made.operations) == blocks > 0
    assert sum(isinstance(operation, Convolution) and operation.depthwise for operation in made.operations) == 0


def test_every_file_has_what_is_special_to_its_space(made):
    """Resolutions, excitation and pools, which would not be tested otherwise."""
    assert SPECIAL.get(made.name, {InvertedResidual}) <= {type(operation) for operation in made.operations}


def test_blocks_in_fp32_are_refused():
    made = Made("nas_bench_macro", "tiny", "int8", images=2)
    first = next(name for name in made.arch.values if name.endswith(".precision"))
    mixed = made.builder.build(made.arch.space.architecture(made.arch.values | {first: "fp32"}))
    with pytest.raises(ValueError, match="computes in fp32"):
        program_of(mixed.model)
