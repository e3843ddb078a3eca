"""A read-only FUSE file system that passes a folder through, slowly: a network volume on one machine (Linux, root).

    python tests/support/slow_volume.py FOLDER MOUNT_POINT --mb-s 200 --latency-ms 2

Each request waits for the latency, and all share the rate, as on a link. The kernel keeps what it has read and reads
ahead 128 KiB, as for NFS. It speaks the kernel's protocol (<linux/fuse.h>, 7.31) itself, so that it needs no library.
"""

import argparse
import contextlib
import ctypes
import errno
import heapq
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_IN_HEADER, _OUT_HEADER = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_READ_IN = struct.Struct("<QQII")
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _DESTROY, _BATCH_FORGET = 25, 26, 27, 28, 29, 36, 38, 42
_ASYNC_READ, _PARALLEL_DIROPS, _MAX_PAGES, _KEEP_CACHE = 1 << 0, 1 << 18, 1 << 22, 1 << 1
_ROOT, _VALID_S = 1, 3600
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MNT_DETACH = 1, 2, 4, 2
_READ_BYTES = 128 << 10
_LIBC = ctypes.CDLL(None, use_errno=True)


def can_mount() -> bool:
    """Whether this machine lets us: root with /dev/fuse, on Linux."""
    return sys.platform == "linux" and os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


@contextlib.contextmanager
def slow_volume(folder: Path, mount_point: Path, *, mb_s: float = 200, latency_ms: float = 2) -> Iterator[Path]:
    """The folder, mounted at the mount point by a process of its own; unmounted at the end."""
    mount_point.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, str(folder), str(mount_point)]
    rates = ["--mb-s", str(mb_s), "--latency-ms", str(latency_ms)]
    process = subprocess.Popen([*command, *rates], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mounted\n", "the slow volume could not be mounted"
        yield mount_point
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


class _PassThrough:
    """Answers the kernel: one thread takes requests, another one sends what is due."""

    def __init__(self, device: int, folder: Path, *, bytes_per_s: float, latency_s: float) -> None:
        self._device = device
        self._paths: dict[int, Path] = {_ROOT: folder}
        self._ids: dict[Path, int] = {folder: _ROOT}
        self._files: dict[int, int] = {}
        self._bytes_per_s, self._latency_s = bytes_per_s, latency_s
        self._link_free_s = 0.0
        self._due: list[tuple[float, int, int, int, int, int]] = []
        self._changed = threading.Condition()

    def serve(self) -> None:
        threading.Thread(target=self._send_due, daemon=True).start()
        while True:
            try:
                request = os.read(self._device, 1 << 20)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue
                return  # ENODEV: it was unmounted
            _, opcode, unique, node_id, *_ = _IN_HEADER.unpack_from(request)
            body = request[_IN_HEADER.size :]
            if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            if opcode == _READ:
                self._take_read(unique, *_READ_IN.unpack_from(body)[:3])
                continue
            if opcode in (_LOOKUP, _OPEN):
                time.sleep(self._latency_s)
            try:
                self._answer(unique, self._reply(opcode, node_id, body))
            except OSError as error:
                self._answer(unique, b"", error=error.errno or errno.EIO)

    def _take_read(self, unique: int, handle: int, offset: int, size: int) -> None:
        now_s = time.monotonic()
        self._link_free_s = max(now_s, self._link_free_s) + size / self._bytes_per_s
        with self._changed:
            heapq.heappush(self._due, (self._link_free_s + self._latency_s, unique, handle, offset, size, 0))
            self._changed.notify()

    def _send_due(self) -> None:
        while True:
            with self._changed:
                while not self._due or (wait_s := self._due[0][0] - time.monotonic()) > 0:
                    self._changed.wait(wait_s if self._due else None)
                _, unique, handle, offset, size, _ = heapq.heappop(self._due)
            try:
                self._answer(unique, os.pread(self._files[handle], size, offset))
            except (OSError, KeyError):
                self._answer(unique, b"", error=errno.EIO)

    def _answer(self, unique: int, body: bytes, *, error: int = 0) -> None:
        header = _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -error, unique)
        with contextlib.suppress(OSError):  # interrupted requests have nobody left to hear
            os.writev(self._device, [header, body])

    def _reply(self, opcode: int, node_id: int, body: bytes) -> bytes:
        match opcode:
            case 26:
                flags = struct.unpack_from("<IIII", body)[3] & (_ASYNC_READ | _PARALLEL_DIROPS | _MAX_PAGES)
                pages = _READ_BYTES // 4096
                return struct.pack("<IIIIHHIIHH8I", 7, 31, _READ_BYTES, flags, 64, 48, 4096, 1, pages, 0, *[0] * 8)
            case 1:
                path = self._paths[node_id] / os.fsdecode(body.rstrip(b"\0"))
                attributes = self._attributes(path)
                return struct.pack("<QQQQII", self._id_of(path), 0, _VALID_S, _VALID_S, 0, 0) + attributes
            case 3:
                return struct.pack("<QII", _VALID_S, 0, 0) + self._attributes(self._paths[node_id])
            case 14:
                handle = os.open(self._paths[node_id], os.O_RDONLY)
                self._files[handle] = handle
                return struct.pack("<QIi", handle, _KEEP_CACHE, 0)
            case 18:
                os.close(self._files.pop(struct.unpack_from("<Q", body)[0]))
                return b""
            case 27:
                return struct.pack("<QIi", 0, 0, 0)
            case 28:
                return self._list_folder(node_id, *struct.unpack_from("<QQI", body)[1:3])
            case 17:
                return struct.pack(
                    "<QQQQQIIII6I", 1 << 30, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096, 0, *[0] * 6
                )
            case 25 | 29 | 38:
                return b""
        raise OSError(errno.ENOSYS, "not implemented")

    def _id_of(self, path: Path) -> int:
        if path not in self._ids:
            self._ids[path] = len(self._ids) + _ROOT
            self._paths[self._ids[path]] = path
        return self._ids[path]

    def _attributes(self, path: Path) -> bytes:
        # Links of a model store lead to other files of the volume: followed here, so that the kernel sees files.
        status = path.stat()
        seconds = [int(status.st_atime), int(status.st_mtime), int(status.st_ctime)]
        fractions = [status.st_atime_ns % 10**9, status.st_mtime_ns % 10**9, status.st_ctime_ns % 10**9]
        rest = [status.st_mode, status.st_nlink, status.st_uid, status.st_gid, 0, 4096, 0]
        return _ATTR.pack(self._id_of(path), status.st_size, status.st_blocks, *seconds, *fractions, *rest)

    def _list_folder(self, node_id: int, offset: int, size: int) -> bytes:
        listed = b""
        entries = sorted(self._paths[node_id].iterdir())
        for number, entry in enumerate(entries[offset:], start=offset + 1):
            name = os.fsencode(entry.name)
            kind = stat.S_IFMT(entry.stat().st_mode) >> 12
            record = struct.pack("<QQII", self._id_of(entry), number, len(name), kind) + name
            record += b"\0" * (-len(record) % 8)
            if len(listed) + len(record) > size:
                break
            listed += record
        return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("mount_point", type=Path)
    parser.add_argument("--mb-s", type=float, default=200)
    parser.add_argument("--latency-ms", type=float, default=2)
    arguments = parser.parse_args()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={_READ_BYTES}".encode()
    target = os.fsencode(arguments.mount_point)
    if _LIBC.mount(b"slow", target, b"fuse", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, options) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    # The handler's thread is the one that reads requests, which the unmount ends.
    signal.signal(signal.SIGTERM, lambda *_: (_LIBC.umount2(target, _MNT_DETACH) and None) or os._exit(0))
    print("mounted", flush=True)
    _PassThrough(
        device, arguments.folder.absolute(), bytes_per_s=arguments.mb_s * 1e6, latency_s=arguments.latency_ms / 1e3
    ).serve()


if __name__ == "__main__":
    main()
