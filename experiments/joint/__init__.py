"""Architecture, precision and channel sparsity in one search, against one after the other."""
