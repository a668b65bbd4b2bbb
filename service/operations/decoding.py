"""Decoding of the images of a request, in threads unless they are small."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bundle import imaging
from bundle.errors import ItemError
from bundle.imaging import DecodedImage
from bundle.manifest import InputSpec
from service.errors import InvalidItems
from service.operations.threads import map_in_thread
from service.operations.timings import Timings
from service.operations.values import DecodedImages, EncodedImages, map_items

# An image up to this size is decoded before a thread would start.
MAX_INLINE_PIXELS = 128 * 128
MAX_INLINE_BYTES = 16 * 1024


class Decoder:
    """Decodes images of at most `max_pixels` pixels, in as many threads as cores.

    More threads would not be faster, and would hold more decoded images, which can be large.
    """

    def __init__(self, cores: int, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self.pool = ThreadPoolExecutor(cores, thread_name_prefix="decode")

    async def decode(
        self, encoded: EncodedImages, spec: InputSpec, deadline: float, timings: Timings
    ) -> DecodedImages:
        """Decode and resize all images to the model's size.

        Raises InvalidItems, or DeadlineExceeded.
        """
        if isinstance(encoded.images, np.ndarray):
            return _check_array(encoded.images, spec)
        with timings.measure("decode"):
            decoded = self._decode_small(encoded.images, spec)
            if decoded is None:
                decoded = await self._decode_in_threads(encoded.images, spec, deadline)
        lost_colour = [index for index, image in enumerate(decoded) if image.lost_colour]
        if len(decoded) == 1:
            return DecodedImages(decoded[0].pixels[None], [decoded[0].original_size], lost_colour)
        sizes = [image.original_size for image in decoded]
        return DecodedImages(np.stack([image.pixels for image in decoded]), sizes, lost_colour)

    def _decode_small(self, encoded: Sequence[bytes], spec: InputSpec) -> list[DecodedImage] | None:
        """Decode a single small image at once; return None for other images."""
        if len(encoded) != 1 or len(encoded[0]) > MAX_INLINE_BYTES:
            return None
        (decoded,) = map_items(
            1, lambda _: imaging.decode_small(encoded[0], spec, self.max_pixels, MAX_INLINE_PIXELS)
        )
        return None if decoded is None else [decoded]

    async def _decode_in_threads(
        self, encoded: Sequence[bytes], spec: InputSpec, deadline: float
    ) -> list[DecodedImage]:
        def decode(index: int) -> DecodedImage:
            return imaging.decode(encoded[index], spec, self.max_pixels)

        return await map_in_thread(self.pool, len(encoded), decode, deadline)

    def close(self) -> None:
        """Drop the images that wait; an image that is being decoded takes half a second at most."""
        self.pool.shutdown(wait=False, cancel_futures=True)


def _check_array(array: np.ndarray, spec: InputSpec) -> DecodedImages:
    try:
        pixels = imaging.check_array(array, spec)
    except ItemError as error:
        raise InvalidItems([(0, error)]) from None
    return DecodedImages(pixels, [(spec.height, spec.width)] * len(pixels))
