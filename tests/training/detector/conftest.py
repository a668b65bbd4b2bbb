from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def small_matrices(one_thread: Iterator[None]) -> None:
    """Run all tests of this folder in one thread."""
