"""ONNX Runtime's own calibrator and quantizer with our settings: slow; tests and benchmarks hold ours against them."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from latency.lowering import INPUT
from quant_search.marks import OPERATORS, quantizable
from quant_search.onnx_qdq import weight_bits


class _Batches(CalibrationDataReader):
    """Images (n, c, h, w), a batch at a time, as the calibrator reads them."""

    def __init__(self, images: np.ndarray, batch: int) -> None:
        self._batches = iter(np.array_split(images, max(1, len(images) // batch)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def activation_ranges(model: onnx.ModelProto, images: np.ndarray, batch: int = 64) -> TensorsData:
    """As `quant_search.ranges.activation_ranges`."""
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        plain = Path(folder) / "model.onnx"
        onnx.save_model(model, plain)
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(plain, list(OPERATORS), augmented, CalibrationMethod.MinMax)
        calibrator.collect_data(_Batches(images, batch))
        return calibrator.compute_data()


def quantize(model: onnx.ModelProto, nodes: Sequence[str], ranges: TensorsData) -> onnx.ModelProto:
    """As `quant_search.onnx_qdq.quantize`."""
    names = [node.name for node in quantizable(model, nodes)]
    if not names:  # where the quantizer takes every node
        return model
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(model),
            per_channel=True,
            reduce_range=weight_bits() == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=copy.deepcopy(ranges),  # the quantizer changes them
            nodes_to_quantize=names,
            nodes_to_exclude=[],
            op_types_to_quantize=list(OPERATORS),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # the new nodes stand at the end, where ONNX does not allow them
    finally:
        logging.disable(before)
    return quantizer.model.model
