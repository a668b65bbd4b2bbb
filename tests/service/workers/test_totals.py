import asyncio
from pathlib import Path

import pytest

from service.registry.drift import compute_psi
from service.telemetry.metrics import Metrics
from service.workers import Peers, Totals, Worker
from service.workers.totals import add_up

LABELS = ("encode", "tiny")


class Scores:
    """Scores of a worker."""

    images, anomalous, p_values, sum, latent_bins = 60, 1, (20, 40), 30.0, None

    def __init__(self, *counts: int) -> None:
        self.score_bins = counts, (0.5, 0.5)


def metrics(requests: int, *counts: int) -> Metrics:
    made = Metrics(compute_psi)
    made.add_gauge("ae_images_in_flight", "Images.", lambda: requests)
    made.add_models(lambda: [("tiny", 1, "cpu"), ("own", requests, "cpu")], lambda: [])
    made.add_scores((0.5, 1.0), lambda: [("tiny", 1, Scores(*counts))])
    for _ in range(requests):
        made.count_request(LABELS, 200, 0.5)
    return made


def read(text: bytes) -> dict[str, float]:
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def serve(directory: Path, number: int, made: Metrics) -> tuple[Peers, Totals]:
    peers = Peers(Worker(number, 2, directory))
    return peers, Totals(made, peers)


COUNTED = 'ae_requests_total{model="tiny",operation="encode",status="200"}'
BUCKET = 'ae_request_seconds_bucket{le="0.5",operation="encode"}'
ONLY_OF_TWO = 'ae_model_info{model="own",provider="cpu",version="4"}'
PSI = 'ae_score_psi{model="tiny",version="1"}'


def test_counts_add_up_facts_do_not_and_the_psi_is_of_all_scores() -> None:
    one, two = metrics(3, 60, 0), metrics(4, 0, 60)
    found = read(one.render(add_up([one.collect(), two.collect()])))
    assert found[COUNTED] == found[BUCKET] == found["ae_images_in_flight"] == 7
    assert found['ae_request_seconds_sum{operation="encode"}'] == 3.5
    assert found['ae_model_info{model="tiny",provider="cpu",version="1"}'] == 1
    assert found['ae_p_value_bucket{le="0.5",model="tiny",version="1"}'] == 40
    created = 'ae_requests_created{model="tiny",operation="encode",status="200"}'
    assert found[created] == read(one.export())[created]
    assert found["process_max_fds"] == read(one.export())["process_max_fds"]
    assert PSI not in read(one.export())  # of too few images
    assert found[PSI] == compute_psi([60, 60], [0.5, 0.5]) == 0


def test_any_worker_reports_the_metrics_of_all_and_no_counter_falls(tmp_path: Path) -> None:
    async def run() -> None:
        (one, first), (two, second) = (
            serve(tmp_path, number, metrics(number + 2, 0, 0)) for number in (1, 2)
        )
        await one.start()
        await two.start()
        assert read(await first.export())[COUNTED] == read(await second.export())[COUNTED] == 7
        two.stop()  # as if its process had ended
        alone = read(await first.export())
        assert (alone[COUNTED], alone["ae_images_in_flight"]) == (7, 3)
        assert alone[ONLY_OF_TWO] == 1
        successor, third = serve(tmp_path, 2, metrics(1, 0, 0))
        await successor.start()
        assert read(await first.export())[COUNTED] == read(await third.export())[COUNTED] == 8
        assert ONLY_OF_TWO not in read(await third.export())
        one.stop()
        successor.stop()

    asyncio.run(run())


def test_metrics_that_cannot_be_written_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, totals = serve(tmp_path / "full", 1, metrics(3, 0, 0))
    assert read(asyncio.run(totals.export()))[COUNTED] == 3
    assert "cannot be kept for its successor" in caplog.text
