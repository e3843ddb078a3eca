"""Stand-ins for what the Hugging Face hub and Civitai answer, as their documentation describes it.

https://huggingface.co/docs/hub/models-gated and https://developer.civitai.com/site/reference/model-versions
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.faulty_server import FaultyServer, Reply, Request, faulty_server, ranged

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepo:
    """A repository with one file; `gated` and `private` need the token."""

    name: str
    path: str
    data: bytes
    gated: bool = False
    private: bool = False


@contextmanager
def hub(*repos: HubRepo, token: str = "hf_good", cdn: str | None = None) -> Iterator[FaultyServer]:
    """The hub: `/org/repo/resolve/<revision>/<path>` redirects to a content address, here or at `cdn`."""

    def script(request: Request) -> Reply:
        if request.path.startswith("/cdn/"):
            return ranged(next(repo.data for repo in repos if request.path == f"/cdn/{repo.name}"), request)
        for repo in repos:
            if request.path.startswith(f"/{repo.name}/resolve/"):
                return _resolve(repo, request, token, cdn)
        return Reply(status=401, headers={"X-Error-Code": "RepoNotFound"})

    with faulty_server(script) as server:
        yield server


def _resolve(repo: HubRepo, request: Request, token: str, cdn: str | None) -> Reply:
    known = request.headers.get("authorization") == f"Bearer {token}"
    if repo.private and not known:
        return Reply(status=401, headers={"X-Error-Code": "RepoNotFound"})
    if repo.gated and not known:
        return Reply(status=401, headers={"X-Error-Code": "GatedRepo"})
    revision, _, path = request.path.removeprefix(f"/{repo.name}/resolve/").partition("/")
    if revision not in {"main", COMMIT}:
        return Reply(status=404, headers={"X-Error-Code": "RevisionNotFound"})
    if path != repo.path:
        return Reply(status=404, headers={"X-Error-Code": "EntryNotFound"})
    headers = {
        "Location": f"{cdn or ''}/cdn/{repo.name}",
        "X-Repo-Commit": COMMIT,
        "X-Linked-Size": str(len(repo.data)),
        "X-Linked-Etag": f'"{hashlib.sha256(repo.data).hexdigest()}"',
    }
    return Reply(status=302, headers=headers)


@contextmanager
def civitai(files: dict[int, bytes], *, version: int = 7, token: str | None = None) -> Iterator[FaultyServer]:
    """Civitai with one version of a VAE; with `token`, downloads need it. Files by their ids, the first is primary."""
    server: FaultyServer | None = None

    def described(file_id: int, data: bytes) -> dict[str, object]:
        assert server is not None
        first = file_id == next(iter(files))
        query = "" if first else f"?file={file_id}"
        return {
            "id": file_id,
            "name": f"file{file_id}.safetensors",
            "type": "VAE",
            "sizeKB": len(data) / 1024,
            "hashes": {"AutoV2": "A5F58EB1C3", "SHA256": hashlib.sha256(data).hexdigest().upper()},
            "downloadUrl": f"{server.url}/api/download/models/{version}{query}",
            **({"primary": True} if first else {}),
        }

    def script(request: Request) -> Reply:
        if request.path.startswith("/api/download/models/"):
            if token is not None and request.headers.get("authorization") != f"Bearer {token}":
                return Reply(status=401, body=b'{"error":"Unauthorized"}')
            chosen = int(request.path.partition("file=")[2] or next(iter(files)))
            return ranged(files[chosen], request)
        asked = request.path.removeprefix("/api/v1/model-versions/")
        digests = {hashlib.sha256(data).hexdigest() for data in files.values()}
        if asked != str(version) and asked.removeprefix("by-hash/") not in digests:
            return Reply(status=404, body=b'{"error":"Model not found"}')
        found = {
            "id": version,
            "model": {"name": "A VAE", "type": "VAE"},
            "files": [described(file_id, data) for file_id, data in files.items()],
            "images": [{"url": "x" * 1000}] * 200,
        }
        return Reply(body=json.dumps(found).encode(), headers={"Content-Type": "application/json"})

    with faulty_server(script) as running:
        server = running
        yield running
