"""kill -9 of a server under Comfy API v2: accepted jobs end once, keys stay claimed, no asset is half there."""

import contextlib
import http.client
import sqlite3
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from tests.support.comfy_api import hash_of
from tests.support.server import Server, serving
from tests.support.workflows import load

KILLS = 3
CLIENTS = 2


class Client(threading.Thread):
    """Uploads a picture and submits a job that loads it, again and again, each under a key of its own."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._number = number
        self.stop = threading.Event()
        self.jobs: dict[str, str] = {}
        self.assets: dict[str, bytes] = {}
        self.unexpected: list[Any] = []

    def run(self) -> None:
        count = 0
        while not self.stop.is_set():
            count += 1
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._one(a_png(self._number * 10_000 + count))
            time.sleep(0.05)  # each job is looked at afterwards

    def _one(self, data: bytes) -> None:
        asset = self._asked("POST", "/api/v2/assets", *multipart(data), status=(200, 201))
        if asset is None:
            return
        self.assets[asset["id"]] = data
        graph = load("?")
        graph["1"]["inputs"]["image"] = {"__type": "core/ASSET", "info": {"id": asset["id"]}}
        key = str(uuid.uuid4())
        job = self._asked("POST", "/api/v2/jobs", {"workflow": graph}, {"Idempotency-Key": key}, status=(201,))
        if job is not None:
            self.jobs[job["id"]] = key

    def _asked(self, method: str, path: str, body: Any, headers: dict[str, str], *, status: tuple[int, ...]) -> Any:
        answered, body, _ = self._server.ask(method, path, body, **headers)
        if answered == 429:
            time.sleep(0.2)
            return None
        if answered not in status:
            self.unexpected.append((path, answered, body))
            return None
        return body


def a_png(number: int) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number >> 16 & 255, number >> 8 & 255, number & 255)).save(buffer, "PNG")
    return buffer.getvalue()


def multipart(data: bytes) -> tuple[bytes, dict[str, str]]:
    fields = {"content_type": b"image/png", "file_path": b"photo.png", "expected_hash": hash_of(data).encode()}
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (k.encode(), v) for k, v in fields.items()
    ]
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n%s\r\n--x--\r\n' % data
    return b"".join(parts) + file, {"Content-Type": "multipart/form-data; boundary=x"}


def test_accepted_jobs_end_once_and_keys_stay_claimed(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-waiting", "100000") as server:
        clients = [Client(server, number) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(KILLS):
            time.sleep(1.5)
            server.kill()
            server.start()
        time.sleep(1)
        for client in clients:
            client.stop.set()
        for client in clients:
            client.join(60)
            assert client.unexpected == []
        jobs = {job_id: key for client in clients for job_id, key in client.jobs.items()}
        assets = {asset_id: data for client in clients for asset_id, data in client.assets.items()}
        assert len(jobs) > KILLS
        for job_id in jobs:
            assert server.ended(job_id, within_s=120)["status"] == "COMPLETED"
        for job_id, key in jobs.items():
            shown = server.get(f"/api/v2/jobs/{job_id}")
            assert [output["node_id"] for output in shown["outputs"]] == ["2"]
            sent = ("POST", "/api/v2/jobs", {"workflow": load("none.png")})
            assert server.ask(*sent, **{"Idempotency-Key": key})[1]["error"]["code"] == "idempotency_key_reuse"
        for asset_id, data in assets.items():
            assert server.get_bytes(f"/api/v2/assets/{asset_id}/content") == data
        stored = list((tmp_path / "state" / "assets").glob("??/*"))
        assert all(f"blake3:{path.name}" == hash_of(path.read_bytes()) for path in stored)
    base = sqlite3.connect(tmp_path / "state" / "jobs.sqlite")
    claimed = dict(base.execute("SELECT key, job_id FROM idempotency_keys WHERE job_id IS NOT NULL"))
    assert {key: job_id for job_id, key in jobs.items()}.items() <= claimed.items()
    base.close()
