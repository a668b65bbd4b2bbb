from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def small_matrices(one_thread: Iterator[None]) -> None:
    """Every test of this folder runs in one thread."""
