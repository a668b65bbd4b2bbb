from collections.abc import Hashable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.tensors import TensorName, Tensors, parse_tensor_name
from service.scheduling import batcher
from service.scheduling.batcher import Batcher, Job, SharedRun, Work

OWNERS, WIDTHS = ("model", "other"), (2, 3)
KINDS: tuple[TensorName, ...] = ("scores", "latents")


def job(*rows: object, owner: str = "model", kind: Hashable = "scores", alone: bool = False) -> Job:
    return Job(Work(owner, kind, lambda tensors: tensors, {"images": np.array(rows)}, alone))


def drain(queue: Batcher) -> list[list[Job]]:
    """Run all that waits. Returns the jobs of each batch."""
    batches = []
    while parts := queue.take():
        batcher.run(parts)
        batches.append([part.job for part in parts])
    return batches


requests = st.tuples(
    st.sampled_from(OWNERS),
    st.sampled_from(KINDS),
    st.sampled_from(WIDTHS),
    st.integers(1, 9),
    st.booleans(),
)


@given(st.lists(requests, max_size=12), st.integers(1, 6), st.data())
def test_results_never_depend_on_batching(
    requested: list[tuple[str, TensorName, int, int, bool]], size: int, data: st.DataObject
) -> None:
    """Results of a job are those that it has alone, whatever else runs, and whenever."""
    queue, largest, jobs = Batcher(size), 0, []

    def compute(kind: TensorName, tensors: Tensors) -> Tensors:
        nonlocal largest
        largest = max(largest, len(tensors["images"]))
        return {"errors": tensors["images"].sum(axis=1), kind: tensors["images"] * 3}

    for number, (owner, kind, width, count, alone) in enumerate(requested):
        values = np.arange(count * width).reshape(count, width) + 1000 * number
        work = Work(owner, kind, partial(compute, kind), {"images": values}, alone)
        jobs.append(Job(work))
        queue.push(jobs[-1])
        if data.draw(st.booleans(), label="free"):
            batcher.run(queue.take())
    drain(queue)
    for done in jobs:
        assert done.complete
        assert done.results is not None
        values = done.work.tensors["images"]
        assert set(done.results) == {"errors", done.work.kind}
        np.testing.assert_array_equal(done.results["errors"], values.sum(axis=1))
        np.testing.assert_array_equal(
            done.results[parse_tensor_name(str(done.work.kind))], values * 3
        )
    assert largest <= size
    assert queue.images == 0


def test_a_batch_counts_images_and_not_requests() -> None:
    queue = Batcher(4)
    jobs = [job(1, 2, 3), job(4), job(5, 6)]
    for waiting in jobs:
        queue.push(waiting)
    assert queue.images == 6
    assert drain(queue) == [jobs[:2], jobs[2:]]


def test_a_job_that_does_not_fit_waits_for_the_next_batch() -> None:
    queue = Batcher(4)
    jobs = [job(1, 2, 3), job(4, 5), job(6)]
    for waiting in jobs:
        queue.push(waiting)
    assert drain(queue) == [jobs[:1], jobs[1:]]


def test_a_job_larger_than_a_batch_is_split_and_joined_again() -> None:
    queue = Batcher(2)
    large, small = job(1, 2, 3, 4, 5), job(6)
    queue.push(large)
    queue.push(small)
    assert drain(queue) == [[large], [large], [large, small]]
    assert large.results is not None
    assert large.results["images"].tolist() == [1, 2, 3, 4, 5]


def test_other_kinds_and_shapes_are_kept_apart_and_keep_their_order() -> None:
    queue = Batcher(4)
    first, other_kind, other_shape, second = job(1), job(2, kind="latents"), job([3, 3]), job(4)
    for waiting in (first, other_kind, other_shape, second):
        queue.push(waiting)
    assert drain(queue) == [[first, second], [other_kind], [other_shape]]


def test_a_job_that_runs_alone_is_joined_with_nothing() -> None:
    queue = Batcher(4)
    jobs = [job(1, alone=True), job(2, alone=True), job(3), job(4)]
    for waiting in jobs:
        queue.push(waiting)
    assert drain(queue) == [jobs[:1], jobs[1:2], jobs[2:]]


def test_owners_alternate() -> None:
    queue = Batcher(1)
    many, few = [job(n, owner="busy") for n in range(3)], [job(9, owner="rare")]
    for waiting in many + few:
        queue.push(waiting)
    assert drain(queue) == [[many[0]], few, [many[1]], [many[2]]]


def test_a_batch_can_be_kept_smaller_but_not_that_of_a_job_that_runs_alone() -> None:
    queue = Batcher(4, limit=lambda job: 2 if job.work.kind == "slow" else 0)
    slow, slower = (
        [job(n, kind="slow") for n in range(3)],
        [job(n, kind="slower") for n in range(2)],
    )
    alone = job(1, 2, 3, 4, 5, kind="slow", alone=True)
    for waiting in [*slow, *slower, alone]:
        queue.push(waiting)
    assert drain(queue) == [slow[:2], slow[2:], slower[:1], slower[1:], [alone], [alone]]


def test_work_that_was_dropped_or_is_too_late_is_removed() -> None:
    queue = Batcher(2)
    dropped, late, waiting = job(1), job(2), job(3)
    dropped.dropped, late.deadline = True, 0.0
    for each in (dropped, late, waiting):
        queue.push(each)
    assert drain(queue) == [[waiting]]
    assert dropped.results == late.results == {}


def test_clearing_returns_the_waiting_jobs() -> None:
    queue = Batcher(2)
    jobs = [job(1), job(2, owner="other")]
    for waiting in jobs:
        queue.push(waiting)
    assert queue.clear() == jobs
    assert queue.take() == []


def test_results_with_another_number_of_rows_are_an_error() -> None:
    queue = Batcher(4)
    wrong = Job(Work("model", "scores", lambda _: {"images": np.zeros(3)}, {"images": np.zeros(2)}))
    queue.push(wrong)
    drain(queue)
    assert wrong.results == {}
    with pytest.raises(ValueError, match="images has 3 rows for 2 images"):
        raise wrong.error or AssertionError


class Detector:
    """A model whose first graph others share: it doubles, and the second adds the model's number.

    `runs` holds the images of each run of the first graph.
    """

    def __init__(self, number: int, runs: list[int]) -> None:
        self.number, self.runs = number, runs

    def job(self, *rows: float, key: str = "encoder", alone: bool = False) -> Job:
        shared = SharedRun(key, self.first, self.rest)
        images: Tensors = {"images": np.array(rows)}
        return Job(Work(str(self.number), "scores", self.run, images, alone, shared))

    def first(self, tensors: Tensors) -> Tensors:
        self.runs.append(len(tensors["images"]))
        return {"latents": 2 * tensors["images"]}

    def rest(self, tensors: Tensors) -> Tensors:
        if tensors["images"][0] < 0:
            raise ValueError("negative")
        return {"scores": tensors["images"] + tensors["latents"] + self.number}

    def run(self, tensors: Tensors) -> Tensors:
        return self.rest(tensors | self.first(tensors))


def test_models_share_the_first_part_of_their_runs() -> None:
    runs: list[int] = []
    queue = Batcher(8)
    first, second, third = (Detector(number, runs) for number in (100, 200, 300))
    jobs = [first.job(1), second.job(2, 3), first.job(4), third.job(5, key="other")]
    for each in jobs:
        queue.push(each)
    assert drain(queue) == [[jobs[0], jobs[2], jobs[1]], [jobs[3]]]
    assert runs == [4, 1]
    found = [each.results["scores"].tolist() for each in jobs]
    assert found == [[103], [206, 209], [112], [315]]


def test_a_shared_batch_is_no_larger_than_others() -> None:
    runs: list[int] = []
    queue = Batcher(4, lambda _: 3)
    for number in range(5):
        queue.push(Detector(number, runs).job(1))
    queue.push(Detector(5, runs).job(1, alone=True))
    drain(queue)
    assert runs == [3, 2, 1]
    assert queue.empty


def test_an_error_of_one_model_in_a_shared_batch_is_its_own() -> None:
    runs: list[int] = []
    queue = Batcher(8)
    good, bad = Detector(1, runs).job(1), Detector(2, runs).job(-1)
    queue.push(good)
    queue.push(bad)
    drain(queue)
    assert good.results["scores"].tolist() == [4]
    assert isinstance(bad.error, ValueError)


def test_a_shared_batch_stays_within_the_limit_of_each_model() -> None:
    runs: list[int] = []
    queue = Batcher(8, lambda job: 2 if job.work.owner == "2" else 8)
    for number in (1, 2, 3):
        queue.push(Detector(number, runs).job(1, 1))
    drain(queue)
    assert runs == [4, 2]


def test_a_job_is_accepted_by_itself_and_not_for_those_before_it() -> None:
    queue = Batcher(8)
    over, refused = job(1), job(2)
    over.dropped = True
    queue.push(over)
    queue.push(refused)
    assert queue.take(lambda each: each is not refused) == []
    assert [part.job for part in queue.take()] == [refused]
