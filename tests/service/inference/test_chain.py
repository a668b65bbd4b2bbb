from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime import IOBinding, RunOptions

from bundle.manifest import GraphName
from bundle.tensors import TensorName, Tensors
from service.errors import DeviceLost
from service.inference.chain import BATCH_ELEMENTS, DeviceChain, HostChain
from service.inference.providers import CPU, CPU_PROVIDER, CUDA
from service.inference.session import OnnxSession, Shape
from tests.bundles import FILES, LATENT_DIM, SPEC, write_bundle

GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder", "scorer")
OUTPUTS: tuple[TensorName, ...] = ("latents", "reconstructions", "scores", "error_maps")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[GraphName, OnnxSession]:
    bundle: Path = write_bundle(tmp_path_factory.mktemp("models"))
    return {
        name: OnnxSession(bundle / file, CPU_PROVIDER, threads=1) for name, file in FILES.items()
    }


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SPEC.shape), dtype=np.uint8)


@pytest.mark.parametrize(("most", "sizes"), [(1, (1,)), (8, (1, 2, 4, 8)), (6, (1, 2, 4, 6))])
def test_the_sizes_are_powers_of_two_up_to_the_largest_batch(
    sessions: dict[GraphName, OnnxSession], most: int, sizes: tuple[int, ...]
) -> None:
    assert DeviceChain(sessions, most, device="cpu").sizes == sizes


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(OUTPUTS)), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_device_chain_computes_the_same_as_a_host_chain(
    sessions: dict[GraphName, OnnxSession], runs: list[tuple[int, TensorName]]
) -> None:
    """The device is the CPU here: all but the memory is the same.

    Results are kept, because none may change later.
    """
    host, device = HostChain(sessions), DeviceChain(sessions, 6, device="cpu")
    results = []
    for seed, (count, output) in enumerate(runs):
        tensors: Tensors = {"images": images(count, seed)}
        requested = [output, "scores"]
        results.append(
            (
                host.run(GRAPHS, tensors, requested)[output],
                device.run(GRAPHS, tensors, requested)[output],
            )
        )
    for expected, found in results:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_latents_can_be_given_after_they_were_computed(
    sessions: dict[GraphName, OnnxSession],
) -> None:
    chain = DeviceChain(sessions, 4, device="cpu")
    chain.warm_up(GRAPHS, ["images"], ["scores"])
    latents = np.random.default_rng(1).random((3, LATENT_DIM), dtype=np.float32)
    found = chain.run(["decoder"], {"latents": latents}, ["reconstructions"])["reconstructions"]
    np.testing.assert_array_equal(
        found.reshape(3, -1)[:, :LATENT_DIM], np.rint(latents * 255).astype(np.uint8)
    )


class Doubler:
    """A session that records the sizes of its batches, with so many numbers an output."""

    def __init__(self, provider: str = CPU, numbers: int = 1) -> None:
        self.inputs: tuple[TensorName, ...] = ("images",)
        self.outputs: tuple[TensorName, ...] = ("latents",)
        self.shapes: Mapping[TensorName, Shape] = {"latents": Shape((1, numbers), np.float32)}
        self.provider = provider
        self.batches: list[int] = []

    def run(self, tensors: Tensors, outputs: Sequence[TensorName]) -> Tensors:
        self.batches.append(len(tensors["images"]))
        return dict.fromkeys(outputs, 2 * tensors["images"])


@pytest.mark.parametrize(
    ("numbers", "count", "batches"),
    [
        (BATCH_ELEMENTS // 2, 5, [2, 2, 1]),
        (BATCH_ELEMENTS // 7, 8, [4, 4]),
        (BATCH_ELEMENTS // 2, 2, [2]),
        (2 * BATCH_ELEMENTS, 2, [1, 1]),
        (10, 64, [64]),
        (10, 0, [0]),
    ],
)
def test_a_large_batch_runs_in_parts_on_the_host(
    numbers: int, count: int, batches: list[int]
) -> None:
    session = Doubler()
    tensors: Tensors = {
        "images": np.arange(count * numbers, dtype=np.float32).reshape(count, numbers)
    }
    found = HostChain({"encoder": session}).run(["encoder"], tensors, ["latents"])["latents"]
    assert session.batches == batches
    np.testing.assert_array_equal(found, 2 * tensors["images"])


def test_a_batch_with_large_outputs_runs_in_parts_on_the_host() -> None:
    session = Doubler(numbers=BATCH_ELEMENTS // 2)
    HostChain({"encoder": session}).run(["encoder"], {"images": np.zeros((5, 3))}, ["latents"])
    assert session.batches == [2, 2, 1]


def test_a_large_batch_is_not_split_on_a_gpu() -> None:
    session, images = Doubler(CUDA), np.zeros((5, BATCH_ELEMENTS), dtype=np.float32)
    HostChain({"encoder": session}).run(["encoder"], {"images": images}, ["latents"])
    assert session.batches == [5]


class FailingSession(OnnxSession):
    """A session that fails its next runs, as on a GPU."""

    on_gpu = True
    failures = 0

    def run(self, tensors: Tensors, outputs: Sequence[TensorName]) -> Tensors:
        self._fail()
        return super().run(tensors, outputs)

    def run_bound(self, binding: IOBinding, options: RunOptions) -> None:
        self._fail()
        super().run_bound(binding, options)

    def _try(self) -> None:
        self._fail()
        super()._try()

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")


@pytest.mark.parametrize(("failures", "error"), [(1, RuntimeError), (2, DeviceLost)])
def test_a_device_is_lost_if_it_fails_a_trial_run_too(
    tmp_path: Path, failures: int, error: type[Exception]
) -> None:
    session = FailingSession(write_bundle(tmp_path) / "encoder.onnx", CPU_PROVIDER, threads=1)
    sessions: dict[GraphName, OnnxSession] = {"encoder": session}
    for chain in (DeviceChain(sessions, 4, device="cpu"), HostChain(sessions)):
        session.failures = failures
        with pytest.raises(error):
            chain.run(["encoder"], {"images": images(2)}, ["latents"])
        assert len(chain.run(["encoder"], {"images": images(2)}, ["latents"])["latents"]) == 2
