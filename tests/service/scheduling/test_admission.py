import pytest

from service.errors import Overloaded, ShuttingDown
from service.scheduling.admission import Admission


@pytest.fixture
def admission() -> Admission:
    return Admission(max_images=10, max_bytes=100)


def test_images_that_do_not_fit_are_refused_at_once_and_fit_again_later(
    admission: Admission,
) -> None:
    refused = pytest.raises(Overloaded, match="5 images and 0 bytes are in flight")
    with admission.admit(5), refused, admission.admit(6):
        pass
    with admission.admit(6):
        assert admission.images == 6


def test_bytes_that_do_not_fit_are_refused_at_once_and_fit_again_later(
    admission: Admission,
) -> None:
    with admission.track_upload() as first, admission.track_upload() as second:
        first.add(50)
        first.add(10)
        second.expect(40)
        for method in (second.expect, second.add):
            with pytest.raises(Overloaded, match="0 images and 60 bytes are in flight"):
                method(41)
    with admission.track_upload() as third:
        third.add(100)
        assert admission.bytes == 100


def test_no_holder_has_more_than_its_share() -> None:
    admission = Admission(max_images=10, max_bytes=100, max_share=0.5)
    refused = pytest.raises(Overloaded, match="4 images of large are in flight, of at most 5")
    with admission.admit(4, "large", "client"), refused, admission.admit(2, "large", "other"):
        pass
    refused = pytest.raises(Overloaded, match="4 images of client are in flight, of at most 5")
    with admission.admit(4, "large", "client"):
        with refused, admission.admit(2, "small", "client"):
            pass
        with admission.admit(5, "small", "other"):
            assert admission.images == 9
    with admission.admit(5, "large", "client"):
        assert admission.images == 5


def test_responses_count_as_bytes_in_flight_until_they_are_sent(admission: Admission) -> None:
    with admission.hold(90), admission.hold(60):  # what is there is never refused
        assert admission.bytes == 150
        with pytest.raises(Overloaded):
            admission.check(1)
    assert admission.bytes == 0


def test_before_the_end_the_service_is_not_ready_and_still_admits(admission: Admission) -> None:
    assert not admission.leaving
    admission.leave()
    assert admission.leaving
    with admission.admit(1):
        assert admission.images == 1


def test_after_draining_nothing_is_admitted(admission: Admission) -> None:
    with admission.admit(1), admission.track_upload() as upload:
        admission.drain()
        with pytest.raises(ShuttingDown), admission.admit(1):
            pass
        with pytest.raises(ShuttingDown):
            upload.add(1)
