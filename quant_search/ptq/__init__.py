"""Post-training quantization on ONNX graphs: folding, equalization, bias correction, learned rounding."""
