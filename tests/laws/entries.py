"""The ready-made networks that laws are held against: all of them at their smallest preset, and a larger one."""

from search_spaces.catalog import SPACES

SMALLEST = [(name, next(iter(entry.presets))) for name, entry in SPACES.items()]
NETWORKS = [*SMALLEST, ("mbconv", "mobile")]  # which has blocks of fixed sizes and choices of each stage
