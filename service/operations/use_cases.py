"""Operations on images or latents."""

import copy
import secrets
import time
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

from bundle.errors import ImageTooLarge, InvalidParameter
from bundle.latents import interpolate
from bundle.manifest import RESULTS, Capability, GraphName
from bundle.tensors import Array, Pixels, TensorName, Tensors
from service.errors import DeadlineExceeded, InvalidLatents, OperationNotSupported
from service.operations.decoding import Decoder
from service.operations.localisation import Localiser
from service.operations.threads import map_in_thread
from service.operations.timings import Timings
from service.operations.values import (
    MAX_SEED,
    NO_PICTURES,
    ClassifyResult,
    DecodedImages,
    DecodedLatents,
    DenoiseResult,
    EncodedImages,
    EncodeResult,
    Floats,
    Latents,
    Limits,
    Localisation,
    Pictures,
    ReconstructResult,
    ScoreResult,
    check_count,
    check_supported,
    map_items,
)
from service.registry.drift import DRIFT_OUTPUTS
from service.registry.loaded_model import LoadedModel
from service.registry.open_models import OpenModels
from service.registry.served_model import ServedModel
from service.scheduling.admission import Admission, Slot
from service.scheduling.batcher import Work
from service.scheduling.executor import DeviceExecutor

MAX_NAMED_IMAGES = 3  # in a warning
VARIANCES: TensorName = "log_variances"

Required = TypeVar("Required")


class Operations:
    """The operations on a loaded model.

    Each raises OperationNotSupported if the model was not trained for it. Each may also raise
    TooManyImages, Overloaded, ShuttingDown and DeadlineExceeded.
    """

    def __init__(
        self,
        open_models: OpenModels,
        admission: Admission,
        executor: DeviceExecutor,
        limits: Limits,
        cores: int,
    ) -> None:
        self._open_models = open_models
        self._admission, self._executor, self._limits = admission, executor, limits
        self._decoder = Decoder(cores, limits.max_image_pixels)
        self._clients: tuple[str, ...] = ()  # that the images in flight are counted for

    def of_client(self, client: str) -> "Operations":
        """Return the same operations, whose images in flight count towards a client's share."""
        operations = copy.copy(self)
        operations._clients = (client,)
        return operations

    def _admit(self, model: ServedModel, images: int) -> Slot:
        return self._admission.admit(images, model.manifest.name, *self._clients)

    def close(self) -> None:
        """Drop the images that wait to be decoded."""
        self._decoder.close()

    async def encode(
        self, model: ServedModel, images: EncodedImages, timings: Timings, variance: bool
    ) -> EncodeResult:
        """Encode images to latents. Raises InvalidParameter if the model has no variances."""
        optional: tuple[TensorName, ...] = (VARIANCES,) if variance else ()
        decoded, results = await self._run_on_images(model, "encode", images, timings, optional)
        if variance and VARIANCES not in results:
            raise InvalidParameter(
                f"{model.manifest.name} is not variational and has no variances; omit variance"
            )
        warnings = _list_warnings(model, decoded)
        return EncodeResult(results["latents"], results.get(VARIANCES), warnings)

    async def decode(self, model: ServedModel, latents: Latents, timings: Timings) -> Pixels:
        """Decode latents, float32 (n, latent_dim), to images, uint8 (n, height, width, channels).

        Raises InvalidItems.
        """
        _check_supported(model, "decode")
        checked = self._check_latents(model, latents)
        with self._admit(model, len(checked)):
            return await self._decode(await self._open(model, timings), checked, timings)

    async def reconstruct(
        self,
        model: ServedModel,
        images: EncodedImages,
        timings: Timings,
        original_size: bool = False,
    ) -> ReconstructResult:
        """Encode and decode images.

        With `original_size`, raises ImageTooLarge if the sizes of the inputs exceed a response.
        """
        decoded, results = await self._run_on_images(
            model, "reconstruct", images, timings, original_size=original_size
        )
        return ReconstructResult(
            results["reconstructions"],
            results["errors"],
            decoded.original_sizes,
            _list_warnings(model, decoded),
        )

    async def denoise(
        self,
        model: ServedModel,
        images: EncodedImages,
        timings: Timings,
        original_size: bool = False,
    ) -> DenoiseResult:
        """Remove noise from images; `original_size` is as in `reconstruct`."""
        decoded, results = await self._run_on_images(
            model, "denoise", images, timings, original_size=original_size
        )
        warnings = _list_warnings(model, decoded)
        return DenoiseResult(results["reconstructions"], decoded.original_sizes, warnings)

    async def classify(
        self, model: ServedModel, images: EncodedImages, timings: Timings
    ) -> ClassifyResult:
        """Return the probability of each class of the model."""
        decoded, results = await self._run_on_images(model, "classify", images, timings)
        return ClassifyResult(
            results["probabilities"], model.manifest.classes, _list_warnings(model, decoded)
        )

    async def sample(
        self, model: ServedModel, count: int, seed: int | None, temperature: float, timings: Timings
    ) -> tuple[DecodedLatents, int]:
        """Draw latents from the prior, and decode them.

        Returns the seed too, which is random if it was None.
        """
        _check_supported(model, "sample")
        self.check_count(count)
        seed = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
        with self._admit(model, count):
            loaded = await self._open(model, timings)
            latents = require_part(model, "sample", loaded.prior).draw(count, seed, temperature)
            images = await self._decode(loaded, latents, timings)
        return DecodedLatents(images, latents), seed

    async def score(
        self,
        model: ServedModel,
        images: EncodedImages,
        timings: Timings,
        false_positive_rate: float | None = None,
        pictures: Pictures = NO_PICTURES,
    ) -> ScoreResult:
        """Score images, with p-values and verdicts, and pictures of the anomalies if requested.

        The default rate is the lowest of `conformal.RATES` that the calibration allows.
        """
        scoring = require_part(model, "anomaly-score", model.scoring)
        conformal = scoring.conformal
        localise = any(pictures)
        maps: tuple[TensorName, ...] = ("error_maps",) if localise else ()
        optional = (*DRIFT_OUTPUTS, *maps)
        decoded, results = await self._run_on_images(
            model, "anomaly-score", images, timings, optional, original_size=localise
        )
        rate = conformal.default_rate if false_positive_rate is None else false_positive_rate
        scoring.drift.add(results["scores"], rate, results.get("latent_distances"))
        localised = None
        if localise:
            max_pixels = self._limits.max_image_pixels
            localiser = Localiser(model.manifest.input, scoring.scale, pictures, max_pixels)
            error_maps = results["error_maps"]
            localised = await self._localise(localiser, images, decoded, error_maps, timings)
        return ScoreResult(
            verdicts=conformal.verdicts(results["scores"], rate),
            false_positive_rate=rate,
            method=conformal.method,
            reason=conformal.reason(rate),
            localised=localised,
            warnings=_list_warnings(model, decoded),
        )

    async def interpolate(
        self,
        model: ServedModel,
        ends: EncodedImages | Latents,
        steps: int,
        method: Literal["linear", "spherical"],
        timings: Timings,
    ) -> DecodedLatents:
        """Decode `steps` latents on a path between two latents, or the latents of two images."""
        _check_supported(model, "interpolate")
        self.check_count(steps)
        count = len(ends.images) if isinstance(ends, EncodedImages) else len(ends)
        if count != 2:
            raise InvalidParameter(
                f"interpolation is between 2 images or latents, not {count}; send 2"
            )
        with self._admit(model, steps):
            loaded = await self._open(model, timings)
            latents = await self._encode_ends(loaded, model, ends, timings)
            path = interpolate(latents[0], latents[1], steps, method)
            results = await self._run(
                loaded, ("decoder",), {"latents": path}, RESULTS["decode"], timings
            )
        return DecodedLatents(results["reconstructions"], path)

    async def has_variances(self, model: ServedModel, timings: Timings) -> bool:
        """Return True if a model is variational, which is known once it was open.

        Raises as `OpenModels.get` does.
        """
        if model.has_variances is None:
            with self._admit(model, 1):
                loaded = await self._open(model, timings)
            model.has_variances = VARIANCES in loaded.find_outputs("encode", (VARIANCES,))
        return model.has_variances

    def check_count(self, count: int) -> None:
        """Raise InvalidParameter if a request has no item, TooManyImages if it has too many."""
        check_count(count, self._limits.max_images)
        if count < 1:
            raise InvalidParameter("the request is empty; send at least one image or latent")

    async def _encode_ends(
        self,
        loaded: LoadedModel,
        model: ServedModel,
        ends: EncodedImages | Latents,
        timings: Timings,
    ) -> Floats:
        if not isinstance(ends, EncodedImages):
            return self._check_latents(model, ends)
        decoded = await self._prepare(model, ends, timings)
        tensors: Tensors = {"images": decoded.pixels}
        return (await self._run(loaded, ("encoder",), tensors, ("latents",), timings))["latents"]

    async def _run_on_images(
        self,
        model: ServedModel,
        capability: Capability,
        images: EncodedImages,
        timings: Timings,
        optional: tuple[TensorName, ...] = (),
        original_size: bool = False,
    ) -> tuple[DecodedImages, Tensors]:
        """Decode images, and return the results of a capability.

        The `optional` outputs are among them if the graphs have them.
        """
        _check_supported(model, capability)
        self.check_count(len(images.images))
        with self._admit(model, len(images.images)):
            decoded = await self._prepare(model, images, timings)
            if original_size:
                self._check_output(decoded.original_sizes)
            tensors: Tensors = {"images": decoded.pixels}
            loaded = await self._open(model, timings)
            outputs = loaded.find_outputs(capability, optional)
            return decoded, await self._run(
                loaded, loaded.graphs[capability], tensors, outputs, timings
            )

    async def _open(self, model: ServedModel, timings: Timings) -> LoadedModel:
        """Return the graphs of a model. Raises as `OpenModels.get` does."""
        if model.loaded:
            return await self._open_models.get(model, self._deadline(timings))
        with timings.measure("queue"):
            return await self._open_models.get(model, self._deadline(timings))

    async def _localise(
        self,
        localiser: Localiser,
        encoded: EncodedImages,
        images: DecodedImages,
        error_maps: Floats,
        timings: Timings,
    ) -> list[Localisation]:
        """Localise the anomalies of each image. Raises DeadlineExceeded."""
        originals, overlay = encoded.images, localiser.pictures.overlay

        def localise(index: int) -> Localisation:
            as_array = isinstance(originals, np.ndarray)
            image = images.pixels[index] if as_array else originals[index]
            return localiser.localise(image, error_maps[index], images.original_sizes[index])

        # Overlays decode images again, which only the threads of the decoder may do.
        pool = self._decoder.pool if overlay else None
        with timings.measure("encode"):
            return await map_in_thread(pool, len(error_maps), localise, self._deadline(timings))

    def _check_output(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Raise ImageTooLarge if images of these sizes exceed one response.

        A small file can hold a huge image, and many of them at original size would fill the memory.
        """
        pixels = sum(height * width for height, width in sizes)
        if pixels > self._limits.max_output_pixels:
            raise ImageTooLarge(
                f"the response would hold {pixels} pixels, and may hold "
                f"{self._limits.max_output_pixels}; send fewer images, "
                "or omit images of the input's size"
            )

    async def _decode(self, loaded: LoadedModel, latents: Floats, timings: Timings) -> Pixels:
        tensors: Tensors = {"latents": latents}
        outputs = RESULTS["decode"]
        # Alone, because other work in a batch can change the last bits of equal seeds.
        results = await self._run(loaded, ("decoder",), tensors, outputs, timings, alone=True)
        return results["reconstructions"]

    async def _run(
        self,
        loaded: LoadedModel,
        graphs: tuple[GraphName, ...],
        tensors: Tensors,
        outputs: tuple[TensorName, ...],
        timings: Timings,
        alone: bool = False,
    ) -> Tensors:
        """Run graphs on the device, joined with other work for them unless `alone`."""
        plan = loaded.plan(graphs, outputs)
        name, kind = loaded.manifest.name, (loaded.manifest.version, graphs, outputs, plan.uses)
        work = Work(name, kind, plan.run, tensors, alone, plan.shared, plan.uses)
        began = time.monotonic()
        try:
            completed = await self._executor.run(work, self._deadline(timings))
        except DeadlineExceeded:
            timings.add("queue", began, time.monotonic() - began)
            raise
        timings.add("queue", began, completed.waited)
        timings.add("inference", began + completed.waited, completed.took)
        return completed.results

    def _deadline(self, timings: Timings) -> float:
        return timings.started + self._limits.request_timeout

    async def _prepare(
        self, model: ServedModel, images: EncodedImages, timings: Timings
    ) -> DecodedImages:
        return await self._decoder.decode(
            images, model.manifest.input, self._deadline(timings), timings
        )

    def _check_latents(self, model: ServedModel, latents: Latents) -> Floats:
        self.check_count(len(latents))
        length = model.manifest.latent_dim

        def check(index: int) -> Floats:
            vector = latents[index]
            if vector.shape != (length,):
                raise InvalidLatents(
                    f"a latent of {model.manifest.name} has {length} numbers, "
                    f"not {_describe_shape(vector)}"
                )
            if not np.isfinite(vector).all():
                raise InvalidLatents("a latent holds NaN or infinity; send finite numbers")
            return vector

        return np.stack(map_items(len(latents), check))


def _describe_shape(vector: Array) -> str:
    return str(len(vector)) if vector.ndim == 1 else f"the shape {vector.shape}"


def _check_supported(model: ServedModel, capability: Capability) -> None:
    check_supported(model.manifest.name, capability, model.manifest.capabilities)


def require_part(model: ServedModel, capability: Capability, part: Required | None) -> Required:
    """Return the part of a model that a capability needs. Raises OperationNotSupported."""
    _check_supported(model, capability)
    if part is None:
        raise OperationNotSupported(f"{model.manifest.name} lacks what {capability} needs")
    return part


def _list_warnings(model: ServedModel, images: DecodedImages) -> list[str]:
    """Return a warning about colour images for a model of grey images, if any."""
    indices = images.lost_colour
    if not indices:
        return []
    named = [str(index) for index in indices[:MAX_NAMED_IMAGES]]
    if len(indices) > MAX_NAMED_IMAGES:
        named.append(f"{len(indices) - MAX_NAMED_IMAGES} more")
    many = f"images {', '.join(named[:-1])} and {named[-1]} are in colour"
    are, their = (many, "their") if len(indices) > 1 else (f"image {named[0]} is in colour", "its")
    takes = f"{model.manifest.name} takes grey images"
    return [f"{are}, but {takes}: {their} colours were discarded"]
