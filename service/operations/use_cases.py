"""From images or latents to what was asked for."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from service import cores, imaging
from service.anomaly import Region, heat, regions
from service.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidItems,
    InvalidLatents,
    InvalidParameter,
    ItemError,
    OperationNotSupported,
)
from service.imaging import DecodedImage, Pixels
from service.inference.batcher import Work
from service.inference.executor import DeviceExecutor
from service.inference.session import Array, Tensors
from service.latents import interpolate
from service.manifest import RESULTS, Capability, GraphName, InputSpec
from service.operations.values import (
    MAX_SEED,
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
    Reconstructed,
    Scored,
    Timings,
    check_count,
    each,
)
from service.registry import LoadedModel

SMALL = 128 * 128  # pixels, and bytes, of an image that is decoded sooner than a thread would have begun
SMALL_BYTES = 16 * 1024


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
        _, found = await self._chain(model, "encode", given, outputs, timings)
        return Encoded(found["latents"], found.get("log_variances"))

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
        return Reconstructed(found["reconstructions"], found["errors"], images.original_sizes)

    async def denoise(
        self, model: LoadedModel, given: EncodedImages, timings: Timings, original_size: bool = False
    ) -> Denoised:
        """Encode and decode noisy images. `original_size` as in `reconstruct`."""
        images, found = await self._chain(model, "denoise", given, RESULTS["denoise"], timings, original_size)
        return Denoised(found["reconstructions"], images.original_sizes)

    async def classify(self, model: LoadedModel, given: EncodedImages, timings: Timings) -> Classified:
        """The probability of each class that the model tells apart."""
        _, found = await self._chain(model, "classify", given, RESULTS["classify"], timings)
        return Classified(found["probabilities"], model.manifest.classes)

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
        self, model: LoadedModel, given: EncodedImages, timings: Timings, false_positive_rate: float, localise: bool
    ) -> Scored:
        """Anomaly scores with their p-values and verdicts, and where the images are strange if asked for."""
        outputs = model.results("anomaly-score")
        outputs = (*outputs, "error_maps") if localise else outputs
        images, found = await self._chain(model, "anomaly-score", given, outputs, timings, original_size=localise)
        assert model.conformal is not None  # the manifest promises a calibration with the capability
        assert model.drift is not None
        model.drift.add(found["scores"], false_positive_rate, found.get("latent_distances"))
        method = model.conformal.method
        verdicts = model.conformal.verdicts(found["scores"], false_positive_rate)
        if not localise:
            return Scored(verdicts, method, None)
        with timings.measure("encode"):
            located = await asyncio.to_thread(_localise, model, found["error_maps"], images.original_sizes)
        return Scored(verdicts, method, located)

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
        if len(decoded) == 1:
            return Images(decoded[0].pixels[None], [decoded[0].original_size])
        return Images(np.stack([image.pixels for image in decoded]), [image.original_size for image in decoded])

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
    manifest = model.manifest
    if capability not in manifest.capabilities:
        raise OperationNotSupported(
            f"{manifest.name} was not trained to {capability}; it can: {', '.join(manifest.capabilities)}"
        )


def _localise(model: LoadedModel, maps: Floats, sizes: Sequence[tuple[int, int]]) -> list[Localised]:
    calibration, spec = model.manifest.calibration, model.manifest.input
    assert calibration is not None  # the manifest promises a calibration with the capability
    scale = calibration.error_map
    return [
        Localised(
            imaging.resize(heat(error_map, scale), size, spec),
            [_enlarge(region, size, (spec.height, spec.width)) for region in regions(error_map, scale)],
        )
        for error_map, size in zip(maps, sizes, strict=True)
    ]


def _enlarge(region: Region, size: tuple[int, int], model_size: tuple[int, int]) -> Region:
    """The same box in pixels of the input, rounded outwards."""
    down, across = size[0] / model_size[0], size[1] / model_size[1]
    left, top = int(region.x * across), int(region.y * down)
    right, bottom = -int(-(region.x + region.width) * across // 1), -int(-(region.y + region.height) * down // 1)
    return Region(left, top, min(right, size[1]) - left, min(bottom, size[0]) - top, region.score)
