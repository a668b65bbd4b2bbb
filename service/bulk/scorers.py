"""Who scores: what the runner asks of it, and a model of this process."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from bundle.conformal import Verdict
from bundle.errors import ImageTooLarge
from service.errors import InvalidItems, TooManyImages
from service.operations import EncodedImages, Operations, Pictures, Timings
from service.registry.loaded_model import LoadedModel


class Found(NamedTuple):
    """The verdict on an image, and its heatmap and overlay as PNG, each if it was asked for."""

    verdict: Verdict
    heatmap: bytes | None
    overlay: bytes | None = None


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
        """Raises Faulty where some images are at fault, TooMuch, or DomainError where going on is useless."""
        ...


class Local:
    """A model of this process."""

    def __init__(
        self,
        operations: Operations,
        model: LoadedModel,
        rate: float,
        pictures: Pictures,
    ) -> None:
        self._operations, self._model = operations, model
        self._rate, self._pictures = rate, pictures

    async def score(self, images: Sequence[bytes]) -> list[Found]:
        try:
            scored = await self._operations.score(
                self._model, EncodedImages(images), Timings(), self._rate, self._pictures
            )
        except InvalidItems as error:
            raise Faulty({index: str(fault) for index, fault in error.errors}) from None
        except (ImageTooLarge, TooManyImages) as error:
            raise TooMuch(str(error)) from None
        if scored.localised is None:
            return [Found(verdict, None) for verdict in scored.verdicts]
        return [
            Found(verdict, located.heatmap, located.overlay)
            for verdict, located in zip(scored.verdicts, scored.localised, strict=True)
        ]
