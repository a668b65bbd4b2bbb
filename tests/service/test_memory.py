import gc
from pathlib import Path

import numpy as np
import pytest

from service import memory


def test_used_memory_grows_with_what_is_held() -> None:
    gc.collect()
    memory.trim()  # what other tests have freed is not to go meanwhile
    before = memory.read_used()
    held = np.ones(2**23)
    assert memory.read_used() - before > 0.9 * held.nbytes
    memory.trim()
    assert memory.read_used() - before > 0.9 * held.nbytes


def test_a_system_without_a_report_uses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert memory.read_used() == 0


@pytest.mark.parametrize(("text", "limit"), [("1000000\n", 1_000_000), ("max\n", None)])
def test_the_limit_is_of_the_container_or_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, limit: int | None
) -> None:
    file = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_LIMITS", (tmp_path / "missing", file))
    machine = memory.find_limit()
    file.write_text(text)
    assert memory.find_limit() == (machine if limit is None else limit)
