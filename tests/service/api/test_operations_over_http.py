"""Operations through the application, in every body type and every response type."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from bundle.manifest import compute_sha256
from tests.bundles import CLASSES, LATENT_DIM
from tests.service.api.helpers import TINY

NPY_BOTH_WAYS = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
PIXELS = np.random.default_rng(2).integers(0, 256, (2, 4, 6), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def array_of(response: Any) -> np.ndarray:
    assert response.headers["content-type"] == "application/x-npy"
    array: np.ndarray = np.load(io.BytesIO(response.content))
    return array


def image_of(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def bodies(pixels: np.ndarray) -> dict[str, dict[str, Any]]:
    """The same images in each body type, or one image if the type holds no more."""
    files = [
        ("images", (f"{index}.png", png(image), "image/png")) for index, image in enumerate(pixels)
    ]
    texts = [as_base64(png(pixels[0])), "data:image/png;base64," + as_base64(png(pixels[1]))]
    return {
        "image": {"content": png(pixels[0]), "headers": {"Content-Type": "image/png"}},
        "wrong subtype": {"content": png(pixels[0]), "headers": {"Content-Type": "image/jpeg"}},
        "multipart": {"files": files},
        "json": {"json": {"images": texts}},
        "npy": {"content": npy(pixels), "headers": {"Content-Type": "application/x-npy"}},
        "npy with channel": {
            "content": npy(pixels[..., None]),
            "headers": {"Content-Type": "application/x-npy"},
        },
        "npy in Fortran order": {
            "content": npy(np.asfortranarray(pixels)),
            "headers": {"Content-Type": "application/x-npy; charset=x"},
        },
    }


def expected_latents(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1)[:, :LATENT_DIM] / np.float32(255)


def expected_images(pixels: np.ndarray) -> np.ndarray:
    flat = pixels.reshape(len(pixels), -1).copy()
    flat[:, LATENT_DIM:] = 0
    return flat.reshape(pixels.shape)


@pytest.mark.parametrize("body", bodies(PIXELS))
def test_encode_reads_every_body_type(client: TestClient, body: str) -> None:
    response = client.post(f"{TINY}/encode", **bodies(PIXELS)[body])
    assert response.status_code == 200, response.text
    document = response.json()
    assert (document["model"], document["version"]) == ("tiny", 2)
    count = 1 if body in ("image", "wrong subtype") else 2
    np.testing.assert_allclose(document["latents"], expected_latents(PIXELS[:count]), atol=1e-6)


@pytest.mark.parametrize("body", bodies(PIXELS))
@pytest.mark.parametrize("operation", ["reconstruct", "denoise"])
def test_images_come_back_from_every_body_type(
    client: TestClient, operation: str, body: str
) -> None:
    response = client.post(f"{TINY}/{operation}", **bodies(PIXELS)[body])
    found = np.stack([image_of(text) for text in response.json()["images"]])
    np.testing.assert_array_equal(found, expected_images(PIXELS[: len(found)]))
    assert ("errors" in response.json()) == (operation == "reconstruct")


@pytest.mark.parametrize("body", bodies(PIXELS))
def test_anomaly_score_reads_every_body_type(client: TestClient, body: str) -> None:
    document = client.post(f"{TINY}/anomaly-score", **bodies(PIXELS)[body]).json()
    assert document["false_positive_rate"] == 0.01  # the lowest that 99 calibration images allow
    assert document["method"] == "mean squared error of the reconstruction"
    for result in document["results"]:
        assert set(result) == {"score", "p_value", "threshold", "is_anomaly"}
        assert result["is_anomaly"] is (result["score"] >= result["threshold"]) is True


def test_encode_as_npy(client: TestClient) -> None:
    response = client.post(
        f"{TINY}/encode", **bodies(PIXELS)["npy"] | accept("application/x-npy", "application/x-npy")
    )
    latents = array_of(response)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, expected_latents(PIXELS), atol=1e-6)


def accept(media_type: str, content_type: str | None = None) -> dict[str, Any]:
    return {
        "headers": {"Accept": media_type} | ({"Content-Type": content_type} if content_type else {})
    }


def test_encode_as_base64_gives_little_endian_float32(client: TestClient) -> None:
    document = client.post(f"{TINY}/encode?encoding=base64", **bodies(PIXELS)["npy"]).json()
    found = [np.frombuffer(base64.b64decode(text), "<f4") for text in document["latents"]]
    np.testing.assert_allclose(found, expected_latents(PIXELS), atol=1e-6)


def test_encode_gives_variances_if_requested(client: TestClient) -> None:
    plain = client.post("/v1/models/tiny-vae/encode", **bodies(PIXELS)["npy"]).json()
    assert "log_variances" not in plain
    both = client.post("/v1/models/tiny-vae/encode?variance=true", **bodies(PIXELS)["npy"]).json()
    np.testing.assert_allclose(both["log_variances"], np.array(both["latents"]) - 4, atol=1e-6)


@pytest.mark.parametrize("operation", ["reconstruct", "denoise"])
def test_images_as_npy_and_as_png(client: TestClient, operation: str) -> None:
    options = bodies(PIXELS)["npy"]
    content = options["headers"]["Content-Type"]
    as_npy = client.post(f"{TINY}/{operation}", **options | accept("application/x-npy", content))
    np.testing.assert_array_equal(array_of(as_npy), expected_images(PIXELS)[..., None])
    as_png = client.post(f"{TINY}/{operation}", **options | accept("image/png", content))
    assert as_png.headers["content-type"] == "image/png"
    grid = np.asarray(Image.open(io.BytesIO(as_png.content)))
    np.testing.assert_array_equal(grid, np.concatenate(list(expected_images(PIXELS)), axis=1))


def test_scores_as_npy(client: TestClient) -> None:
    options = bodies(PIXELS)["npy"] | accept("application/x-npy", "application/x-npy")
    scores = array_of(client.post(f"{TINY}/anomaly-score", **options))
    documents = client.post(f"{TINY}/anomaly-score", **bodies(PIXELS)["npy"]).json()["results"]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [document["score"] for document in documents], rtol=1e-6)


@pytest.mark.parametrize("body_type", ["json", "npy"])
def test_decode_reads_every_body_type(client: TestClient, body_type: str) -> None:
    latents = expected_latents(PIXELS).astype(np.float32)
    body: dict[str, Any] = {"json": {"latents": latents.tolist()}}
    if body_type == "npy":
        body = {"content": npy(latents), "headers": {"Content-Type": "application/x-npy"}}
    document = client.post(f"{TINY}/decode", **body).json()
    found = np.stack([image_of(text) for text in document["images"]])
    np.testing.assert_array_equal(found, expected_images(PIXELS))


def test_sample_is_the_same_for_the_same_seed(client: TestClient) -> None:
    options = {"count": 3, "seed": 5, "temperature": 0.5}
    first, again = (client.post(f"{TINY}/sample", json=options).json() for _ in range(2))
    assert first == again
    assert first["seed"] == 5
    assert np.shape(first["latents"]) == (3, LATENT_DIM)
    assert len(first["images"]) == 3
    other = client.post(f"{TINY}/sample", json=options | {"seed": 6}).json()
    assert other["images"] != first["images"]


def test_sample_without_body_draws_one_image_and_returns_the_seed(client: TestClient) -> None:
    drawn = client.post(f"{TINY}/sample").json()
    assert len(drawn["images"]) == 1
    again = client.post(f"{TINY}/sample", json={"seed": drawn["seed"]}).json()
    assert again["images"] == drawn["images"]


def test_a_sample_can_be_a_picture(client: TestClient) -> None:
    response = client.post(f"{TINY}/sample", json={"count": 4}, headers={"Accept": "image/png"})
    assert Image.open(io.BytesIO(response.content)).size == (12, 8)


def test_heatmap_and_regions_have_the_inputs_size(client: TestClient) -> None:
    image = np.zeros((8, 12), np.uint8)
    image[6:, 10:] = 255
    body: Any = {"content": png(image), "headers": {"Content-Type": "image/png"}}
    (result,) = client.post(f"{TINY}/anomaly-score?heatmap=true", **body).json()["results"]
    heatmap = image_of(result["heatmap"])
    assert heatmap.shape == (8, 12, 3)
    assert heatmap[7, 11].sum() > heatmap[0, 0].sum() == 0
    (region,) = result["regions"]
    assert region.pop("score") > 0.5
    assert region == {"x": 10, "y": 6, "width": 2, "height": 2}


@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 6), (33, 50)])
def test_an_overlay_colours_the_anomalies_of_the_image(
    client: TestClient,
    height: int,
    width: int,
) -> None:
    image = np.full((height, width, 3), (60, 60, 70), np.uint8)
    image[-height // 4 :, -width // 6 :] = 255
    body: dict[str, Any] = {"content": png(image), "headers": {"Content-Type": "image/png"}}
    (result,) = client.post(f"{TINY}/anomaly-score?heatmap=overlay", **body).json()["results"]
    (plain,) = client.post(f"{TINY}/anomaly-score?heatmap=true", **body).json()["results"]
    assert result["regions"] == plain["regions"] != []
    overlay, heatmap = image_of(result["heatmap"]), image_of(plain["heatmap"])
    assert overlay.shape == heatmap.shape == (height, width, 3)
    assert not np.array_equal(overlay, heatmap)


def test_an_overlay_of_an_image_without_anomalies_is_the_image(client: TestClient) -> None:
    image = np.zeros((8, 12, 3), np.uint8)
    image[:2, :, 2] = 200  # which the grey model reconstructs
    body: dict[str, Any] = {"content": png(image), "headers": {"Content-Type": "image/png"}}
    (result,) = client.post(f"{TINY}/anomaly-score?heatmap=overlay", **body).json()["results"]
    np.testing.assert_array_equal(image_of(result["heatmap"]), image)


def test_an_overlay_of_an_array_is_at_the_models_size(client: TestClient) -> None:
    document = client.post(f"{TINY}/anomaly-score?heatmap=overlay", **bodies(PIXELS)["npy"]).json()
    assert [image_of(result["heatmap"]).shape for result in document["results"]] == [(4, 6, 3)] * 2


def test_a_heatmap_is_true_false_or_an_overlay(client: TestClient) -> None:
    response = client.post(f"{TINY}/anomaly-score?heatmap=blue", **bodies(PIXELS)["image"])
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")
    assert "heatmap" in response.json()["detail"]
    plain = client.post(f"{TINY}/anomaly-score?heatmap=false", **bodies(PIXELS)["image"]).json()
    assert set(plain["results"][0]) == {"score", "p_value", "threshold", "is_anomaly"}


def test_the_rate_moves_the_threshold(client: TestClient) -> None:
    at = {
        rate: client.post(
            f"{TINY}/anomaly-score?false_positive_rate={rate}", **bodies(PIXELS)["image"]
        ).json()
        for rate in (0.001, 0.01, 0.5)
    }
    thresholds = [document["results"][0]["threshold"] for document in at.values()]
    assert thresholds[0] is None
    assert thresholds[1] > thresholds[2]
    assert at[0.001]["results"][0]["is_anomaly"] is None


@pytest.mark.parametrize("operation", ["reconstruct", "denoise"])
def test_images_are_returned_at_the_inputs_size(client: TestClient, operation: str) -> None:
    large = np.asarray(Image.fromarray(PIXELS[0]).resize((60, 40)))
    files = [("images", ("a.png", png(large))), ("images", ("b.png", png(PIXELS[1])))]
    path = f"{TINY}/{operation}?size=original"
    shapes = [image_of(text).shape for text in client.post(path, files=files).json()["images"]]
    assert shapes == [(40, 60), (4, 6)]
    one = client.post(path, files=files[:1], headers={"Accept": "image/png"})
    assert Image.open(io.BytesIO(one.content)).size == (60, 40)
    several = client.post(path, files=files, headers={"Accept": "image/png"})
    assert (several.status_code, several.json()["code"]) == (422, "invalid_parameter")


@pytest.mark.parametrize("body", ["multipart", "json", "npy"])
def test_interpolate_between_images(client: TestClient, body: str) -> None:
    document = client.post(f"{TINY}/interpolate?steps=3", **bodies(PIXELS)[body]).json()
    np.testing.assert_allclose(
        np.array(document["latents"])[[0, 2]], expected_latents(PIXELS), atol=1e-6
    )
    assert len(document["images"]) == 3


def test_interpolate_between_latents(client: TestClient) -> None:
    ends = [[0.0] * LATENT_DIM, [1.0] * LATENT_DIM]
    document = client.post(
        f"{TINY}/interpolate", json={"latents": ends, "steps": 5, "method": "linear"}
    ).json()
    np.testing.assert_allclose(np.array(document["latents"])[:, 0], [0, 0.25, 0.5, 0.75, 1])
    body: Any = {
        "content": npy(np.array(ends, np.float32)),
        "headers": {"Content-Type": "application/x-npy"},
    }
    assert len(client.post(f"{TINY}/interpolate?method=spherical", **body).json()["images"]) == 8


@pytest.mark.parametrize("body", bodies(PIXELS))
def test_classify_reads_every_body_type(client: TestClient, body: str) -> None:
    response = client.post(f"{TINY}/classify", **bodies(PIXELS)[body])
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    count = 1 if body in ("image", "wrong subtype") else 2
    logits = np.exp(expected_latents(PIXELS[:count])[:, :3])
    expected = logits / logits.sum(axis=1, keepdims=True)
    assert len(results) == count
    for result, row in zip(results, expected, strict=True):
        assert list(result["probabilities"]) == list(CLASSES)
        np.testing.assert_allclose(list(result["probabilities"].values()), row, rtol=1e-5)
        assert result["label"] == CLASSES[row.argmax()]
        assert result["probability"] == result["probabilities"][result["label"]]


def test_probabilities_as_npy(client: TestClient) -> None:
    response = client.post(f"{TINY}/classify", **bodies(PIXELS)["npy"] | {"headers": NPY_BOTH_WAYS})
    np.testing.assert_allclose(array_of(response).sum(axis=1), [1, 1], rtol=1e-6)


def test_a_version_can_be_named(client: TestClient) -> None:
    for version in (1, 2):
        document = client.post(
            f"{TINY}/versions/{version}/encode", **bodies(PIXELS)["image"]
        ).json()
        assert document["version"] == version


def test_the_card_describes_the_model(client: TestClient) -> None:
    card = client.get(TINY).json()
    assert card["versions"] == [1, 2]
    assert card["input"] == {"height": 4, "width": 6, "channels": 1, "resample": "bilinear"}
    assert card["execution_provider"] == "CPUExecutionProvider"
    assert card["calibration"]["images"] == 99
    assert client.get(f"{TINY}/versions/1").json()["version"] == 1
    fields = (
        "name version versions description architecture capabilities input latent_dim metrics "
        "calibration classes training_data sha256 encoder weak execution_provider"
    )
    assert set(card) == set(fields.split())


def test_the_card_names_the_encoder(client: TestClient, models: Path) -> None:
    file = models / "tiny" / "2" / "encoder.onnx"
    assert client.get(TINY).json()["encoder"] == compute_sha256(file)


def test_every_encode_response_names_the_encoder(client: TestClient) -> None:
    encoder = client.get(TINY).json()["encoder"]
    for path in ("encode", "encode?encoding=base64"):
        response = client.post(f"{TINY}/{path}", **bodies(PIXELS)["npy"])
        assert response.json()["encoder"] == response.headers["x-encoder"] == encoder
    response = client.post(f"{TINY}/encode", content=npy(PIXELS), headers=NPY_BOTH_WAYS)
    assert response.headers["x-encoder"] == encoder
    other = client.post("/v1/models/tiny-vae/encode", **bodies(PIXELS)["npy"])
    assert other.headers["x-encoder"] != encoder


def in_colour(*colours: tuple[int, int, int]) -> dict[str, Any]:
    files = [np.full((4, 6, 3), colour, np.uint8) for colour in colours]
    return {"files": [("images", ("a.png", png(image))) for image in files]}


GREY, RED = (90, 90, 90), (200, 30, 30)


@pytest.mark.parametrize(
    "operation",
    ["encode", "reconstruct", "denoise", "classify", "anomaly-score"],
)
def test_a_grey_model_warns_of_images_in_colour(client: TestClient, operation: str) -> None:
    path = f"{TINY}/{operation}"
    assert "warnings" not in client.post(path, **in_colour(GREY, GREY)).json()
    assert "warnings" not in client.post(path, **bodies(PIXELS)["npy"]).json()
    one = client.post(path, **in_colour(GREY, RED)).json()
    lost = "but tiny takes grey images: {} colours were discarded"
    assert one["warnings"] == [f"image 1 is in colour, {lost.format('its')}"]
    two = client.post(path, **in_colour(RED, GREY, RED)).json()
    assert two["warnings"] == [f"images 0 and 2 are in colour, {lost.format('their')}"]
    many = client.post(path, **in_colour(*[RED] * 7)).json()
    assert many["warnings"] == [f"images 0, 1, 2 and 4 more are in colour, {lost.format('their')}"]


def test_the_list_holds_the_card_of_each_model_that_is_ready(client: TestClient) -> None:
    cards = client.get("/v1/models").json()["models"]
    assert [card["name"] for card in cards] == ["tiny", "tiny-vae"]
    assert cards[0] == client.get(TINY).json()
