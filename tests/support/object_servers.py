"""Real servers of objects on free loopback ports: moto and rclone for S3, emulators for GCS and Azure."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfypin.storage.azure_settings import AzureSettings
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.s3_settings import S3Settings

ACCESS_KEY = "AKTESTACCESSKEYID000"
MULTIPART_BYTES = str(16 << 20)  # as over TLS, so that tests need no large files
SECRET_KEY = "testSecretAccessKey0123456789abcdefghijk"


@dataclass(frozen=True)
class S3Server:
    """An S3 server and what is in its buckets, asked with boto3: another client than ours."""

    url: str
    boto: Any = field(repr=False)

    def config(self, bucket: str, **changes: Any) -> S3Settings:
        environ = {
            "S3_BUCKET": bucket,
            "S3_ENDPOINT_URL": changes.pop("url", self.url),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "S3_MULTIPART_BYTES": MULTIPART_BYTES,
            **changes,
        }
        return S3Settings.from_variables(environ)

    def new_bucket(self, name: str) -> str:
        self.boto.create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str) -> dict[str, bytes]:
        pages = self.boto.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key: self.boto.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def unfinished_uploads(self, bucket: str) -> list[Any]:
        return list(self.boto.list_multipart_uploads(Bucket=bucket).get("Uploads", []))


@dataclass(frozen=True)
class GcsServer:
    """A GCS server and what is in its buckets, asked over plain HTTP."""

    url: str

    def config(self, bucket: str, **changes: str) -> GcsSettings:
        environ = {"GCS_BUCKET": bucket, "STORAGE_EMULATOR_HOST": changes.pop("url", self.url), **changes}
        return GcsSettings.from_variables(environ)

    def new_bucket(self, name: str, **facts: Any) -> str:
        self._ask("POST", "/storage/v1/b?project=test", {"name": name})
        if facts:
            self._ask("PATCH", f"/storage/v1/b/{name}", facts)
        return name

    def facts(self, bucket: str) -> dict[str, Mapping[str, Any]]:
        listed = json.loads(self._ask("GET", f"/storage/v1/b/{bucket}/o"))
        return {item["name"]: item for item in listed.get("items") or []}

    def objects(self, bucket: str) -> dict[str, bytes]:
        return {
            name: self._ask("GET", f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media")
            for name in self.facts(bucket)
        }

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())


AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's own


@dataclass(frozen=True)
class AzureServer:
    """An Azure server and what is in its containers, asked with Azure's own client."""

    url: str
    service: Any = field(repr=False)

    def environ(self, container: str, *, url: str | None = None) -> dict[str, str]:
        return {
            "AZURE_CONTAINER": container,
            "AZURE_STORAGE_ACCOUNT": AZURE_ACCOUNT,
            "AZURE_STORAGE_KEY": AZURE_KEY,
            "AZURE_ENDPOINT_URL": f"{url or self.url}/{AZURE_ACCOUNT}",
        }

    def config(self, container: str, *, url: str | None = None, **changes: str) -> AzureSettings:
        return AzureSettings.from_variables({**self.environ(container, url=url), **changes})

    def new_bucket(self, name: str) -> str:
        self.service.create_container(name)
        return name

    def objects(self, container: str) -> dict[str, bytes]:
        client = self.service.get_container_client(container)
        return {name: client.download_blob(name).readall() for name in client.list_blob_names()}


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto in its own process: whole, lenient, in memory."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, port) as url:
        yield S3Server(url, boto_client(url))


@contextmanager
def rclone_server(folder: Path) -> Iterator[S3Server]:
    """`rclone serve s3`: fast, in a folder, checks signatures."""
    port = _free_port()
    rclone = Path(sys.executable).with_name("rclone")
    keys = f"{ACCESS_KEY},{SECRET_KEY}"
    command = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", keys, str(folder)]
    with _running(command, port) as url:
        yield S3Server(url, boto_client(url))


@contextmanager
def gcs_server() -> Iterator[GcsServer]:
    """gcp-storage-emulator in its own process, in memory."""
    port = _free_port()
    program = (
        "from gcp_storage_emulator.server import create_server as c; "
        f"c('127.0.0.1', {port}, in_memory=True, project_number=1).run()"
    )
    with _running([sys.executable, "-c", program], port) as url:
        yield GcsServer(url)


@contextmanager
def azure_server(folder: Path) -> Iterator[AzureServer]:
    """Azurite in its own process, its blobs in a folder."""
    from azure.storage.blob import BlobServiceClient

    port = _free_port()
    command = ["azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    with _running([*command, "--silent", "--disableTelemetry", "--skipApiVersionCheck"], port) as url:
        credential = {"account_name": AZURE_ACCOUNT, "account_key": AZURE_KEY}
        yield AzureServer(url, BlobServiceClient(f"{url}/{AZURE_ACCOUNT}", credential=credential))


@contextmanager
def _running(command: list[str], port: int) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_port(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _await_port(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.02)
    raise TimeoutError(f"{process.args} does not listen on {port}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def boto_client(url: str) -> Any:
    """A client of another make than ours."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
