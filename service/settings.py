"""Settings: environment variables with the prefix `AE_`, which the command line can override."""

import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bundle.errors import InvalidParameter
from service.keys import KeyEntries

PREFIX = "AE_"
OTHER_VARIABLES = ("AE_API_KEY",)  # of `score`, which sends it to a service
END_SECONDS = 2  # to close connections and to finish what cannot be cancelled

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Delay = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _split(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names in a text with commas."""
    split = names.split(",") if isinstance(names, str) else names
    return tuple(name.strip() for name in split if name.strip())


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Location = Annotated[str, BeforeValidator(str)]  # a path or a URL


class Settings(BaseSettings):
    """Settings of the service, read once at the composition root and passed down as values."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    models: Location = Field(
        "models", description="Directory of the bundles, or URL of their store."
    )
    model_cache: Path = Field(
        Path("model-cache"), description="Directory of bundles that were fetched from a store."
    )
    model_control: Literal["none", "poll", "explicit"] = Field(
        "none",
        description="How new versions are taken up: not at all, by polling, or by requests.",
    )
    preload: Names | None = Field(
        None,
        description="Models to open at the start and keep open: names with commas, * for all.",
    )
    model_memory: PositiveInt | None = Field(
        None, description="Maximum bytes of the graphs of open models; unset: half of the memory."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free port.")
    unix_socket: Path | None = Field(
        None, description="Unix socket to listen on, in place of an address and port."
    )
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="Port to listen on for gRPC; unset: no gRPC."
    )
    workers: PositiveInt | Literal["auto"] = Field(
        1,
        description="Processes; auto: one for each core, or every AE_THREADS cores; one on a GPU.",
    )
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
    tls_certificate: Path | None = Field(
        None, description="File of the certificate chain; with it, the service speaks TLS."
    )
    tls_key: Path | None = Field(None, description="File of the private key of the certificate.")
    api_keys: KeyEntries = Field(
        {}, repr=False, description="API keys by name as JSON; empty and no file: no key needed."
    )
    api_keys_file: Path | None = Field(
        None, description="File of more API keys, which is read again when it changes."
    )
    open_access: bool = Field(
        False, description="Start without API keys also on an address that others can reach."
    )
    playground: bool = Field(
        True, description="Serve the page at `/` on which people try the models in a browser."
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
    max_queue_delay: Delay = Field(
        0.0, description="Seconds that an idle device waits for a batch to fill."
    )
    max_queued_images: PositiveInt = Field(
        1024, description="Maximum images in flight; beyond it, 429."
    )
    max_queued_bytes: PositiveInt = Field(
        256 * 2**20, description="Maximum bytes of bodies and responses in flight; beyond it, 429."
    )
    max_share: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Share of the images in flight that one model, or one key, may hold.",
    )
    max_connections: PositiveInt = Field(
        1000, description="Maximum open connections; beyond it, the one idle for longest ends."
    )
    head_timeout: Seconds = Field(
        10.0, description="Maximum seconds until the head of a request is complete."
    )
    idle_timeout: PositiveInt = Field(
        75, description="Maximum seconds that a connection is idle between requests."
    )
    send_timeout: Seconds = Field(
        30.0, description="Maximum seconds in which a client takes nothing of its response."
    )
    request_timeout: Seconds = Field(
        30.0, description="Maximum seconds until a request runs; beyond it, 504."
    )
    shutdown_delay: Delay = Field(
        3.0, description="Seconds after SIGTERM in which new requests are still served."
    )
    shutdown_timeout: PositiveInt = Field(
        20, description="Maximum seconds after the delay to finish running requests."
    )
    grace_period: Seconds = Field(
        30.0, description="Seconds after SIGTERM until the container is killed."
    )
    tracing: bool = Field(
        False, description="Send traces; OpenTelemetry's own variables name the collector."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of log lines on standard error."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )

    @model_validator(mode="after")
    def _one_request_fits(self) -> "Settings":
        if self.max_images > self.max_share * self.max_queued_images:
            raise ValueError(
                "max_share of max_queued_images must be at least max_images, or a full request is "
                "never admitted"
            )
        if self.max_body_bytes > self.max_queued_bytes:
            raise ValueError(
                "max_queued_bytes must be at least max_body_bytes, or a full body is never admitted"
            )
        return self

    def divide(self, workers: int, cores: int) -> Self:
        """Return the settings of each of several workers, whose limits add up to these.

        A limit that was not set grows until each worker admits a full request. Raises
        InvalidParameter if a limit that was set is too low.
        """
        least = {
            "max_queued_images": math.ceil(self.max_images / self.max_share),
            "max_queued_bytes": self.max_body_bytes,
            "max_connections": 1,
        }
        shares = {name: getattr(self, name) // workers for name in least}
        for name in self.model_fields_set & {*least}:
            if shares[name] < least[name]:
                raise InvalidParameter(
                    f"{name} of {getattr(self, name)} is {shares[name]} for each of {workers} "
                    f"workers, but a full request needs {least[name]}: raise it to at least "
                    f"{workers * least[name]}, or lower workers"
                )
        limits = {name: max(shares[name], least[name]) for name in least}
        threads = self.threads or max(1, cores // workers)
        return self.model_copy(update={**limits, "threads": threads})

    @model_validator(mode="after")
    def _ports_differ(self) -> "Settings":
        if self.grpc_port and self.grpc_port == self.port:
            raise ValueError("grpc_port must be another port than port")
        return self

    @model_validator(mode="after")
    def _tls_is_complete(self) -> "Settings":
        if self.tls_key and not self.tls_certificate:
            raise ValueError("tls_key needs tls_certificate: set both")
        return self

    @model_validator(mode="after")
    def _the_end_fits(self) -> "Settings":
        needed = self.shutdown_delay + self.shutdown_timeout + END_SECONDS
        if needed > self.grace_period:
            raise ValueError(
                f"shutdown_delay and shutdown_timeout, with {END_SECONDS} s to end, are {needed:g} "
                f"s, but the process is killed after {self.grace_period:g} s: lower them, or raise "
                "grace_period and that of the container"
            )
        return self


def find_unknown(variables: Iterable[str]) -> list[str]:
    """Describe each variable with the prefix that is no setting, with the nearest setting."""
    known = [*(PREFIX + name.upper() for name in Settings.model_fields), *OTHER_VARIABLES]
    unknown = sorted(
        name for name in variables if name.startswith(PREFIX) and name.upper() not in known
    )
    nearest = {name: difflib.get_close_matches(name.upper(), known, 1) for name in unknown}
    return [
        f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else "; remove it")
        for name, near in nearest.items()
    ]
