"""Pulling from a real nginx: its ranges, its limits, TLS."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.models import Home, pin_of, some_bytes
from tests.support.nginx import nginx

pytestmark = pytest.mark.needs("nginx")
MIB = 1 << 20
BIG = some_bytes(30 * MIB)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "models")


@pytest.fixture
def served(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "x.gguf").write_bytes(BIG)
    return folder


def weights(*sources: str):
    return pin_of(BIG, *sources, target="$MODELS_DIR/unet/x.gguf")


@pytest.mark.parametrize(
    ("server", "http"),
    [
        ("", ""),
        ("max_ranges 0;", ""),
        ("limit_conn one 2;", "limit_conn_zone $server_name zone=one:1m;"),
        ("limit_req zone=one burst=2 nodelay;", "limit_req_zone $server_name zone=one:1m rate=20r/s;"),
        ("limit_rate 20m; limit_rate_after 1m;", ""),
        ("keepalive_requests 1;", ""),
        ("etag off;", ""),
    ],
    ids=["plain", "no ranges", "two connections", "twenty requests a second", "a rate", "no keep-alive", "no ETag"],
)
def test_a_file_comes_whole_whatever_the_limits(
    home: Home, served: Path, tmp_path: Path, server: str, http: str
) -> None:
    with nginx(served, tmp_path / "nginx", server=server, http=http) as running:
        pin = weights(f"{running.url}/x.gguf")
        home.pull(pin, connections=8).raise_failures()
    assert home.path(pin).read_bytes() == BIG


def test_no_byte_is_sent_twice(home: Home, served: Path, tmp_path: Path) -> None:
    with nginx(served, tmp_path / "nginx") as running:
        home.pull(weights(f"{running.url}/x.gguf")).raise_failures()
        sent = sum(count for status, _, _, count, _ in running.requests() if status == 206)
    assert sent == len(BIG)


def test_a_file_that_is_replaced_on_the_server_meanwhile_is_noticed(home: Home, served: Path, tmp_path: Path) -> None:
    old = some_bytes(len(BIG), seed=9)
    (served / "x.gguf").write_bytes(old)
    (tmp_path / "new").write_bytes(BIG)
    os.utime(tmp_path / "new", (1, 1))
    first = threading.Event()

    class Watching:
        def plan_files(self, sizes: Mapping[str, int | None]) -> None: ...

        def start_file(self, name: str, total_bytes: int | None, resumed_bytes: int) -> None: ...

        def advance_file(self, name: str, count: int) -> None:
            if not first.is_set():
                first.set()
                (tmp_path / "new").replace(served / "x.gguf")

        def end_file(self, name: str, outcome: str) -> None: ...

    with nginx(served, tmp_path / "nginx", server="limit_rate 20m;") as running:
        pin = weights(f"{running.url}/x.gguf")
        home.pull(pin, connections=1, watcher=Watching()).raise_failures()
    assert home.path(pin).read_bytes() == BIG


@pytest.fixture
def tls(tmp_path: Path) -> tuple[str, Path]:
    """Directives for a port with TLS, and the certificate that signed itself."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return f"ssl_certificate {certificate}; ssl_certificate_key {key};", certificate


@pytest.mark.parametrize("trusted", [True, False])
def test_over_tls_the_certificate_decides(
    served: Path, tmp_path: Path, tls: tuple[str, Path], *, trusted: bool
) -> None:
    directives, certificate = tls
    with nginx(served, tmp_path / "nginx", server=directives, tls=True) as running:
        url = running.url.replace("http://127.0.0.1", "https://localhost") + "/x.gguf"
        program = (
            "import sys; from pathlib import Path; from tests.support.models import *;"
            "from tests.integration.test_models_nginx import weights;"
            "report = Home(Path(sys.argv[1])).pull(weights(sys.argv[2]));"
            "print(*[failure.message for failure in report.failures])"
        )
        environ = {**os.environ, "SSL_CERT_FILE": str(certificate) if trusted else os.devnull, "PYTHONPATH": "."}
        command = [sys.executable, "-c", program, str(tmp_path / "models"), url]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environ, check=True, cwd=Path(__file__).parents[2]
        )
    assert ("certificate is not trusted" in done.stdout) is not trusted
    assert (tmp_path / "models" / "unet" / "x.gguf").exists() is trusted
