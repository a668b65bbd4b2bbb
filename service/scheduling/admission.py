"""Admission: bounds on the images and bytes of the requests in flight."""

from service.errors import Overloaded, ShuttingDown


class Admission:
    """Counts images and bytes in flight, and refuses what exceeds a bound. All on one thread."""

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self._max_images, self._max_bytes = max_images, max_bytes
        self._images = self._bytes = 0
        self._draining = False

    @property
    def images(self) -> int:
        """Images in flight."""
        return self._images

    @property
    def bytes(self) -> int:
        """Bytes in flight, of complete and of incomplete bodies."""
        return self._bytes

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        """Admit nothing more; admitted requests continue."""
        self._draining = True

    def check(self, images: int = 1, size: int = 0) -> None:
        """Raise Overloaded if so many more images or bytes exceed a bound, ShuttingDown after `drain`."""
        if self._draining:
            raise ShuttingDown("the service is shutting down; send the request to another replica")
        if self._images + images > self._max_images or self._bytes + size > self._max_bytes:
            raise Overloaded(
                f"{self._images} images and {self._bytes} bytes are in flight; try again shortly"
            )

    def admit(self, images: int) -> "Slot":
        """Reserve a slot for so many images, in a `with` statement. Raises as `check` does."""
        return Slot(self, images)

    def track_upload(self) -> "Upload":
        """Count the bytes of a body, in a `with` statement that lasts until the request is answered."""
        return Upload(self)

    def _add(self, images: int, size: int) -> None:
        self.check(images, size)
        self._images += images
        self._bytes += size

    def _remove(self, images: int, size: int) -> None:
        self._images -= images
        self._bytes -= size


class Slot:
    """Capacity of an admitted request; a class, because a generator is several times slower to enter and to leave."""

    __slots__ = ("_admission", "_images")

    def __init__(self, admission: Admission, images: int) -> None:
        self._admission, self._images = admission, images

    def __enter__(self) -> None:
        self._admission._add(self._images, 0)

    def __exit__(self, *_: object) -> None:
        self._admission._remove(self._images, 0)


class Upload:
    """Bytes of a body, as far as it has been received; a class, as `Slot` is."""

    __slots__ = ("_admission", "_size")

    def __init__(self, admission: Admission) -> None:
        self._admission, self._size = admission, 0

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self._admission._remove(0, self._size)

    def expect(self, size: int) -> None:
        """Raise as `Admission.check` does if so many more bytes exceed a bound."""
        self._admission.check(0, size)

    def add(self, size: int) -> None:
        """Count received bytes. Raises as `Admission.check` does."""
        self._admission._add(0, size)
        self._size += size
