"""Benchmarks of the toolkit's own code, run as `python -m experiments.bench NAME`."""
