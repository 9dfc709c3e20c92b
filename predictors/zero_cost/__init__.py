"""Zero-cost proxies: scores of untrained networks that are to rank them by the accuracy they would reach."""
