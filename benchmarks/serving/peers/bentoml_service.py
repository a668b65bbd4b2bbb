"""BentoML, started by `bentoml serve`."""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from score import Scorer


@bentoml.service(workers=1, threads=1)
class Score:
    """Scores of one or many images, in one method for each format."""

    def __init__(self) -> None:
        self.scorer = Scorer()

    @bentoml.api
    def score(self, image: Annotated[Path, ContentType("image/*")], /) -> dict[str, float]:
        return {"score": self.scorer.of_one(image.read_bytes())}

    @bentoml.api
    def npy(
        self, body: Annotated[Path, ContentType("application/x-npy")], /
    ) -> dict[str, list[float]]:
        return {"scores": self.scorer.of_npy(body.read_bytes())}

    @bentoml.api
    def json(self, images: list[str]) -> dict[str, list[float]]:
        return {"scores": self.scorer.of_base64(images)}

    @bentoml.api
    def multipart(self, images: list[Path]) -> dict[str, list[float]]:
        return {"scores": self.scorer.of_many([image.read_bytes() for image in images])}
