"""Admission of requests, by limits on the images and bytes in flight."""

from collections import Counter
from collections.abc import Sequence

from service.errors import Overloaded, ShuttingDown


class Admission:
    """Counts of images and bytes in flight, with limits. Only one thread may use it."""

    def __init__(self, max_images: int, max_bytes: int, max_share: float = 1.0) -> None:
        """Admit so many images and bytes, of which no holder may have more than the share."""
        self._max_images, self._max_bytes = max_images, max_bytes
        self._max_share = max_share
        self._held: Counter[str] = Counter()  # images by holder, a model or a client
        self._images = self._bytes = 0
        self._leaving = self._draining = False

    @property
    def images(self) -> int:
        """The number of images in flight."""
        return self._images

    @property
    def bytes(self) -> int:
        """The number of bytes in flight, of bodies of requests and of responses."""
        return self._bytes

    @property
    def leaving(self) -> bool:
        """True after `leave` or `drain`."""
        return self._leaving

    def leave(self) -> None:
        """Announce that the service will end; requests are still admitted."""
        self._leaving = True

    def drain(self) -> None:
        """Stop admission; admitted requests continue."""
        self._leaving = self._draining = True

    def check(self, images: int = 1, size: int = 0) -> None:
        """Raise Overloaded if more images or bytes exceed a limit, ShuttingDown after `drain`."""
        if self._draining:
            raise ShuttingDown("the service is shutting down; send the request to another replica")
        many_images = self._images + images > self._max_images
        if many_images or self._bytes + size > self._max_bytes:
            raise Overloaded(
                f"{self._images} images and {self._bytes} bytes are in flight; "
                "retry after a second",
                "images" if many_images else "bytes",
            )

    def admit(self, images: int, *holders: str) -> "Slot":
        """Reserve a slot for so many images, for a `with` statement.

        Raises as `check` does, and Overloaded if a holder would have more than its share.
        """
        return Slot(self, images, holders)

    def track_upload(self) -> "HeldBytes":
        """Count the bytes of a body, for a `with` statement that ends with the response."""
        return HeldBytes(self, 0)

    def hold(self, size: int) -> "HeldBytes":
        """Count the bytes of a response until it is sent, for a `with` statement.

        No limit refuses them, because the response is there; they count towards later requests.
        """
        return HeldBytes(self, size)

    def _check_shares(self, images: int, holders: Sequence[str]) -> None:
        most = int(self._max_share * self._max_images)
        for holder in holders:
            if self._held[holder] + images > most:
                raise Overloaded(
                    f"{self._held[holder]} images of {holder} are in flight, of at most {most}; "
                    "retry after a second",
                    "share",
                )

    def _add(self, images: int, size: int) -> None:
        self.check(images, size)
        self._images += images
        self._bytes += size

    def _remove(self, images: int, size: int) -> None:
        self._images -= images
        self._bytes -= size


class Slot:
    """Reserved images of an admitted request, as a context manager; faster than a generator."""

    __slots__ = ("_admission", "_holders", "_images")

    def __init__(self, admission: Admission, images: int, holders: Sequence[str]) -> None:
        self._admission, self._images, self._holders = admission, images, holders

    def __enter__(self) -> None:
        self._admission._check_shares(self._images, self._holders)
        self._admission._add(self._images, 0)
        for holder in self._holders:
            self._admission._held[holder] += self._images

    def __exit__(self, *_: object) -> None:
        self._admission._remove(self._images, 0)
        for holder in self._holders:
            self._admission._held[holder] -= self._images
            if not self._admission._held[holder]:
                del self._admission._held[holder]


class HeldBytes:
    """Bytes of a body or of a response, as a context manager; faster than a generator."""

    __slots__ = ("_admission", "_size")

    def __init__(self, admission: Admission, size: int) -> None:
        self._admission, self._size = admission, size

    def __enter__(self) -> "HeldBytes":
        self._admission._bytes += self._size
        return self

    def __exit__(self, *_: object) -> None:
        self._admission._remove(0, self._size)

    def expect(self, size: int) -> None:
        """Raise as `Admission.check` does if so many more bytes exceed a limit."""
        self._admission.check(0, size)

    def add(self, size: int) -> None:
        """Count received bytes. Raises as `Admission.check` does."""
        self._admission._add(0, size)
        self._size += size
