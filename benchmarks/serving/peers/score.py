"""Scoring in every peer: images to pixels, pixels to scores.

It runs in the peers' environments, with Pillow, NumPy and ONNX Runtime. The environment variables
`MODEL`, `PORT` and `THREADS` name the graph, the port and the number of threads. `BULK` is set for
bulk requests, because some peers need more processes for them.
"""

import base64
import io
import os
from collections.abc import Sequence

import numpy as np
import onnxruntime
from PIL import Image

BULK = "BULK" in os.environ
PORT = int(os.environ.get("PORT", "8000"))


class Scorer:
    """The graph, and the decoding of its input."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )
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

    def of_many(self, bodies: Sequence[bytes]) -> list[float]:
        return self.score(np.stack([self.decode(body) for body in bodies]))

    def of_base64(self, texts: Sequence[str]) -> list[float]:
        return self.of_many([base64.b64decode(text) for text in texts])

    def of_npy(self, body: bytes) -> list[float]:
        return self.score(np.load(io.BytesIO(body), allow_pickle=False))
