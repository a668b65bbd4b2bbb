import asyncio
import gc
import math
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bundle.manifest import PIN
from bundle.stores import BundleStore
from bundle.tensors import Tensors
from service.errors import DeadlineExceeded, ModelNotFound, ModelNotReady
from service.inference.engine import MAX_THREADED_SESSIONS, MIN_THREADED_SECONDS, OnnxEngine
from service.inference.providers import Provider
from service.inference.session import OnnxSession, Session
from service.registry.loaded_model import LoadedModel
from service.registry.registry import REST_SECONDS
from service.registry.repository import ModelRepository
from service.registry.shared_sessions import MIN_GROWTH, SharedSessions
from service.registry.store_repository import StoreRepository
from service.scheduling.batcher import Work
from service.scheduling.executor import DeviceExecutor
from tests.bundles import Rig, rewrite_manifest, write_bundle, write_detector

NAMES = ("a", "b", "c")


def write_encoders(models: Path) -> int:
    """Write encoders of about the same size, and return the bytes that the largest counts."""
    for length, name in enumerate(NAMES, 20):
        write_bundle(models, name, graphs=("encoder",), latent_dim=length)
    return max(MIN_GROWTH * path.stat().st_size for path in models.glob("*/1/encoder.onnx"))


def build(models: Path, **options: object) -> Rig:
    rig = Rig(ModelRepository(models), **{"preloaded": (), **options})  # type: ignore[arg-type]
    rig.updates.load_all()
    return rig


def use(rig: Rig, name: str, seconds: float = math.inf) -> LoadedModel:
    return asyncio.run(rig.opened.get(rig.registry.get(name), time.monotonic() + seconds))


def list_open(rig: Rig) -> list[str]:
    return [model.manifest.name for model in rig.opened.list()]


def test_one_model_is_opened_at_the_start_and_others_when_they_are_used(tmp_path: Path) -> None:
    write_encoders(tmp_path)
    rig = build(tmp_path)
    assert rig.registry.names() == ["a", "b", "c"]
    assert list_open(rig) == ["a"]
    use(rig, "c")
    assert list_open(rig) == ["a", "c"]
    assert rig.loads == [("a", True), ("c", True)]


def test_requests_that_wait_for_a_model_share_its_opening(tmp_path: Path) -> None:
    write_encoders(tmp_path)
    rig = build(tmp_path)

    async def use_together() -> list[LoadedModel]:
        model = rig.registry.get("b")
        return await asyncio.gather(*(rig.opened.get(model, math.inf) for _ in range(5)))

    assert len({id(loaded) for loaded in asyncio.run(use_together())}) == 1
    assert rig.loads.count(("b", True)) == 1


def test_the_least_recently_used_model_is_closed_to_make_room(tmp_path: Path) -> None:
    largest = write_encoders(tmp_path)
    rig = build(tmp_path, max_bytes=2 * largest)
    for name, remaining in (("b", ["a", "b"]), ("a", ["b", "a"]), ("c", ["a", "c"])):
        use(rig, name)
        assert list_open(rig) == remaining
        assert rig.opened.count_bytes() <= 2 * largest


def test_a_model_larger_than_the_bound_is_open_alone(tmp_path: Path) -> None:
    write_encoders(tmp_path)
    rig = build(tmp_path, max_bytes=1)
    for name in NAMES:
        use(rig, name)
        assert list_open(rig) == [name]


def test_preloaded_models_stay_open(tmp_path: Path) -> None:
    write_encoders(tmp_path)
    rig = build(tmp_path, max_bytes=1, preloaded=("b",))
    for name in ("a", "c"):
        use(rig, name)
        assert list_open(rig) == ["b", name]


def test_a_damaged_version_to_preload_leaves_the_older_one_open(tmp_path: Path) -> None:
    write_encoders(tmp_path)
    (write_bundle(tmp_path, "b", 2) / "decoder.onnx").write_bytes(b"")
    write_bundle(tmp_path, "b", 3, graphs=("encoder",), latent_dim=19)
    (tmp_path / "b" / "3" / "encoder.onnx").write_bytes(b"")
    rig = build(tmp_path, preloaded=("b",))
    assert [(each.manifest.name, each.manifest.version) for each in rig.opened.list()] == [("b", 1)]


def test_a_name_to_preload_that_is_no_model_is_refused(tmp_path: Path) -> None:
    write_encoders(tmp_path)
    with pytest.raises(ModelNotFound, match="there is no model 'd'; there are: a, b, c"):
        build(tmp_path, preloaded=("d",))


def test_a_model_in_use_counts_until_it_is_let_go_and_the_next_waits_for_it(tmp_path: Path) -> None:
    largest = write_encoders(tmp_path)
    rig = build(tmp_path, max_bytes=largest, preloaded=())

    async def use_in_turn() -> None:
        in_use = [await rig.opened.get(rig.registry.get("a"), math.inf)]
        waiting = asyncio.create_task(rig.opened.get(rig.registry.get("b"), math.inf))
        while rig.opened.list():
            await asyncio.sleep(0)
        assert rig.opened.count_bytes() > 0
        assert not waiting.done()
        in_use.clear()
        await waiting

    asyncio.run(use_in_turn())
    assert list_open(rig) == ["b"]


def test_models_share_the_sessions_of_equal_graphs(tmp_path: Path) -> None:
    for name in NAMES:
        write_detector(tmp_path, name)
    rig = build(tmp_path, preloaded=("*",))
    sessions = [model.loaded and model.loaded.sessions["encoder"] for model in rig.opened.list()]
    assert [session is sessions[0] for session in sessions] == [True] * 3
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("a/1/*.onnx")}
    assert rig.opened.count_bytes() == MIN_GROWTH * sum(sizes.values())


def test_models_share_nothing_if_sessions_are_not_shared(tmp_path: Path) -> None:
    write_detector(tmp_path, "a")
    sessions = SharedSessions(OnnxEngine("cpu"), shares=False)
    path = tmp_path / "a" / "1" / "encoder.onnx"
    assert sessions.open(path, "digest") is not sessions.open(path, "digest")


def test_a_request_past_its_deadline_does_not_wait_for_an_opening(tmp_path: Path) -> None:
    opened = threading.Event()

    class SlowEngine(OnnxEngine):
        def open(self, path: Path) -> Session:
            if path.parts[-3] == "b":
                assert opened.wait(60)
            return super().open(path)

    write_encoders(tmp_path)
    rig = build(tmp_path, engine=SlowEngine("cpu"))

    async def give_up_and_return() -> None:
        with pytest.raises(DeadlineExceeded, match="b version 1 was not open in time"):
            await rig.opened.get(rig.registry.get("b"), time.monotonic())
        opened.set()
        await rig.opened.get(rig.registry.get("b"), math.inf)

    asyncio.run(give_up_and_return())
    assert rig.loads == [("a", True), ("b", True)]


def test_a_damaged_version_fails_once_and_the_older_one_serves(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a", graphs=("encoder",))  # which is opened at the start
    write_bundle(tmp_path, "b", 1)
    damaged = write_bundle(tmp_path, "b", 2, variational=True)
    (damaged / "decoder.onnx").write_bytes(b"")
    rig = build(tmp_path)
    assert rig.registry.get("b").manifest.version == 2
    with pytest.raises(ModelNotReady, match="b version 2 could not be opened"):
        use(rig, "b")
    assert "decoder.onnx is damaged" in rig.registry.failures()["b/2"]
    assert rig.registry.get("b").manifest.version == 1
    use(rig, "b")


def test_a_bundle_that_changed_since_it_was_listed_is_not_opened(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    directory = write_bundle(tmp_path, "b")
    rig = build(tmp_path)
    rewrite_manifest(directory, description="another")
    with pytest.raises(ModelNotReady):
        use(rig, "b")
    assert "has changed since it was listed" in rig.registry.failures()["b/1"]


def test_a_model_that_cannot_be_fetched_rests_and_is_tried_again(tmp_path: Path) -> None:
    write_encoders(tmp_path / "store")
    rig = Rig(StoreRepository(BundleStore(f"file://{tmp_path}/store"), tmp_path / "cache"), None)
    now = [0.0]
    rig.registry._clock = lambda: now[0]
    encoder = tmp_path / "store" / "b" / "1" / "encoder.onnx"
    encoder.rename(tmp_path / "away")
    rig.updates.load_all()
    assert rig.registry.names() == ["a", "c"]
    (tmp_path / "away").rename(encoder)
    with pytest.raises(ModelNotReady):
        rig.registry.get("b")
    now[0] = REST_SECONDS
    use(rig, "b")
    assert rig.registry.failures() == {}


def test_what_a_model_has_counted_survives_its_closing(tmp_path: Path) -> None:
    write_detector(tmp_path, "a", max_batch=1)
    write_bundle(tmp_path, "b")
    rig = build(tmp_path, max_bytes=1)
    scoring = rig.registry.get("a").scoring
    assert scoring is not None
    scoring.drift.add(np.ones(3, np.float32), 0.1)
    use(rig, "b")
    assert list_open(rig) == ["b"]
    use(rig, "a")
    assert rig.registry.get("a").scoring is scoring
    assert scoring.drift.images == 3


def test_a_new_version_is_tested_and_stays_closed_without_room(tmp_path: Path) -> None:
    largest = write_encoders(tmp_path)
    rig = build(tmp_path, max_bytes=largest)
    write_bundle(tmp_path, "b", 2, graphs=("encoder",), latent_dim=19)
    asyncio.run(rig.updates.look())
    assert rig.registry.get("b").manifest.version == 2
    assert ("b", True) in rig.loads
    assert list_open(rig) == ["a"]


@pytest.mark.parametrize("seconds", [MIN_THREADED_SECONDS, MIN_THREADED_SECONDS / 2])
def test_few_sessions_with_long_runs_have_threads_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    threads: list[int] = []

    class Recorded(OnnxSession):
        def __init__(self, path: Path, provider: Provider, given: int) -> None:
            threads.append(given)
            super().__init__(path, provider, given)

        def measure(self) -> float:
            return seconds

    monkeypatch.setattr("service.inference.engine.OnnxSession", Recorded)
    write_encoders(tmp_path)
    engine, path = OnnxEngine("cpu", threads=2), tmp_path / "a" / "1" / "encoder.onnx"
    opened = [engine.open(path) for _ in range(MAX_THREADED_SESSIONS + 1)]
    assert len(opened) == MAX_THREADED_SESSIONS + 1
    long = seconds == MIN_THREADED_SECONDS
    assert threads.count(2) == (MAX_THREADED_SESSIONS if long else 0)
    opened.clear()
    engine.open(path)
    assert threads[-1] == (2 if long else 1)


def test_only_surplus_models_are_closed_while_all_are_in_use(tmp_path: Path) -> None:
    largest = write_encoders(tmp_path)
    write_bundle(tmp_path, "d", graphs=("encoder",), latent_dim=23)
    rig = build(tmp_path, max_bytes=7 * largest // 2)

    async def use_all() -> None:
        in_use = [await rig.opened.get(rig.registry.get(name), math.inf) for name in NAMES]
        waiting = asyncio.create_task(rig.opened.get(rig.registry.get("d"), math.inf))
        while len(rig.opened.list()) == len(NAMES):
            await asyncio.sleep(0)
        assert list_open(rig) == ["b", "c"]
        in_use.clear()
        await waiting

    asyncio.run(use_all())
    assert list_open(rig) == ["b", "c", "d"]


def test_a_model_that_was_removed_while_it_was_opened_is_not_kept(tmp_path: Path) -> None:
    write_encoders(tmp_path)
    rig = build(tmp_path)

    async def remove_in_the_meantime() -> None:
        model = rig.registry.get("b")
        opening = asyncio.create_task(rig.opened.get(model, math.inf))
        await asyncio.sleep(0)
        await rig.updates.unload("b")
        await opening

    asyncio.run(remove_in_the_meantime())
    assert list_open(rig) == ["a"]
    assert rig.registry.failures() == {}


def test_a_model_that_no_request_waits_for_is_not_opened(tmp_path: Path) -> None:
    write_encoders(tmp_path)
    rig = build(tmp_path)

    async def leave() -> None:
        opening = asyncio.create_task(rig.opened.get(rig.registry.get("b"), math.inf))
        await asyncio.sleep(0)
        opening.cancel()
        while rig.opened._openings:
            await asyncio.sleep(0)

    asyncio.run(leave())
    assert list_open(rig) == ["a"]
    assert rig.registry.failures() == {}


def test_a_pinned_version_that_cannot_be_opened_is_not_replaced_by_another(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a", graphs=("encoder",))  # which is opened at the start
    damaged = write_bundle(tmp_path, "b", 1)
    write_bundle(tmp_path, "b", 2, variational=True)
    (tmp_path / "b" / PIN).write_text("1")
    (damaged / "decoder.onnx").write_bytes(b"")
    rig = build(tmp_path)
    with pytest.raises(ModelNotReady):
        use(rig, "b")
    with pytest.raises(ModelNotReady, match="the pinned version 1 of 'b'"):
        rig.registry.get("b")


def test_models_are_opened_again_after_their_directory_was_gone(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_encoders(models)
    rig = build(models)
    now = [0.0]
    rig.registry._clock = lambda: now[0]
    models.rename(tmp_path / "away")
    with pytest.raises(ModelNotReady):
        use(rig, "b")
    assert rig.registry.failures() == {"b/1": "its directory is unavailable; mount it again"}
    (tmp_path / "away").rename(models)
    now[0] = REST_SECONDS
    assert rig.registry.failures() == {}
    use(rig, "b")


def test_an_error_of_a_request_holds_no_graphs(tmp_path: Path) -> None:
    largest = write_encoders(tmp_path)
    rig = build(tmp_path, max_bytes=largest)
    executor = DeviceExecutor(max_batch_size=4)
    gc.disable()  # so that only references hold graphs

    async def fail_and_go_on() -> None:
        loaded = await rig.opened.get(rig.registry.get("a"), math.inf)
        plan = loaded.plan(("encoder",), ("latents",))
        wrong: Tensors = {"images": np.zeros((1, 1), np.uint8)}
        work = Work("a", "kind", plan.run, wrong, shared=plan.shared, uses=plan.uses)
        del loaded, plan
        with suppress(Exception):  # `pytest.raises` would hold the error
            await executor.run(work, math.inf)
        del work
        await rig.opened.get(rig.registry.get("b"), math.inf)

    try:
        asyncio.run(fail_and_go_on())
        assert rig.opened.count_bytes() <= largest
    finally:
        gc.enable()
        executor.close()
