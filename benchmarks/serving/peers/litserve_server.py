"""LitServe."""

import base64
from typing import Any

import litserve
import numpy as np
from fastapi import UploadFile
from score import BULK, PORT, Scorer


class Api(litserve.LitAPI):
    """Scores of single images."""

    def setup(self, _: str) -> None:
        self.scorer = Scorer()

    def decode_request(self, request: UploadFile) -> Any:
        return self.scorer.decode(request.file.read())

    def predict(self, image: Any) -> Any:
        return self.scorer.score(image[None])[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"score": output}


class Json(Api):
    """Scores of many images in JSON."""

    def decode_request(self, request: dict[str, list[str]]) -> Any:
        return [self.scorer.decode(base64.b64decode(text)) for text in request["images"]]

    def predict(self, image: Any) -> Any:
        return self.scorer.score(np.stack(image))

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"scores": output}


if __name__ == "__main__":
    apis = [Api(api_path="/score"), *([Json(api_path="/json")] if BULK else [])]
    server = litserve.LitServer(apis, accelerator="cpu", workers_per_device=1)
    server.run(port=PORT, generate_client_file=False, num_api_servers=1, log_level="warning")
