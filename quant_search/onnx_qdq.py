"""Static int8 quantization of chosen nodes of an ONNX model, in QDQ form.

ONNX Runtime's own quantizer with uint8 asymmetric activations and int8 symmetric per-channel weights:
the one combination that its x86 kernels run fast.  Symmetric activations cannot absorb a ReLU, and
operator-format or uint8 weights fall back to slow kernels.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from latency.device import environment
from latency.lowering import INPUT

# What has an int8 kernel in ONNX Runtime on CPU, or is moved through unchanged.
OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "GlobalAveragePool", "AveragePool", "MaxPool")


class _Batches(CalibrationDataReader):
    """Calibration images (n, c, h, w), a batch at a time."""

    def __init__(self, images: np.ndarray, batch: int) -> None:
        self._batches = iter(np.array_split(images, max(1, len(images) // batch)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the quantizer's advice to preprocess, which is done by its caller here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def activation_ranges(model: onnx.ModelProto, images: np.ndarray, batch: int = 64) -> TensorsData:
    """The smallest and largest value of every activation of `model` over `images` (n, c, h, w) float32.

    Raises:
        ValueError: no images.
    """
    if not len(images):
        raise ValueError("activation ranges need calibration images, got none")
    with _quiet(), tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        augmented = str(Path(folder) / "augmented.onnx")
        plain = Path(folder) / "model.onnx"
        onnx.save_model(model, plain)
        calibrator = create_calibrator(plain, list(OPERATORS), augmented, CalibrationMethod.MinMax)
        calibrator.collect_data(_Batches(images, batch))
        return calibrator.compute_data()


def weight_bits() -> int:
    """Bits of weights that are exact on this machine: 7 on x86 without VNNI, whose products of bytes saturate.

    There two products of a byte each are added in 16 bits (`vpmaddubsw`), which eight-bit weights overflow.
    """
    here = environment()
    vnni = {"avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8"}
    return 7 if here.machine in ("x86_64", "AMD64") and vnni.isdisjoint(here.isa) else 8


def quantize(model: onnx.ModelProto, nodes: Sequence[str], ranges: TensorsData) -> onnx.ModelProto:
    """A copy of `model` in which the named nodes compute in int8; nodes without an int8 kernel stay as they are.

    Args:
        ranges: what `activation_ranges` found for this model.
    """
    quantizable = [node.name for node in model.graph.node if node.name in set(nodes) and node.op_type in OPERATORS]
    if not quantizable:
        result = onnx.ModelProto()
        result.CopyFrom(model)
        return result
    with _quiet():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(model),
            per_channel=True,
            reduce_range=weight_bits() == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=quantizable,
            nodes_to_exclude=[],
            op_types_to_quantize=list(OPERATORS),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # the new nodes stand at the end, where ONNX does not allow them
    result = quantizer.model.model
    del result.graph.value_info[:]  # inferred for the quantizer; the file does without
    return result
