"""Several processes, started by `torchrun`, that train one model on shares of every batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Process:
    """One of `count` processes, with its device."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch, whose size `count` divides."""
        return batch.chunk(self.count)[self.rank]

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, which averages its gradients over the processes."""
        return module if self.count == 1 else DistributedDataParallel(module)


@contextmanager
def process() -> Iterator[Process]:
    """This process as `torchrun` started it, or the only one."""
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if count > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(device, rank, count)
    finally:
        if count > 1:
            distributed.destroy_process_group()
