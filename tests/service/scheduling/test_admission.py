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


def test_after_draining_nothing_is_admitted(admission: Admission) -> None:
    with admission.admit(1), admission.track_upload() as upload:
        admission.drain()
        with pytest.raises(ShuttingDown), admission.admit(1):
            pass
        with pytest.raises(ShuttingDown):
            upload.add(1)
