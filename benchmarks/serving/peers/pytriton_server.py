"""PyTriton: Triton's own HTTP server before a Python function, with its dynamic batcher."""

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from score import BULK, PORT, Scorer

scorer = Scorer()


@batch
def infer(image: np.ndarray) -> dict[str, np.ndarray]:
    """Score encoded images."""
    images = np.stack([scorer.decode(body) for (body,) in image])
    return {"score": np.array(scorer.score(images), dtype=np.float32)[:, None]}


@batch
def infer_pixels(image: np.ndarray) -> dict[str, np.ndarray]:
    """Score pixels."""
    return {"score": np.array(scorer.score(image), dtype=np.float32)[:, None]}


if __name__ == "__main__":
    config = TritonConfig(http_port=PORT, grpc_port=PORT + 1, metrics_port=PORT + 2, log_verbose=0)
    with Triton(config=config) as triton:
        pixels = (
            {"pixels": (infer_pixels, Tensor(name="image", dtype=np.uint8, shape=scorer.shape))}
            if BULK
            else {}
        )
        # `score` is the last, because the benchmark starts as soon as it responds.
        models = {**pixels, "score": (infer, Tensor(name="image", dtype=bytes, shape=(1,)))}
        for name, (function, tensor) in models.items():
            triton.bind(
                model_name=name,
                infer_func=function,
                inputs=[tensor],
                outputs=[Tensor(name="score", dtype=np.float32, shape=(1,))],
                config=ModelConfig(max_batch_size=256),
            )
        triton.serve()
