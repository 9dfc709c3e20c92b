"""The ready-made networks that laws are held against: in every preset, or at their smallest one and a larger one."""

from search_spaces.catalog import SPACES

EVERY = [(name, preset) for name, entry in SPACES.items() for preset in entry.presets]
SMALLEST = [(name, next(iter(entry.presets))) for name, entry in SPACES.items()]
NETWORKS = [*SMALLEST, ("mbconv", "mobile")]  # which has blocks of fixed sizes and choices of each stage
