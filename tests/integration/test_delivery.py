"""Jobs delivered into real servers' buckets: what lies there afterwards, and what the caller is told."""

import asyncio
import base64
import io
import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from PIL import Image

from comfypin import wiring
from comfypin.digest import Digest
from comfypin.lock.model import Release
from comfypin.outputs.bucket import BucketSink, UploadEvent, UploadFinished, UploadMoved, UploadStarted
from comfypin.outputs.errors import InlineTooBig
from comfypin.outputs.interface import JobFacts, Output
from comfypin.outputs.modes import OutputMode
from comfypin.settings.environment import Settings
from comfypin.settings.errors import SettingMissing
from comfypin.storage.errors import (
    BucketMissing,
    CredentialsRefused,
    PayloadUnreadable,
    PublicAccessImpossible,
    SigningImpossible,
)
from tests.support.fault_proxy import fault_proxy
from tests.support.google_key import service_account
from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, AzureServer, GcsServer, S3Server
from tests.support.outputs import an_output
from tests.support.payloads import noise
from tests.support.scripted_server import answering_by

_BUCKETS = (f"delivery-{number}" for number in itertools.count())


class Bucket(Protocol):
    mode: OutputMode
    environ: dict[str, str]

    def objects(self) -> Mapping[str, bytes]: ...


class S3Bucket:
    mode: OutputMode = "s3"

    def __init__(self, server: S3Server) -> None:
        self.server, self.name = server, server.new_bucket(next(_BUCKETS))
        self.environ = {
            "S3_BUCKET": self.name,
            "S3_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def objects(self) -> Mapping[str, bytes]:
        return self.server.objects(self.name)


class GcsBucket:
    mode: OutputMode = "gcs"

    def __init__(self, server: GcsServer) -> None:
        self.server, self.name = server, server.new_bucket(next(_BUCKETS))
        self.environ = {"GCS_BUCKET": self.name, "STORAGE_EMULATOR_HOST": server.url}

    def objects(self) -> Mapping[str, bytes]:
        return self.server.objects(self.name)


class AzureContainer:
    mode: OutputMode = "azure"

    def __init__(self, server: AzureServer) -> None:
        self.server, self.name = server, server.new_bucket(next(_BUCKETS))
        self.environ = server.environ(self.name)

    def objects(self) -> Mapping[str, bytes]:
        return self.server.objects(self.name)


@pytest.fixture(params=["moto", "rclone", "gcs", "azurite"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    server = request.getfixturevalue(request.param)
    kinds = {"gcs": GcsBucket, "azurite": AzureContainer}
    made: Bucket = kinds.get(request.param, S3Bucket)(server)
    return made


def a_job(job_id: str = "job-1", **changes: Any) -> JobFacts:
    return JobFacts(job_id=job_id, release=Release(name="wan22", digest=Digest.of(b"lock")), **changes)


def pictures(spool: Path, count: int, *, seed: int = 0) -> tuple[Output, ...]:
    names = [f"cat_{number:05}_.png" for number in range(count)]
    return tuple(
        an_output(spool, b"picture %d %d" % (seed, index), filename=name, index=index)
        for index, name in enumerate(names)
    )


def sink_for(bucket: Bucket, **environ: str) -> Any:
    return wiring.make_sink(bucket.mode, Settings({**bucket.environ, **environ}))


async def test_outputs_and_their_manifest_are_in_the_bucket(bucket: Bucket, tmp_path: Path) -> None:
    outputs = pictures(tmp_path, 3)
    deliveries = await sink_for(bucket).deliver(a_job(), outputs)
    objects = bucket.objects()
    assert set(objects) == {f"comfy/outputs/job-1/cat_{n:05}_.png" for n in range(3)} | {
        "comfy/outputs/job-1/manifest.json"
    }
    for delivery in deliveries:
        assert objects[str(delivery.uri).split("/", 3)[3]] == delivery.output.path.read_bytes()
        assert delivery.url is None


async def test_the_manifest_says_what_ran_and_what_came_out(bucket: Bucket, tmp_path: Path) -> None:
    models = {"loras/ink.safetensors": Digest.of(b"ink")}
    job = a_job(inputs={"cat.png": Digest.of(b"cat")}, models=models, phase_s={"run": 1.5})
    (delivery,) = await sink_for(bucket).deliver(job, pictures(tmp_path, 1))
    manifest = json.loads(bucket.objects()["comfy/outputs/job-1/manifest.json"])
    assert (manifest["job_id"], manifest["release"], manifest["release_digest"]) == (
        "job-1",
        "wan22",
        str(Digest.of(b"lock")),
    )
    assert manifest["inputs"] == {"cat.png": str(Digest.of(b"cat"))}
    assert manifest["models"] == {"loras/ink.safetensors": str(Digest.of(b"ink"))}
    assert manifest["seconds"]["run"] == 1.5
    (entry,) = manifest["outputs"]
    assert entry["uri"] == delivery.uri
    assert entry["sha256"] == delivery.output.sha256.hex
    assert entry["size_bytes"] == delivery.output.size_bytes


async def test_a_job_delivered_again_leaves_the_same_objects(bucket: Bucket, tmp_path: Path) -> None:
    sink, outputs = sink_for(bucket), pictures(tmp_path, 3)
    first = await sink.deliver(a_job(), outputs)
    again = await sink.deliver(a_job(), outputs)
    assert [delivery.uri for delivery in first] == [delivery.uri for delivery in again]
    assert len(bucket.objects()) == 4


async def test_jobs_are_delivered_at_the_same_time(bucket: Bucket, tmp_path: Path) -> None:
    sink = sink_for(bucket)
    jobs = {f"job-{number}": pictures(tmp_path / str(number), 3, seed=number) for number in range(5)}
    await asyncio.gather(*(sink.deliver(a_job(job_id), outputs) for job_id, outputs in jobs.items()))
    objects = bucket.objects()
    assert len(objects) == 20
    for job_id, outputs in jobs.items():
        for output in outputs:
            assert objects[f"comfy/outputs/{job_id}/{output.filename}"] == output.path.read_bytes()


@pytest.mark.parametrize(
    "job_id", ["x" * 3000, "猫" * 800, "half \ud800", "bytes \udcff"], ids=["long", "wide", "half", "bytes"]
)
async def test_job_ids_and_names_that_stores_do_not_take_do_not_stop_a_delivery(
    bucket: Bucket, tmp_path: Path, job_id: str
) -> None:
    (delivery,) = await sink_for(bucket).deliver(
        a_job(job_id), (an_output(tmp_path, b"x", filename="half \ud800.png"),)
    )
    objects = bucket.objects()
    (manifest,) = [json.loads(data) for key, data in objects.items() if key.endswith("/manifest.json")]
    assert (manifest["job_id"], manifest["outputs"][0]["filename"]) == (job_id, "half \ud800.png")
    assert objects[str(delivery.uri).split("/", 3)[3]] == b"x"
    assert len(objects) == 2


async def test_content_type_release_and_digest_are_on_the_object(tmp_path: Path, moto: S3Server) -> None:
    bucket = S3Bucket(moto)
    video = replace(an_output(tmp_path, b"v", filename="v.mp4"), kind="video", media_type="video/mp4")
    await sink_for(bucket).deliver(a_job(), (video,))
    head = moto.boto.head_object(Bucket=bucket.name, Key="comfy/outputs/job-1/v.mp4")
    assert head["ContentType"] == "video/mp4"
    assert head["Metadata"] == {"release": "wan22", "sha256": video.sha256.hex, "job-id": "job-1"}
    manifest = moto.boto.get_object(Bucket=bucket.name, Key="comfy/outputs/job-1/manifest.json")
    assert manifest["Metadata"]["sha256"] == Digest.of(manifest["Body"].read()).hex


async def test_content_type_release_and_digest_are_on_the_object_of_gcs(tmp_path: Path, gcs: GcsServer) -> None:
    bucket = GcsBucket(gcs)
    model = replace(an_output(tmp_path, b"m", filename="m.glb"), kind="3d", media_type="model/gltf-binary")
    await sink_for(bucket).deliver(a_job(), (model,))
    facts = gcs.facts(bucket.name)["comfy/outputs/job-1/m.glb"]
    assert facts["contentType"] == "model/gltf-binary"
    assert facts["metadata"] == {"release": "wan22", "sha256": model.sha256.hex, "job-id": "job-1"}


async def test_every_output_costs_one_put_and_nothing_else(tmp_path: Path, moto: S3Server) -> None:
    bucket = S3Bucket(moto)
    with fault_proxy(moto.url) as proxy:
        sink = sink_for(bucket, S3_ENDPOINT_URL=proxy.url)
        proxy.seen.clear()
        await sink.deliver(a_job(), pictures(tmp_path, 3))
    assert [seen.method for seen in proxy.seen] == ["PUT"] * 4
    assert proxy.seen[-1].path.endswith("/manifest.json")


async def test_signed_urls_open_the_outputs(bucket: Bucket, tmp_path: Path) -> None:
    key_file = service_account(tmp_path / "key.json")
    sink = sink_for(
        bucket,
        S3_SIGNED_URL_TTL="60",
        GCS_SIGNED_URL_TTL="60",
        AZURE_SIGNED_URL_TTL="60",
        GOOGLE_APPLICATION_CREDENTIALS=str(key_file),
    )
    (delivery,) = await sink.deliver(a_job(), pictures(tmp_path / "spool", 1))
    assert delivery.url is not None

    def opened(url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return bytes(answer.read())

    assert await asyncio.to_thread(opened, delivery.url) == delivery.output.path.read_bytes()


@pytest.mark.parametrize("filename", ["a.png", "größe 猫 +&=~().png", "it's!*.png", "100% #1?.png"])
async def test_a_signed_url_opens_its_own_output_alone(rclone: S3Server, tmp_path: Path, filename: str) -> None:
    # rclone checks what is signed.
    sink = sink_for(S3Bucket(rclone), S3_SIGNED_URL_TTL="60")
    (delivery,) = await sink.deliver(a_job(), (an_output(tmp_path, b"x", filename=filename),))
    url = str(delivery.url)

    def asked(url: str) -> int:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            exc.close()
            return exc.code

    forged = url[:-4] + ("0000" if url[-4:] != "0000" else "1111")
    others = (forged, url.replace("Expires=60", "Expires=604800"), url.replace("/job-1/", "/job-2/"))
    assert [asked(address) for address in (url, *others)] == [200, 403, 403, 403]


async def test_a_public_base_url_makes_the_links(moto: S3Server, tmp_path: Path) -> None:
    sink = sink_for(S3Bucket(moto), S3_PUBLIC_BASE_URL="https://pictures.example/")
    (delivery,) = await sink.deliver(a_job(), (an_output(tmp_path, b"x", filename="a b.png"),))
    assert delivery.url == "https://pictures.example/comfy/outputs/job-1/a%20b.png"


@pytest.mark.parametrize("size", [100, 17 << 20])
async def test_a_service_may_have_its_api_beneath_a_path(moto: S3Server, tmp_path: Path, size: int) -> None:
    bucket = S3Bucket(moto)
    with fault_proxy(moto.url, base="/storage/v1/s3") as proxy:
        url = f"{proxy.url}/storage/v1/s3/"
        sink = sink_for(bucket, S3_ENDPOINT_URL=url, S3_SIGNED_URL_TTL="60", S3_MULTIPART_BYTES=str(16 << 20))
        (delivery,) = await sink.deliver(a_job(), (an_output(tmp_path, noise(size)),))
        opened = await asyncio.to_thread(urllib.request.urlopen, str(delivery.url), timeout=30)
        with opened:
            assert opened.read() == delivery.output.path.read_bytes()
    assert set(bucket.objects()) == {"comfy/outputs/job-1/a.png", "comfy/outputs/job-1/manifest.json"}


async def test_public_objects_have_their_public_address(tmp_path: Path, gcs: GcsServer) -> None:
    bucket = GcsBucket(gcs)
    with fault_proxy(gcs.url) as proxy:
        sink = sink_for(bucket, GCS_PUBLIC="true", STORAGE_EMULATOR_HOST=proxy.url)
        (delivery,) = await sink.deliver(a_job(), pictures(tmp_path, 1))
    assert delivery.url == f"https://storage.googleapis.com/{bucket.name}/comfy/outputs/job-1/cat_00000_.png"
    uploads = [seen for seen in proxy.seen if seen.path.startswith("/upload/")]
    assert uploads
    assert all("predefinedAcl=publicRead" in seen.path for seen in uploads)


@pytest.mark.parametrize("validate", ["true", "false"])
def test_public_objects_in_a_uniform_bucket_are_refused_before_the_job(validate: str, gcs: GcsServer) -> None:
    uniform = {"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}}}
    name = gcs.new_bucket(next(_BUCKETS), **uniform)
    environ = {
        "GCS_BUCKET": name,
        "STORAGE_EMULATOR_HOST": gcs.url,
        "GCS_PUBLIC": "true",
        "GCS_VALIDATE": validate,
    }
    with pytest.raises(PublicAccessImpossible, match="uniform bucket-level access"):
        wiring.make_sink("gcs", Settings(environ))


def test_keys_that_may_write_and_not_look_at_the_bucket_may_make_objects_public(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def decide(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        asked = urlsplit(request.path).path.endswith("/testPermissions")
        granted = {"permissions": ["storage.objects.create", "storage.objects.delete"]}
        return (200, json.dumps(granted)) if asked else (403, json.dumps({"error": {"message": "storage.buckets.get"}}))

    with answering_by(decide, {"Content-Type": "application/json"}) as url:
        environ = {"GCS_BUCKET": "b", "STORAGE_EMULATOR_HOST": url, "GCS_PUBLIC": "true"}
        wiring.make_sink("gcs", Settings(environ))
    assert "storage.buckets.get" in caplog.text


def test_a_bucket_that_is_not_there_is_found_before_the_job(gcs: GcsServer) -> None:
    environ = {"GCS_BUCKET": "nowhere", "STORAGE_EMULATOR_HOST": gcs.url}
    with pytest.raises(BucketMissing, match="GCS_BUCKET"):
        wiring.make_sink("gcs", Settings(environ))
    wiring.make_sink("gcs", Settings({**environ, "GCS_VALIDATE": "false"}))


async def test_content_type_release_and_digest_are_on_the_blob_of_azure(tmp_path: Path, azurite: AzureServer) -> None:
    bucket = AzureContainer(azurite)
    model = replace(an_output(tmp_path, b"m", filename="m.glb"), kind="3d", media_type="model/gltf-binary")
    await sink_for(bucket).deliver(a_job(), (model,))
    blob = azurite.service.get_blob_client(bucket.name, "comfy/outputs/job-1/m.glb").get_blob_properties()
    assert blob.content_settings.content_type == "model/gltf-binary"
    assert blob.metadata == {"release": "wan22", "sha256": model.sha256.hex, "job_id": "job-1"}


def test_a_container_that_is_not_there_is_found_before_the_job(azurite: AzureServer) -> None:
    environ = azurite.environ("nowhere")
    with pytest.raises(BucketMissing, match="AZURE_CONTAINER"):
        wiring.make_sink("azure", Settings(environ))
    wiring.make_sink("azure", Settings({**environ, "AZURE_VALIDATE": "false"}))


def test_asking_a_container_leaves_nothing_in_it(azurite: AzureServer) -> None:
    bucket = AzureContainer(azurite)
    with fault_proxy(azurite.url) as proxy:
        sink_for(bucket, **azurite.environ(bucket.name, url=proxy.url))
    assert [seen.method for seen in proxy.seen] == ["PUT"]
    assert not bucket.objects()


def test_an_s3_bucket_that_is_not_there_is_found_before_the_job(moto: S3Server) -> None:
    environ = {**S3Bucket(moto).environ, "S3_BUCKET": "nowhere"}
    with pytest.raises(BucketMissing, match="S3_BUCKET"):
        wiring.make_sink("s3", Settings(environ))
    wiring.make_sink("s3", Settings({**environ, "S3_VALIDATE": "false"}))


def test_keys_that_s3_does_not_take_are_found_before_the_job(rclone: S3Server) -> None:
    environ = {**S3Bucket(rclone).environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    with pytest.raises(CredentialsRefused, match="secret key"):
        wiring.make_sink("s3", Settings(environ))


def test_asking_an_s3_bucket_leaves_nothing_in_it(moto: S3Server) -> None:
    bucket = S3Bucket(moto)
    with fault_proxy(moto.url) as proxy:
        sink_for(bucket, S3_ENDPOINT_URL=proxy.url)
    assert [(seen.method, seen.path) for seen in proxy.seen] == [
        ("PUT", f"/{bucket.name}/comfy/outputs/.comfypin-write-check"),
        ("DELETE", f"/{bucket.name}/comfy/outputs/.comfypin-write-check"),
    ]
    assert not bucket.objects()


@pytest.mark.parametrize(
    ("mode", "variable"), [("gcs", "GCS_BUCKET"), ("s3", "S3_BUCKET"), ("azure", "AZURE_CONTAINER")]
)
def test_a_missing_bucket_names_its_variable(mode: OutputMode, variable: str) -> None:
    with pytest.raises(SettingMissing, match=variable):
        wiring.make_sink(mode, Settings({}))


def test_signed_urls_of_a_runpod_volume_are_refused_before_the_job() -> None:
    environ = {
        "S3_BUCKET": "volume",
        "S3_ENDPOINT_URL": "https://s3api-eu-ro-1.runpod.io",
        "S3_SIGNED_URL_TTL": "60",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    with pytest.raises(SigningImpossible, match="no presigned URLs"):
        wiring.make_sink("s3", Settings(environ))


async def test_a_jobs_own_s3_config_is_where_it_goes(tmp_path: Path, moto: S3Server) -> None:
    bucket = S3Bucket(moto)
    s3_config = {
        "accessId": ACCESS_KEY,
        "accessSecret": SECRET_KEY,
        "bucketName": bucket.name,
        "endpointUrl": moto.url,
    }
    sink = wiring.make_job_sink(Settings({}), s3_config, private_buckets=True)
    await sink.deliver(a_job(), pictures(tmp_path, 1))
    assert len(bucket.objects()) == 2


def test_a_jobs_own_bucket_may_be_in_any_region() -> None:
    def elsewhere(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if "/eu-west-3/s3/" not in request.headers["Authorization"]:
            return 400, "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>"
        return 400, "<Error><Code>XAmzContentSHA256Mismatch</Code></Error>"

    with answering_by(elsewhere) as url:
        s3_config = {"accessId": "id", "accessSecret": "secret", "bucketName": "b", "endpointUrl": url}
        wiring.make_job_sink(Settings({}), s3_config, private_buckets=True)


def test_a_profile_that_is_meant_for_others_keeps_nobody_from_base64() -> None:
    wiring.make_sink("base64", Settings({"AWS_PROFILE": "of-the-company", "HOME": "/nowhere"}))


async def test_what_fits_is_inline_and_what_does_not_goes_to_the_bucket(bucket: Bucket, tmp_path: Path) -> None:
    settings = Settings({**bucket.environ, "INLINE_MAX_BYTES": "5000"})
    sink = wiring.make_sink("base64", settings)
    (small,) = await sink.deliver(a_job("small"), (an_output(tmp_path / "a", b"x" * 1000),))
    assert base64.b64decode(small.data_base64 or "") == b"x" * 1000
    (large,) = await sink.deliver(a_job("large"), (an_output(tmp_path / "b", b"x" * 9000),))
    assert large.data_base64 is None
    assert set(bucket.objects()) == {"comfy/outputs/large/a.png", "comfy/outputs/large/manifest.json"}


async def test_what_does_not_fit_and_has_no_bucket_fails_with_sizes(tmp_path: Path) -> None:
    sink = wiring.make_sink("base64", Settings({"INLINE_MAX_BYTES": "5000"}))
    outputs = (
        an_output(tmp_path, b"x" * 9000, filename="big.png"),
        an_output(tmp_path, b"y", filename="b.png", index=1),
    )
    with pytest.raises(InlineTooBig, match=r"big\.png \(9000 bytes\), b\.png \(1 bytes\)"):
        await sink.deliver(a_job(), outputs)


async def test_pictures_are_converted_on_their_way(bucket: Bucket, tmp_path: Path) -> None:
    drawn = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(drawn, "PNG")
    sink = sink_for(bucket, OUTPUT_FORMAT="webp")
    (delivery,) = await sink.deliver(a_job(), (an_output(tmp_path, drawn.getvalue(), filename="red.png"),))
    assert str(delivery.uri).endswith("/red.webp")
    data = bucket.objects()["comfy/outputs/job-1/red.webp"]
    assert Image.open(io.BytesIO(data)).format == "WEBP"
    assert delivery.output.sha256 == Digest.of(data)


async def test_bytes_that_changed_since_they_were_hashed_are_not_delivered(bucket: Bucket, tmp_path: Path) -> None:
    output = an_output(tmp_path, b"as it was")
    output.path.write_bytes(b"as it is.")
    with pytest.raises(PayloadUnreadable, match="changed"):
        await sink_for(bucket).deliver(a_job(), (output,))
    assert not bucket.objects()


async def test_a_watcher_hears_of_every_upload(bucket: Bucket, tmp_path: Path) -> None:
    heard: list[UploadEvent] = []
    sink = sink_for(bucket)
    assert isinstance(sink, BucketSink)
    sink.watcher = heard.append
    outputs = pictures(tmp_path, 2)
    await sink.deliver(a_job(), outputs)
    for output in outputs:
        key = f"comfy/outputs/job-1/{output.filename}"
        mine = [event for event in heard if event.key == key]
        assert mine[0] == UploadStarted(key=key, size_bytes=output.size_bytes)
        assert sum(event.sent_bytes for event in mine if isinstance(event, UploadMoved)) == output.size_bytes
        assert mine[-1] == UploadFinished(key=key)
