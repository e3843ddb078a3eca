"""What `bench/delivery.py` starts, a process each: one client that uploads a folder.

python bench/delivery_peers.py PEER FOLDER URL
"""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.engine.interface import EngineOutput

CHUNK = 16 << 20


def _ours(mode: str) -> Callable[[Path, str], None]:
    def deliver(folder: Path, url: str) -> None:
        from comfypin import wiring
        from comfypin.digest import Digest
        from comfypin.jobs.output_spool import Spool, WantedOutput, collect_outputs
        from comfypin.lock.model import Release
        from comfypin.outputs.interface import JobFacts
        from comfypin.settings.environment import Settings

        environ = {**os.environ, "GCS_BUCKET": "bench", "S3_BUCKET": "bench", "S3_ENDPOINT_URL": url}
        sink = wiring.make_sink("gcs" if mode == "gcs" else "s3", Settings(environ))
        job = JobFacts(job_id="bench", release=Release(name="bench", digest=Digest.of(b"")))

        async def run() -> None:
            found = [_engine_output(path) for path in sorted(folder.iterdir())]
            wanted = [WantedOutput(engine_output=file, filename=file.filename, subfolder="") for file in found]
            await sink.deliver(job, await collect_outputs(wanted, Spool()))

        asyncio.run(run())

    return deliver


def _engine_output(path: Path) -> "EngineOutput":
    """A file as an engine on this machine reports it."""
    from comfypin.engine.interface import EngineOutput

    async def read() -> AsyncIterator[bytes]:
        raise AssertionError("it is on this machine")
        yield b""

    return EngineOutput(
        node_id="9", key="images", filename=path.name, subfolder="", folder="output", read=read, path=path
    )


def _boto3(folder: Path, url: str) -> None:
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    # Its default checksums cost it more, and many servers refuse them.
    client = boto3.client(
        "s3", endpoint_url=url, config=Config(request_checksum_calculation="when_required", max_pool_connections=50)
    )
    transfer = TransferConfig(multipart_chunksize=CHUNK)
    with ThreadPoolExecutor(10) as pool:
        list(
            pool.map(
                lambda path: client.upload_file(str(path), "bench", f"p/{path.name}", Config=transfer), folder.iterdir()
            )
        )


def _boto3_defaults(folder: Path, url: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=url)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda path: client.upload_file(str(path), "bench", f"p/{path.name}"), folder.iterdir()))


def _put_object(folder: Path, url: str) -> None:
    """The least that boto3 can do: no transfer manager, no names, no manifest, nothing compared."""
    import boto3
    from botocore.config import Config

    checksums = Config(request_checksum_calculation="when_required", max_pool_connections=10)
    client = boto3.client("s3", endpoint_url=url, config=checksums)

    def put(path: Path) -> None:
        with path.open("rb") as file:
            client.put_object(Bucket="bench", Key=f"p/{path.name}", Body=file)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(put, folder.iterdir()))


def _google(*, with_sha256: bool) -> Callable[[Path, str], None]:
    """Google's own client; with the sha256 of each file as metadata it does what is asked of ours."""

    def deliver(folder: Path, url: str) -> None:
        from google.cloud.storage import Client

        bucket = Client(project="bench").bucket("bench")

        def upload(path: Path) -> None:
            blob = bucket.blob(f"p/{path.name}", chunk_size=CHUNK)
            if with_sha256:
                with path.open("rb") as file:
                    blob.metadata = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
            blob.upload_from_filename(str(path), checksum="crc32c")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(upload, folder.iterdir()))

    return deliver


PEERS: dict[str, Callable[[Path, str], None]] = {
    "s3-comfypin": _ours("s3"),
    "s3-boto3": _boto3,
    "s3-boto3-defaults": _boto3_defaults,
    "s3-boto3-put": _put_object,
    "gcs-comfypin": _ours("gcs"),
    "gcs-google-cloud-storage": _google(with_sha256=False),
    "gcs-google-with-sha256": _google(with_sha256=True),
}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent / "src"))
    PEERS[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
