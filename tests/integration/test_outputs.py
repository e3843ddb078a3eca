"""Outputs and their thumbnails over HTTP, wherever jobs leave them: this machine, the result, a bucket, assets."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.server import Server, serving
from tests.support.workflows import picture

RANDOM_ACCESS = {"Range": "bytes=1-3"}


def shown(server: Server) -> tuple[bytes, tuple[int, int]]:
    """The bytes of the newest output, and the size of its thumbnail."""
    newest: dict[str, Any] = server.get("/outputs?limit=1")["outputs"][0]
    with Image.open(io.BytesIO(server.get_bytes("/" + newest["thumbnail"]))) as thumbnail:
        return server.get_bytes("/" + newest["href"]), thumbnail.size


def test_outputs_are_shown_wherever_a_job_leaves_them(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for body in (
            {"input": {"workflow": picture(1, size=96)}},
            {"input": {"workflow": picture(2, size=96), "output": {"mode": "base64"}}},
        ):
            server.post("/runsync", body)
            data, size = shown(server)
            assert data.startswith(b"\x89PNG")
            assert size == (96, 96)
        job_id = server.ask("POST", "/api/v2/jobs", {"workflow": picture(3, size=96)})[1]["id"]
        server.ended(job_id)
        assert server.get("/outputs?limit=1")["outputs"][0]["job_id"] == job_id
        assert shown(server)[1] == (96, 96)


@pytest.mark.parametrize("signed_s", ["0", "600"])
def test_outputs_in_a_bucket_are_shown_without_its_keys(moto: S3Server, tmp_path: Path, signed_s: str) -> None:
    environ = {
        "S3_BUCKET": moto.new_bucket("shown"),
        "S3_ENDPOINT_URL": moto.url,
        "S3_SIGNED_URL_TTL": signed_s,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    with serving(tmp_path, environ=environ) as server:
        server.post("/runsync", {"input": {"workflow": picture(1, size=96)}})
        # Made before the file left, and made again out of the bucket when it is gone.
        sha256 = server.get("/outputs?limit=1")["outputs"][0]["sha256"]
        (tmp_path / "state" / "thumbnails" / sha256[:2] / f"{sha256}.webp").unlink()
        data, size = shown(server)
        assert (data[:4], size) == (b"\x89PNG", (96, 96))
        policy = server.ask("GET", "/", Accept="text/html")[2]["content-security-policy"]
        assert (moto.url in policy) == (signed_s != "0")
        if signed_s == "0":
            href = "/" + server.get("/outputs?limit=1")["outputs"][0]["href"]
            status, part, _ = server.ask("GET", href, **RANDOM_ACCESS)
            assert (status, part) == (206, data[1:4])
