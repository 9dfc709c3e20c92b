"""What the tests of `nas` have in common."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def patience_here(patience):
    """What is measured in this process waits as little as what is measured in one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in patience.items():
            patch.setattr(f"latency.pace.{name}", value)
        yield
