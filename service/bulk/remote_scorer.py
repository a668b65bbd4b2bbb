"""Scorer with a model of a running service, by the Python client."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from autoencoder_client import (
    AsyncClient,
    ClientError,
    InvalidRequest,
    Scoring,
    ServiceError,
    Unreachable,
)
from autoencoder_client.exchanges import Picture
from autoencoder_client.retries import RETRIED

from bundle.conformal import Verdict
from bundle.errors import InvalidParameter
from service.bulk.scorers import ImageScore, TooLarge
from service.errors import BulkError
from service.operations import Pictures, check_supported

PICTURES: tuple[Picture, ...] = ("heatmap", "overlay")  # as fields of ImageScore
# One image can be too large, too slow or cause a defect; smaller requests will show which.
DIVIDED_STATUSES = (413, 500, 504)


class RemoteError(BulkError):
    """The service is unavailable, rejects a request, or sends an invalid response."""


def connect(url: str, key: str | None) -> AsyncClient:
    """Return a client of the service at `url`, with an API key if any. Raises InvalidParameter."""
    try:
        return AsyncClient(url, key, retry_timeouts=True)
    except InvalidRequest as error:
        with_key = " with the key in AE_API_KEY" if key else ""
        raise InvalidParameter(f"--url {url}{with_key}: {error}") from None


class ScoringCard(NamedTuple):
    """The version of a model, and the number of its calibration images."""

    version: str
    calibration_images: int


async def fetch_card(client: AsyncClient, model: str, version: str | None) -> ScoringCard:
    """Fetch the card of a model's version, or of its newest version.

    Raises RemoteError if it is unavailable, OperationNotSupported if the model cannot score.
    """
    try:
        card = await client.model(model if version is None else f"{model}/versions/{version}")
    except ClientError as error:
        raise RemoteError(_describe(error)) from None
    try:
        check_supported(model, "anomaly-score", card["capabilities"])
        return ScoringCard(str(card["version"]), int(card["calibration"]["images"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteError(
            f"the service sent an invalid response, the card of {model}: {error!r}; check --url"
        ) from None


class RemoteScorer:
    """A scorer with one version of a model of a running service."""

    def __init__(
        self, client: AsyncClient, model: str, version: str, rate: float, pictures: Pictures
    ) -> None:
        """Score at the false positive rate `rate`."""
        self._client, self._rate = client, rate
        self._version = f"{model}/versions/{version}"
        requested = [picture for picture in PICTURES if getattr(pictures, picture)]
        self._requested: Sequence[Picture | None] = requested or [None]

    async def score(self, images: Sequence[bytes]) -> list[ImageScore | str]:
        """Score images as `Scorer.score` does, once for each picture.

        A response holds only one picture of an image.
        """
        scored = {picture: await self._score(images, picture) for picture in self._requested}
        return [_join(scored, index) for index in range(len(images))]

    async def _score(self, images: Sequence[bytes], picture: Picture | None) -> Scoring:
        try:
            return await self._client.score(self._version, images, self._rate, picture)
        except ClientError as error:
            if isinstance(error, ServiceError) and error.status in DIVIDED_STATUSES:
                raise TooLarge(_describe(error)) from None
            raise RemoteError(_describe(error)) from None


def _join(scored: Mapping[Picture | None, Scoring], index: int) -> ImageScore | str:
    """Return the score of an image with its pictures, or the reason for none."""
    for scoring in scored.values():
        if index in scoring.failures:
            return scoring.failures[index]
    scores = {picture: scoring.results[index] for picture, scoring in scored.items()}
    score = next(iter(scores.values()))
    verdict = Verdict(score.score, score.p_value, score.threshold, score.is_anomaly)
    return ImageScore(
        verdict, *(scores[each].picture if each in scores else None for each in PICTURES)
    )


def _describe(error: ClientError) -> str:
    if not isinstance(error, ServiceError):
        return f"{error}; rerun to resume" if isinstance(error, Unreachable) else str(error)
    if error.status in RETRIED:
        return f"{error.url}: it responded {error.status} {error.detail}; rerun to resume"
    return f"{error.url} responded {error.status}: {error.detail}"
