"""The client against a real server; its README prints what it promises."""

import asyncio
import re
import subprocess
import sys

import numpy as np
import pytest
from autoencoder_client import AsyncClient, Client, ServiceError

from tests.e2e.conftest import ROOT, Server

COOKIE = ROOT / "docs" / "cookie.jpg"
SEVEN, TWO = (ROOT / "docs" / "images" / f"{name}.png" for name in ("seven", "two"))


def test_every_operation(server: Server) -> None:
    with Client(server.url) as client:
        assert "mnist-vae" in [card["name"] for card in client.models()]
        encoded = client.encode("mnist-vae", [SEVEN, TWO])
        assert encoded.latents.shape == (2, 32)
        assert client.decode("mnist-vae", encoded.latents).images[0].shape == (28, 28)
        reconstructed = client.reconstruct("mnist-vae", [SEVEN])
        assert reconstructed.errors.shape == (1,)
        assert client.denoise("mnist-denoising", [SEVEN]).images[0].dtype == np.uint8
        assert client.classify("mnist-classifier", [SEVEN]).results[0].label == "7"
        samples = client.sample("mnist-vae", 3, seed=1)
        assert (len(samples.images), samples.latents.shape, samples.seed) == (3, (3, 32), 1)
        assert len(client.interpolate("mnist-vae", [SEVEN, TWO], steps=5).images) == 5
        scored = client.score("cookies", [COOKIE], picture="heatmap").results[0]
        assert scored.is_anomaly
        assert scored.picture is not None
        assert scored.picture.startswith(b"\x89PNG")
        assert scored.regions
        with pytest.raises(ServiceError, match="model_not_found"):
            client.encode("nothing", [SEVEN])


def test_many_images_and_an_invalid_one(server: Server) -> None:
    images = [np.full((28, 28), index % 256, np.uint8) for index in range(300)]
    with Client(server.url) as client:
        encoded = client.encode("mnist-vae", [*images, b"no image"])
    assert list(encoded.failures) == [300]
    assert np.isfinite(encoded.latents[:300]).all()


def test_the_asynchronous_client(server: Server) -> None:
    async def score() -> list[bool | None]:
        async with AsyncClient(server.url) as client:
            scored = await asyncio.gather(*[client.score("cookies", [COOKIE]) for _ in range(4)])
        return [each.results[0].is_anomaly for each in scored]

    assert asyncio.run(score()) == [True] * 4


def test_the_readme_prints_what_it_promises(server: Server) -> None:
    readme = (ROOT / "client" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code.replace("http://127.0.0.1:8000", server.url)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "client")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == re.findall(r"  # (.*)", code), done.stderr
