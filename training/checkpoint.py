"""The state of an unfinished run, so that a killed one goes on where its last epoch ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds the state after the last whole epoch of the run with this fingerprint."""

    path: Path
    fingerprint: str

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file in one step: a kill leaves the old one or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save({"fingerprint": self.fingerprint, **state}, partial)
        partial.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """The saved state; None where there is none, or it is of another recipe, seed or data."""
        if not self.path.is_file():
            return None
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        return state if state["fingerprint"] == self.fingerprint else None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
