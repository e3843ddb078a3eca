"""Jobs delivered into real servers' buckets from behind a company's proxy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfypin import wiring
from comfypin.settings.environment import Settings
from tests.support.connect_proxy import ConnectProxy, connect_proxy
from tests.support.object_servers import GcsServer, S3Server
from tests.support.outputs import FACTS, an_output
from tests.support.payloads import noise
from tests.support.tls import Certificate, tls_front

_MANY = 12


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate.made(tmp_path / "tls")


@pytest.fixture(params=["plain proxy", "proxy under TLS"])
def proxy(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[ConnectProxy]:
    with connect_proxy(
        login="domain\\user:p@ss/w", certificate=certificate if "TLS" in request.param else None
    ) as made:
        yield made


def sink_of(server: S3Server | GcsServer, bucket: str, url: str, certificate: Certificate, **environ: str) -> Any:
    if isinstance(server, GcsServer):
        own = {"GCS_BUCKET": bucket, "STORAGE_EMULATOR_HOST": url, "REQUESTS_CA_BUNDLE": str(certificate.path)}
        return wiring.make_sink("gcs", Settings({**own, **environ}))
    config = server.config(bucket)
    assert config.credentials is not None
    own = {
        "S3_BUCKET": bucket,
        "S3_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": config.credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": config.credentials.secret_access_key,
        "AWS_CA_BUNDLE": str(certificate.path),
    }
    return wiring.make_sink("s3", Settings({**own, **environ}))


@pytest.mark.parametrize("kind", ["moto", "rclone", "gcs"])
async def test_outputs_go_by_the_proxy_under_tls(
    request: pytest.FixtureRequest, kind: str, proxy: ConnectProxy, certificate: Certificate, tmp_path: Path
) -> None:
    server: S3Server | GcsServer = request.getfixturevalue(kind)
    bucket = server.new_bucket(f"tunnel-{kind}-{proxy.url.partition(':')[0]}")
    # Above 16 MiB in parts to S3. The emulator's sessions are at plain addresses, so there it stays below 8 MiB.
    outputs = tuple(an_output(tmp_path, noise(50_000, n), filename=f"{n}.png", index=n) for n in range(_MANY))
    large = an_output(tmp_path, noise((7 if kind == "gcs" else 20) << 20), filename="large.mp4", index=_MANY)
    with tls_front(server.url, certificate) as url:
        sink = sink_of(server, bucket, url, certificate, HTTPS_PROXY=proxy.url)
        await sink.deliver(FACTS, (*outputs, large))
    objects = server.objects(bucket)
    assert len(objects) == _MANY + 2
    for output in (*outputs, large):
        assert objects[f"comfy/outputs/job/{output.filename}"] == output.path.read_bytes()
    assert set(proxy.asked) == {f"CONNECT {url.removeprefix('https://')}"}


@pytest.mark.parametrize("kind", ["moto", "rclone", "gcs"])
async def test_outputs_go_by_the_proxy_to_plain_servers(
    request: pytest.FixtureRequest, kind: str, proxy: ConnectProxy, certificate: Certificate, tmp_path: Path
) -> None:
    server: S3Server | GcsServer = request.getfixturevalue(kind)
    bucket = server.new_bucket(f"plain-{kind}-{proxy.url.partition(':')[0]}")
    output = an_output(tmp_path, noise(9 << 20), filename="größe & weg.png")
    await sink_of(server, bucket, server.url, certificate, HTTP_PROXY=proxy.url).deliver(FACTS, (output,))
    assert server.objects(bucket)["comfy/outputs/job/größe & weg.png"] == output.path.read_bytes()
    # The port that the request names is the server's, and the proxy hears the whole address.
    assert proxy.asked
    assert all(asked.partition(" ")[2].startswith(f"{server.url}/") for asked in proxy.asked)


async def test_no_proxy_leads_past_it(moto: S3Server, certificate: Certificate, tmp_path: Path) -> None:
    bucket = moto.new_bucket("past-the-proxy")
    environ = {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "localhost, 127.0.0.1"}
    sink = sink_of(moto, bucket, moto.url, certificate, **environ)
    await sink.deliver(FACTS, (an_output(tmp_path, b"x"),))
    assert len(moto.objects(bucket)) == 2
