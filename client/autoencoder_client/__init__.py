"""Client of the autoencoder service."""

from autoencoder_client.client import AsyncClient, Client
from autoencoder_client.errors import (
    ClientError,
    InvalidRequest,
    InvalidResponse,
    ServiceError,
    Unreachable,
)
from autoencoder_client.results import (
    Classification,
    ClassProbabilities,
    Encoding,
    Failures,
    Pictures,
    Reconstruction,
    Sampling,
    Score,
    Scoring,
)

__all__ = [
    "AsyncClient",
    "ClassProbabilities",
    "Classification",
    "Client",
    "ClientError",
    "Encoding",
    "Failures",
    "InvalidRequest",
    "InvalidResponse",
    "Pictures",
    "Reconstruction",
    "Sampling",
    "Score",
    "Scoring",
    "ServiceError",
    "Unreachable",
]
