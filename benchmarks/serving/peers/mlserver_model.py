"""MLServer: a custom runtime, without its pool of processes, which is slow on one core."""

import asyncio
import os
from pathlib import Path

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from score import PORT, Scorer


class Score(MLModel):
    """Scores of one or many images."""

    async def load(self) -> bool:
        self.scorer = Scorer()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        bodies = Base64Codec.decode_input(payload.inputs[0])
        scores = np.array(self.scorer.of_many(bodies))[:, None]
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("score", scores)]
        )


async def main() -> None:
    settings = Settings(
        http_port=PORT,
        grpc_port=PORT + 1,
        metrics_port=PORT + 2,
        parallel_workers=0,
        debug=False,
        use_structured_logging=False,
    )
    await MLServer(settings).start([ModelSettings(name="score", implementation=Score)])


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    asyncio.run(main())
