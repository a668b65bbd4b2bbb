"""Scorers of the runner: their protocol, and a scorer with a model of this process."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from bundle.conformal import Verdict
from bundle.errors import ImageTooLarge
from service.errors import InvalidItems, TooManyImages
from service.operations import EncodedImages, Operations, Pictures, Timings
from service.registry.served_model import ServedModel


class ImageScore(NamedTuple):
    """The verdict on an image, and its heatmap and overlay as PNG, each if requested."""

    verdict: Verdict
    heatmap: bytes | None
    overlay: bytes | None = None


class InvalidImages(Exception):
    """Some images are invalid; `errors` holds the reason for each by its index."""

    def __init__(self, errors: Mapping[int, str]) -> None:
        super().__init__(f"{len(errors)} images are invalid")
        self.errors = errors


class TooLarge(Exception):
    """The images are too many or too large for one request."""


class Scorer(Protocol):
    """A scorer of encoded images; several calls may run at the same time."""

    async def score(self, images: Sequence[bytes]) -> Sequence[ImageScore | str]:
        """Return the score of each image, or the reason for none.

        Raises InvalidImages, TooLarge, or DomainError if the run cannot continue.
        """
        ...


class LocalScorer:
    """A scorer with a model of this process."""

    def __init__(
        self,
        operations: Operations,
        model: ServedModel,
        rate: float,
        pictures: Pictures,
    ) -> None:
        self._operations, self._model = operations, model
        self._rate, self._pictures = rate, pictures

    async def score(self, images: Sequence[bytes]) -> list[ImageScore]:
        """Score images as `Scorer.score` does."""
        try:
            scored = await self._operations.score(
                self._model, EncodedImages(images), Timings(), self._rate, self._pictures
            )
        except InvalidItems as error:
            raise InvalidImages({index: str(item) for index, item in error.errors}) from None
        except (ImageTooLarge, TooManyImages) as error:
            raise TooLarge(str(error)) from None
        if scored.localised is None:
            return [ImageScore(verdict, None) for verdict in scored.verdicts]
        return [
            ImageScore(verdict, located.heatmap, located.overlay)
            for verdict, located in zip(scored.verdicts, scored.localised, strict=True)
        ]
