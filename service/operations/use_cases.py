"""From images or latents to what was asked for."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from bundle import imaging
from bundle.errors import ImageTooLarge, InvalidParameter, ItemError
from bundle.heatmap import Region, draw, heat, in_colour, regions
from bundle.imaging import DecodedImage
from bundle.latents import interpolate
from bundle.manifest import RESULTS, Capability, GraphName, InputSpec
from bundle.tensors import Array, Pixels, Tensors
from service import cores
from service.errors import DeadlineExceeded, InvalidItems, InvalidLatents
from service.operations.timings import Timings
from service.operations.values import (
    MAX_SEED,
    NO_PICTURES,
    Classified,
    Denoised,
    Drawn,
    Encoded,
    EncodedImages,
    Floats,
    Images,
    Latents,
    Limits,
    Localised,
    Pictures,
    Reconstructed,
    Scored,
    check_count,
    check_supported,
    each,
)
from service.registry.loaded_model import LoadedModel
from service.scheduling.batcher import Work
from service.scheduling.executor import DeviceExecutor

SMALL = 128 * 128  # pixels, and bytes, of an image that is decoded sooner than a thread would have begun
SMALL_BYTES = 16 * 1024
NAMED = 3  # images that a warning names, at the most


class Operations:
    """The operations on a loaded model. Each raises OperationNotSupported where the model was not trained for it."""

    def __init__(self, executor: DeviceExecutor, limits: Limits) -> None:
        self._executor = executor
        self._limits = limits
        # No more at once than there are cores: a decoded image can be large, and more would not be faster.
        self._decoders = ThreadPoolExecutor(cores.available(), thread_name_prefix="decode")

    async def encode(self, model: LoadedModel, given: EncodedImages, timings: Timings, variance: bool) -> Encoded:
        """Images to latents. Raises InvalidParameter where the model has no variance to give."""
        _check_supported(model, "encode")
        if variance and not model.gives("encoder", "log_variances"):
            raise InvalidParameter(f"{model.manifest.name} is not variational: it has no variance to give")
        outputs = [*RESULTS["encode"], "log_variances"] if variance else RESULTS["encode"]
        images, found = await self._chain(model, "encode", given, outputs, timings)
        warnings = _warnings(model, images)
        return Encoded(found["latents"], found.get("log_variances"), warnings)

    async def decode(self, model: LoadedModel, latents: Latents, timings: Timings) -> Pixels:
        """Latents, float32 (n, latent_dim), to images, uint8 (n, height, width, channels). Raises InvalidItems."""
        _check_supported(model, "decode")
        checked = self._check_latents(model, latents)
        return await self._decode(model, checked, timings)

    async def reconstruct(
        self, model: LoadedModel, given: EncodedImages, timings: Timings, original_size: bool = False
    ) -> Reconstructed:
        """Encode and decode. `original_size` says that the images will be given back at the size of their inputs."""
        outputs = RESULTS["reconstruct"]
        images, found = await self._chain(model, "reconstruct", given, outputs, timings, original_size)
        warnings = _warnings(model, images)
        sizes = images.original_sizes
        return Reconstructed(found["reconstructions"], found["errors"], sizes, warnings)

    async def denoise(
        self, model: LoadedModel, given: EncodedImages, timings: Timings, original_size: bool = False
    ) -> Denoised:
        """Encode and decode noisy images. `original_size` as in `reconstruct`."""
        images, found = await self._chain(model, "denoise", given, RESULTS["denoise"], timings, original_size)
        warnings = _warnings(model, images)
        return Denoised(found["reconstructions"], images.original_sizes, warnings)

    async def classify(self, model: LoadedModel, given: EncodedImages, timings: Timings) -> Classified:
        """The probability of each class that the model tells apart."""
        images, found = await self._chain(model, "classify", given, RESULTS["classify"], timings)
        classes = model.manifest.classes
        return Classified(found["probabilities"], classes, _warnings(model, images))

    async def sample(
        self, model: LoadedModel, count: int, seed: int | None, temperature: float, timings: Timings
    ) -> tuple[Drawn, int]:
        """Draw from the prior and decode; gives the seed too, which is drawn where none is given."""
        _check_supported(model, "sample")
        assert model.prior is not None  # the manifest promises one with the capability
        self._check_count(count)
        seed = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
        latents = model.prior.draw(count, seed, temperature)
        return Drawn(await self._decode(model, latents, timings), latents), seed

    async def score(
        self,
        model: LoadedModel,
        given: EncodedImages,
        timings: Timings,
        false_positive_rate: float | None = None,
        pictures: Pictures = NO_PICTURES,
    ) -> Scored:
        """Anomaly scores with p-values and verdicts, and pictures of the anomalies if asked for.

        Without a rate, the lowest of `anomaly.RATES` is taken that the calibration can tell.
        """
        _check_supported(model, "anomaly-score")
        localise = any(pictures)
        outputs = model.results("anomaly-score")
        outputs = (*outputs, "error_maps") if localise else outputs
        images, found = await self._chain(model, "anomaly-score", given, outputs, timings, original_size=localise)
        conformal, drift = model.conformal, model.drift
        assert conformal is not None  # the manifest promises a calibration with the capability
        assert drift is not None
        asked = false_positive_rate
        rate = conformal.default_rate if asked is None else asked
        drift.add(found["scores"], rate, found.get("latent_distances"))
        located = None
        if localise:
            maps = found["error_maps"]
            located = await self._localise(model, given, images, maps, pictures, timings)
        return Scored(
            verdicts=conformal.verdicts(found["scores"], rate),
            false_positive_rate=rate,
            method=conformal.method,
            reason=conformal.reason(rate),
            localised=located,
            warnings=_warnings(model, images),
        )

    async def interpolate(
        self,
        model: LoadedModel,
        ends: EncodedImages | Latents,
        steps: int,
        method: Literal["linear", "spherical"],
        timings: Timings,
    ) -> Drawn:
        """The images on a path between two latents, or between the latents of two images."""
        _check_supported(model, "interpolate")
        self._check_count(steps)
        count = len(ends.images) if isinstance(ends, EncodedImages) else len(ends)
        if count != 2:
            raise InvalidParameter(f"interpolation is between 2 images or latents, not {count}")
        with self._executor.admit(steps):
            if isinstance(ends, EncodedImages):
                images = await self._prepare(model, ends, timings)
                found = await self._run(model, ["encoder"], {"images": images.pixels}, ["latents"], timings)
                latents = found["latents"]
            else:
                latents = self._check_latents(model, ends)
            path = interpolate(latents[0], latents[1], steps, method)
            found = await self._run(model, ["decoder"], {"latents": path}, ["reconstructions"], timings)
        return Drawn(found["reconstructions"], path)

    async def _chain(
        self,
        model: LoadedModel,
        capability: Capability,
        given: EncodedImages,
        outputs: Sequence[str],
        timings: Timings,
        original_size: bool = False,
    ) -> tuple[Images, Tensors]:
        _check_supported(model, capability)
        self._check_count(len(given.images))
        graphs = model.graphs[capability]
        with self._executor.admit(len(given.images)):
            images = await self._prepare(model, given, timings)
            if original_size:
                self._check_output(images.original_sizes)
            return images, await self._run(model, graphs, {"images": images.pixels}, outputs, timings)

    async def _localise(
        self,
        model: LoadedModel,
        given: EncodedImages,
        images: Images,
        maps: Floats,
        pictures: Pictures,
        timings: Timings,
    ) -> list[Localised]:
        """The regions and pictures of each image, from its error map."""

        def localise(index: int) -> Localised:
            if pictures.overlay and time.monotonic() > self._deadline(timings):
                done = f"{index} of {len(maps)} overlays were drawn"
                raise DeadlineExceeded(f"the request's time was up after {done}")
            size = images.original_sizes[index]
            scale, found = _heat(model, maps[index], size)
            picture = imaging.encode_png(in_colour(scale)) if pictures.heatmap else None
            if not pictures.overlay:
                return Localised(found, picture, None)
            if isinstance(given.images, np.ndarray):
                image = images.pixels[index]
            else:
                most = self._limits.max_image_pixels
                image = imaging.decode_original(given.images[index], model.manifest.input, most)
            drawn = draw(image, scale, found)
            return Localised(found, picture, imaging.encode_png(drawn))

        # Overlays decode again, of which no more than there are cores may run at once.
        pool = self._decoders if pictures.overlay else None
        with timings.measure("encode"):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, each, len(maps), localise)

    def _check_output(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Raise ImageTooLarge where images of these sizes are more than one answer may hold.

        A small file can be a huge image, and many of them would fill the memory when given back at their own size.
        """
        pixels = sum(height * width for height, width in sizes)
        if pixels > self._limits.max_output_pixels:
            raise ImageTooLarge(
                f"the answer would hold {pixels} pixels, and may hold {self._limits.max_output_pixels}: "
                "send fewer images at a time, or ask for none at the input's size"
            )

    async def _decode(self, model: LoadedModel, latents: Floats, timings: Timings) -> Pixels:
        with self._executor.admit(len(latents)):
            # What else is in a batch can change the last bits, and samples are promised to be the same to the byte.
            found = await self._run(model, ["decoder"], {"latents": latents}, ["reconstructions"], timings, alone=True)
        return found["reconstructions"]

    async def _run(
        self,
        model: LoadedModel,
        graphs: Sequence[GraphName],
        tensors: Tensors,
        outputs: Sequence[str],
        timings: Timings,
        alone: bool = False,
    ) -> Tensors:
        """Run the graphs on the device, joined with what else waits for them unless it is to run `alone`."""
        kind = model.manifest.version, tuple(graphs), tuple(outputs)
        work = Work(model.manifest.name, kind, lambda batch: model.run(graphs, batch, outputs), tensors, alone)
        began = time.monotonic()
        try:
            ran = await self._executor.run(work, self._deadline(timings))
        except DeadlineExceeded:
            timings.queue += time.monotonic() - began
            raise
        timings.queue += ran.waited
        timings.inference += ran.took
        return ran.results

    def _deadline(self, timings: Timings) -> float:
        return timings.started + self._limits.request_timeout

    async def _prepare(self, model: LoadedModel, given: EncodedImages, timings: Timings) -> Images:
        spec = model.manifest.input
        if isinstance(given.images, np.ndarray):
            try:
                pixels = imaging.check_array(given.images, spec)
            except ItemError as error:
                raise InvalidItems([(0, error)]) from None
            return Images(pixels, [(spec.height, spec.width)] * len(pixels))
        with timings.measure("decode"):
            decoded = self._decode_small(given.images, spec) or await self._decode_many(given.images, spec, timings)
        lost_colour = [index for index, image in enumerate(decoded) if image.lost_colour]
        if len(decoded) == 1:
            return Images(decoded[0].pixels[None], [decoded[0].original_size], lost_colour)
        sizes = [image.original_size for image in decoded]
        return Images(np.stack([image.pixels for image in decoded]), sizes, lost_colour)

    def _decode_small(self, encoded: Sequence[bytes], spec: InputSpec) -> list[DecodedImage] | None:
        """Decode a single small image at once, for which a thread would take longer to begin; None for others."""
        if len(encoded) != 1 or len(encoded[0]) > SMALL_BYTES:
            return None
        (decoded,) = each(1, lambda _: imaging.decode_small(encoded[0], spec, self._limits.max_image_pixels, SMALL))
        return None if decoded is None else [decoded]

    async def _decode_many(self, encoded: Sequence[bytes], spec: InputSpec, timings: Timings) -> list[DecodedImage]:
        def decode(index: int) -> DecodedImage:
            if time.monotonic() > self._deadline(timings):
                raise DeadlineExceeded(f"the request's time was up after {index} of {len(encoded)} images were decoded")
            return imaging.decode(encoded[index], spec, self._limits.max_image_pixels)

        return await asyncio.get_running_loop().run_in_executor(self._decoders, each, len(encoded), decode)

    def _check_latents(self, model: LoadedModel, latents: Latents) -> Floats:
        self._check_count(len(latents))
        length = model.manifest.latent_dim

        def check(index: int) -> Floats:
            vector = latents[index]
            if vector.shape != (length,):
                raise InvalidLatents(f"a latent of {model.manifest.name} has {length} numbers, not {_shape(vector)}")
            if not np.isfinite(vector).all():
                raise InvalidLatents("a latent holds a number that is not finite")
            return vector

        return np.stack(each(len(latents), check))

    def _check_count(self, count: int) -> None:
        check_count(count, self._limits.max_images)
        if count < 1:
            raise InvalidParameter("the request holds nothing to work on; send at least one image or latent")


def _shape(vector: Array) -> str:
    return str(len(vector)) if vector.ndim == 1 else f"the shape {vector.shape}"


def _check_supported(model: LoadedModel, capability: Capability) -> None:
    check_supported(model.manifest.name, capability, model.manifest.capabilities)


def _warnings(model: LoadedModel, images: Images) -> list[str]:
    """Sentences about images that hardly suit the model."""
    indices = images.lost_colour
    if not indices:
        return []
    named = [str(index) for index in indices[:NAMED]]
    if len(indices) > NAMED:
        named.append(f"{len(indices) - NAMED} more")
    many = f"images {', '.join(named[:-1])} and {named[-1]} are in colour"
    are, their = (many, "their") if len(indices) > 1 else (f"image {named[0]} is in colour", "its")
    return [f"{are}, but {model.manifest.name} takes grey images: {their} colours were discarded"]


def _heat(
    model: LoadedModel,
    error_map: Floats,
    size: tuple[int, int],
) -> tuple[Pixels, list[Region]]:
    """The brightness of each pixel, and the regions, both at the input's own size."""
    calibration, spec = model.manifest.calibration, model.manifest.input
    assert calibration is not None  # the manifest promises a calibration with the capability
    scale = calibration.error_map
    found = regions(error_map, scale)
    own = [_enlarge(region, size, (spec.height, spec.width)) for region in found]
    return imaging.resize(heat(error_map, scale), size, spec), own


def _enlarge(region: Region, size: tuple[int, int], model_size: tuple[int, int]) -> Region:
    """The same box in pixels of the input, rounded outwards."""
    down, across = size[0] / model_size[0], size[1] / model_size[1]
    left, top = int(region.x * across), int(region.y * down)
    right, bottom = -int(-(region.x + region.width) * across // 1), -int(-(region.y + region.height) * down // 1)
    return Region(left, top, min(right, size[1]) - left, min(bottom, size[0]) - top, region.score)
