"""The state of an unfinished run, so that a killed one goes on where its last epoch ended."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.errors import CheckpointError


@dataclass(frozen=True)
class Checkpoint:
    """The state after the last whole epoch of the run with this fingerprint, in a file of its own."""

    directory: Path
    fingerprint: str

    @property
    def path(self) -> Path:
        return self.directory / f"{self.fingerprint[:12]}.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file in one step: a kill leaves the old one or the new one."""
        partial = self.path.with_suffix(".partial")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            torch.save({"fingerprint": self.fingerprint, **state}, partial)
            partial.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the disk is full
            with suppress(OSError):
                partial.unlink()
            raise CheckpointError(f"{self.path} cannot be written: {error}") from error

    def load(self) -> dict[str, Any] | None:
        """The saved state; None where there is none. Raises CheckpointError where the file is damaged."""
        if not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            if state["fingerprint"] != self.fingerprint:
                raise ValueError("it is of another run")
        except Exception as error:  # unpickling what is no checkpoint raises nearly anything
            raise CheckpointError(f"{self.path} is damaged: {error!r}; delete it to start afresh") from error
        return state

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
