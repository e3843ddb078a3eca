"""Where outputs go: inline, a folder, a bucket."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from comfypin.objects.config import GcsConfig, S3Config
    from comfypin.outputs.bucket import BucketSink, UploadWatcher
    from comfypin.outputs.config import OutputConfig
    from comfypin.outputs.interface import OutputSink
    from comfypin.settings import OutputMode, Settings


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
) -> "OutputSink":
    """Where outputs go, checked as far as it can be before a job runs.

    `result_max_bytes` is what the platform that takes the result can hold, where INLINE_MAX_BYTES does not say.
    Outputs that cannot be delivered to where they leave this machine are kept below `keep_in`.
    Raises `ConfigError`, `FolderUnusable`; for buckets also `StorageError`: they are asked, unless GCS_VALIDATE or
    S3_VALIDATE is false.
    """
    from comfypin.outputs.config import OutputConfig
    from comfypin.outputs.convert import ConvertingSink
    from comfypin.outputs.keep import KeepingSink

    outputs = OutputConfig.from_variables(settings.environ)
    sink: OutputSink
    if mode == "base64" and out_file is not None:
        from comfypin.outputs.folder import FileSink

        sink = FileSink.usable(out_file)
    elif mode == "base64":
        from comfypin.outputs.inline import InlineSink

        limit = result_max_bytes if outputs.inline_max_bytes is None else outputs.inline_max_bytes
        sink = InlineSink(max_bytes=limit, overflow=_overflow(settings, outputs))
    elif mode == "file":
        from comfypin.outputs.folder import FolderSink

        sink = FolderSink.usable(out_dir or Path("out"))
    else:
        sink = _bucket_sink(mode, settings, outputs, bucket=bucket, prefix=prefix)
    if not outputs.conversion.is_nothing:
        sink = ConvertingSink(sink, outputs.conversion)
    return sink if keep_in is None or mode == "file" or out_file is not None else KeepingSink(sink, keep_in)


def watch_uploads(sink: "OutputSink", watcher: "UploadWatcher") -> None:
    """Have the watcher told of all that goes up to a bucket, where the sink delivers into one."""
    from comfypin.outputs.bucket import BucketSink
    from comfypin.outputs.convert import ConvertingSink
    from comfypin.outputs.keep import KeepingSink

    inner = sink
    while isinstance(inner, KeepingSink | ConvertingSink):
        inner = inner.sink
    if isinstance(inner, BucketSink):
        inner.watcher = watcher


def make_job_sink(
    settings: "Settings", s3_config: "Mapping[str, object]", *, private_buckets: bool = False
) -> "OutputSink":
    """The sink of one RunPod job that brought its own `s3Config`. Raises `JobInvalid`, `ConfigError`, `StorageError`.

    `private_buckets` lets the job name a bucket at a private address.
    """
    from comfypin.errors.storage import WrongRegion
    from comfypin.objects.config import S3Config
    from comfypin.outputs.config import OutputConfig
    from comfypin.outputs.convert import ConvertingSink
    from comfypin.serve.addresses import require_public

    outputs = OutputConfig.from_variables(settings.environ)
    config = S3Config.from_variables(settings.environ).for_job(s3_config)
    if not private_buckets:
        config = require_public(config)
    try:
        sink = _s3_sink(config, outputs)
    except WrongRegion as exc:
        # `s3Config` has no field for the region, so the server's word is all there is.
        if exc.expected is None:
            raise
        sink = _s3_sink(replace(config, region=exc.expected), outputs)
    return sink if outputs.conversion.is_nothing else ConvertingSink(sink, outputs.conversion)


def _overflow(settings: "Settings", outputs: "OutputConfig") -> "Callable[[], OutputSink] | None":
    """What takes outputs that are too big for a result: the bucket that is configured, opened when it is needed."""
    from comfypin.objects.config import configured_bucket

    mode = configured_bucket(settings.environ)
    return None if mode is None else lambda: _bucket_sink(mode, settings, outputs)


def _bucket_sink(
    mode: "Literal['gcs', 's3']",
    settings: "Settings",
    outputs: "OutputConfig",
    *,
    bucket: str | None = None,
    prefix: str | None = None,
) -> "BucketSink":
    from comfypin.objects.config import GcsConfig, S3Config, bucket_name
    from comfypin.objects.keys import clean_prefix

    if mode == "gcs":
        gcs = GcsConfig.from_variables(settings.environ)
        named = bucket_name(bucket, variable="--gcs-bucket", scheme="gs") if bucket else gcs.bucket
        return _gcs_sink(
            replace(gcs, bucket=named, prefix=gcs.prefix if prefix is None else clean_prefix(prefix)), outputs
        )
    return _s3_sink(S3Config.from_variables(settings.environ), outputs)


def _gcs_sink(config: "GcsConfig", outputs: "OutputConfig") -> "BucketSink":
    from comfypin.objects.gcs import GcsStore
    from comfypin.outputs.bucket import BucketSink, Links, Naming

    store = GcsStore(config)
    if config.validate:
        store.validate()
    elif config.public:
        store.require_public_possible()
    public = f"https://storage.googleapis.com/{config.bucket}" if config.public else None
    links = Links(signed_ttl_s=config.signed_url_ttl_s, public_base_url=public)
    links.require_signing(store)
    return BucketSink(store, Naming(prefix=config.prefix, template=outputs.template), links=links)


def _s3_sink(config: "S3Config", outputs: "OutputConfig") -> "BucketSink":
    from comfypin.objects.s3 import S3Store
    from comfypin.outputs.bucket import BucketSink, Links, Naming

    store = S3Store(config)
    links = Links(signed_ttl_s=config.signed_url_ttl_s, public_base_url=config.public_base_url)
    links.require_signing(store)
    if config.validate:
        store.validate(below=config.prefix)
    return BucketSink(store, Naming(prefix=config.prefix, template=outputs.template), links=links)
