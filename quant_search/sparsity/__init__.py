"""How sparse: patterns of zeros, which weights go, channels taken out for good, and what of it a device makes time."""
