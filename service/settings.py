"""Settings: environment variables with the prefix `AE_`, which the command line can override."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of the service, read once at the composition root and passed down as values."""

    model_config = SettingsConfigDict(env_prefix="AE_", frozen=True, extra="ignore")

    models: Path = Field(Path("models"), description="Directory of the bundles.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free port.")
    device: Literal["cuda", "auto", "cpu"] = Field(
        "auto",
        description="cuda needs an NVIDIA GPU; auto falls back to the CPU; cpu uses no GPU.",
    )
    threads: PositiveInt | None = Field(
        None, description="CPU threads of one inference; unset: one per core."
    )
    tf32: bool = Field(
        False,
        description="On a GPU, compute matrix products in TensorFloat-32: faster, less exact.",
    )
    cuda_graphs: bool = Field(
        False,
        description="On a GPU, record the kernel launches of each batch size and replay them.",
    )
    gpu_memory: PositiveInt | None = Field(
        None,
        description="Maximum bytes of GPU memory for the arena of one graph; unset: no limit.",
    )
    tensorrt: bool = Field(False, description="On a GPU, use TensorRT, which must be installed.")
    tensorrt_cache: Path = Field(
        Path("tensorrt-cache"),
        description="Directory of TensorRT's engines, which take minutes to build.",
    )
    api_keys: dict[str, tuple[str, ...]] = Field(
        {},
        repr=False,
        description='API keys and their operations as JSON, `"*"` for all; empty: no key needed.',
    )
    max_body_bytes: PositiveInt = Field(
        32 * 2**20, description="Maximum bytes of the body of one request."
    )
    max_images: PositiveInt = Field(
        256, description="Maximum images or latents in one request or response."
    )
    max_image_pixels: PositiveInt = Field(
        32_000_000, description="Maximum pixels of one encoded image."
    )
    max_output_pixels: PositiveInt = Field(
        128_000_000, description="Maximum pixels of all images at original size in one response."
    )
    max_batch_size: PositiveInt = Field(64, description="Maximum images in one run of a graph.")
    max_queue_delay: NonNegativeFloat = Field(
        0.0, description="Seconds that an idle device waits for a batch to fill."
    )
    max_queued_images: PositiveInt = Field(
        1024, description="Maximum images in flight; beyond it, 429."
    )
    max_queued_bytes: PositiveInt = Field(
        256 * 2**20, description="Maximum bytes of bodies in flight; beyond it, 429."
    )
    request_timeout: PositiveFloat = Field(
        30.0, description="Maximum seconds until a request runs; beyond it, 504."
    )
    shutdown_timeout: PositiveInt = Field(
        20, description="Maximum seconds to finish running requests after SIGTERM."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of log lines on standard error."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )

    @model_validator(mode="after")
    def _one_request_fits(self) -> "Settings":
        if self.max_images > self.max_queued_images:
            raise ValueError(
                "max_queued_images must be at least max_images, or a full request is never admitted"
            )
        if self.max_body_bytes > self.max_queued_bytes:
            raise ValueError(
                "max_queued_bytes must be at least max_body_bytes, or a full body is never admitted"
            )
        return self
