"""Accuracy of quantized networks, predicted from few files."""
