"""Processes, started by `torchrun`, that train one model on shares of every batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import RecipeError

_TORCHRUN = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Process:
    """A training process, one of `count`, with its device."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """True if this process writes the files and the log."""
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """The device as a report names it."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        count = torch.get_num_threads()
        return f"CPU, {count} threads" if count > 1 else "CPU, 1 thread"

    def share(self, batch: Tensor) -> Tensor:
        """The share of this process in a batch; `count` divides the batch size."""
        return batch.chunk(self.count)[self.rank]

    def wait(self) -> None:
        """Wait until every process has reached this call."""
        if self.count > 1:
            distributed.barrier()

    def wrap(self, module: nn.Module) -> nn.Module:
        """Make a module average its gradients over the processes."""
        return module if self.count == 1 else DistributedDataParallel(module)


@contextmanager
def open_process() -> Iterator[Process]:
    """Join the processes that `torchrun` started, or be the only one.

    Raises RecipeError if there are fewer GPUs than processes.
    """
    rank, local_rank, count = (int(os.environ.get(name, default)) for name, default in _TORCHRUN)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise RecipeError(
                f"{local_rank + 1} processes need a GPU each, and there are"
                f" {torch.cuda.device_count()}: start fewer"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if count > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(device, rank, count)
    finally:
        if count > 1:
            distributed.destroy_process_group()
