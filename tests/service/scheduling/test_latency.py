from service.scheduling.latency import LatencyEstimator


def test_the_estimate_is_of_the_fastest_and_the_limit_of_the_average() -> None:
    latency = LatencyEstimator()
    assert latency.estimate("kind", 1) == float("inf")
    assert latency.images_within("kind", 1.0, default=7) == 7
    latency.record("kind", 10, 1.0)
    for _ in range(3):
        latency.record("kind", 1, 10.0)  # other work takes the cores
    assert 0.1 < latency.estimate("kind", 1) < 0.11
    assert latency.images_within("kind", 10.0, default=7) == 2


def test_the_estimate_follows_what_lasts() -> None:
    latency = LatencyEstimator()
    latency.record("kind", 1, 1.0)
    for _ in range(1000):
        latency.record("kind", 1, 5.0)
    assert latency.estimate("kind", 2) == 10.0
