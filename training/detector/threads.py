"""A `map` in threads that shares out the threads of torch."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

MAX_THREADS = 4  # each holds tensors of its own

R = TypeVar("R")


def map_in_threads(work: Callable[..., R], *items: Iterable[Any]) -> list[R]:
    """Map in threads; results are in order.

    They share out the threads of torch, because small tensors gain little from these.
    """
    threads = torch.get_num_threads()
    workers = min(MAX_THREADS, threads)
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
    ) as pool:
        try:
            return list(pool.map(work, *items))
        finally:
            torch.set_num_threads(threads)
