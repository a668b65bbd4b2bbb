"""The settings: environment variables with the prefix `AE_`, each of which the command line can override."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once, at the composition root; what needs a value is handed it."""

    model_config = SettingsConfigDict(env_prefix="AE_", frozen=True, extra="ignore")

    models: Path = Field(Path("models"), description="The directory of the bundles.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(
        8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one."
    )
    device: Literal["cuda", "auto", "cpu"] = Field(
        "auto",
        description="cuda: an NVIDIA GPU or no start; auto: a GPU where one works, else the CPU; cpu: the CPU.",
    )
    threads: PositiveInt | None = Field(
        None, description="Threads of an inference on the CPU; unset: one a core."
    )
    tf32: bool = Field(
        False,
        description="On a GPU, round to TensorFloat-32 in matrix products: faster, less exact.",
    )
    cuda_graphs: bool = Field(
        False, description="On a GPU, record the launches of each batch size and replay them."
    )
    gpu_memory: PositiveInt | None = Field(
        None,
        description="Bytes of a GPU's memory that the arena of one graph may take; unset: as many as there are.",
    )
    tensorrt: bool = Field(False, description="On a GPU, use TensorRT, which must be installed.")
    tensorrt_cache: Path = Field(
        Path("tensorrt-cache"),
        description="The directory of TensorRT's engines, which take minutes to build.",
    )
    api_keys: dict[str, tuple[str, ...]] = Field(
        {},
        repr=False,
        description='API keys as JSON, each with the operations it opens, `"*"` for all; none: open.',
    )
    max_body_bytes: PositiveInt = Field(
        32 * 2**20, description="Largest body of a request, in bytes."
    )
    max_images: PositiveInt = Field(
        256, description="Most images (or latents) that one request may hold or ask for."
    )
    max_image_pixels: PositiveInt = Field(
        32_000_000, description="Largest encoded image, in pixels."
    )
    max_output_pixels: PositiveInt = Field(
        128_000_000, description="Pixels at original size in one answer, in all."
    )
    max_batch_size: PositiveInt = Field(
        64, description="Images that one run of a graph takes at the most."
    )
    max_queue_delay: NonNegativeFloat = Field(
        0.0, description="Seconds that an idle device waits for a batch to fill up."
    )
    max_queued_images: PositiveInt = Field(
        1024, description="Images in flight from which on a request gets 429."
    )
    max_queued_bytes: PositiveInt = Field(
        256 * 2**20, description="Bytes of bodies in flight from which on a request gets 429."
    )
    request_timeout: PositiveFloat = Field(
        30.0, description="Seconds after which a request that is not run yet gets 504."
    )
    shutdown_timeout: PositiveInt = Field(
        20, description="Seconds that running requests get after SIGTERM."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="The form of log lines on standard error."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level logged."
    )

    @model_validator(mode="after")
    def _one_request_fits(self) -> "Settings":
        if self.max_images > self.max_queued_images:
            raise ValueError(
                "max_queued_images must be at least max_images, or a full request would never be taken"
            )
        if self.max_body_bytes > self.max_queued_bytes:
            raise ValueError(
                "max_queued_bytes must be at least max_body_bytes, or a full body would never be taken"
            )
        return self
