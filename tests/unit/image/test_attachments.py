"""What is attached to an image, at registries that log in, fail, and keep lists of referrers or do not."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from comfypin.image.attachments import CYCLONEDX, attach_document
from comfypin.image.errors import AttachFailed, LoginRefused
from comfypin.image.image_names import repository_path
from comfypin.image.registry_client import INDEX, MANIFEST, ImageManifest, ImageRepository, sha256_digest
from comfypin.image.registry_login import Credential
from comfypin.image.stored_logins import stored_credential
from comfypin.retry import RetryPolicy

IMAGE = b'{"schemaVersion": 2}'
ME = Credential("me", "right", "REGISTRY_PASSWORD")


class FakeRegistry(ThreadingHTTPServer):
    """A registry in memory. It is open, or asks for `me:right`, itself or by a token of its own realm."""

    daemon_threads = True

    def __init__(self, *, login: str = "none", referrers: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.login, self.referrers = login, referrers
        self.manifests: dict[str, ImageManifest] = {
            sha256_digest(IMAGE): ImageManifest(media_type=MANIFEST, data=IMAGE)
        }
        self.blobs: dict[str, bytes] = {}
        self.fail_next = 0
        self.seen: list[tuple[str, str]] = []

    @property
    def reference(self) -> str:
        return f"127.0.0.1:{self.server_port}/me/x:1"

    def document(self) -> bytes:
        """The one document that the list of referrers leads to."""
        listed = json.loads(self.manifests[sha256_digest(IMAGE).replace(":", "-")].data)
        (entry,) = listed["manifests"]
        assert entry["artifactType"] == CYCLONEDX
        artifact = json.loads(self.manifests[entry["digest"]].data)
        assert artifact["subject"] == {"mediaType": MANIFEST, "digest": sha256_digest(IMAGE), "size": len(IMAGE)}
        return self.blobs[artifact["layers"][0]["digest"]]


class _Handler(BaseHTTPRequestHandler):
    server: FakeRegistry
    protocol_version = "HTTP/1.1"
    routes: ClassVar = re.compile(r"/v2/me/x/(?:manifests/(?P<name>[^?]+)|blobs/(?P<blob>sha256:\w+))$")

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path))
        if self.server.fail_next:
            self.server.fail_next -= 1
            self._answer(503)
        elif self.path.startswith("/token"):
            self._answer(200, json.dumps({"token": "t0k"}).encode()) if self._basic() else self._answer(401)
        elif not self._welcome():
            where = f'http://127.0.0.1:{self.server.server_port}/token",service="s'
            asked = f'Bearer realm="{where}"' if self.server.login == "bearer" else 'Basic realm="here"'
            self._answer(401, **{"WWW-Authenticate": asked})
        elif self.path == "/v2/me/x/blobs/uploads/":
            self._answer(202, Location="/upload?state=1")
        elif self.path.startswith("/upload"):
            self.server.blobs[f"sha256:{hashlib.sha256(data).hexdigest()}"] = data
            self._answer(201)
        else:
            self._content(data)

    do_GET = do_HEAD = do_PUT = do_POST = _serve

    def _content(self, data: bytes) -> None:
        match = self.routes.match(self.path)
        assert match is not None, self.path
        if match["blob"]:
            self._answer(200 if match["blob"] in self.server.blobs else 404)
        elif self.command == "PUT":
            self.server.manifests[match["name"]] = ImageManifest(media_type=self.headers["Content-Type"], data=data)
            subject = json.loads(data).get("subject", {}).get("digest")
            keeps = {"OCI-Subject": subject} if subject and self.server.referrers else {}
            self._answer(201, **keeps)
        elif (found := self.server.manifests.get(match["name"])) is not None:
            self._answer(200, found.data, **{"Content-Type": found.media_type})
        else:
            self._answer(404)

    def _basic(self) -> bool:
        return self.headers.get("Authorization") == f"Basic {base64.b64encode(b'me:right').decode()}"

    def _welcome(self) -> bool:
        match self.server.login:
            case "basic":
                return self._basic()
            case "bearer":
                return self.headers.get("Authorization") == "Bearer t0k"
            case _:
                return True

    def _answer(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def served() -> Iterator[FakeRegistry]:
    registry = FakeRegistry()
    thread = threading.Thread(target=registry.serve_forever, args=(0.02,))
    thread.start()
    yield registry
    registry.shutdown()
    thread.join()
    registry.server_close()


def put(registry: FakeRegistry, data: bytes = b"{}\n", credential: Credential | None = None) -> str:
    repository = ImageRepository(
        reference=registry.reference, credential=credential, retry_policy=RetryPolicy(retries=5, base_s=0.001)
    )
    return attach_document(repository, sha256_digest(IMAGE), kind=CYCLONEDX, document_bytes=data, title="x.cdx.json")


@pytest.mark.parametrize("login", ["none", "basic", "bearer"])
def test_a_document_is_found_from_the_image(served: FakeRegistry, login: str) -> None:
    served.login = login
    put(served, b"what is in it", ME)
    assert served.document() == b"what is in it"


def test_the_same_again_changes_nothing(served: FakeRegistry) -> None:
    first = put(served)
    before = dict(served.manifests)
    assert put(served) == first
    assert served.manifests == before


def test_others_in_the_list_stay_in_it(served: FakeRegistry) -> None:
    tag = sha256_digest(IMAGE).replace(":", "-")
    other = {"mediaType": MANIFEST, "digest": f"sha256:{'0' * 64}", "size": 2, "artifactType": "a signature"}
    served.manifests[tag] = ImageManifest(media_type=INDEX, data=json.dumps({"manifests": [other]}).encode())
    digest = put(served)
    assert [entry["digest"] for entry in json.loads(served.manifests[tag].data)["manifests"]] == [
        other["digest"],
        digest,
    ]


def test_a_registry_that_lists_referrers_itself_gets_no_list(served: FakeRegistry) -> None:
    served.referrers = True
    digest = put(served)
    assert served.manifests.keys() == {sha256_digest(IMAGE), digest}


def test_a_failing_registry_is_asked_again(served: FakeRegistry) -> None:
    served.fail_next = 3
    put(served, b"at last")
    assert served.document() == b"at last"


def test_one_that_stays_down_is_told_with_the_image_that_is_there(served: FakeRegistry) -> None:
    served.fail_next = 1000
    with pytest.raises(AttachFailed, match=r"me/x:1 is pushed, but .* HTTP 503"):
        put(served)


@pytest.mark.parametrize("login", ["basic", "bearer"])
def test_a_wrong_credential_names_its_variable(served: FakeRegistry, login: str) -> None:
    served.login = login
    with pytest.raises(LoginRefused, match="GHCR_TOKEN") as caught:
        put(served, credential=Credential("me", "wrong", "GHCR_TOKEN"))
    assert "wrong" not in str(caught.value)


def test_what_is_no_list_is_not_overwritten(served: FakeRegistry) -> None:
    tag = sha256_digest(IMAGE).replace(":", "-")
    served.manifests[tag] = ImageManifest(media_type=MANIFEST, data=b'{"manifests": 3}')
    with pytest.raises(AttachFailed, match=tag):
        put(served)
    assert served.manifests[tag].data == b'{"manifests": 3}'


def test_a_stored_login_is_found_as_docker_and_as_podman_keep_it(tmp_path: Path) -> None:
    auth = base64.b64encode(b"me:right").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"harbor.example.org": {"auth": auth}}}))
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": auth}}}))
    variables = {"DOCKER_CONFIG": str(tmp_path), "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"), "HOME": "/nowhere"}
    assert stored_credential("harbor.example.org", variables) == me_from(tmp_path / "config.json")
    assert stored_credential("docker.io", variables) == me_from(tmp_path / "auth.json")
    assert stored_credential("ghcr.io", variables) is None


def test_a_helper_program_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-here"
    helper.write_text('#!/bin/sh\nread name; echo "{\\"Username\\": \\"me\\", \\"Secret\\": \\"for $name\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"ghcr.io": "here", "other.org": "absent"}}))
    found = stored_credential("ghcr.io", {"DOCKER_CONFIG": str(tmp_path)})
    assert found == Credential("me", "for ghcr.io", "docker-credential-here")
    assert stored_credential("other.org", {"DOCKER_CONFIG": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("reference", "path"),
    [("debian:12", "library/debian"), ("me/x:1", "me/x"), ("ghcr.io/me/x:1", "me/x"), ("localhost:5000/x:1", "x")],
)
def test_the_repository_of_a_reference(reference: str, path: str) -> None:
    assert repository_path(reference) == path


def me_from(path: Path) -> Credential:
    return Credential("me", "right", str(path))
