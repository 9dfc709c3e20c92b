"""Reproducible studies and benchmarks of the toolkit."""
