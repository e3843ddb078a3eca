"""Brings a job's input files into a folder of its own: from base64, data URIs, https, s3 and gs, within limits.

Addresses come from strangers: a name is resolved once, private addresses are refused unless allowed, redirects follow
the same rules (`comfypin.http.guard`), every file has a size that it may not exceed, and all of them one deadline.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from comfypin.atomic_files import contained_path
from comfypin.errors import ComfypinError
from comfypin.http.client import HttpClient, shown_url
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError, RequestDeadlineExceeded
from comfypin.jobs.base64_text import decode_base64
from comfypin.jobs.errors import InputUnusable
from comfypin.jobs.request import JobInput
from comfypin.storage.interface import ObjectStore
from comfypin.storage.registry import SCHEMES

# Clients write an address where base64 is expected; no base64 begins so, because it has no colon.
_ADDRESS = re.compile(rf"\s*((?:https?|{'|'.join(map(re.escape, SCHEMES))})://\S+)\s*")
OpenBucket = Callable[[str, str], ObjectStore]
OpenClient = Callable[[Deadline], HttpClient]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a job's inputs may take: bytes of one file and of all, seconds for all."""

    file_bytes: int = 512 << 20
    total_bytes: int = 1 << 30
    seconds: float = 300.0


class Fetcher:
    """Brings inputs. `open_bucket(scheme, name)` gives the store of an address like s3://bucket/key.

    `open_client` makes the client of one job, under its deadline: a client resolves each name once, which must not
    outlive a job.
    """

    def __init__(self, *, open_client: OpenClient, open_bucket: OpenBucket, limits: Limits) -> None:
        self._open_client = open_client
        self._open_bucket = open_bucket
        self._limits = limits

    def deadline(self) -> Deadline:
        """Return a deadline for one job's inputs, which begins now."""
        return Deadline(self._limits.seconds)

    def bring(self, job: JobInput, folder: Path, *, deadline: Deadline | None = None) -> tuple[str, ...]:
        """Write every input of the job into the folder; returns `NODE=FILE` texts for those that point a node.

        Blocks; meant for a thread, which comes back at once when the deadline is cancelled. Raises `InputUnusable`.
        """
        budget = _Budget(self._limits, deadline or self.deadline())
        pointed = []
        with closing(self._open_client(budget.deadline)) as client:
            for image in job.images:
                self._write(folder, image.name, self._had(image.name, image.image, client, budget), budget)
            for item in job.inputs:
                source = item.data if item.data is not None else str(item.url)
                path = self._write(folder, item.name, self._had(item.name, source, client, budget), budget)
                if item.node is not None:
                    pointed.append(f"{item.node}={path}")
        return tuple(pointed)

    def _had(self, name: str, source: str, client: HttpClient, budget: "_Budget") -> Iterator[bytes]:
        """Return the bytes of what the job says, by whatever field: an address, base64 or a data URI."""
        address = _ADDRESS.fullmatch(source)
        return self._fetched(name, address[1], client) if address else _decoded(name, source, budget)

    def _write(self, folder: Path, name: str, chunks: Iterator[bytes], budget: "_Budget") -> Path:
        try:
            path = contained_path(folder, name)
        except ValueError as exc:
            raise InputUnusable(name=name, reason="the name leaves the input folder") from exc
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file, budget.one_file(name):
                for chunk in chunks:
                    budget.spend(name, len(chunk))
                    file.write(chunk)
        except RequestDeadlineExceeded as exc:
            raise budget.too_late(name) from exc
        except OSError as exc:
            raise InputUnusable(name=name, reason=f"it cannot be written: {exc.strerror or exc}") from exc
        except InputUnusable:
            raise
        except ComfypinError as exc:
            raise InputUnusable(name=name, reason=exc.message.rstrip(".")) from exc
        return path

    def _fetched(self, name: str, url: str, client: HttpClient) -> Iterator[bytes]:
        scheme = urlsplit(url).scheme
        if scheme in SCHEMES:
            bucket, _, key = url.partition("://")[2].partition("/")
            yield from self._open_bucket(scheme, bucket).read(key)
            return
        try:
            with client.get(url) as response:
                if response.status != 200:
                    raise InputUnusable(name=name, reason=f"its server answered {response.status}")
                yield from response.iter_bytes()
        except RequestDeadlineExceeded:
            raise
        except HttpError as error:
            raise InputUnusable(name=name, reason=f"{shown_url(url)}: {error.reason}") from error


class _Budget:
    def __init__(self, limits: Limits, deadline: Deadline) -> None:
        self._limits = limits
        self.deadline = deadline
        self._total = 0
        self._file = 0

    def one_file(self, name: str) -> "_Budget":
        self._file = 0
        return self

    def __enter__(self) -> "_Budget":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file = 0

    def check_base64(self, name: str, length: int) -> None:
        if length // 4 * 3 > self._limits.file_bytes + 3:
            self._too_big(name)

    def spend(self, name: str, count: int) -> None:
        self._file += count
        self._total += count
        if self._file > self._limits.file_bytes:
            self._too_big(name)
        if self._total > self._limits.total_bytes:
            raise InputUnusable(name=name, reason=f"all inputs together exceed {_mb(self._limits.total_bytes)}")
        if self.deadline.has_passed:
            raise self.too_late(name)

    def too_late(self, name: str) -> InputUnusable:
        """Return the failure of what has not arrived in time."""
        return InputUnusable(name=name, reason=f"the inputs did not arrive within {self._limits.seconds:g} s")

    def _too_big(self, name: str) -> None:
        raise InputUnusable(name=name, reason=f"it is larger than {_mb(self._limits.file_bytes)}")


def _decoded(name: str, text: str, budget: _Budget) -> Iterator[bytes]:
    """The bytes of base64 or of a data URI (RFC 2397), in pieces."""
    if text[:5].lower() == "data:":
        head, separator, text = text.partition(",")
        if not separator:
            raise InputUnusable(name=name, reason="the data URI has no comma")
        if not head.lower().endswith(";base64"):
            yield unquote_to_bytes(text)
            return
    budget.check_base64(name, len(text))
    try:
        yield decode_base64(text)
    except ValueError as exc:
        raise InputUnusable(name=name, reason=f"it {exc}") from exc


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
