"""What the jobs of a worker or server share, and what makes a machine unfit for them."""

import logging
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING

from comfypin.errors import ConfigError
from comfypin.temp_folders import temp_root
from comfypin.wiring.models import model_findings
from comfypin.wiring.network import http_proxies
from comfypin.wiring.sinks import make_job_sink, make_sink
from comfypin.wiring.stores import open_bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from comfypin.engine.interface import Engine
    from comfypin.http.deadline import Deadline
    from comfypin.jobs.handler import JobService, OpenSink
    from comfypin.jobs.request import OutputWish, S3Wish
    from comfypin.lock.model import Lock
    from comfypin.outputs.delivery_settings import OutputConfig
    from comfypin.outputs.interface import OutputSink
    from comfypin.outputs.modes import OutputMode
    from comfypin.settings.environment import Settings

log = logging.getLogger(__name__)


def open_service(
    lock: "Lock", engine: "Engine", sink_for: "OpenSink", *, settings: "Settings", private_inputs: bool = False
) -> "JobService":
    """What the jobs of a worker or server share. `private_inputs` lets jobs name private addresses."""
    from comfypin.http.client import HttpClient, HttpTransport
    from comfypin.http.sockets import tls_context
    from comfypin.jobs.handler import JobService
    from comfypin.jobs.input_files import InputFetcher, InputLimits
    from comfypin.jobs.workflow_library import WorkflowLibrary

    # Read once: the proxies, and the certificates, which take 20 ms.
    transport = HttpTransport(proxies=http_proxies(settings), tls=cache(tls_context))
    return JobService(
        lock=lock,
        engine=engine,
        fetcher=InputFetcher(
            open_client=lambda deadline: HttpClient(
                transport=transport, public_only=not private_inputs, deadline=deadline
            ),
            open_bucket=partial(open_bucket, settings),
            limits=InputLimits(),
        ),
        open_sink=sink_for,
        workflows=WorkflowLibrary(),
    )


def open_sinks(
    settings: "Settings", *, folder: "OutputSink | None" = None, private_buckets: bool = False
) -> "OpenSink":
    """The sinks that jobs wish for; that of jobs without a wish is opened now, so that a wrong bucket costs no engine.

    `folder` takes outputs on this machine's disk, where it stays: on a server, not on a worker. `private_buckets` lets
    jobs name private addresses. Raises `ConfigError`, `StorageError` where no such job could ever be delivered. What
    may pass is only a warning, and so is that no bucket is named: jobs may bring their own.
    """
    from comfypin.jobs.request import OutputWish
    from comfypin.settings.errors import SettingMissing
    from comfypin.storage.errors import TransientStorageError
    from comfypin.storage.registry import first_configured_kind

    sink_for = _sink_for(settings, folder, private_buckets=private_buckets)
    try:
        sink_for(OutputWish(), None)
        if _job_mode(settings, folder) == "base64" and (overflow := first_configured_kind(settings.variables)):
            _open_overflow(sink_for, overflow)
    except SettingMissing as exc:
        log.error("jobs that bring no s3Config will fail", extra={"action": "bucket_not_named", "reason": exc.message})
    except TransientStorageError as exc:
        log.warning(
            "the bucket cannot be asked now; jobs will ask it", extra={"action": "bucket_away", "reason": exc.message}
        )
    return sink_for


def _open_overflow(sink_for: "OpenSink", mode: "OutputMode") -> None:
    """Open the bucket that takes what is too big for results; most jobs can do without it, so it may be wrong."""
    from comfypin.errors import StorageError
    from comfypin.jobs.request import OutputWish

    try:
        sink_for(OutputWish(mode=mode), None)
    except (ConfigError, StorageError) as exc:
        log.error(
            "outputs that are too big for a result will fail", extra={"action": "overflow_wrong", "reason": exc.message}
        )


def _sink_for(settings: "Settings", folder: "OutputSink | None", *, private_buckets: bool) -> "OpenSink":
    """The sink a job wishes for; those that jobs share are opened once (a bucket is asked then)."""
    from comfypin.jobs.errors import JobInvalid
    from comfypin.outputs.delivery_settings import RUNPOD_RESULT_BYTES, SERVER_RESULT_BYTES, OutputConfig

    result_max_bytes = RUNPOD_RESULT_BYTES if folder is None else SERVER_RESULT_BYTES

    usual = OutputConfig.from_variables(settings.variables)

    @lru_cache(maxsize=32)
    def shared(mode: "OutputMode", outputs: "OutputConfig") -> "OutputSink":
        if mode == "file":
            return _folder_sink(outputs, folder)
        return make_sink(mode, settings, result_max_bytes=result_max_bytes, outputs=outputs)

    def sink_for(wish: "OutputWish", s3: "S3Wish | None", deadline: "Deadline | None" = None) -> "OutputSink":
        outputs = _wished(wish, usual)
        if s3 is not None and wish.mode in (None, "s3"):
            return make_job_sink(
                settings, s3.model_dump(), outputs=outputs, private_buckets=private_buckets, deadline=deadline
            )
        if wish.mode == "file" and folder is None:
            raise JobInvalid(
                findings=[
                    "output.mode is file, but outputs on a worker's own disk go with the worker; use base64 or a bucket"
                ]
            )
        return shared(wish.mode or _job_mode(settings, folder), outputs)

    return sink_for


def _folder_sink(outputs: "OutputConfig", folder: "OutputSink | None") -> "OutputSink":
    from comfypin.outputs.image_format import ConvertingSink

    if folder is None:
        raise ConfigError(
            "Outputs on a worker's own disk go with the worker; deliver them as base64 or to a bucket "
            "(output.mode, OUTPUT_MODE).",
            variable="OUTPUT_MODE",
        )
    return folder if outputs.conversion.is_identity else ConvertingSink(folder, outputs.conversion)


def _job_mode(settings: "Settings", folder: "OutputSink | None") -> "OutputMode":
    """Where jobs' outputs go when neither they nor OUTPUT_MODE say: the bucket that is configured, else what is here.

    That is the server's folder, or a worker's result.
    """
    from comfypin.outputs.modes import named_mode
    from comfypin.storage.registry import first_configured_kind

    named = named_mode(settings.variables)
    return named or first_configured_kind(settings.variables) or ("base64" if folder is None else "file")


def _wished(wish: "OutputWish", usual: "OutputConfig") -> "OutputConfig":
    """How a job's outputs are named and converted: as usual, but for what it wishes. Raises `JobInvalid`."""
    from comfypin.jobs.errors import JobInvalid
    from comfypin.outputs.key_template import TemplateInvalid

    try:
        return usual.with_wishes(
            template=wish.template, picture_format=wish.format, quality=wish.quality, keep_workflow=wish.keep_workflow
        )
    except TemplateInvalid as exc:
        raise JobInvalid(findings=[f"output.template is {wish.template!r}, which is not {exc.expected}"]) from exc


def fitness_checks(lock: "Lock", settings: "Settings") -> "Mapping[str, Callable[[], None]]":
    """Why this machine could not do the lock's jobs."""
    from comfypin.lock.torch import minimum_cuda
    from comfypin.models.verify import Present
    from comfypin.runpod.fitness import fitness_checks

    def missing() -> list[str]:
        if lock.engine.kind != "comfyui":
            return []
        return [pin.name for pin, finding in model_findings(lock, settings) if not isinstance(finding, Present)]

    return fitness_checks(
        lock,
        cuda_needed=minimum_cuda(lock.python.packages),
        models_missing=missing,
        temp_parent=temp_root(),
    )
