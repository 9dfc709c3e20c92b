"""Searchers: ask for architectures, tell what was found; one algorithm per file."""
