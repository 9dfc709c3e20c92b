"""Which bits are best at which size: one network in every width and precision."""
