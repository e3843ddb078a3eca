"""What jobs share in tests: the demo lock, a fake engine, sinks in memory."""

from pathlib import Path

from comfypin.http.client import HttpClient
from comfypin.http.deadline import Deadline
from comfypin.jobs.handler import JobService, OpenSink
from comfypin.jobs.input_files import InputFetcher, InputLimits
from comfypin.jobs.job_input import OutputWish, S3Wish
from comfypin.jobs.workflow_library import WorkflowLibrary
from comfypin.lock.codec import read_lock, release_identity
from comfypin.outputs.inline import InlineSink
from comfypin.outputs.interface import OutputSink
from comfypin.storage.interface import ObjectStore
from comfypin.storage.memory import MemoryStore
from comfypin.testing import FakeEngine
from tests.conftest import ROOT

LOCK = read_lock(ROOT / "lockfiles" / "comfy-demo.lock.json").lock


def a_fetcher(
    *, limits: InputLimits | None = None, stores: dict[str, MemoryStore] | None = None, public_only: bool = True
) -> InputFetcher:
    def open_bucket(scheme: str, name: str) -> ObjectStore:
        return (stores or {})[f"{scheme}://{name}"]

    return InputFetcher(
        open_client=lambda deadline: HttpClient(public_only=public_only, deadline=deadline),
        open_bucket=open_bucket,
        limits=limits or InputLimits(),
    )


def a_service(
    engine: FakeEngine | None = None,
    *,
    sink: OutputSink | None = None,
    folder: Path = ROOT,
    fetcher: InputFetcher | None = None,
    sink_for: OpenSink | None = None,
    comfy_org_api_key: str | None = None,
) -> JobService:
    def in_memory(_wish: OutputWish, _s3: S3Wish | None, _deadline: Deadline | None = None) -> OutputSink:
        return sink or InlineSink()

    return JobService(
        lock=LOCK,
        release=release_identity(LOCK),
        engine=engine or FakeEngine(),
        fetcher=fetcher or a_fetcher(),
        open_sink=sink_for or in_memory,
        workflows=WorkflowLibrary([folder]),
        comfy_org_api_key=comfy_org_api_key,
    )
