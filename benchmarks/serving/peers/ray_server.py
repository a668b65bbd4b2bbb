"""Ray Serve."""

from typing import Any

import ray
from ray import serve
from score import PORT, Scorer
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=64)
class Score:
    """Scores of one or many images, by the media type of the request."""

    def __init__(self) -> None:
        self.scorer = Scorer()

    async def __call__(self, request: Request) -> dict[str, Any]:
        media_type, _, _ = request.headers["content-type"].partition(";")
        if media_type == "application/x-npy":
            return {"scores": self.scorer.of_npy(await request.body())}
        if media_type == "application/json":
            return {"scores": self.scorer.of_base64((await request.json())["images"])}
        if media_type == "multipart/form-data":
            form = await request.form()
            return {
                "scores": self.scorer.of_many(
                    [await image.read() for image in form.getlist("images")]
                )
            }
        return {"score": self.scorer.of_one(await request.body())}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": PORT})
    serve.run(Score.bind(), blocking=True, route_prefix="/score")
