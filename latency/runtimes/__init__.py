"""The runtimes that execute an exported file, one per module."""
