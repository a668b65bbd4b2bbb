"""A model of MLServer with the tensors of `mnist-vae`; it encodes every image as zeros."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse

DATATYPES = ("BYTES", "UINT8")  # of images
LATENT_DIM = 32


class Zeros(MLModel):
    """Responds with zeros, in MLServer's own encoding of arrays."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the requested outputs. Raises InferenceError for other inputs than images."""
        inputs = {each.name: each for each in payload.inputs}
        if inputs.keys() != {"images"} or inputs["images"].datatype not in DATATYPES:
            raise InferenceError("the input is 'images', of BYTES or UINT8")
        zeros = np.zeros((inputs["images"].shape[0], LATENT_DIM), np.float32)
        names = [each.name for each in payload.outputs or ()] or ["latents"]
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output(name, zeros) for name in names],
        )
