"""Progress of a training run: JSON lines, TensorBoard, and the history for the bundle."""

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

EpochRow = dict[str, Any]

METRICS_FILE = "metrics.jsonl"


class Tracker:
    """Writer of a row for each epoch to `metrics.jsonl` and to TensorBoard, both in `directory`.

    `history` holds the rows of the completed epochs. A resumed run keeps only these.
    """

    def __init__(self, directory: Path, history: list[EpochRow]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.history = history
        self._lines = directory / METRICS_FILE
        self._lines.write_text("".join(f"{json.dumps(row)}\n" for row in history), encoding="utf-8")
        self._board = SummaryWriter(directory, purge_step=len(history))

    def log(self, row: EpochRow) -> None:
        """Write a row: `stage` and `epoch`, and numbers under any other names."""
        step = len(self.history)
        self.history.append(row)
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if name not in ("stage", "epoch"):
                self._board.add_scalar(f"{row['stage']}/{name}", value, step)

    def close(self) -> None:
        self._board.close()
