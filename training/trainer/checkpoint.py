"""Checkpoints: the state of a run after its last epoch, from which a killed run resumes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from training.errors import CheckpointError

State = dict[str, Any]

_TENSOR_KEY = "$tensor"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of the run with this fingerprint, in a directory of its own.

    `last` is the whole state, and `best-STAGE` the best network of a stage. Each is a JSON file,
    which names the safetensors file with its tensors.
    """

    runs: Path
    fingerprint: str

    @property
    def directory(self) -> Path:
        return self.runs / self.fingerprint[:12]

    def save(self, name: str, state: State) -> None:
        """Replace a checkpoint atomically; `state` is a tree of dicts and lists.

        Raises CheckpointError if it cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        tree = _take_tensors(state, "", tensors)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            file = self._free_file(name)
            safetensors.torch.save_file(tensors, file)
            record = json.dumps(
                {"fingerprint": self.fingerprint, "tensors": file.name, "state": tree}, indent=1
            )
            partial = self.directory / f"{name}.partial"
            partial.write_text(record, encoding="utf-8")
            partial.replace(self._record(name))
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"a checkpoint cannot be written to {self.directory}: {error};"
                " free space there or set --runs"
            ) from error

    def load(self, name: str) -> State | None:
        """The saved state, on the CPU, or None. Raises CheckpointError if it is damaged."""
        path = self._record(name)
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["fingerprint"] != self.fingerprint:
                raise ValueError("it is of another run")
            tensors = safetensors.torch.load_file(self.directory / record["tensors"])
            state: State = _put_tensors(record["state"], tensors)
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"{path} is damaged: {error!r}; delete {path.parent} to start afresh"
            ) from error
        return state

    def remove(self) -> None:
        """Remove the checkpoints, but not the metrics beside them."""
        for pattern in ("last*", "best-*"):
            for path in self.directory.glob(pattern):
                path.unlink()

    def _record(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def _free_file(self, name: str) -> Path:
        """The one of two tensor files that the present checkpoint does not use."""
        first = f'"{name}-a.safetensors"'
        record = self._record(name)
        used = record.is_file() and first in record.read_text(encoding="utf-8")
        return self.directory / f"{name}-{'b' if used else 'a'}.safetensors"


def _take_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {_TENSOR_KEY: path}
    if isinstance(value, dict):
        return {
            str(key): _take_tensors(entry, f"{path}/{key}", tensors) for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _take_tensors(entry, f"{path}/{index}", tensors) for index, entry in enumerate(value)
        ]
    return value


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR_KEY in value:
            return tensors[value[_TENSOR_KEY]]
        # JSON turns keys into strings; keys of an optimiser's state are numbers of its parameters.
        return {
            int(key) if key.isdecimal() else key: _put_tensors(entry, tensors)
            for key, entry in value.items()
        }
    if isinstance(value, list):
        return [_put_tensors(entry, tensors) for entry in value]
    return value
