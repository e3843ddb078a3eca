"""What `bench/delivery.py` uploads to: an S3 and GCS server that only reads, so that the clients are what is measured.

It takes any body as fast as the kernel gives it and keeps nothing. Digests are checked of bodies up to 4 KiB (as the
bucket is asked before the first job); ETags are md5 sums of bodies up to 4 MiB, and GCS's crc32c is summed, because
their clients compare them. The real servers of the tests are where every byte is checked. One of its addresses is as
far away as a bucket is: 20 ms for a connection, and for each answer.
"""

import base64
import contextlib
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

KIB = 1 << 10
_BUFFER_BYTES = 1 << 20
_CHECKED_BYTES = 4 * KIB
_SUMMED_BYTES = 4 << 20
_FAR_S = 0.02
_HEAD_ENDS = b"\r\n\r\n"


class Sink:
    """A server in a process of its own: its plain, its TLS and its far address. `cpu_s` is what it has used."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self.plain = self.tls = self.far = ""

    def __enter__(self) -> "Sink":
        self._make_certificate()
        with _free_port() as plain, _free_port() as tls, _free_port() as far:
            ports = plain.getsockname()[1], tls.getsockname()[1], far.getsockname()[1]
        command = [sys.executable, __file__, *map(str, ports), str(self._work)]
        self._process = subprocess.Popen(command)
        for port in ports:
            self._await(port)
        self.plain, self.tls = f"http://127.0.0.1:{ports[0]}", f"https://127.0.0.1:{ports[1]}"
        self.far = f"http://127.0.0.1:{ports[2]}"
        return self

    def __exit__(self, *ignored: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that the server has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

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


def _free_port() -> socket.socket:
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    return probe


@dataclass
class Seen:
    """What clients began and have not ended (sessions of GCS, sizes of S3's parts); what HEAD says of objects."""

    sessions: "dict[str, Upload]" = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    heads: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def serve(plain_port: int, tls_port: int, far_port: int, work: Path) -> None:
    """Serve until the process is killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "certificate.pem", work / "key.pem")
    seen = Seen()

    def listen(port: int, tls: ssl.SSLContext | None, delay_s: float = 0.0) -> None:
        listener = socket.create_server(("127.0.0.1", port), backlog=256)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_greet, args=(connection, tls, seen, delay_s), daemon=True).start()

    threading.Thread(target=listen, args=(plain_port, None), daemon=True).start()
    threading.Thread(target=listen, args=(far_port, None, _FAR_S), daemon=True).start()
    listen(tls_port, context)


def _greet(connection: socket.socket, tls: ssl.SSLContext | None, seen: Seen, delay_s: float) -> None:
    time.sleep(delay_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError, ValueError), connection:
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True)
        Connection(connection, seen, delay_s).serve()
    connection.close()


class Upload:
    """A resumable upload: its crc32c and size so far."""

    def __init__(self) -> None:
        import google_crc32c

        self.crc32c = google_crc32c.Checksum()
        self.size = 0

    def add(self, data: bytes) -> None:
        self.crc32c.update(data)
        self.size += len(data)

    def described(self) -> bytes:
        digest = base64.b64encode(self.crc32c.digest()).decode()
        return json.dumps({"name": "p", "size": str(self.size), "crc32c": digest, "etag": "e"}).encode()


class Connection:
    """One client's connection: requests one after another."""

    def __init__(self, connection: socket.socket, seen: Seen, delay_s: float) -> None:
        self._connection = connection
        self._delay_s = delay_s
        self._metadata = ""
        self._seen = seen
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._rest = b""  # what came after a head
        self._host = ""

    def serve(self) -> None:
        """Answer until the client goes away."""
        while head := self._head():
            first, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ", 2)
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            self._host = headers.get("host", "")
            self._metadata = headers.get("x-amz-meta-sha256", "")
            if headers.get("expect", "").lower() == "100-continue":
                time.sleep(self._delay_s)
                self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._answer(method, path, headers)

    def _head(self) -> bytes:
        head = self._rest
        while _HEAD_ENDS not in head:
            count = self._connection.recv_into(self._buffer, 64 * KIB)
            if not count:
                return b""
            head += self._buffer[:count]
        head, _, self._rest = head.partition(_HEAD_ENDS)
        return head

    def _answer(self, method: str, path: str, headers: dict[str, str]) -> None:
        length = int(headers.get("content-length") or 0)
        if path.startswith(("/upload/", "/resumable/upload/")):
            self._gcs(path, headers, length)
        elif "/iam/testPermissions" in path:
            self._say(200, b'{"permissions": ["storage.objects.create", "storage.objects.delete"]}')
        elif path.startswith("/storage/"):
            self._say(200, b'{"name": "bench", "projectNumber": "1", "location": "EU"}')
        else:
            self._s3(method, path, headers, length)

    def _s3(self, method: str, path: str, headers: dict[str, str], length: int) -> None:
        key = path.partition("?")[0]
        if headers.get("transfer-encoding", "") == "chunked":  # boto3's default checksums travel so over TLS
            self._read_chunks()
            self._say(200, b"", ETag='"chunked"')
            return
        if method == "PUT" and "partNumber" in path:
            self._read(length)
            with self._seen.lock:
                self._seen.parts[key] = self._seen.parts.get(key, 0) + length
            self._say(200, b"", ETag='"part"')
        elif method == "PUT":
            self._put(key, length, headers.get("x-amz-content-sha256", ""))
        elif method == "POST" and path.endswith(("?uploads", "?uploads=")):
            self._read(length)
            with self._seen.lock:
                self._seen.heads[key] = (0, "x-1", self._metadata)
            self._say(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        elif method == "POST":
            self._read(length)
            with self._seen.lock:
                self._seen.heads[key] = (self._seen.parts.pop(key, 0), *self._seen.heads[key][1:])
            self._say(200, b'<CompleteMultipartUploadResult><ETag>"x-1"</ETag></CompleteMultipartUploadResult>')
        elif method == "HEAD":
            found = self._seen.heads.get(key)
            size, etag, sha256 = found or (0, "", "")
            headers = {"ETag": f'"{etag}"', "x-amz-meta-sha256": sha256}
            self._say(404 if found is None else 200, b"", length=size, **headers)
        else:
            self._say(200, b"<ListBucketResult></ListBucketResult>")

    def _put(self, key: str, length: int, signed: str) -> None:
        hasher, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        checked = len(signed) == 64 and length <= _CHECKED_BYTES
        take = md5.update if length <= _SUMMED_BYTES else None
        self._read(length, (lambda data: (hasher.update(data), md5.update(data))) if checked else take)
        if checked and hasher.hexdigest() != signed:
            self._say(400, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>")
            return
        # Opaque above, as on buckets with KMS keys: a sum would cost more than the clients do.
        etag = md5.hexdigest() if take is not None else "opaque"
        with self._seen.lock:
            self._seen.heads[key] = (length, etag, self._metadata)
        self._say(200, b"", ETag=f'"{etag}"')

    def _gcs(self, path: str, headers: dict[str, str], length: int) -> None:
        if "upload_id=" in path:
            upload = self._seen.sessions[path.partition("upload_id=")[2]]
            self._read(length, upload.add)
            _, _, total = headers["content-range"].removeprefix("bytes ").partition("/")
            if total not in {"*", str(upload.size)}:
                self._say(308, b"", Range=f"bytes=0-{upload.size - 1}")
            else:
                self._say(200, upload.described())
        elif "uploadType=resumable" in path:
            self._read(length)
            with self._seen.lock:
                name = f"s{len(self._seen.sessions)}"
                self._seen.sessions[name] = Upload()
            self._say(200, b"{}", Location=f"http://{self._host}/upload/x?upload_id={name}")
        else:
            body = bytearray()
            self._read(length, body.extend)
            content = bytes(body).split(_HEAD_ENDS, 2)[2].rpartition(b"\r\n--")[0]
            upload = Upload()
            upload.add(content)
            self._say(200, upload.described())

    def _read(self, length: int, take: Callable[[bytes], object] | None = None) -> None:
        came, self._rest = self._rest[:length], self._rest[length:]
        if take is not None and came:
            take(came)
        length -= len(came)
        while length:
            if take is None:
                count = self._connection.recv_into(self._buffer, min(length, _BUFFER_BYTES))
            else:
                piece = self._connection.recv(min(length, 256 * KIB))
                take(piece)
                count = len(piece)
            if not count:
                raise OSError("the client went away")
            length -= count

    def _read_chunks(self) -> None:
        tail, self._rest = self._rest[-7:], b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            count = self._connection.recv_into(self._buffer, _BUFFER_BYTES)
            if not count:
                raise OSError("the client went away")
            tail = (tail + self._buffer[max(0, count - 7) : count])[-7:]

    def _say(self, status: int, body: bytes, *, length: int | None = None, **headers: str) -> None:
        time.sleep(self._delay_s)
        lines = [f"{name}: {value}" for name, value in headers.items() if value]
        lines += [f"Content-Length: {len(body) if length is None else length}", "Content-Type: application/json"]
        lines += ["Last-Modified: Sat, 01 Aug 2026 00:00:00 GMT"]
        head = f"HTTP/1.1 {status} OK\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        self._connection.sendall(head.encode() + body)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
