"""What a registry refuses is told in its own words, with what helps, and not as the JSON that it sends."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from comfypin.cli.runpod.worker_image import resolve_worker_image
from comfypin.errors import ComfypinError
from comfypin.image.errors import AttachFailed, LoginRefused
from comfypin.image.registry_client import MANIFEST, ImageManifest, ImageRepository
from comfypin.image.registry_login import Credential
from comfypin.lock.model import Lock
from comfypin.retry import RetryPolicy
from comfypin.runpod.up.errors import WorkerImageUnknown
from comfypin.settings.environment import Settings
from tests.support.nginx import free_port

ME = Credential("me", "t0p-secret", "GHCR_TOKEN")
NOTHING = ImageManifest(media_type=MANIFEST, data=b"{}")


@contextmanager
def refusing_registry(status: int, code: str, message: str) -> Iterator[str]:
    """A registry that answers everything with one error, as the specification has it: the reference of an image."""
    body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()

    class Refusing(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = _refuse

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}/you/worker:1"
        finally:
            server.shutdown()
            thread.join()


Refusal = tuple[int, str, str]
# GHCR, of a token that may only read; what any registry says to nobody; ECR, which makes no repository by itself.
READ_ONLY: Refusal = (403, "DENIED", "permission_denied: write_package")
NO_LOGIN: Refusal = (401, "UNAUTHORIZED", "authentication required")
NO_REPOSITORY: Refusal = (404, "NAME_UNKNOWN", "The repository with name 'you/worker' does not exist")
NO_WORDS: Refusal = (400, "NAME_INVALID", "")


@pytest.mark.parametrize(
    ("refusal", "credential", "kind", "says"),
    [
        (READ_ONLY, ME, LoginRefused, "login with GHCR_TOKEN (HTTP 403, permission_denied: write_package). Check that"),
        (NO_LOGIN, None, LoginRefused, "asks for a login (HTTP 401, authentication required): set REGISTRY_USERNAME"),
        (NO_REPOSITORY, ME, AttachFailed, ": HTTP 404, The repository with name 'you/worker' does not exist. Push"),
        (NO_WORDS, ME, AttachFailed, "HTTP 400, NAME_INVALID."),
    ],
)
def test_a_refusal_has_the_registrys_words(
    refusal: Refusal, credential: Credential | None, kind: type[ComfypinError], says: str
) -> None:
    with refusing_registry(*refusal) as reference, pytest.raises(kind) as refused:
        ImageRepository(reference=reference, credential=credential).put_manifest("1", NOTHING)
    assert says in refused.value.message
    assert "t0p-secret" not in refused.value.message
    assert "errors" not in refused.value.message


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {},
            r"does not show \S+/you/worker:1 to anybody without a login \(set REGISTRY_U.*\): it is private, or",
        ),
        (
            {"REGISTRY_PASSWORD": "t0p-secret"},
            r"does not show \S+/you/worker:1 to REGISTRY_PASSWORD: it is private, or",
        ),
    ],
)
def test_an_image_that_may_not_be_read_says_nothing_of_pushing(variables: dict[str, str], says: str) -> None:
    with refusing_registry(401, "DENIED", "denied") as reference, pytest.raises(WorkerImageUnknown, match=says) as told:
        resolve_worker_image(reference, Lock(version_name="card"), Settings(variables))
    assert "write" not in told.value.message.replace("write:packages", "")


def test_a_registry_that_is_not_there_is_named_with_why() -> None:
    reference = f"127.0.0.1:{free_port()}/you/worker:1"
    registry = ImageRepository(reference=reference, retry_policy=RetryPolicy(retries=0, base_s=0.0))
    with pytest.raises(AttachFailed, match="refused"):
        registry.read_manifest("1")
