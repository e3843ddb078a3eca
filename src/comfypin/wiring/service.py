"""The service that jobs of a worker or server share, and the checks that a machine can do them."""

import logging
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING

from comfypin.errors import ConfigError
from comfypin.temp_folders import temp_root
from comfypin.wiring.network import http_proxies
from comfypin.wiring.sinks import make_job_sink, make_sink
from comfypin.wiring.stores import open_bucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from comfypin.engine.interface import Engine
    from comfypin.http.deadline import Deadline
    from comfypin.jobs.handler import JobService, OpenSink
    from comfypin.jobs.input_files import ReadAsset
    from comfypin.jobs.job_input import OutputWish, S3Wish
    from comfypin.jobs.start_times import StartTimes
    from comfypin.lock.model import Lock, Release
    from comfypin.models.job_models import JobModels
    from comfypin.outputs.delivery_settings import OutputConfig
    from comfypin.outputs.interface import OutputSink
    from comfypin.outputs.modes import OutputMode
    from comfypin.settings.environment import Settings
    from comfypin.workflow.document import Document

log = logging.getLogger(__name__)


def open_service(
    lock: "Lock | None",
    engine: "Engine",
    sink_for: "OpenSink",
    *,
    settings: "Settings",
    private_inputs: bool = False,
    read_asset: "ReadAsset | None" = None,
    models: "JobModels | None" = None,
    start_times: "StartTimes | None" = None,
    left_out_classes: frozenset[str] = frozenset(),
    read_ahead: "Callable[[Document], None] | None" = None,
    release: "Release | None" = None,
    read_engine_version: "Callable[[], Awaitable[str | None]] | None" = None,
) -> "JobService":
    """Return what the jobs of a worker or server share. `private_inputs` lets jobs name private addresses.

    `release` is what `name_release` says that the engine runs; without it, results claim none.

    `read_asset` reads what was uploaded to a server; `models` brings the models that jobs name. `left_out_classes` are
    those that the engine lacks because of COMFYPIN_API_NODES. `read_ahead` begins to read a workflow's models.
    `read_engine_version` asks the engine which ComfyUI it is.
    """
    from comfypin.http.client import HttpClient, HttpTransport
    from comfypin.http.sockets import tls_context
    from comfypin.jobs.handler import JobService
    from comfypin.jobs.input_files import InputFetcher, InputLimits
    from comfypin.jobs.start_times import StartTimes
    from comfypin.jobs.workflow_library import WorkflowLibrary
    from comfypin.lock.model import UNPINNED

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
            read_asset=read_asset,
        ),
        open_sink=sink_for,
        workflows=WorkflowLibrary(),
        models=models,
        warms_up=settings.machine.warms_up,
        start_times=start_times or StartTimes(),
        left_out_classes=left_out_classes,
        read_ahead=read_ahead or (lambda _document: None),
        release=release or UNPINNED,
        comfy_org_api_key=settings.variables.get("COMFY_ORG_API_KEY", "").strip() or None,
        read_engine_version=read_engine_version,
    )


def open_sinks(
    settings: "Settings", *, folder_sink: "OutputSink | None" = None, private_buckets: bool = False
) -> "OpenSink":
    """Return a function that opens the sink of a job; open the default one now, before an engine is started.

    `folder_sink` keeps outputs on this machine's disk; only a server has one, since a worker's disk is temporary.
    `private_buckets` lets jobs name private addresses. A transient failure is only logged, and so is an unset bucket:
    jobs may bring their own. Raises `ConfigError`, `StorageError` if the outputs of such a job can never be delivered.
    """
    from comfypin.jobs.job_input import OutputWish
    from comfypin.settings.errors import SettingMissing
    from comfypin.storage.errors import TransientStorageError
    from comfypin.storage.registry import first_configured_kind

    _require_named_bucket(settings)
    sink_for = _make_sink_opener(settings, folder_sink, private_buckets=private_buckets)
    try:
        sink_for(OutputWish(), None)
        # A result has a limit; what exceeds it goes to the bucket.
        if _job_mode(settings, folder_sink) == "base64" and (
            overflow_mode := first_configured_kind(settings.variables)
        ):
            _open_overflow(sink_for, overflow_mode)
    # Not fatal, since every job may bring an s3Config.
    except SettingMissing as exc:
        log.error(
            "jobs without an s3Config will fail: no bucket is configured",
            extra={"action": "bucket_not_named", "reason": exc.message},
        )
    except TransientStorageError as exc:
        log.warning(
            "the bucket could not be checked; each job will try it again",
            extra={"action": "bucket_away", "reason": exc.message},
        )
    return sink_for


def _require_named_bucket(settings: "Settings") -> None:
    """Refuse Runpod's bucket variables without a bucket: outputs would silently go elsewhere."""
    from comfypin.outputs.modes import named_mode
    from comfypin.storage.registry import first_configured_kind
    from comfypin.storage.s3_settings import S3Settings

    if named_mode(settings.variables) is None and first_configured_kind(settings.variables) is None:
        S3Settings.require_named_bucket(settings.variables)


def _open_overflow(sink_for: "OpenSink", mode: "OutputMode") -> None:
    """Open the bucket for outputs that are too big for results; only log its errors, since most jobs do not need it."""
    from comfypin.errors import StorageError
    from comfypin.jobs.job_input import OutputWish

    try:
        sink_for(OutputWish(mode=mode), None)
    except (ConfigError, StorageError) as exc:
        log.error(
            "outputs that are too big for a result cannot be delivered",
            extra={"action": "overflow_wrong", "reason": exc.message},
        )


def _make_sink_opener(settings: "Settings", folder_sink: "OutputSink | None", *, private_buckets: bool) -> "OpenSink":
    """Return a function that opens the sink of a job; shared sinks are opened and checked once."""
    from comfypin.jobs.errors import JobInvalid
    from comfypin.outputs.delivery_settings import RUNPOD_RESULT_BYTES, SERVER_RESULT_BYTES, OutputConfig

    result_max_bytes = RUNPOD_RESULT_BYTES if folder_sink is None else SERVER_RESULT_BYTES

    usual_config = OutputConfig.from_variables(settings.variables)

    # Jobs choose the template, so that there may be any number of sinks.
    @lru_cache(maxsize=32)
    def open_shared_sink(mode: "OutputMode", outputs: "OutputConfig") -> "OutputSink":
        if mode == "file":
            return _folder_sink(outputs, folder_sink)
        return make_sink(mode, settings, result_max_bytes=result_max_bytes, output_config=outputs)

    def sink_for(wish: "OutputWish", s3: "S3Wish | None", deadline: "Deadline | None" = None) -> "OutputSink":
        outputs = _apply_wish(wish, usual_config)
        # An s3Config only says where S3 outputs go; a job may ask for base64 nevertheless.
        if s3 is not None and wish.mode in (None, "s3"):
            return make_job_sink(
                settings, s3.model_dump(), output_config=outputs, private_buckets=private_buckets, deadline=deadline
            )
        if wish.mode == "file" and folder_sink is None:
            raise JobInvalid(
                findings=["output.mode is file, but a worker's disk is lost with the worker; use base64 or a bucket"]
            )
        # Without the deadline: a shared sink outlives the job.
        return open_shared_sink(wish.mode or _job_mode(settings, folder_sink), outputs)

    return sink_for


def _folder_sink(outputs: "OutputConfig", folder_sink: "OutputSink | None") -> "OutputSink":
    from comfypin.outputs.image_format import ConvertingSink

    if folder_sink is None:
        raise ConfigError(
            "OUTPUT_MODE is file, but a worker's disk is lost with the worker; set it to base64 or to a bucket's mode.",
            variable="OUTPUT_MODE",
        )
    return folder_sink if outputs.conversion.is_identity else ConvertingSink(folder_sink, outputs.conversion)


def _job_mode(settings: "Settings", folder_sink: "OutputSink | None") -> "OutputMode":
    """Return the default output mode of jobs: OUTPUT_MODE, else the configured bucket, else what this machine has.

    That is the server's folder, or a worker's result.
    """
    from comfypin.outputs.modes import named_mode
    from comfypin.storage.registry import first_configured_kind

    mode_name = named_mode(settings.variables)
    return mode_name or first_configured_kind(settings.variables) or ("base64" if folder_sink is None else "file")


def _apply_wish(wish: "OutputWish", usual_config: "OutputConfig") -> "OutputConfig":
    """Return how a job's outputs are named and converted: the usual config with its wishes. Raises `JobInvalid`."""
    from comfypin.jobs.errors import JobInvalid
    from comfypin.outputs.key_template import TemplateInvalid

    try:
        return usual_config.with_wishes(
            template=wish.template, picture_format=wish.format, quality=wish.quality, keep_workflow=wish.keep_workflow
        )
    except TemplateInvalid as exc:
        raise JobInvalid(findings=[f"output.template is {wish.template!r}, which is not {exc.expected}"]) from exc


def make_fitness_checks(
    lock: "Lock", *, unfit_models: "Callable[[], Sequence[str]]"
) -> "Mapping[str, Callable[[], None]]":
    """Return the checks that this machine can do the lock's jobs, by name; `unfit_models` names models."""
    from comfypin.lock.torch import minimum_cuda
    from comfypin.runpod.worker_fitness import fitness_checks

    return fitness_checks(
        lock,
        cuda_needed=minimum_cuda(lock.python.packages),
        models_missing=unfit_models,
        temp_parent=temp_root(),
    )
