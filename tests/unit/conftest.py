"""Keep unit tests on this machine: uv, which some of them start, may ask no package index."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_package_index() -> Iterator[None]:
    """Make uv fail at once instead of going out, so that a test that needs an index is seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_OFFLINE", "1")
        yield
