"""Native kernels for tests with a cache of their own: compiled once for all of them, which takes half a minute."""

from latency.kernels import build


def share_kernels(cache):
    """Puts the compiled kernels of the user's cache into another one; to be called before HWNAS_CACHE names that."""
    library = build.library()
    (cache / "kernels").mkdir(parents=True)
    (cache / "kernels" / library.name).symlink_to(library)
