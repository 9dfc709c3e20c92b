"""How many evaluations each searcher needs, on benchmark tables."""
