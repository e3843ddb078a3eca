"""What jobs leave becomes assets: at once for jobs of this API, on request for those of other APIs."""

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.errors import ComfypinError
from comfypin.http.deadline import Deadline
from comfypin.jobs.handler import OpenSink
from comfypin.jobs.interface import Handle, JobOutcome, ProgressCallback, ignore_progress
from comfypin.jobs.job_input import OutputWish, S3Wish
from comfypin.machine_errors import reason_of
from comfypin.outputs.errors import OutputNotWritten
from comfypin.outputs.image_format import ConvertingSink
from comfypin.outputs.interface import Delivery, JobFacts, Output, OutputSink
from comfypin.plurals import format_count
from comfypin.queue.interface import JobRecord
from comfypin.queue.job_events import JobEvents
from comfypin.server.comfy_api.assets import Assets, JobFile
from comfypin.server.comfy_api.envelope import PREFIX
from comfypin.server.comfy_api.lent_keys import FindLive, is_of_other_api
from comfypin.server.comfy_api.own_bucket import OwnBucket
from comfypin.server.comfy_api.records import Asset, Records, outputs_forgotten
from comfypin.temp_folders import temp_folder

log = logging.getLogger(__name__)

_FIRST_TEXT = 1_000_000
"""Texts come after all files, whose positions count from 0."""
_LISTS = ("images", "videos", "audio", "files")


class OutputAssets:
    """Makes assets of outputs. `base_url` is the server's own address, for results that other APIs show."""

    def __init__(
        self, assets: Assets, records: Records, events: JobEvents, *, base_url: str, find_live: FindLive
    ) -> None:
        self.assets = assets
        self._records = records
        self._find_live = find_live
        self._events = events
        self._base_url = base_url

    def wrap_opener(self, sink_for: OpenSink, folder: OutputSink) -> OpenSink:
        """Return sinks that make assets of what jobs of this API leave, before they deliver it.

        What would go to `folder`, on this machine, is an asset only: it need not lie here twice.
        """

        def open_sink(wish: OutputWish, s3: S3Wish | None, deadline: Deadline | None = None, /) -> OutputSink:
            return self._wrapped(sink_for(wish, s3, deadline), folder)

        return open_sink

    def _wrapped(self, sink: OutputSink, folder: OutputSink) -> OutputSink:
        # Assets are made of the converted files, which is what the job delivers.
        if isinstance(sink, ConvertingSink):
            return ConvertingSink(self._wrapped(sink.sink, folder), sink.conversion)
        return _AssetSink(self, sink, is_folder=sink is folder)

    async def store(self, job_id: str, outputs: tuple[Output, ...]) -> list[Asset] | None:
        """Make assets of what a job left, and tell its followers; None if the job is of another API.

        Raises `OutputNotWritten`, `JobsNotStored`.
        """
        if not await self._is_of_this_api(job_id):
            return None
        files = [_job_file(output) for output in outputs]
        try:
            made = await self.assets.store_outputs(job_id, files, outputs_forgotten(job_id))
        except OSError as exc:
            file_name = outputs[0].filename if len(outputs) == 1 else format_count(len(outputs), "output")
            raise OutputNotWritten(
                filename=file_name, folder=Path("assets"), reason=reason_of(exc), advice="", delivered=()
            ) from exc
        self._publish_outputs(job_id, made)
        return made

    async def _is_of_this_api(self, job_id: str) -> bool:
        live_job = self._find_live(job_id)
        if live_job is not None:
            return not is_of_other_api(live_job)
        return await self._records.job(job_id) is not None

    def _publish_outputs(self, job_id: str, made: list[Asset]) -> None:
        for asset in made:
            self._events.publish("output", job_id, {"asset_id": asset.id})

    def wrap_handle(self, handle: Handle) -> Handle:
        """Return a handle that makes assets of the texts that jobs of this API leave: nothing of a job is dropped."""

        async def handle_with_texts(
            job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
        ) -> JobOutcome:
            outcome = await handle(job_id, document, progress=progress)
            if outcome.failure is None and outcome.output.get("texts"):
                try:
                    await self._store_texts(job_id, outcome.output)
                except (OSError, ComfypinError) as exc:
                    facts = {"action": "texts_not_stored", "job_id": job_id, "reason": str(exc)}
                    log.warning("the texts of a job could not be made assets", extra=facts)
            return outcome

        return handle_with_texts

    async def _store_texts(self, job_id: str, result: Mapping[str, JsonValue]) -> None:
        if not await self._is_of_this_api(job_id):
            return
        with temp_folder("texts") as folder:
            files = await asyncio.to_thread(_text_files, result, folder)
            self._publish_outputs(job_id, await self.assets.store_outputs(job_id, files))

    def url(self, asset: Asset) -> str:
        """Return the address of an asset's bytes."""
        return f"{self._base_url}{PREFIX}/assets/{asset.id}/content"


class _AssetSink:
    def __init__(self, makes: OutputAssets, sink: OutputSink, *, is_folder: bool) -> None:
        self._makes = makes
        self._sink = sink
        self._is_folder = is_folder

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        made = await self._makes.store(job.job_id, outputs)
        if made is None or not self._is_folder:
            return await self._sink.deliver(job, outputs)
        return tuple(
            Delivery(output=output, url=self._makes.url(asset)) for output, asset in zip(outputs, made, strict=True)
        )


def _job_file(output: Output) -> JobFile:
    return JobFile(
        path=output.path,
        position=output.index,
        node_id=output.node_id,
        kind=output.kind,
        media_type=output.media_type,
        name=f"{output.subfolder}/{output.filename}" if output.subfolder else output.filename,
    )


class ForeignOutputs:
    """The outputs of jobs of other APIs: read from where they were delivered on this machine, when they are asked for.

    What went into a bucket stays there, and its asset leads to its address.
    """

    def __init__(
        self, assets: Assets, folder: Path, *, records: Records | None = None, bucket: OwnBucket | None = None
    ) -> None:
        self._assets = assets
        self._folder = folder.resolve()
        self._records = records
        self._bucket = bucket

    async def bring(self, record: JobRecord) -> list[Asset]:
        """Make assets of what a job delivered to this machine. What cannot be read any more is left out."""
        bucket = self._bucket
        # A bucket of the job's own may be called like the server's, and nobody kept its keys.
        if bucket is not None and self._records is not None and await self._records.had_secrets(record.row.id):
            bucket = None
        with temp_folder("outputs") as folder:
            files = await asyncio.to_thread(self._files, record.output or "{}", folder, bucket)
            try:
                return await self._assets.store_outputs(record.row.id, files) if files else []
            except OSError as exc:
                facts = {"action": "outputs_not_brought", "job_id": record.row.id, "reason": reason_of(exc)}
                log.warning("outputs could not be read", extra=facts)
                return []

    def _files(self, result: str, spool: Path, bucket: OwnBucket | None) -> list[JobFile]:
        try:
            document = json.loads(result)
        except (ValueError, RecursionError):
            return []
        # A video that its node reports among its images is in two lists.
        entries = [
            entry
            for list_name in _LISTS
            for entry in _entries(document, list_name)
            if list_name != "images" or entry.get("kind", "image") == "image"
        ]
        files = [self._file(entry, position, spool, bucket) for position, entry in enumerate(entries)]
        return [*(job_file for job_file in files if job_file is not None), *_text_files(document, spool)]

    def _file(
        self, entry: Mapping[str, object], position: int, spool: Path, bucket: OwnBucket | None
    ) -> JobFile | None:
        path = self._place(entry, spool / str(position))
        location = None if path is not None else _location(entry, bucket)
        if path is None and location is None:
            return None
        size = entry.get("size_bytes")
        file_name, subfolder = str(entry.get("filename") or position), str(entry.get("subfolder") or "")
        return JobFile(
            path=path,
            position=position,
            node_id=str(entry.get("node") or ""),
            kind=str(entry.get("kind") or "file"),
            media_type=str(entry.get("media_type") or "application/octet-stream"),
            name=f"{subfolder}/{file_name}" if subfolder else file_name,
            location=location,
            size_bytes=size if isinstance(size, int) else 0,
        )

    def _place(self, entry: Mapping[str, object], spooled: Path) -> Path | None:
        base64_text = entry.get("data")
        if entry.get("type") == "base64" and isinstance(base64_text, str):
            try:
                spooled.write_bytes(base64.b64decode(base64_text))
            except (binascii.Error, ValueError):
                return None
            return spooled
        uri = entry.get("uri")
        if not isinstance(uri, str) or "://" in uri or "\0" in uri:
            return None
        path = Path(uri)
        return path if path.resolve().is_relative_to(self._folder) and path.is_file() else None


def _location(entry: Mapping[str, object], bucket: OwnBucket | None) -> str | None:
    """Return the address of what is in a bucket: the server's own, or else one that a browser could open."""
    url, uri = entry.get("url"), str(entry.get("uri") or "")
    # Rather than a signed address that ends before the job's results do.
    if bucket is not None and bucket.holds(uri):
        return uri
    is_in_bucket = "://" in uri
    return url if is_in_bucket and isinstance(url, str) and url.startswith(("https://", "http://")) else None


def _text_files(result: object, spool: Path) -> list[JobFile]:
    """Write each text of a result into a file of its own."""
    texts = result.get("texts") if isinstance(result, Mapping) else None
    node_texts = [
        (str(node), node_text)
        for node, output_texts in (texts.items() if isinstance(texts, Mapping) else ())
        for node_text in (output_texts if isinstance(output_texts, list) else ())
        if isinstance(node_text, str)
    ]
    files = []
    for number, (node, node_text) in enumerate(node_texts):
        path = spool / f"text-{number}"
        path.write_text(node_text, encoding="utf-8", errors="replace")
        files.append(
            JobFile(
                path=path,
                position=_FIRST_TEXT + number,
                node_id=node,
                kind="text",
                media_type="text/plain",
                name=f"text_{number + 1:05}_.txt",
            )
        )
    return files


def _entries(document: object, list_name: str) -> Iterator[Mapping[str, object]]:
    listed = document.get(list_name) if isinstance(document, dict) else None
    yield from (entry for entry in listed if isinstance(entry, dict)) if isinstance(listed, list) else ()
