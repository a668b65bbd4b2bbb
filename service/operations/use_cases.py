"""The operations: images or latents in, results out."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

from bundle.errors import ImageTooLarge, InvalidParameter
from bundle.latents import interpolate
from bundle.manifest import RESULTS, Capability, GraphName
from bundle.tensors import Array, Pixels, Tensors
from service.errors import DeadlineExceeded, InvalidLatents, OperationNotSupported
from service.operations.decoding import Decoder
from service.operations.localisation import Localiser
from service.operations.timings import Timings
from service.operations.values import (
    MAX_SEED,
    NO_PICTURES,
    Classified,
    DecodedLatents,
    Denoised,
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
from service.scheduling.admission import Admission
from service.scheduling.batcher import Work
from service.scheduling.executor import DeviceExecutor

MAX_NAMED = 3  # images that a warning names

Part = TypeVar("Part")


class Operations:
    """The operations on a loaded model. Each raises OperationNotSupported if the model was not trained for it."""

    def __init__(
        self, admission: Admission, executor: DeviceExecutor, limits: Limits, cores: int
    ) -> None:
        self._admission, self._executor, self._limits = admission, executor, limits
        self._decoder = Decoder(cores, limits.max_image_pixels)

    async def encode(
        self, model: LoadedModel, images: EncodedImages, timings: Timings, variance: bool
    ) -> Encoded:
        """Images to latents. Raises InvalidParameter if the model has no variance."""
        _check_supported(model, "encode")
        if variance and not model.has_output("encoder", "log_variances"):
            raise InvalidParameter(
                f"{model.manifest.name} is not variational: it has no variance to give"
            )
        outputs = [*RESULTS["encode"], "log_variances"] if variance else RESULTS["encode"]
        decoded, results = await self._run_on_images(model, "encode", images, outputs, timings)
        warnings = _warnings(model, decoded)
        return Encoded(results["latents"], results.get("log_variances"), warnings)

    async def decode(self, model: LoadedModel, latents: Latents, timings: Timings) -> Pixels:
        """Latents, float32 (n, latent_dim), to images, uint8 (n, height, width, channels). Raises InvalidItems."""
        _check_supported(model, "decode")
        checked = self._check_latents(model, latents)
        return await self._decode(model, checked, timings)

    async def reconstruct(
        self,
        model: LoadedModel,
        images: EncodedImages,
        timings: Timings,
        original_size: bool = False,
    ) -> Reconstructed:
        """Encode and decode. With `original_size` the results will be resized to the inputs' sizes."""
        outputs = RESULTS["reconstruct"]
        decoded, results = await self._run_on_images(
            model, "reconstruct", images, outputs, timings, original_size
        )
        return Reconstructed(
            results["reconstructions"],
            results["errors"],
            decoded.original_sizes,
            _warnings(model, decoded),
        )

    async def denoise(
        self,
        model: LoadedModel,
        images: EncodedImages,
        timings: Timings,
        original_size: bool = False,
    ) -> Denoised:
        """Encode and decode noisy images. `original_size` as in `reconstruct`."""
        outputs = RESULTS["denoise"]
        decoded, results = await self._run_on_images(
            model, "denoise", images, outputs, timings, original_size
        )
        warnings = _warnings(model, decoded)
        return Denoised(results["reconstructions"], decoded.original_sizes, warnings)

    async def classify(
        self, model: LoadedModel, images: EncodedImages, timings: Timings
    ) -> Classified:
        """The probability of each class of the model."""
        outputs = RESULTS["classify"]
        decoded, results = await self._run_on_images(model, "classify", images, outputs, timings)
        return Classified(
            results["probabilities"], model.manifest.classes, _warnings(model, decoded)
        )

    async def sample(
        self, model: LoadedModel, count: int, seed: int | None, temperature: float, timings: Timings
    ) -> tuple[DecodedLatents, int]:
        """Draw latents from the prior and decode them; gives the seed too, a random one if it is None."""
        prior = _require(model, "sample", model.prior)
        self._check_count(count)
        seed = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
        latents = prior.draw(count, seed, temperature)
        return DecodedLatents(await self._decode(model, latents, timings), latents), seed

    async def score(
        self,
        model: LoadedModel,
        images: EncodedImages,
        timings: Timings,
        false_positive_rate: float | None = None,
        pictures: Pictures = NO_PICTURES,
    ) -> Scored:
        """Anomaly scores with p-values and verdicts, and pictures of the anomalies if asked for.

        The default rate is the lowest of `conformal.RATES` that the calibration allows.
        """
        scoring = _require(model, "anomaly-score", model.scoring)
        conformal = scoring.conformal
        localise = any(pictures)
        outputs = (*model.scoring_outputs, *(("error_maps",) if localise else ()))
        decoded, results = await self._run_on_images(
            model, "anomaly-score", images, outputs, timings, original_size=localise
        )
        rate = conformal.default_rate if false_positive_rate is None else false_positive_rate
        scoring.drift.add(results["scores"], rate, results.get("latent_distances"))
        localised = None
        if localise:
            localiser = Localiser(
                model.manifest.input, scoring.scale, pictures, self._limits.max_image_pixels
            )
            localised = await self._localise(
                localiser, images, decoded, results["error_maps"], timings
            )
        return Scored(
            verdicts=conformal.verdicts(results["scores"], rate),
            false_positive_rate=rate,
            method=conformal.method,
            reason=conformal.reason(rate),
            localised=localised,
            warnings=_warnings(model, decoded),
        )

    async def interpolate(
        self,
        model: LoadedModel,
        ends: EncodedImages | Latents,
        steps: int,
        method: Literal["linear", "spherical"],
        timings: Timings,
    ) -> DecodedLatents:
        """The images on a path between two latents, or between the latents of two images."""
        _check_supported(model, "interpolate")
        self._check_count(steps)
        count = len(ends.images) if isinstance(ends, EncodedImages) else len(ends)
        if count != 2:
            raise InvalidParameter(f"interpolation is between 2 images or latents, not {count}")
        with self._admission.admit(steps):
            latents = await self._latents_of(model, ends, timings)
            path = interpolate(latents[0], latents[1], steps, method)
            outputs = ["reconstructions"]
            results = await self._run(model, ["decoder"], {"latents": path}, outputs, timings)
        return DecodedLatents(results["reconstructions"], path)

    async def _latents_of(
        self, model: LoadedModel, ends: EncodedImages | Latents, timings: Timings
    ) -> Floats:
        if not isinstance(ends, EncodedImages):
            return self._check_latents(model, ends)
        decoded = await self._prepare(model, ends, timings)
        tensors: Tensors = {"images": decoded.pixels}
        return (await self._run(model, ["encoder"], tensors, ["latents"], timings))["latents"]

    async def _run_on_images(
        self,
        model: LoadedModel,
        capability: Capability,
        images: EncodedImages,
        outputs: Sequence[str],
        timings: Timings,
        original_size: bool = False,
    ) -> tuple[Images, Tensors]:
        """Decode the images, and run the graphs of a capability on them."""
        _check_supported(model, capability)
        self._check_count(len(images.images))
        with self._admission.admit(len(images.images)):
            decoded = await self._prepare(model, images, timings)
            if original_size:
                self._check_output(decoded.original_sizes)
            tensors: Tensors = {"images": decoded.pixels}
            return decoded, await self._run(
                model, model.graphs[capability], tensors, outputs, timings
            )

    async def _localise(
        self,
        localiser: Localiser,
        encoded: EncodedImages,
        images: Images,
        error_maps: Floats,
        timings: Timings,
    ) -> list[Localised]:
        """The regions and pictures of each image. Raises DeadlineExceeded between two overlays."""
        of_requests, overlay = encoded.images, localiser.pictures.overlay

        def localise(index: int) -> Localised:
            if overlay and time.monotonic() > self._deadline(timings):
                done = f"{index} of {len(error_maps)} overlays were drawn"
                raise DeadlineExceeded(f"the request's time was up after {done}")
            as_array = isinstance(of_requests, np.ndarray)
            image = images.pixels[index] if as_array else of_requests[index]
            return localiser.localise(image, error_maps[index], images.original_sizes[index])

        # Overlays decode again, of which no more than there are cores may run at once.
        pool = self._decoder.pool if overlay else None
        with timings.measure("encode"):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, each, len(error_maps), localise)

    def _check_output(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Raise ImageTooLarge if images of these sizes are more than one response may hold.

        A small file can be a huge image, and many of them would fill the memory at their own size.
        """
        pixels = sum(height * width for height, width in sizes)
        if pixels > self._limits.max_output_pixels:
            raise ImageTooLarge(
                f"the answer would hold {pixels} pixels, and may hold {self._limits.max_output_pixels}: "
                "send fewer images at a time, or ask for none at the input's size"
            )

    async def _decode(self, model: LoadedModel, latents: Floats, timings: Timings) -> Pixels:
        tensors, outputs = {"latents": latents}, ["reconstructions"]
        with self._admission.admit(len(latents)):
            # Alone, because other work in a batch can change the last bits, and equal seeds give equal bytes.
            results = await self._run(model, ["decoder"], tensors, outputs, timings, alone=True)
        return results["reconstructions"]

    async def _run(
        self,
        model: LoadedModel,
        graphs: Sequence[GraphName],
        tensors: Tensors,
        outputs: Sequence[str],
        timings: Timings,
        alone: bool = False,
    ) -> Tensors:
        """Run the graphs on the device, joined with other work for them unless `alone`."""
        kind = model.manifest.version, tuple(graphs), tuple(outputs)
        work = Work(
            model.manifest.name,
            kind,
            lambda batch: model.run(graphs, batch, outputs),
            tensors,
            alone,
        )
        began = time.monotonic()
        try:
            completed = await self._executor.run(work, self._deadline(timings))
        except DeadlineExceeded:
            timings.queue += time.monotonic() - began
            raise
        timings.queue += completed.waited
        timings.inference += completed.took
        return completed.results

    def _deadline(self, timings: Timings) -> float:
        return timings.started + self._limits.request_timeout

    async def _prepare(self, model: LoadedModel, images: EncodedImages, timings: Timings) -> Images:
        return await self._decoder.decode(
            images, model.manifest.input, self._deadline(timings), timings
        )

    def _check_latents(self, model: LoadedModel, latents: Latents) -> Floats:
        self._check_count(len(latents))
        length = model.manifest.latent_dim

        def check(index: int) -> Floats:
            vector = latents[index]
            if vector.shape != (length,):
                raise InvalidLatents(
                    f"a latent of {model.manifest.name} has {length} numbers, not {_shape(vector)}"
                )
            if not np.isfinite(vector).all():
                raise InvalidLatents("a latent holds a number that is not finite")
            return vector

        return np.stack(each(len(latents), check))

    def _check_count(self, count: int) -> None:
        check_count(count, self._limits.max_images)
        if count < 1:
            raise InvalidParameter("the request is empty; send at least one image or latent")


def _shape(vector: Array) -> str:
    return str(len(vector)) if vector.ndim == 1 else f"the shape {vector.shape}"


def _check_supported(model: LoadedModel, capability: Capability) -> None:
    check_supported(model.manifest.name, capability, model.manifest.capabilities)


def _require(model: LoadedModel, capability: Capability, part: Part | None) -> Part:
    """The part of a model that a capability needs. Raises OperationNotSupported if it has none."""
    _check_supported(model, capability)
    if part is None:
        raise OperationNotSupported(f"{model.manifest.name} lacks what {capability} needs")
    return part


def _warnings(model: LoadedModel, images: Images) -> list[str]:
    """Warnings about colour images that a model of grey images was sent."""
    indices = images.lost_colour
    if not indices:
        return []
    named = [str(index) for index in indices[:MAX_NAMED]]
    if len(indices) > MAX_NAMED:
        named.append(f"{len(indices) - MAX_NAMED} more")
    many = f"images {', '.join(named[:-1])} and {named[-1]} are in colour"
    are, their = (many, "their") if len(indices) > 1 else (f"image {named[0]} is in colour", "its")
    takes = f"{model.manifest.name} takes grey images"
    return [f"{are}, but {takes}: {their} colours were discarded"]
