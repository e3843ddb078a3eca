"""Delivers outputs as objects: several at once, each confirmed by the store, and a manifest last as the proof."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import TypeAlias, TypeVar
from urllib.parse import quote

from comfypin.digest import Digest
from comfypin.errors import Cancelled
from comfypin.outputs.delivery_manifest import StoredOutput, make_manifest
from comfypin.outputs.interface import Delivery, JobFacts, Output
from comfypin.outputs.key_template import KeyTemplate, safe_word
from comfypin.storage.interface import ObjectStore, Payload, StoredObject
from comfypin.temp_folders import temp_folder

log = logging.getLogger(__name__)
T = TypeVar("T")

# As many connections as botocore keeps in its pool by default.
MAX_UPLOADS = 10
# S3 takes 2 KB of metadata in all.
_MOST_TEXT_BYTES = 200  # three times that when it is percent-encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadStarted:
    """Reported when an output begins to go up to its key."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadMoved:
    """Reported when more bytes of an output were sent; after a failure some are sent again."""

    key: str
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFinished:
    """Reported when the store has confirmed an output."""

    key: str


UploadEvent: TypeAlias = UploadStarted | UploadMoved | UploadFinished
UploadWatcher: TypeAlias = Callable[[UploadEvent], None]
"""Called from the threads that upload; must be quick."""


def _utc_today() -> date:
    return datetime.now(UTC).date()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyNaming:
    """How keys are made: a prefix, a template below it, and a clock for the day."""

    prefix: str
    template: KeyTemplate = field(default_factory=KeyTemplate.parse)
    today: Callable[[], date] = _utc_today


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLinks:
    """Makes URLs that browsers can open: signed for so many seconds, else below a public base, else none."""

    signed_ttl_s: int = 0
    public_base_url: str | None = None

    def make_url(self, store: ObjectStore, object_key: str) -> str | None:
        """Return the URL of an object, if it has one. Raises `StorageError` if signing fails."""
        if self.signed_ttl_s:
            return store.signed_url(object_key, ttl_s=self.signed_ttl_s)
        return f"{self.public_base_url}/{quote(object_key)}" if self.public_base_url else None

    def require_signing(self, store: ObjectStore) -> None:
        """Sign something if URLs are to be signed: a job must not run for nothing. Raises `StorageError`."""
        if self.signed_ttl_s:
            store.signed_url("comfypin", ttl_s=self.signed_ttl_s)


class BucketSink:
    """Delivers jobs into a store, any number of them at once; they share the threads that upload.

    `watcher`, if set, is called for every upload.
    """

    def __init__(
        self, store: ObjectStore, naming: KeyNaming, *, links: OutputLinks | None = None, max_uploads: int = MAX_UPLOADS
    ) -> None:
        self._store = store
        self._naming = naming
        self._links = links or OutputLinks()
        self._at_once = max_uploads
        self._pool = ThreadPoolExecutor(max_uploads, thread_name_prefix="comfypin-upload")
        self.watcher: UploadWatcher | None = None

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Upload all outputs, then the manifest. What fails leaves no manifest. Raises `StorageError`."""
        job_keys = self._naming.template.make_keys(job, outputs, prefix=self._naming.prefix, day=self._naming.today())
        began_s = time.monotonic()
        stored_outputs = await self._upload_all(job, outputs, job_keys.outputs)
        upload_s = time.monotonic() - began_s
        manifest_bytes = make_manifest(job, stored_outputs, upload_s=upload_s)
        # The manifest goes last: whoever finds it can rely on all outputs.
        await self._run_in_thread(partial(self._put_manifest, job_keys.manifest, manifest_bytes, job))
        urls = await self._run_in_thread(
            lambda: [self._links.make_url(self._store, stored_output.object.key) for stored_output in stored_outputs]
        )
        log.info(
            "job delivered",
            extra={
                "action": "job_delivered",
                "job_id": job.job_id,
                "outputs": len(stored_outputs),
                "seconds": round(upload_s, 3),
            },
        )
        return tuple(
            Delivery(output=stored_output.output, uri=stored_output.object.uri, url=url)
            for stored_output, url in zip(stored_outputs, urls, strict=True)
        )

    async def _upload_all(
        self, job: JobFacts, outputs: tuple[Output, ...], object_keys: tuple[str, ...]
    ) -> list[StoredOutput]:
        """Upload all outputs and return them in order; after the first failure no further one is started."""
        stopped = threading.Event()
        stored_outputs: dict[int, StoredOutput] = {}
        waiting_items = iter([(index, *pair) for index, pair in enumerate(zip(outputs, object_keys, strict=True))])
        queue_lock = threading.Lock()

        def upload_some() -> None:
            """Upload whatever is next, until none is left."""
            # A hop to the event loop for each output would cost as much as sending a small one.
            while not stopped.is_set():
                with queue_lock:
                    next_item = next(waiting_items, None)
                if next_item is None:
                    return
                output_index, output, object_key = next_item
                stored_outputs[output_index] = self._upload_output(job, output, object_key, stopped)

        loop = asyncio.get_running_loop()
        # Threads take the next output themselves, which costs less than one task for each.
        shares = [loop.run_in_executor(self._pool, upload_some) for _ in range(min(self._at_once, len(outputs)))]
        try:
            await asyncio.gather(*shares)
        except Exception:
            stopped.set()
            # The files are removed when we return, so the other threads must have stopped reading them.
            await asyncio.wait(shares)
            raise
        except BaseException:
            stopped.set()
            raise
        return [stored_outputs[index] for index in range(len(outputs))]

    def _upload_output(self, job: JobFacts, output: Output, object_key: str, stopped: threading.Event) -> StoredOutput:
        began_s = time.monotonic()
        if self.watcher is not None:
            self.watcher(UploadStarted(key=object_key, size_bytes=output.size_bytes))
        payload = Payload(
            path=output.path,
            size_bytes=output.size_bytes,
            sha256=output.sha256,
            media_type=output.media_type,
            metadata=_object_metadata(job, output.sha256),
            stamp=output.stamp,
            pace=partial(self._report_moved, object_key, stopped),
        )
        stored_object = self._store.put(object_key, payload)
        if self.watcher is not None:
            self.watcher(UploadFinished(key=object_key))
        upload_s = time.monotonic() - began_s
        log.info(
            "output delivered",
            extra={
                "action": "output_delivered",
                "job_id": job.job_id,
                "uri": stored_object.uri,
                "size_bytes": output.size_bytes,
                "seconds": round(upload_s, 3),
            },
        )
        return StoredOutput(output=output, object=stored_object, seconds=upload_s)

    def _put_manifest(self, object_key: str, manifest_bytes: bytes, job: JobFacts) -> StoredObject:
        digest = Digest.of(manifest_bytes)
        with temp_folder("manifest") as folder:
            manifest_path = folder / "manifest.json"
            manifest_path.write_bytes(manifest_bytes)
            payload = Payload(
                path=manifest_path,
                size_bytes=len(manifest_bytes),
                sha256=digest,
                media_type="application/json",
                metadata=_object_metadata(job, digest),
            )
            return self._store.put(object_key, payload)

    def _report_moved(self, object_key: str, stopped: threading.Event, sent_bytes: int) -> None:
        if stopped.is_set():
            # Raised inside the client library's own send: there is no other way to stop it.
            raise Cancelled("The upload was given up.")
        if self.watcher is not None:
            self.watcher(UploadMoved(key=object_key, sent_bytes=sent_bytes))

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _object_metadata(job: JobFacts, digest: Digest) -> dict[str, str]:
    return {"release": _safe_attribute(job.release.name), "job-id": _safe_attribute(job.job_id), "sha256": digest.hex}


def _safe_attribute(metadata_text: str) -> str:
    """Return the text, or its safe word if it is invalid or too long for metadata (S3 takes 2 KB in all)."""
    try:
        fits = len(metadata_text.encode()) <= _MOST_TEXT_BYTES
    except UnicodeEncodeError:
        fits = False
    return metadata_text if fits else safe_word(metadata_text)
