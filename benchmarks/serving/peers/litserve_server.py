"""LitServe."""

from typing import Any

import litserve
from fastapi import UploadFile
from score import PORT, Scorer


class Api(litserve.LitAPI):
    def setup(self, _: str) -> None:
        self.scorer = Scorer()

    def decode_request(self, request: UploadFile) -> Any:
        return self.scorer.decode(request.file.read())

    def predict(self, image: Any) -> float:
        return self.scorer.score(image[None])[0]

    def encode_response(self, output: float) -> dict[str, float]:
        return {"score": output}


if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/score"), accelerator="cpu", workers_per_device=1)
    server.run(port=PORT, generate_client_file=False, num_api_servers=1, log_level="warning")
