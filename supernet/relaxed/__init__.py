"""Differentiable search: strategies that learn how probable each option is while they train, one a file."""
