"""Google's services on loopback, under their own names: a proxy leads every CONNECT to one TLS server."""

import base64
import datetime
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import google_crc32c

from tests.support.background import QuietHandler, QuietServer, serving
from tests.support.connect_proxy import connect_proxy
from tests.support.tls import Certificate

HOSTS = (
    *("storage.googleapis.com", "oauth2.googleapis.com", "sts.googleapis.com", "iamcredentials.googleapis.com"),
    *("cloudresourcemanager.googleapis.com", "token.example"),
)
ACCOUNT = "writer@test-project.iam.gserviceaccount.com"


@dataclass
class GoogleCloud:
    """`asked` are the requests, as `host path`; `environ` leads a client here. Tokens are good for `token_uses`."""

    environ: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    token_uses: int = 1_000_000
    used: int = 0

    def new_token(self, kind: str) -> str:
        self.tokens.append(f"{kind}-{len(self.tokens)}")
        self.used = 0
        return self.tokens[-1]

    def is_accepted(self, authorization: str | None) -> bool:
        self.used += 1
        return bool(self.tokens) and authorization == f"Bearer {self.tokens[-1]}" and self.used <= self.token_uses


@contextmanager
def google_cloud(folder: Path) -> Iterator[GoogleCloud]:
    """A stand-in for all that an upload asks of Google; nothing is ever sent to a real address."""
    certificate = Certificate.made(folder / "tls", hosts=HOSTS)
    cloud = GoogleCloud()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.cloud = cloud
    metadata = _Server(("127.0.0.1", 0), _Handler)
    metadata.cloud = cloud
    server.socket = certificate.of_server().wrap_socket(server.socket, server_side=True)
    with serving(server), serving(metadata), connect_proxy() as proxy:
        proxy.leads_to = ("127.0.0.1", server.server_port)
        place = f"127.0.0.1:{metadata.server_port}"
        cloud.environ = {
            **{"GCS_BUCKET": "b", "HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": str(certificate.path)},
            **{"GCE_METADATA_HOST": place, "GCE_METADATA_IP": place, "GCS_RETRIES": "0"},
        }
        yield cloud


class _Server(QuietServer):
    cloud: GoogleCloud


class _Handler(QuietHandler):
    server: _Server

    def _answer(self) -> None:
        cloud = self.server.cloud
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        host = self.headers["Host"].partition(":")[0]
        path = urlsplit(self.path).path
        cloud.asked.append(f"{host} {path}")
        status, answer = self._decide(host, path, body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json" if isinstance(answer, dict) else "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Metadata-Flavor", "Google")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _answer

    def _decide(self, host: str, path: str, body: bytes) -> tuple[int, dict[str, Any] | bytes]:
        cloud = self.server.cloud
        lasts = {"expires_in": 3600, "token_type": "Bearer"}
        match host:
            case "127.0.0.1":
                return self._metadata(path)
            case "oauth2.googleapis.com" | "token.example":
                return 200, {"access_token": cloud.new_token("oauth2"), **lasts}
            case "sts.googleapis.com":
                kind = "urn:ietf:params:oauth:token-type:access_token"
                return 200, {"access_token": cloud.new_token("sts"), "issued_token_type": kind, **lasts}
            case "iamcredentials.googleapis.com" if path.endswith(":signBlob"):
                return 200, {"keyId": "k", "signedBlob": base64.b64encode(b"signed by Google").decode()}
            case "iamcredentials.googleapis.com":
                until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
                return 200, {"accessToken": cloud.new_token("iam"), "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
            case "storage.googleapis.com" if cloud.is_accepted(self.headers["Authorization"]):
                return self._stored(body)
            case "storage.googleapis.com":
                return 401, {"error": {"message": "Invalid Credentials"}}
        return 404, {}

    def _metadata(self, path: str) -> tuple[int, dict[str, Any] | bytes]:
        cloud = self.server.cloud
        if path.endswith("/token"):
            return 200, {"access_token": cloud.new_token("metadata"), "expires_in": 3600, "token_type": "Bearer"}
        if path.endswith("/service-accounts/default/"):
            return 200, {"email": ACCOUNT, "scopes": ["https://www.googleapis.com/auth/cloud-platform"], "aliases": []}
        if path.endswith("/universe-domain"):
            return 200, b"googleapis.com"
        return 200, b""

    def _stored(self, body: bytes) -> tuple[int, dict[str, Any]]:
        found = re.search(rb"\r\n\r\n(\{.*?\})\r\n--.*?\r\n\r\n(.*)\r\n--", body, re.DOTALL)
        assert found is not None
        name, data = json.loads(found[1])["name"], found[2]
        self.server.cloud.objects[name] = data
        checksum = google_crc32c.Checksum(data)
        return 200, {"name": name, "size": str(len(data)), "crc32c": base64.b64encode(checksum.digest()).decode()}
