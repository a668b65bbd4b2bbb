"""What every peer does between its request and its answer: one image to pixels, pixels to a score.

Runs in the peers' own environments, with Pillow, NumPy and ONNX Runtime. The environment variables `MODEL`, `PORT` and
`THREADS` say which graph, where, and with how many threads.
"""

import io
import os

import numpy as np
import onnxruntime
from PIL import Image

PORT = int(os.environ.get("PORT", "8000"))


class Scorer:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.shape = tuple(self._session.get_inputs()[0].shape[1:])

    def decode(self, body: bytes) -> np.ndarray:
        height, width, channels = self.shape
        image = Image.open(io.BytesIO(body)).convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(self.shape)

    def score(self, images: np.ndarray) -> list[float]:
        scores: list[float] = self._session.run(["scores"], {"images": images})[0].tolist()
        return scores

    def of_one(self, body: bytes) -> float:
        return self.score(self.decode(body)[None])[0]
