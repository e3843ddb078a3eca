"""What the jobs of a worker or server share, and what makes a machine unfit for them."""

import logging
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING

from comfypin.errors import ConfigError
from comfypin.temp_folders import temp_root
from comfypin.wiring.models import inspect_models
from comfypin.wiring.network import http_proxies
from comfypin.wiring.sinks import make_job_sink, make_sink
from comfypin.wiring.stores import open_bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from comfypin.engine.interface import Engine
    from comfypin.http.deadline import Deadline
    from comfypin.jobs.handler import Service, SinkFor
    from comfypin.jobs.request import OutputWish, S3Wish
    from comfypin.lock.model import Lock
    from comfypin.outputs.delivery_settings import OutputConfig
    from comfypin.outputs.interface import OutputSink
    from comfypin.outputs.modes import OutputMode
    from comfypin.settings.environment import Settings

log = logging.getLogger(__name__)


def open_service(
    lock: "Lock", engine: "Engine", sink_for: "SinkFor", *, settings: "Settings", private_inputs: bool = False
) -> "Service":
    """What the jobs of a worker or server share. `private_inputs` lets jobs name private addresses."""
    from comfypin.http.client import HttpClient, Transport
    from comfypin.http.sockets import tls_context
    from comfypin.jobs.handler import Service
    from comfypin.jobs.input_files import Fetcher, Limits
    from comfypin.jobs.workflow_library import WorkflowFolder

    # Read once: the proxies, and the certificates, which take 20 ms.
    transport = Transport(proxies=http_proxies(settings), tls=cache(tls_context))
    return Service(
        lock=lock,
        engine=engine,
        fetcher=Fetcher(
            open_client=lambda deadline: HttpClient(
                transport=transport, public_only=not private_inputs, deadline=deadline
            ),
            open_bucket=partial(open_bucket, settings),
            limits=Limits(),
        ),
        sink_for=sink_for,
        workflows=WorkflowFolder(),
    )


def open_sinks(
    settings: "Settings", *, folder_sink: "OutputSink | None" = None, private_buckets: bool = False
) -> "SinkFor":
    """The sinks that jobs wish for; that of jobs without a wish is opened now, so that a wrong bucket costs no engine.

    `folder` takes outputs on this machine's disk, where it stays: on a server, not on a worker. `private_buckets` lets
    jobs name private addresses. Raises `ConfigError`, `StorageError` where no such job could ever be delivered. What
    may pass is only a warning, and so is that no bucket is named: jobs may bring their own.
    """
    from comfypin.jobs.request import OutputWish
    from comfypin.settings.errors import SettingMissing
    from comfypin.storage.errors import Transient
    from comfypin.storage.registry import configured_bucket

    sink_for = _make_sink_opener(settings, folder_sink, private_buckets=private_buckets)
    try:
        sink_for(OutputWish(), None)
        if _job_mode(settings, folder_sink) == "base64" and (overflow_mode := configured_bucket(settings.variables)):
            _open_overflow(sink_for, overflow_mode)
    except SettingMissing as exc:
        log.error("jobs that bring no s3Config will fail", extra={"action": "bucket_not_named", "reason": exc.message})
    except Transient as exc:
        log.warning(
            "the bucket cannot be asked now; jobs will ask it", extra={"action": "bucket_away", "reason": exc.message}
        )
    return sink_for


def _open_overflow(sink_for: "SinkFor", mode: "OutputMode") -> None:
    """Open the bucket that takes what is too big for results; most jobs can do without it, so it may be wrong."""
    from comfypin.errors import StorageError
    from comfypin.jobs.request import OutputWish

    try:
        sink_for(OutputWish(mode=mode), None)
    except (ConfigError, StorageError) as exc:
        log.error(
            "outputs that are too big for a result will fail", extra={"action": "overflow_wrong", "reason": exc.message}
        )


def _make_sink_opener(settings: "Settings", folder_sink: "OutputSink | None", *, private_buckets: bool) -> "SinkFor":
    """The sink a job wishes for; those that jobs share are opened once (a bucket is asked then)."""
    from comfypin.jobs.errors import JobInvalid
    from comfypin.outputs.delivery_settings import RUNPOD_RESULT_BYTES, SERVER_RESULT_BYTES, OutputConfig

    result_max_bytes = RUNPOD_RESULT_BYTES if folder_sink is None else SERVER_RESULT_BYTES

    usual_config = OutputConfig.from_variables(settings.variables)

    @lru_cache(maxsize=32)
    def open_shared_sink(mode: "OutputMode", outputs: "OutputConfig") -> "OutputSink":
        if mode == "file":
            return _folder_sink(outputs, folder_sink)
        return make_sink(mode, settings, result_max_bytes=result_max_bytes, output_config=outputs)

    def sink_for(wish: "OutputWish", s3: "S3Wish | None", deadline: "Deadline | None" = None) -> "OutputSink":
        outputs = _apply_wish(wish, usual_config)
        if s3 is not None and wish.mode in (None, "s3"):
            return make_job_sink(
                settings, s3.model_dump(), output_config=outputs, private_buckets=private_buckets, deadline=deadline
            )
        if wish.mode == "file" and folder_sink is None:
            raise JobInvalid(
                findings=[
                    "output.mode is file, but outputs on a worker's own disk go with the worker; use base64 or a bucket"
                ]
            )
        return open_shared_sink(wish.mode or _job_mode(settings, folder_sink), outputs)

    return sink_for


def _folder_sink(outputs: "OutputConfig", folder_sink: "OutputSink | None") -> "OutputSink":
    from comfypin.outputs.image_format import ConvertingSink

    if folder_sink is None:
        raise ConfigError(
            "Outputs on a worker's own disk go with the worker; deliver them as base64 or to a bucket "
            "(output.mode, OUTPUT_MODE).",
            variable="OUTPUT_MODE",
        )
    return folder_sink if outputs.conversion.is_nothing else ConvertingSink(folder_sink, outputs.conversion)


def _job_mode(settings: "Settings", folder_sink: "OutputSink | None") -> "OutputMode":
    """Where jobs' outputs go when neither they nor OUTPUT_MODE say: the bucket that is configured, else what is here.

    That is the server's folder, or a worker's result.
    """
    from comfypin.outputs.modes import named_mode
    from comfypin.storage.registry import configured_bucket

    named = named_mode(settings.variables)
    return named or configured_bucket(settings.variables) or ("base64" if folder_sink is None else "file")


def _apply_wish(wish: "OutputWish", usual_config: "OutputConfig") -> "OutputConfig":
    """How a job's outputs are named and converted: as usual, but for what it wishes. Raises `JobInvalid`."""
    from comfypin.jobs.errors import JobInvalid
    from comfypin.outputs.key_template import TemplateInvalid

    try:
        return usual_config.with_wishes(
            template=wish.template, picture_format=wish.format, quality=wish.quality, keep_workflow=wish.keep_workflow
        )
    except TemplateInvalid as exc:
        raise JobInvalid(findings=[f"output.template is {wish.template!r}, which is not {exc.expected}"]) from exc


def make_fitness_checks(lock: "Lock", settings: "Settings") -> "Mapping[str, Callable[[], None]]":
    """Why this machine could not do the lock's jobs."""
    from comfypin.lock.torch import cuda_floor
    from comfypin.models.verify import Present
    from comfypin.runpod.fitness import checks

    def missing_models() -> list[str]:
        if lock.engine.kind != "comfyui":
            return []
        return [pin.name for pin, finding in inspect_models(lock, settings) if not isinstance(finding, Present)]

    return checks(
        lock,
        cuda_needed=cuda_floor(lock.python.packages),
        models_missing=missing_models,
        scratch=temp_root(),
    )
