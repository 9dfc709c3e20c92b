"""Fused quantized kernels: a numeric contract, its NumPy reference, and native code that equals it bit for bit."""
