"""Tables as devices: what allocation by an integer programme is worth beside greedy and uniform choices."""
