"""Sinks for outputs: inline, a folder, or a bucket."""

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
    output_config: "OutputConfig | None" = None,
) -> "OutputSink":
    """Return the sink for an output mode; whatever can be checked before a job runs is checked now.

    `output_config` says how outputs are named and converted, if not as the environment does.
    `result_max_bytes` is the platform's limit for a result, used if INLINE_MAX_BYTES is not set.
    Outputs that cannot be delivered are kept below `keep_in`.
    Raises `ConfigError`, `FolderUnusable`; for buckets also `StorageError`: they are asked, unless their
    variable ..._VALIDATE is false.
    """
    from comfypin.outputs.delivery_settings import OutputConfig
    from comfypin.outputs.fallback_folder import FallbackFolderSink
    from comfypin.outputs.image_format import ConvertingSink

    output_config = output_config or OutputConfig.from_variables(settings.variables)
    sink: OutputSink
    if mode == "base64" and out_file is not None:
        from comfypin.outputs.folder import FileSink

        sink = FileSink.open_usable(out_file)
    elif mode == "base64":
        sink = _inline_sink(settings, output_config, result_max_bytes)
    elif mode == "file":
        from comfypin.outputs.folder import FolderSink

        sink = FolderSink.open_usable(out_dir or Path("out"))
    else:
        sink = _bucket_sink(mode, settings, output_config, bucket=bucket, prefix=prefix)
    if not output_config.conversion.is_identity:
        sink = ConvertingSink(sink, output_config.conversion)
    # What is written to this machine's disk needs no fallback on it.
    return sink if keep_in is None or mode == "file" or out_file is not None else FallbackFolderSink(sink, keep_in)


def _inline_sink(settings: "Settings", output_config: "OutputConfig", result_max_bytes: int | None) -> "OutputSink":
    from comfypin.outputs.inline import InlineSink

    limit = result_max_bytes if output_config.inline_max_bytes is None else output_config.inline_max_bytes
    return InlineSink(max_bytes=limit, overflow=_make_overflow(settings, output_config))


def watch_uploads(sink: "OutputSink", watcher: "UploadWatcher") -> None:
    """Report uploads to the watcher if the sink delivers into a bucket."""
    from comfypin.outputs.bucket import BucketSink
    from comfypin.outputs.fallback_folder import FallbackFolderSink
    from comfypin.outputs.image_format import ConvertingSink

    inner_sink = sink
    # Wrappers pass outputs on; only the innermost sink uploads.
    while isinstance(inner_sink, FallbackFolderSink | ConvertingSink):
        inner_sink = inner_sink.sink
    if isinstance(inner_sink, BucketSink):
        inner_sink.watcher = watcher


def make_job_sink(
    settings: "Settings",
    s3_config: "Mapping[str, object]",
    *,
    output_config: "OutputConfig | None" = None,
    private_buckets: bool = False,
    deadline: "Deadline | None" = None,
) -> "OutputSink":
    """Return the sink of one job that brought its own `s3Config`. Raises `JobInvalid`, `ConfigError`, `StorageError`.

    `private_buckets` lets the job name a bucket at a private address. `deadline` limits every request to the bucket.
    """
    from comfypin.errors import ConfigError
    from comfypin.jobs.bucket_addresses import require_public_bucket
    from comfypin.jobs.errors import JobInvalid
    from comfypin.outputs.delivery_settings import OutputConfig
    from comfypin.outputs.image_format import ConvertingSink
    from comfypin.storage.errors import WrongRegion
    from comfypin.storage.registry import KINDS
    from comfypin.storage.s3_settings import S3Settings

    output_config = output_config or OutputConfig.from_variables(settings.variables)
    usual_settings = S3Settings.from_variables(settings.variables)
    try:
        job_settings = replace(usual_settings.for_job(s3_config), deadline=deadline)
    except ConfigError as exc:
        # The client wrote it, in its job.
        raise JobInvalid(findings=[exc.message]) from exc
    if not private_buckets:
        job_settings = require_public_bucket(job_settings)
    try:
        sink = _open_sink(KINDS["s3"], job_settings, output_config)
    except WrongRegion as exc:
        # `s3Config` has no field for the region, so the server's word is all there is.
        if exc.expected is None:
            raise
        sink = _open_sink(KINDS["s3"], replace(job_settings, region=exc.expected), output_config)
    return sink if output_config.conversion.is_identity else ConvertingSink(sink, output_config.conversion)


def _make_overflow(settings: "Settings", output_config: "OutputConfig") -> "Callable[[], OutputSink] | None":
    """Return an opener of the configured bucket, for outputs that are too big for a result, or None without one."""
    from comfypin.storage.registry import first_configured_kind

    mode = first_configured_kind(settings.variables)
    return None if mode is None else lambda: _bucket_sink(mode, settings, output_config)


def _bucket_sink(
    mode: "OutputMode",
    settings: "Settings",
    output_config: "OutputConfig",
    *,
    bucket: str | None = None,
    prefix: str | None = None,
) -> "BucketSink":
    from comfypin.storage.bucket_variables import parse_bucket_name
    from comfypin.storage.object_keys import clean_prefix
    from comfypin.storage.registry import KINDS

    store_kind = KINDS[mode]
    bucket_settings = store_kind.read_settings(settings.variables)
    if bucket:
        bucket_settings = replace(
            bucket_settings, bucket=parse_bucket_name(bucket, variable=f"--{mode}-bucket", scheme=store_kind.scheme)
        )
    if prefix is not None:
        bucket_settings = replace(bucket_settings, prefix=clean_prefix(prefix))
    return _open_sink(store_kind, bucket_settings, output_config)


def _open_sink(
    store_kind: "StoreKind", bucket_settings: "BucketSettings", output_config: "OutputConfig"
) -> "BucketSink":
    from comfypin.outputs.bucket import BucketSink, KeyNaming, OutputLinks

    store = store_kind.open_store(bucket_settings)
    links = OutputLinks(signed_ttl_s=bucket_settings.signed_url_ttl_s, public_base_url=bucket_settings.public_base)
    # Before the job: a store without a private key cannot sign links.
    links.require_signing(store)
    # Before the job too, so that a wrong key costs no GPU time.
    store.check(below=bucket_settings.prefix)
    return BucketSink(store, KeyNaming(prefix=bucket_settings.prefix, template=output_config.template), links=links)
