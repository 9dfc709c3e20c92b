"""The ready-made networks that laws are held against."""

from search_spaces.catalog import SPACES

# All of them at their smallest preset; larger ones repeat its code, but for mbconv's.
NETWORKS = [(name, next(iter(entry.presets))) for name, entry in SPACES.items()] + [("mbconv", "mobile")]
