"""Where outputs go: inline, a folder, a bucket."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from comfypin.http.deadline import Deadline
    from comfypin.outputs.bucket import BucketSink, UploadWatcher
    from comfypin.outputs.delivery_settings import OutputConfig
    from comfypin.outputs.interface import OutputSink
    from comfypin.outputs.modes import OutputMode
    from comfypin.settings.environment import Settings
    from comfypin.storage.interface import BucketSettings
    from comfypin.storage.registry import StoreKind


def make_sink(
    mode: "OutputMode",
    settings: "Settings",
    *,
    out_file: Path | None = None,
    out_dir: Path | None = None,
    bucket: str | None = None,
    prefix: str | None = None,
    result_max_bytes: int | None = None,
    keep_in: Path | None = None,
    outputs: "OutputConfig | None" = None,
) -> "OutputSink":
    """Where outputs go, checked as far as it can be before a job runs.

    `outputs` says how they are named and converted, if not as the environment does.
    `result_max_bytes` is what the platform that takes the result can hold, where INLINE_MAX_BYTES does not say.
    Outputs that cannot be delivered to where they leave this machine are kept below `keep_in`.
    Raises `ConfigError`, `FolderUnusable`; for buckets also `StorageError`: they are asked, unless GCS_VALIDATE or
    S3_VALIDATE is false.
    """
    from comfypin.outputs.delivery_settings import OutputConfig
    from comfypin.outputs.fallback_folder import FallbackFolderSink
    from comfypin.outputs.image_format import ConvertingSink

    outputs = outputs or OutputConfig.from_variables(settings.variables)
    sink: OutputSink
    if mode == "base64" and out_file is not None:
        from comfypin.outputs.folder import FileSink

        sink = FileSink.open_usable(out_file)
    elif mode == "base64":
        from comfypin.outputs.inline import InlineSink

        limit = result_max_bytes if outputs.inline_max_bytes is None else outputs.inline_max_bytes
        sink = InlineSink(max_bytes=limit, overflow=_overflow(settings, outputs))
    elif mode == "file":
        from comfypin.outputs.folder import FolderSink

        sink = FolderSink.open_usable(out_dir or Path("out"))
    else:
        sink = _bucket_sink(mode, settings, outputs, bucket=bucket, prefix=prefix)
    if not outputs.conversion.is_identity:
        sink = ConvertingSink(sink, outputs.conversion)
    return sink if keep_in is None or mode == "file" or out_file is not None else FallbackFolderSink(sink, keep_in)


def watch_uploads(sink: "OutputSink", watcher: "UploadWatcher") -> None:
    """Have the watcher told of all that goes up to a bucket, where the sink delivers into one."""
    from comfypin.outputs.bucket import BucketSink
    from comfypin.outputs.fallback_folder import FallbackFolderSink
    from comfypin.outputs.image_format import ConvertingSink

    inner = sink
    while isinstance(inner, FallbackFolderSink | ConvertingSink):
        inner = inner.sink
    if isinstance(inner, BucketSink):
        inner.watcher = watcher


def make_job_sink(
    settings: "Settings",
    s3_config: "Mapping[str, object]",
    *,
    outputs: "OutputConfig | None" = None,
    private_buckets: bool = False,
    deadline: "Deadline | None" = None,
) -> "OutputSink":
    """The sink of one RunPod job that brought its own `s3Config`. Raises `JobInvalid`, `ConfigError`, `StorageError`.

    `private_buckets` lets the job name a bucket at a private address. `deadline` is for all that is asked of it.
    """
    from comfypin.errors import ConfigError
    from comfypin.jobs.bucket_addresses import require_public_bucket
    from comfypin.jobs.errors import JobInvalid
    from comfypin.outputs.delivery_settings import OutputConfig
    from comfypin.outputs.image_format import ConvertingSink
    from comfypin.storage.errors import WrongRegion
    from comfypin.storage.registry import KINDS
    from comfypin.storage.s3_settings import S3Settings

    outputs = outputs or OutputConfig.from_variables(settings.variables)
    usual = S3Settings.from_variables(settings.variables)
    try:
        config = replace(usual.for_job(s3_config), deadline=deadline)
    except ConfigError as exc:
        # The client wrote it, in its job.
        raise JobInvalid(findings=[exc.message]) from exc
    if not private_buckets:
        config = require_public_bucket(config)
    try:
        sink = _open_sink(KINDS["s3"], config, outputs)
    except WrongRegion as exc:
        # `s3Config` has no field for the region, so the server's word is all there is.
        if exc.expected is None:
            raise
        sink = _open_sink(KINDS["s3"], replace(config, region=exc.expected), outputs)
    return sink if outputs.conversion.is_identity else ConvertingSink(sink, outputs.conversion)


def _overflow(settings: "Settings", outputs: "OutputConfig") -> "Callable[[], OutputSink] | None":
    """What takes outputs that are too big for a result: the bucket that is configured, opened when it is needed."""
    from comfypin.storage.registry import first_configured_kind

    mode = first_configured_kind(settings.variables)
    return None if mode is None else lambda: _bucket_sink(mode, settings, outputs)


def _bucket_sink(
    mode: "OutputMode",
    settings: "Settings",
    outputs: "OutputConfig",
    *,
    bucket: str | None = None,
    prefix: str | None = None,
) -> "BucketSink":
    from comfypin.storage.keys import clean_prefix
    from comfypin.storage.registry import KINDS
    from comfypin.storage.variables import parse_bucket_name

    kind = KINDS[mode]
    chosen = kind.read_settings(settings.variables)
    if bucket:
        chosen = replace(chosen, bucket=parse_bucket_name(bucket, variable=f"--{mode}-bucket", scheme=kind.scheme))
    if prefix is not None:
        chosen = replace(chosen, prefix=clean_prefix(prefix))
    return _open_sink(kind, chosen, outputs)


def _open_sink(kind: "StoreKind", settings: "BucketSettings", outputs: "OutputConfig") -> "BucketSink":
    from comfypin.outputs.bucket import BucketSink, KeyNaming, OutputLinks

    store = kind.open_store(settings)
    links = OutputLinks(signed_ttl_s=settings.signed_url_ttl_s, public_base_url=settings.public_base)
    links.require_signing(store)
    store.check(below=settings.prefix)
    return BucketSink(store, KeyNaming(prefix=settings.prefix, template=outputs.template), links=links)
