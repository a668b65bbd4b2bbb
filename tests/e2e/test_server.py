"""The real server with the shipped models and real digits: each operation, in each body type."""

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from PIL import Image

from service.cli import DEVICE_LOST_STATUS
from service.protocols.open_inference_grpc import open_inference_pb2 as pb
from service.registry.repository import ModelRepository
from service.settings import Settings
from tests.bundles import write_bundle
from tests.conftest import DATA
from tests.e2e.conftest import ROOT, Server, start
from tools.response_examples import FILE, fetch, resemble
from training.data import mnist
from training.evaluation.graph_metrics import add_noise

DIGITS = mnist.read(DATA / "mnist" / "t10k-images-idx3-ubyte.gz")[:5]
CLOTHES = mnist.read(DATA / "fashion-mnist" / "t10k-images-idx3-ubyte.gz")[:5]
REPOSITORY = ModelRepository(ROOT / "models")
NEWEST = {
    each.name: REPOSITORY.read(each) for each in REPOSITORY.locations()
}  # in ascending order of version
MODELS = sorted(NEWEST)
AUTOENCODERS = [
    name for name in MODELS if "decode" in NEWEST[name].capabilities
]  # of 28x28 pixels, grey
BACKBONES = [name for name in MODELS if NEWEST[name].provenance.backbone]  # of photographs
COOKIES = DATA / "cookies" / "test"


# Models that reconstruct simple images of any kind, or few of their own: at the default rate, less
# than four of five stand out.
RATES = {"fashion-vae": 0.05, "fashion-latent3": 0.05, "mnist-latent2": 0.05}


def normal_and_anomalous(model: str) -> tuple[np.ndarray, np.ndarray]:
    """Images of the kind that a model was trained on, and of another."""
    return (CLOTHES, DIGITS) if model.startswith("fashion") else (DIGITS, CLOTHES)


def encoded(pixels: np.ndarray, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, image_format, **({"lossless": True} if image_format == "WEBP" else {})
    )
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def bodies(images: np.ndarray) -> dict[str, dict[str, Any]]:
    files = [("images", (f"{index}.png", encoded(image))) for index, image in enumerate(images)]
    one = {
        f"image/{image_format.lower()}": {
            "data": encoded(images[0], image_format),
            "headers": {"Content-Type": f"image/{image_format.lower()}"},
        }
        for image_format in ("PNG", "WEBP", "BMP", "GIF", "TIFF")
    }
    return {
        **one,
        "multipart": {"files": files},
        "json": {
            "json": {"images": [base64.b64encode(encoded(image)).decode() for image in images]}
        },
        "npy": {"data": npy(images), "headers": {"Content-Type": "application/x-npy"}},
    }


def send(server: Server, model: str, operation: str, **options: Any) -> Any:
    response = requests.post(f"{server.url}/v1/models/{model}/{operation}", timeout=60, **options)
    assert response.status_code == 200, response.text
    return response.json()


def image_of(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.square((found.astype(float) - expected.astype(float)) / 255).mean())


def test_one_line_says_that_it_is_ready(server: Server) -> None:
    assert server.ready.startswith("ready: http://127.0.0.1:")
    for word in (*MODELS, "CPUExecutionProvider"):
        assert word in server.ready
    assert requests.get(f"{server.url}/readyz", timeout=60).json()["status"] == "ready"


@pytest.mark.parametrize("body", bodies(DIGITS))
@pytest.mark.parametrize("model", AUTOENCODERS)
def test_images_are_embedded_reconstructed_and_scored(
    server: Server, model: str, body: str
) -> None:
    images, _ = normal_and_anomalous(model)
    options = bodies(images)[body]
    count = 1 if body.startswith("image/") else len(images)
    latents = send(server, model, "encode", **options)["latents"]
    reconstructed = send(server, model, "reconstruct", **options)
    scored = send(server, model, "anomaly-score?heatmap=true&false_positive_rate=0.001", **options)
    assert np.shape(latents)[0] == count
    for text, expected, claimed in zip(
        reconstructed["images"], images, reconstructed["errors"], strict=False
    ):
        assert error(image_of(text), expected) == pytest.approx(claimed, abs=1e-4)
        assert claimed < (0.08 if "latent" in model else 0.03)
    assert [result["is_anomaly"] for result in scored["results"]] == [False] * count
    decoded = send(server, model, "decode", json={"latents": latents})["images"]
    assert decoded == reconstructed["images"]


@pytest.mark.parametrize("body", bodies(DIGITS))
def test_noise_is_removed(server: Server, body: str) -> None:
    noisy = add_noise(DIGITS, sigma=0.5)
    denoised = send(server, "mnist-denoising", "denoise", **bodies(noisy)[body])["images"]
    for text, clean, corrupted in zip(denoised, DIGITS, noisy, strict=False):
        assert error(image_of(text), clean) < error(corrupted, clean) / 5


@pytest.mark.parametrize("model", AUTOENCODERS)
def test_images_of_another_kind_are_anomalies(server: Server, model: str) -> None:
    _, anomalous = normal_and_anomalous(model)
    rate = f"?false_positive_rate={RATES[model]}" if model in RATES else ""
    results = send(server, model, f"anomaly-score{rate}", **bodies(anomalous)["multipart"])[
        "results"
    ]
    assert sum(result["is_anomaly"] for result in results) >= 4


def photographs(kind: str) -> list[tuple[str, tuple[str, bytes]]]:
    return [
        ("images", (path.name, path.read_bytes())) for path in sorted((COOKIES / kind).iterdir())
    ]


@pytest.mark.parametrize("model", BACKBONES)
def test_photographs_are_embedded_and_nothing_is_decoded(server: Server, model: str) -> None:
    found = send(server, model, "encode", files=photographs("good"))
    np.testing.assert_allclose(np.linalg.norm(found["latents"], axis=1), np.ones(5), atol=1e-4)
    assert found["encoder"] == NEWEST[model].encoder
    for operation in {"reconstruct", "anomaly-score"} - {*NEWEST[model].capabilities}:
        url = f"{server.url}/v1/models/{model}/{operation}"
        refused = requests.post(url, files=photographs("good"), timeout=60)
        assert refused.json()["code"] == "operation_not_supported"


def test_cracked_cookies_are_found_and_the_crack_is_shown(server: Server) -> None:
    def scored(kind: str) -> list[dict[str, Any]]:
        options = "heatmap=true&false_positive_rate=0.1"
        found = send(server, "cookies", f"anomaly-score?{options}", files=photographs(kind))
        results: list[dict[str, Any]] = found["results"]
        return results

    normal, cracked = scored("good"), scored("cracked")
    assert sum(result["is_anomaly"] for result in normal) <= 1
    assert sum(result["is_anomaly"] for result in cracked) >= 4
    _, *others = sorted(
        (result["score"] for result in normal), reverse=True
    )  # one of them is atypical
    assert min(result["score"] for result in cracked) > max(others)
    dark, bright = (
        np.mean([image_of(result["heatmap"]).mean() for result in results])
        for results in (normal, cracked)
    )
    assert bright > 3 * dark


@pytest.mark.parametrize("body", bodies(DIGITS))
@pytest.mark.parametrize("model", [model for model in MODELS if "classifier" in model])
def test_digits_are_named(server: Server, model: str, body: str) -> None:
    results = send(server, model, "classify", **bodies(DIGITS)[body])["results"]
    assert [result["label"] for result in results] == list("72104"[: len(results)])
    for result in results:
        assert result["probability"] == max(result["probabilities"].values())
        assert sum(result["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("model", AUTOENCODERS)
def test_samples_are_the_same_for_the_same_seed(server: Server, model: str) -> None:
    first, again = (send(server, model, "sample", json={"count": 9, "seed": 3}) for _ in range(2))
    assert first == again
    assert len(first["images"]) == 9


def test_a_path_leads_from_one_digit_to_another(server: Server) -> None:
    document = send(
        server,
        "mnist-vae",
        "interpolate?steps=6&method=spherical",
        **bodies(DIGITS[:2])["multipart"],
    )
    assert len(document["images"]) == 6


def test_responses_come_as_npy_and_as_png(server: Server) -> None:
    url = f"{server.url}/v1/models/mnist-vae/reconstruct"
    files = bodies(DIGITS)["multipart"]["files"]
    array = requests.post(url, files=files, headers={"Accept": "application/x-npy"}, timeout=60)
    picture = requests.post(url, files=files, headers={"Accept": "image/png"}, timeout=60)
    assert np.load(io.BytesIO(array.content)).shape == (5, 28, 28, 1)
    assert Image.open(io.BytesIO(picture.content)).size == (3 * 28, 2 * 28)


def test_the_examples_of_the_openapi_document_work_when_pasted(server: Server) -> None:
    document = requests.get(f"{server.url}/openapi.json", timeout=60).json()
    tried = 0
    for path, item in document["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        if example := content.get("application/json", {}).get("example"):
            parameters = {
                given["name"]: given.get("example") for given in item["post"].get("parameters", [])
            }
            url = server.url + path.format(**parameters)
            response = requests.post(url, json=example, timeout=60)
            assert response.status_code == 200, (path, response.text)
            tried += 1
    assert tried == 19


def test_the_responses_in_the_openapi_document_are_those_of_the_service(server: Server) -> None:
    recorded, responses = json.loads(FILE.read_text()), fetch(server.url)
    assert recorded.keys() == responses.keys()
    changed = [name for name in recorded if not resemble(recorded[name], responses[name])]
    assert not changed, f"run: python -m tools.response_examples {server.url}"
    examples = requests.get(f"{server.url}/openapi.json", timeout=60).json()["components"]
    assert {name: examples["examples"][name]["value"] for name in recorded} == recorded


def test_a_damaged_bundle_is_skipped_and_the_others_serve(tmp_path: Any) -> None:
    import shutil

    shutil.copytree(ROOT / "models", tmp_path / "models")
    decoder = next((tmp_path / "models" / "mnist-vae").rglob("decoder.onnx"))
    decoder.write_bytes(decoder.read_bytes()[:1000])
    models = str(tmp_path / "models")
    server = start("--models", models, "--device", "cpu", AE_PRELOAD="mnist-vae,photos")
    ready = requests.get(f"{server.url}/readyz", timeout=60).json()
    assert server.end() == 0
    assert set(ready["models"]) == set(MODELS) - {"mnist-vae"}
    assert set(ready["open"]) == {"photos"}
    (failure,) = ready["failed"].values()
    assert "decoder.onnx is damaged" in failure


def test_settings_come_from_the_environment() -> None:
    server = start(AE_MODELS="models", AE_DEVICE="cpu", AE_LOG_FORMAT="json")
    assert server.url.startswith("http://127.0.0.1:")
    assert server.end() == 0


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_check_names_working_models() -> None:
    done = run("check", "--models", "models", "--device", "cpu")
    assert done.returncode == 0, done.stdout
    for model in MODELS:
        assert re.search(
            rf"{model} version \d+: works on CPUExecutionProvider: encode", done.stdout
        )


def test_check_names_failing_models(tmp_path: Any) -> None:
    (tmp_path / "half" / "1").mkdir(parents=True)
    done = run("check", "--models", str(tmp_path), "--device", "cpu")
    assert done.returncode == 1
    assert "half version 1: FAILED: there is no manifest.json" in done.stdout
    assert "0 of 1 bundles" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("serve", "--models", "/nowhere"), "the models directory /nowhere cannot be read"),
        (("serve", "--port", "99999"), "setting port: Input should be less than or equal to 65535"),
    ],
)
def test_a_failing_start_names_the_reason(arguments: tuple[str, ...], complaint: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_after_sigterm_requests_are_served_until_others_have_noticed() -> None:
    server = start("--models", "models", "--device", "cpu", AE_SHUTDOWN_DELAY="1")
    url = f"{server.url}/v1/models/mnist-vae/encode"
    body, headers = encoded(DIGITS[0]), {"Content-Type": "image/png"}
    noticed = threading.Event()

    def load(_: int) -> set[int]:
        with requests.Session() as session:
            found = set()
            while not noticed.is_set():
                found.add(session.post(url, body, headers=headers, timeout=60).status_code)
        return found

    with ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(load, index) for index in range(8)]
        server.process.send_signal(signal.SIGTERM)
        while requests.get(f"{server.url}/readyz", timeout=60).status_code == 200:
            pass
        late = requests.post(url, body, headers=headers, timeout=60)
        noticed.set()
        statuses = set().union(*(each.result() for each in loads))
    assert (late.status_code, late.headers["connection"]) == (200, "close")
    assert statuses == {200}
    assert server.end() == 0


def test_a_new_version_is_taken_up_by_a_signal_without_a_failed_request(tmp_path: Path) -> None:
    write_bundle(tmp_path, "tiny", 1)
    server = start("--models", str(tmp_path), "--device", "cpu")
    url = f"{server.url}/v1/models/tiny/encode"
    body, headers = encoded(np.zeros((4, 6), np.uint8)), {"Content-Type": "image/png"}
    served = threading.Event()

    def load(_: int) -> set[tuple[int, int]]:
        with requests.Session() as session:
            found = set()
            while not served.is_set():
                response = session.post(url, body, headers=headers, timeout=60)
                found.add((response.status_code, response.json()["version"]))
        return found

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, index) for index in range(4)]
        for version in range(2, 6):
            write_bundle(tmp_path, "tiny", version)
            server.process.send_signal(signal.SIGHUP)
            while requests.post(url, body, headers=headers, timeout=60).json()["version"] < version:
                pass
        served.set()
        found = set().union(*(each.result() for each in loads))
    assert {status for status, _ in found} == {200}
    assert {version for _, version in found} >= {1, 5}
    assert server.end() == 0


def test_output_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    write_bundle(tmp_path, "tiny", 1)
    address = tmp_path / "socket"
    command = [sys.executable, "-m", "service", "serve", "--models", str(tmp_path)]
    environment = os.environ | {"AE_UNIX_SOCKET": str(address), "AE_DEVICE": "cpu"}
    request = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with (
        Path("/dev/full").open("w") as full,
        run_until_killed(command, cwd=ROOT, env=environment, stdout=full, stderr=full) as process,
    ):
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as client:
                while client.connect_ex(str(address)):
                    with pytest.raises(subprocess.TimeoutExpired):
                        process.wait(timeout=0.1)
                client.sendall(request)
                assert client.recv(100).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


@contextmanager
def run_until_killed(command: list[str], **options: Any) -> "Iterator[subprocess.Popen[str]]":
    """A process that does not outlive the test."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


LOSES_ITS_DEVICE = """
import sys
from service import app, cli
from service.errors import DeviceLost
from service.scheduling.executor import DeviceExecutor

def lose(tensors):
    raise DeviceLost("the device failed")

class LosingExecutor(DeviceExecutor):
    async def run(self, work, deadline):
        work.run = lose
        return await super().run(work, deadline)

app.DeviceExecutor = LosingExecutor
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_lost_device_ends_the_process_with_a_status_of_its_own(tmp_path: Path) -> None:
    write_bundle(tmp_path, "tiny", 1)
    arguments = ["serve", "--port", "0", "--models", str(tmp_path), "--device", "cpu"]
    command = [sys.executable, "-c", LOSES_ITS_DEVICE, *arguments]
    body, headers = encoded(np.zeros((4, 6), np.uint8)), {"Content-Type": "image/png"}
    with run_until_killed(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        response = requests.post(f"{url}/v1/models/tiny/encode", body, headers=headers, timeout=60)
        assert (response.status_code, response.json()["code"]) == (503, "device_lost")
        assert process.wait(timeout=60) == DEVICE_LOST_STATUS


def test_the_grace_period_is_that_of_the_compose_file() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    found = set(re.findall(r"stop_grace_period: (\d+)s", compose))
    assert found == {f"{Settings().grace_period:.0f}"}


@pytest.mark.parametrize("setting", ["AE_PORT", "AE_GRPC_PORT"])
def test_a_port_that_is_taken_ends_the_start(setting: str, models: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ports = {"AE_PORT": "0"} | {setting: port}
        done = run("serve", "--models", str(models), "--device", "cpu", **ports)
    assert done.returncode == 1
    assert f"error: 127.0.0.1:{port} cannot be listened on" in done.stderr


def test_calls_of_grpc_that_run_at_the_end_are_finished() -> None:
    server = start("--models", "models", "--device", "cpu", AE_GRPC_PORT="0", AE_SHUTDOWN_DELAY="0")
    address = re.findall(r"grpc://(\S+)", server.ready)[0]
    request = pb.ModelInferRequest(model_name="mnist-vae.reconstruct")
    request.inputs.add(name="images", datatype="UINT8", shape=[64, 28, 28])
    request.raw_input_contents.append(bytes(64 * 28 * 28))
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        message = request.SerializeToString()
        running = [infer.future(message) for _ in range(8)]
        running[0].result()  # the others run, or wait in the queue
        assert server.end() == 0
        responses = [pb.ModelInferResponse.FromString(each.result()) for each in running]
    assert [[*each.outputs[0].shape] for each in responses] == [[64, 28, 28, 1]] * 8
