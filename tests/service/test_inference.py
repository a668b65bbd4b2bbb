import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from service.errors import DeadlineExceeded, DeviceError, Overloaded, ShuttingDown
from service.inference import session
from service.inference.executor import DeviceExecutor
from service.inference.providers import CPU_PROVIDER, CUDA, CUDA_PROVIDER, DevicePolicy, Machine, Provider, candidates
from service.inference.session import OnnxEngine, OnnxSession
from tests.bundles import write_bundle

GPU = Machine(frozenset({CUDA, "CPUExecutionProvider"}))
NO_DRIVER = Machine(frozenset({CUDA, "CPUExecutionProvider"}), "no NVIDIA driver answers")
CPU_BUILD = Machine(frozenset({"CPUExecutionProvider"}))


@pytest.mark.parametrize("package", ["service.inference.session", "training.graphs"])
def test_onnx_runtime_is_told_to_report_to_nobody(package: str) -> None:
    program = f"import {package}, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("policy", "machine", "expected"),
    [
        ("cpu", GPU, [CPU_PROVIDER]),
        ("auto", GPU, [CUDA_PROVIDER, CPU_PROVIDER]),
        ("auto", NO_DRIVER, [CPU_PROVIDER]),
        ("auto", CPU_BUILD, [CPU_PROVIDER]),
        ("cuda", GPU, [CUDA_PROVIDER]),
    ],
)
def test_the_policy_and_the_machine_decide_the_providers(
    policy: DevicePolicy, machine: Machine, expected: list[Provider]
) -> None:
    assert candidates(policy, machine) == expected


@pytest.mark.parametrize(
    ("machine", "missing"), [(NO_DRIVER, "no NVIDIA driver answers"), (CPU_BUILD, "install the extra `cuda`")]
)
def test_policy_cuda_says_what_is_missing(machine: Machine, missing: str) -> None:
    with pytest.raises(DeviceError, match=missing):
        candidates("cuda", machine)


def test_a_session_that_falls_back_is_a_device_error(tmp_path: Path) -> None:
    """Here ONNX Runtime has no CUDA provider, warns, and goes on with the CPU: just what must not pass unseen."""
    path = write_bundle(tmp_path) / "encoder.onnx"
    with pytest.warns(UserWarning, match="not in available provider"), pytest.raises(DeviceError, match="CPU"):
        OnnxSession(path, CUDA_PROVIDER, threads=1)


def test_policy_auto_goes_on_with_the_cpu_where_cuda_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_bundle(tmp_path) / "encoder.onnx"
    monkeypatch.setattr(session, "inspect_machine", lambda: GPU)
    with pytest.warns(UserWarning, match="not in available provider"):
        assert OnnxEngine("auto").open(path).provider == "CPUExecutionProvider"


def test_jobs_run_one_at_a_time_and_in_order() -> None:
    executor = DeviceExecutor(10, 10)
    order: list[int] = []
    running = threading.Lock()

    def job(number: int) -> None:
        assert running.acquire(blocking=False)
        order.append(number)
        running.release()

    async def submit_all() -> None:
        deadline = time.monotonic() + 60
        await asyncio.gather(*(executor.run(lambda n=n: job(n), deadline) for n in range(20)))

    asyncio.run(submit_all())
    executor.close()
    assert order == list(range(20))


def test_work_that_is_too_late_is_dropped_at_its_deadline_and_never_runs() -> None:
    executor = DeviceExecutor(10, 10)
    running, finish = threading.Event(), threading.Event()
    ran: list[str] = []

    def long_job() -> bool:
        running.set()
        return finish.wait(60)

    async def wait_behind_it() -> bool:
        first = asyncio.create_task(executor.run(long_job, time.monotonic() + 60))
        await asyncio.to_thread(running.wait, 60)
        with pytest.raises(DeadlineExceeded, match="turn did not come"):
            await executor.run(lambda: ran.append("ran"), deadline=time.monotonic())
        finish.set()
        return (await first).result

    assert asyncio.run(wait_behind_it())
    executor.close()
    assert ran == []


def test_a_job_that_fails_does_not_end_the_executor() -> None:
    executor = DeviceExecutor(10, 10)

    async def fail_then_work() -> int:
        deadline = time.monotonic() + 60
        with pytest.raises(ZeroDivisionError):
            await executor.run(lambda: 1 // 0, deadline)
        return (await executor.run(lambda: 7, deadline)).result

    assert asyncio.run(fail_then_work()) == 7
    executor.close()


@pytest.mark.parametrize(("images", "size"), [(6, 1), (1, 60)])
def test_what_does_not_fit_is_refused_at_once_and_fits_again_later(images: int, size: int) -> None:
    executor = DeviceExecutor(max_images=10, max_bytes=100)
    with (
        executor.admit(5, 50),
        pytest.raises(Overloaded, match="5 images of 50 bytes are in flight"),
        executor.admit(images, size),
    ):
        pass
    with executor.admit(images, size):
        pass
    executor.close()


def test_after_draining_nothing_is_admitted() -> None:
    executor = DeviceExecutor(10, 100)
    with executor.admit(1, 1):
        executor.close()
    with pytest.raises(ShuttingDown), executor.admit(1, 1):
        pass


def test_work_that_still_waits_at_the_end_is_told_so() -> None:
    executor = DeviceExecutor(10, 10)
    running, finish = threading.Event(), threading.Event()

    def long_job() -> bool:
        running.set()
        return finish.wait(60)

    async def close_while_one_waits() -> bool:
        deadline = time.monotonic() + 60
        first = asyncio.create_task(executor.run(long_job, deadline))
        await asyncio.to_thread(running.wait, 60)
        second = asyncio.create_task(executor.run(lambda: None, deadline))
        await asyncio.sleep(0)  # let it queue
        closing = asyncio.create_task(asyncio.to_thread(executor.close))
        with pytest.raises(ShuttingDown, match="before the request's turn"):
            await second
        finish.set()
        await closing
        return (await first).result

    assert asyncio.run(close_while_one_waits())
