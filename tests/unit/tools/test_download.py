"""Downloading one file: verified, whole or absent."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.tools.download import download_file, read_url
from comfypin.tools.errors import DownloadFailed, DownloadWrong

BODY = b"some bytes" * 1000


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = 200 if self.path.startswith("/there") else 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[: len(BODY) // 2] if "short" in self.path else BODY)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_a_file_is_brought_and_verified(server: str, tmp_path: Path) -> None:
    assert download_file(f"{server}/there", tmp_path / "x", (Digest.of(BODY),)) == Digest.of(BODY)
    assert (tmp_path / "x").read_bytes() == BODY


def test_other_bytes_than_the_digest_says_leave_nothing(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadWrong, match="aaaaaaaa"):
        download_file(f"{server}/there?token=hunter2", tmp_path / "x", (Digest("aa" * 32),))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/absent", "/there-short"])
def test_a_failure_is_said_without_the_query_and_leaves_nothing(server: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed) as caught:
        download_file(f"{server}{path}?token=hunter2", tmp_path / "x")
    assert "hunter2" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_this_machine_is_brought_too(tmp_path: Path) -> None:
    source = tmp_path / "a b.txt"
    source.write_bytes(b"x")
    assert read_url(source.as_uri()) == b"x"
    with pytest.raises(DownloadFailed):
        read_url((tmp_path / "absent").as_uri())
