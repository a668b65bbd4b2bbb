"""Work on several things at once, in threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

MOST = 4  # threads, each of which holds tensors of its own

R = TypeVar("R")


def in_threads(work: Callable[..., R], *things: Iterable[Any]) -> list[R]:
    """The results of `map`, in order. Torch's own threads are shared out: small tensors gain little by them."""
    threads = torch.get_num_threads()
    workers = min(MOST, threads)
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
    ) as pool:
        try:
            return list(pool.map(work, *things))
        finally:
            torch.set_num_threads(threads)
