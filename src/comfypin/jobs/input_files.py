"""Fetches a job's input files into its folder: from base64, data URIs, https, s3 and gs, within limits.

Addresses come from strangers: a name is resolved once, private addresses are refused unless allowed, redirects follow
the same rules (`comfypin.http.host_guard`), every file has a size that it may not exceed, and all of them one deadline.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from comfypin.atomic_files import contained_path
from comfypin.errors import ComfypinError
from comfypin.http.client import HttpClient, shown_url
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError, RequestDeadlineExceeded
from comfypin.jobs.base64_text import decode_base64
from comfypin.jobs.errors import InputUnusable
from comfypin.jobs.job_input import JobInput
from comfypin.machine_errors import is_full, reason_of
from comfypin.plurals import format_limit
from comfypin.storage.interface import ObjectStore
from comfypin.storage.registry import SCHEMES

# Clients write an address where base64 is expected; no base64 begins so, because it has no colon.
_ADDRESS = re.compile(rf"\s*((?:https?|{'|'.join(map(re.escape, SCHEMES))})://\S+)\s*")
OpenBucket = Callable[[str, str], ObjectStore]
OpenClient = Callable[[Deadline], HttpClient]
ReadAsset = Callable[[str], Iterator[bytes]]
"""Gives the bytes of an asset by its hash. Raises `OSError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLimits:
    """Limits for a job's inputs: bytes of one file and of all, seconds for all."""

    file_bytes: int = 512 << 20
    total_bytes: int = 1 << 30
    seconds: float = 300.0


class InputFetcher:
    """Fetches a job's inputs. `open_bucket(scheme, name)` gives the store of an address like s3://bucket/key.

    `open_client` makes the client of one job, under its deadline: a client resolves each name once, which must not
    outlive a job. `read_asset` reads what was uploaded to this server; None: there are no uploads here.
    """

    def __init__(
        self,
        *,
        open_client: OpenClient,
        open_bucket: OpenBucket,
        limits: InputLimits,
        read_asset: ReadAsset | None = None,
    ) -> None:
        self._read_asset = read_asset
        self._open_client = open_client
        self._open_bucket = open_bucket
        self._limits = limits

    def start_deadline(self) -> Deadline:
        """Return a deadline for one job's inputs, which begins now."""
        return Deadline(self._limits.seconds)

    def fetch_inputs(self, job: JobInput, folder: Path, *, deadline: Deadline | None = None) -> tuple[str, ...]:
        """Write every input of the job into the folder; return `NODE=FILE` for each input that names its node.

        Blocks; meant for a thread, which comes back at once when the deadline is cancelled. Raises `InputUnusable`.
        """
        input_budget = _InputBudget(self._limits, deadline or self.start_deadline())
        node_files = []
        with closing(self._open_client(input_budget.deadline)) as http_client:
            for image in job.images:
                self._write_input(
                    folder,
                    image.name,
                    self._read_source(image.name, image.image, http_client, input_budget),
                    input_budget,
                )
            for media_input in job.inputs:
                if media_input.asset is not None:
                    chunks = self._read_uploaded(media_input.name, media_input.asset)
                else:
                    source = media_input.data if media_input.data is not None else str(media_input.url)
                    chunks = self._read_source(media_input.name, source, http_client, input_budget)
                path = self._write_input(folder, media_input.name, chunks, input_budget)
                if media_input.node is not None:
                    node_files.append(f"{media_input.node}={path}")
        return tuple(node_files)

    def _read_source(
        self, input_name: str, source: str, http_client: HttpClient, input_budget: "_InputBudget"
    ) -> Iterator[bytes]:
        """Return the bytes of an input, whichever field holds it: an address, base64 or a data URI."""
        address = _ADDRESS.fullmatch(source)
        return (
            self._fetch_url(input_name, address[1], http_client)
            if address
            else _decode_inline(input_name, source, input_budget)
        )

    def _read_uploaded(self, input_name: str, asset_hash: str) -> Iterator[bytes]:
        """Return the bytes of an asset of this server."""
        if self._read_asset is None:
            raise InputUnusable(
                name=input_name, reason="the server that took the job does not have this asset; use `url` or `data`"
            )
        try:
            yield from self._read_asset(asset_hash)
        except FileNotFoundError as exc:
            reason = "the asset was deleted, or has expired; upload it again"
            raise InputUnusable(name=input_name, reason=reason) from exc

    def _write_input(
        self, folder: Path, input_name: str, chunks: Iterator[bytes], input_budget: "_InputBudget"
    ) -> Path:
        try:
            path = contained_path(folder, input_name)
        except ValueError as exc:
            raise InputUnusable(name=input_name, reason="the name leaves the input folder") from exc
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # x: an input that has the name of another one must not replace it.
            with path.open("xb") as open_file, input_budget.begin_file(input_name):
                for chunk in chunks:
                    input_budget.spend_bytes(input_name, len(chunk))
                    open_file.write(chunk)
        except RequestDeadlineExceeded as exc:
            raise input_budget.too_late(input_name) from exc
        except OSError as exc:
            if is_full(exc):
                raise  # the disk is to blame, not the input
            raise InputUnusable(name=input_name, reason=f"it cannot be written: {reason_of(exc)}") from exc
        # It says already what is wrong; the next clause would say it twice.
        except InputUnusable:
            raise
        except ComfypinError as exc:
            raise InputUnusable(name=input_name, reason=exc.message.rstrip(".")) from exc
        return path

    def _fetch_url(self, input_name: str, url: str, http_client: HttpClient) -> Iterator[bytes]:
        address_scheme = url.partition(":")[0]
        if address_scheme in SCHEMES:
            bucket, _, key = url.partition("://")[2].partition("/")
            yield from self._open_bucket(address_scheme, bucket).read(key)
            return
        try:
            with http_client.get(url) as response:
                if response.status != 200:
                    raise InputUnusable(name=input_name, reason=f"its server answered with HTTP {response.status}")
                yield from response.iter_bytes()
        except RequestDeadlineExceeded:
            raise
        except HttpError as error:
            raise InputUnusable(name=input_name, reason=f"{shown_url(url)}: {error.reason}") from error


class _InputBudget:
    def __init__(self, limits: InputLimits, deadline: Deadline) -> None:
        self._limits = limits
        self.deadline = deadline
        self._total = 0
        self._file = 0

    def begin_file(self, input_name: str) -> "_InputBudget":
        self._file = 0
        return self

    def __enter__(self) -> "_InputBudget":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file = 0

    def check_base64(self, input_name: str, length: int) -> None:
        # Before decoding: four characters of base64 are three bytes, so the text tells the size.
        if length // 4 * 3 > self._limits.file_bytes + 3:
            self._refuse_size(input_name)

    def spend_bytes(self, input_name: str, byte_count: int) -> None:
        self._file += byte_count
        self._total += byte_count
        if self._file > self._limits.file_bytes:
            self._refuse_size(input_name)
        if self._total > self._limits.total_bytes:
            raise InputUnusable(
                name=input_name, reason=f"all inputs together exceed {format_limit(self._limits.total_bytes)}"
            )
        if self.deadline.has_passed:
            raise self.too_late(input_name)

    def too_late(self, input_name: str) -> InputUnusable:
        """Return the failure of what has not arrived in time."""
        return InputUnusable(name=input_name, reason=f"the inputs did not arrive within {self._limits.seconds:g} s")

    def _refuse_size(self, input_name: str) -> None:
        raise InputUnusable(name=input_name, reason=f"it is larger than {format_limit(self._limits.file_bytes)}")


def _decode_inline(input_name: str, encoded_text: str, input_budget: _InputBudget) -> Iterator[bytes]:
    """Yield the bytes of base64 or of a data URI (RFC 2397)."""
    if encoded_text[:5].lower() == "data:":
        head, separator, encoded_text = encoded_text.partition(",")
        if not separator:
            raise InputUnusable(name=input_name, reason="the data URI has no comma")
        if not head.lower().endswith(";base64"):
            yield unquote_to_bytes(encoded_text)
            return
    input_budget.check_base64(input_name, len(encoded_text))
    try:
        yield decode_base64(encoded_text)
    except ValueError as exc:
        raise InputUnusable(name=input_name, reason=f"it {exc}") from exc
