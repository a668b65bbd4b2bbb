"""Who scores: what the runner asks of it, and a model of this process."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from service import anomaly, imaging
from service.anomaly import Verdict
from service.errors import ImageTooLarge, InvalidItems, TooManyImages
from service.operations import EncodedImages, Operations, Timings
from service.registry import LoadedModel


class Found(NamedTuple):
    """The verdict on an image, and its heatmap as a PNG if that was asked for."""

    verdict: Verdict
    heatmap: bytes | None


class Faulty(Exception):
    """Images cannot be scored; `errors` says why of each, by its index."""

    def __init__(self, errors: Mapping[int, str]) -> None:
        super().__init__(f"{len(errors)} images cannot be scored")
        self.errors = errors


class TooMuch(Exception):
    """The images are more, or larger, than the service takes at a time; the message says how."""


class Scorer(Protocol):
    """What scores encoded images; it may be asked many times at once."""

    async def score(self, images: Sequence[bytes]) -> list[Found]:
        """Raises Faulty where some images are at fault, TooMuch, or ServiceError where going on is useless."""
        ...


class Local:
    """A model of this process."""

    def __init__(
        self, operations: Operations, model: LoadedModel, false_positive_rate: float, *, heatmaps: bool
    ) -> None:
        self._operations, self._model = operations, model
        self._rate, self._heatmaps = false_positive_rate, heatmaps

    async def score(self, images: Sequence[bytes]) -> list[Found]:
        given = EncodedImages(images)
        try:
            scored = await self._operations.score(self._model, given, Timings(), self._rate, self._heatmaps)
        except InvalidItems as error:
            raise Faulty({index: str(fault) for index, fault in error.errors}) from None
        except (ImageTooLarge, TooManyImages) as error:
            raise TooMuch(str(error)) from None
        if scored.localised is None:
            return [Found(verdict, None) for verdict in scored.verdicts]
        return await asyncio.to_thread(
            lambda: [
                Found(verdict, imaging.encode_png(anomaly.in_colour(located.heatmap)))
                for verdict, located in zip(scored.verdicts, scored.localised or (), strict=True)
            ]
        )
