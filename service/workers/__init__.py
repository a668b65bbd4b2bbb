"""Workers: processes that serve one port together, and appear to be one."""

from service.workers.peers import Peers, WorkerSilent
from service.workers.rates import SharedRates
from service.workers.totals import Totals
from service.workers.worker import ALONE, Worker, open_directory

__all__ = [
    "ALONE",
    "Peers",
    "SharedRates",
    "Totals",
    "Worker",
    "WorkerSilent",
    "open_directory",
]
