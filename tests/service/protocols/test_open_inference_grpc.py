"""Calls of gRPC to the real server, whose application is the same as that of HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from google.protobuf.message import Message
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bundle.errors import InvalidParameter
from service.api.dependencies import Services
from service.api.errors import MalformedRequest, PayloadTooLarge
from service.app import build_application, build_services, create_grpc_server
from service.errors import DeadlineExceeded, Overloaded
from service.protocols.open_inference_grpc import call as grpc_call
from service.protocols.open_inference_grpc import open_inference_pb2 as pb
from service.protocols.open_inference_grpc import transcoding, wire
from service.protocols.open_inference_grpc.call import Reads
from service.server.limits import ConnectionLimits
from service.server.uvicorn_server import Tls
from service.settings import Settings
from tests.conftest import DATA
from tests.service.api.helpers import entries
from tests.service.protocols.test_open_inference import IMAGE, PIXELS

LIMITS = ConnectionLimits(100, 10.0, 75, 30.0)
NO_TLS = Tls()
RECORDED = DATA / "clients" / "tritonclient-2.73.0.ModelInfer"


class Caller:
    """Calls methods by their names."""

    def __init__(self, channel: aio.Channel) -> None:
        self.channel = channel

    def __call__(self, name: str, message: Any = b"", **options: Any) -> Any:
        data = message.SerializeToString() if isinstance(message, Message) else message
        return self.channel.unary_unary(f"/{transcoding.SERVICE}/{name}")(data, **options)

    async def get(self, name: str, message: Any = b"", **options: Any) -> Any:
        """Return the message of the response."""
        response = getattr(pb, f"{name}Response")()
        response.ParseFromString(await self(name, message, **options))
        return response

    async def fail(self, name: str, message: Any = b"", **options: Any) -> tuple[Any, str]:
        """Return the code and the details of an error."""
        with pytest.raises(aio.AioRpcError) as raised:
            await self(name, message, **options)
        return raised.value.code(), raised.value.details() or ""


@asynccontextmanager
async def serving(models: Path, tls: Tls = NO_TLS, **settings: Any) -> AsyncIterator[Any]:
    """Serve on a free port; the services and the address."""
    services = build_services(Settings(models=models, device="cpu", **settings))
    application = build_application(services)
    server = create_grpc_server(application, ("127.0.0.1", 0), tls, LIMITS)
    await server.start()
    try:
        yield services, server.describe().partition("//")[2]
    finally:
        await server.stop(0)
        services.executor.close()


def run(models: Path, test: Callable[[Caller, Services], Awaitable[None]], **settings: Any) -> None:
    """Run a test with a channel to the server."""

    async def main() -> None:
        async with (
            serving(models, **settings) as (services, address),
            aio.insecure_channel(address, [("grpc.http2.bdp_probe", 0)]) as channel,
        ):
            await asyncio.wait_for(test(Caller(channel), services), 60)

    asyncio.run(main())


def images(*encoded: bytes) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tiny")
    tensor = request.inputs.add(name="images", datatype="BYTES", shape=[len(encoded)])
    tensor.contents.bytes_contents.extend(encoded)
    return request


def pixels(array: np.ndarray = PIXELS, model: str = "tiny") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="images", datatype="UINT8", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request


def read_outputs(response: pb.ModelInferResponse) -> Mapping[str, np.ndarray]:
    dtypes = {"FP32": "<f4", "UINT8": "u1", "BOOL": "?"}
    return {
        output.name: np.frombuffer(raw, dtypes[output.datatype]).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def test_the_server_and_its_models_are_described(models: Path) -> None:
    async def test(call: Caller, _: Services) -> None:
        assert (await call.get("ServerLive")).live
        assert (await call.get("ServerReady")).ready
        assert (await call.get("ServerMetadata")).name == "autoencoder-service"
        assert (await call.get("ModelReady", pb.ModelReadyRequest(name="tiny", version="1"))).ready
        model = await call.get("ModelMetadata", pb.ModelMetadataRequest(name="tiny.decode"))
        assert [*model.versions] == ["1", "2"]
        assert [*model.inputs[0].shape] == [-1, 8]
        every = await call.get("RepositoryIndex")
        assert {each.name for each in every.models} == {"tiny", "tiny-vae", "broken"}
        ready = await call.get("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
        assert {each.name for each in ready.models} == {"tiny", "tiny-vae"}

    run(models, test)


def test_images_infer_as_over_http(models: Path, client: Any) -> None:
    over_http = client.post(
        "/v1/models/tiny/encode", content=IMAGE, headers={"Content-Type": "image/png"}
    )
    expected = np.array(over_http.json()["latents"], np.float32)

    async def test(call: Caller, _: Services) -> None:
        request = images(IMAGE)
        request.id = "7"
        response = await call.get("ModelInfer", request)
        assert (response.model_name, response.model_version, response.id) == ("tiny", "2", "7")
        np.testing.assert_array_equal(read_outputs(response)["latents"], expected)
        recorded = await call.get("ModelInfer", RECORDED.read_bytes())
        assert recorded.id == "recorded"
        assert read_outputs(recorded)["latents"].shape == (2, 8)

    run(models, test)


def test_tensors_are_raw_or_contents_of_their_type(models: Path) -> None:
    async def test(call: Caller, _: Services) -> None:
        raw = read_outputs(await call.get("ModelInfer", pixels()))["latents"]
        typed = pixels()
        del typed.raw_input_contents[:]
        typed.inputs[0].contents.uint_contents.extend(PIXELS.ravel().tolist())
        latents = read_outputs(await call.get("ModelInfer", typed))["latents"]
        np.testing.assert_array_equal(latents, raw)

        decode = pb.ModelInferRequest(model_name="tiny.decode")
        tensor = decode.inputs.add(name="latents", datatype="FP32", shape=raw.shape)
        tensor.contents.fp32_contents.extend(raw.ravel().tolist())
        decoded = read_outputs(await call.get("ModelInfer", decode))["images"]
        both = read_outputs(await call.get("ModelInfer", pixels(model="tiny.reconstruct")))
        assert np.abs(decoded.astype(int) - both["images"].astype(int)).max() <= 1

    run(models, test)


def test_parameters_and_requested_outputs_are_honoured(models: Path) -> None:
    async def test(call: Caller, _: Services) -> None:
        request = pb.ModelInferRequest(model_name="tiny-vae.sample", model_version="1")
        request.parameters["count"].int64_param = 3
        request.parameters["seed"].int64_param = 7
        request.parameters["temperature"].double_param = 0.5
        request.outputs.add(name="latents")
        first = read_outputs(await call.get("ModelInfer", request))
        again = read_outputs(await call.get("ModelInfer", request))
        assert {*first} == {"latents"}
        assert first["latents"].shape[0] == 3
        np.testing.assert_array_equal(first["latents"], again["latents"])

    run(models, test)


def test_errors_have_the_codes_of_grpc(models: Path) -> None:
    async def test(call: Caller, services: Services) -> None:
        code = grpc.StatusCode
        assert await call.fail("ModelConfig") == (
            code.UNIMPLEMENTED,
            "ModelConfig is not served",
        )
        for name in ("none", "a/b", "", "..", "tiny/versions/1"):
            status, _ = await call.fail("ModelMetadata", pb.ModelMetadataRequest(name=name))
            assert status == code.NOT_FOUND, name
        load = pb.RepositoryModelLoadRequest(model_name="tiny")
        assert (await call.fail("RepositoryModelLoad", load))[0] == code.FAILED_PRECONDITION
        ready = pb.ModelReadyRequest(name="broken")
        assert (await call.fail("ModelReady", ready))[0] == code.UNAVAILABLE
        assert (await call.fail("ModelInfer", b"\xff"))[0] == code.INVALID_ARGUMENT
        assert (await call.fail("ModelReady", b"\0" * 100_000))[0] == code.INVALID_ARGUMENT
        assert (await call.fail("ModelInfer", images(b"none")))[0] == code.INVALID_ARGUMENT

        request = pixels()
        request.raw_input_contents.append(b"more")
        assert "1 inputs and 2 raw_input_contents" in (await call.fail("ModelInfer", request))[1]
        request = pixels()
        request.inputs[0].shape[0] = 2
        assert "not those of the shape" in (await call.fail("ModelInfer", request))[1]
        request = pixels()
        request.inputs[0].datatype = "INT64"
        assert "is INT64; send BYTES, UINT8 or FP32" in (await call.fail("ModelInfer", request))[1]
        request = images(IMAGE)
        request.inputs[0].datatype = "UINT8"
        assert "has bytes_contents; send uint" in (await call.fail("ModelInfer", request))[1]
        request = pixels()
        del request.raw_input_contents[:]
        request.inputs[0].contents.uint_contents.append(256)
        assert "integers of 0 to 255" in (await call.fail("ModelInfer", request))[1]
        assert services.admission.bytes == 0

    run(models, test)


def test_keys_are_needed_as_over_http(models: Path) -> None:
    async def test(call: Caller, _: Services) -> None:
        code = grpc.StatusCode
        assert (await call.fail("ModelInfer", pixels()))[0] == code.UNAUTHENTICATED
        wrong = {"metadata": [("authorization", "Bearer decoder")]}
        assert (await call.fail("ModelInfer", pixels(), **wrong))[0] == code.PERMISSION_DENIED
        right = {"metadata": [("authorization", "Bearer encoder")]}
        await call.get("ModelInfer", pixels(), **right)
        assert (await call.get("ServerReady")).ready

    run(models, test, api_keys=entries({"encoder": ["encode"], "decoder": ["decode"]}))


def test_a_rejection_says_when_to_retry(models: Path) -> None:
    async def test(call: Caller, services: Services) -> None:
        with services.admission.admit(8):
            response = call("ModelInfer", pixels(), metadata=[("x-request-id", "mine")])
            assert await response.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            metadata = dict(await response.trailing_metadata())
        assert metadata["grpc-retry-pushback-ms"] == "1000"
        assert metadata["x-request-id"] == "mine"
        assert await call.get("ModelInfer", pixels())

    run(models, test, max_images=6, max_queued_images=8)


def test_messages_are_bounded_also_after_decompression(models: Path) -> None:
    async def test(call: Caller, _: Services) -> None:
        large = pixels(np.zeros((30, 100, 100), np.uint8))
        assert (await call.fail("ModelInfer", large))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        packed = {"compression": grpc.Compression.Gzip}
        status, detail = await call.fail("ModelInfer", large, **packed)
        assert status == grpc.StatusCode.RESOURCE_EXHAUSTED, detail
        assert await call.get("ModelInfer", pixels(), **packed)

    run(models, test, max_body_bytes=100_000)


def pack(*fields: bytes) -> bytes:
    """A serialised field whose content is the other fields."""
    content = b"".join(fields)
    parts = [len(content) >> shift & 0x7F for shift in (0, 7, 14, 21)]
    return bytes([parts[0] | 0x80, parts[1] | 0x80, parts[2] | 0x80, parts[3]]) + content


@pytest.mark.parametrize(
    "message",
    [
        b"\x2a\x00" * 5000,  # inputs
        b"\x2a" + pack(b"\x2a" + pack(b"\x42\x00" * 5000)),  # bytes_contents
        (b"\x2a" + pack(b"\x1a" + pack(b"\x01" * 40_000))) * 2,  # shapes
        (b"\x2a" + pack(b"\x2a" + pack(b"\x1a" + pack(b"\x01" * 2**21)))) * 3,  # int64_contents
        b"\x32" + pack(b"\x12" + pack(b"\x0a\x01a") * 20_000),  # parameters of an output
    ],
)
def test_fields_that_would_take_much_memory_are_refused(message: bytes) -> None:
    with pytest.raises(PayloadTooLarge):
        wire.check_size(message)


@pytest.mark.parametrize("message", [b"\x2a", b"\x2a\x05\x01", b"\x2b\x2a\x00", b"\xff" * 11])
def test_bytes_that_are_no_message_are_refused(message: bytes) -> None:
    with pytest.raises(MalformedRequest):
        wire.check_size(message)


def test_a_usual_message_passes_the_check_of_its_fields() -> None:
    wire.check_size(pixels(np.zeros((1000, 100, 100), np.uint8)).SerializeToString())
    wire.check_size(images(*[IMAGE] * 256).SerializeToString())


def test_a_client_that_leaves_is_dropped_from_the_queue(models: Path) -> None:
    async def test(call: Caller, services: Services) -> None:
        started, release = asyncio.Event(), asyncio.Event()
        operations = services.operations

        async def wait(*_: Any) -> None:
            started.set()
            try:
                await release.wait()
            finally:
                release.set()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(operations), "encode", wait)
            response = call("ModelInfer", pixels())
            waiting = asyncio.ensure_future(response.code())
            await started.wait()
            response.cancel()
            assert await waiting == grpc.StatusCode.CANCELLED
            await release.wait()  # set by the cancellation

    run(models, test)


def test_an_unread_response_counts_until_its_client_leaves(models: Path) -> None:
    async def test(call: Caller, services: Services) -> None:
        request = pb.ModelInferRequest(model_name="tiny.sample")
        request.parameters["count"].int64_param = 5000
        stream = call.channel.stream_stream(f"/{transcoding.SERVICE}/ModelInfer")()
        await stream.write(request.SerializeToString())
        while services.admission.bytes < 100_000:  # more than the client's window
            await asyncio.sleep(0.01)
        stream.cancel()
        while services.admission.bytes:
            await asyncio.sleep(0.01)

    run(models, test, max_images=5000, max_queued_images=10_000)


class Context:
    """A call whose message comes when it is `sent`."""

    def __init__(self) -> None:
        self.sent = asyncio.Event()

    async def read(self) -> bytes:
        await self.sent.wait()
        return b"message"


def test_a_message_that_is_late_ends_and_the_slowest_if_another_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_call, "CHECK_SECONDS", 0.001)

    async def test() -> None:
        with pytest.raises(DeadlineExceeded):
            await Reads(0.002).read(Context())
        reads = Reads(1000, maximum=2)
        slowest, second = Context(), Context()
        first = asyncio.ensure_future(reads.read(slowest))
        other = asyncio.ensure_future(reads.read(second))
        await asyncio.sleep(0)
        monkeypatch.setattr(grpc_call, "SLOW_SECONDS", 0.002)
        prompt = Context()
        prompt.sent.set()
        assert await reads.read(prompt) == b"message"
        with pytest.raises(Overloaded):
            await first
        second.sent.set()
        assert await other == b"message"

    asyncio.run(test())


def test_a_call_without_a_message_ends(models: Path) -> None:
    async def test(call: Caller, _: Services) -> None:
        for method in (f"/{transcoding.SERVICE}/ModelInfer", "/grpc.health.v1.Health/Check"):
            stream = call.channel.stream_stream(method)()
            await stream.done_writing()
            assert await stream.code() == grpc.StatusCode.INVALID_ARGUMENT, method

    run(models, test)


def test_a_key_is_checked_before_a_message_is_received(models: Path) -> None:
    async def test(call: Caller, _: Services) -> None:
        for name in ("ModelInfer", "ModelMetadata", "RepositoryIndex"):
            stream = call.channel.stream_stream(f"/{transcoding.SERVICE}/{name}")()
            assert await stream.code() == grpc.StatusCode.UNAUTHENTICATED, name  # nothing was sent

    run(models, test, api_keys=entries({"encoder": ["encode"]}))


def test_health_and_the_methods_can_be_asked_for(models: Path) -> None:
    async def test(call: Caller, services: Services) -> None:
        health = health_pb2_grpc.HealthStub(call.channel)
        states = health_pb2.HealthCheckResponse
        for service in ("", transcoding.SERVICE):
            request = health_pb2.HealthCheckRequest(service=service)
            assert (await health.Check(request)).status == states.SERVING
        services.admission.leave()
        assert (await health.Check(request)).status == states.NOT_SERVING
        with pytest.raises(aio.AioRpcError, match="there is no 'other'"):
            await health.Check(health_pb2.HealthCheckRequest(service="other"))

        reflection = reflection_pb2_grpc.ServerReflectionStub(call.channel)
        stream = reflection.ServerReflectionInfo()
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = (await stream.read()).list_services_response.service
        assert transcoding.SERVICE in {each.name for each in listed}
        await stream.done_writing()
        assert await stream.code() == grpc.StatusCode.OK

    run(models, test)


def test_the_certificate_of_http_serves_grpc_too(models: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued, file = authority.issue_cert("localhost"), tmp_path / "server.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(file)
    roots = grpc.ssl_channel_credentials(authority.cert_pem.bytes())

    async def main() -> None:
        async with serving(models, Tls(file)) as (_, address):
            name = f"localhost:{address.rpartition(':')[2]}"
            async with aio.secure_channel(name, roots) as channel:
                assert (await Caller(channel).get("ServerReady")).ready

    asyncio.run(main())


def test_a_port_that_is_taken_is_named(models: Path) -> None:
    async def main() -> None:
        async with serving(models) as (services, address):
            taken = "127.0.0.1", int(address.rpartition(":")[2])
            second = create_grpc_server(build_application(services), taken, NO_TLS, LIMITS)
            with pytest.raises(InvalidParameter, match=f"{address} cannot be listened on"):
                await second.start()

    asyncio.run(main())
