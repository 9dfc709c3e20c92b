"""Accuracy and cost without running."""
