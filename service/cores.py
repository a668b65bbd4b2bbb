"""Number of processor cores that this process may use."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def count(cgroup: Path = _CGROUP) -> int:
    """Count the cores by affinity, or by the lower limit of the container (cgroup 2 or 1)."""
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), _read_limit(cgroup))))


def _read_limit(cgroup: Path) -> float:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        except OSError:
            return math.inf
    try:
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except ValueError:  # "max"
        return math.inf
