"""State that the server's routes share, with the parts that appear when the engine is ready."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.engine.interface import Catalogue
from comfypin.jobs.handler import Handler, JobService
from comfypin.jobs.interface import Handle
from comfypin.jobs.metrics import LiveFigures
from comfypin.lock.model import Release
from comfypin.queue.interface import ServedQueue
from comfypin.server.errors import NotReady
from comfypin.server.request_bodies import job_for_workflow
from comfypin.workflow.app_inputs import offered_inputs
from comfypin.workflow.load import load_workflow
from comfypin.workflow.settable_inputs import WorkflowInput, describe_inputs, input_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedWorkflow:
    """One workflow of the image and what may be set in it, by name."""

    name: str
    title: str | None
    description: str | None
    inputs: tuple[WorkflowInput, ...]

    def inputs_schema(self) -> Mapping[str, JsonValue]:
        """Return the JSON Schema of an object that sets the workflow's inputs."""
        schema = input_schema(self.inputs, title=self.title or self.name, description=self.description)
        return schema if isinstance(schema, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _DescribedFrom:
    """All that a description is made of: every request for a typed workflow needs one, and it takes a millisecond."""

    files: str
    catalogue: Catalogue

    def is_same(self, other: "_DescribedFrom") -> bool:
        # As an object: to compare thousands of classes would take longer than to describe a workflow.
        return self.catalogue is other.catalogue and self.files == other.files


class Site:
    """Holds the queue, the folder of outputs, the release, and, once it is started, the engine with its workflows."""

    def __init__(
        self, queue: ServedQueue, outputs: Path, *, release: Release, allows_private_webhooks: bool = True
    ) -> None:
        self.queue = queue
        self.allows_private_webhooks = allows_private_webhooks
        self.release = release
        self.outputs = outputs
        self._service: JobService | None = None
        self._handler: Handler | None = None
        self._stopping = False
        self._described: dict[str, tuple[_DescribedFrom, DescribedWorkflow]] = {}
        self.wrap_handle: Callable[[Handle], Handle] = lambda handle: handle
        """What an API puts around the handler of all jobs."""
        # Before the engine is ready: dashboards should see a server that starts.
        queue.metrics.watch_live(self._live_figures)

    def open_for_jobs(self, job_service: JobService, handler: Handler) -> None:
        """Note that the engine is ready."""
        self._service = job_service
        self._handler = handler

    def announce_stop(self) -> None:
        """Tell load balancers to send nothing more, because the server stops."""
        self._stopping = True

    @property
    def is_ready(self) -> bool:
        """Return whether jobs run now."""
        return self._service is not None and not self._stopping

    @property
    def ping_status(self) -> int:
        """Return the status for load balancers: 204 while starting, 200 when ready, 503 if unfit or stopping."""
        if self._stopping or self.queue.trouble is not None:
            return 503
        return 200 if self.is_ready else 204

    def workflow_names(self) -> tuple[str, ...]:
        """Return the names of the image's workflows. Raises `NotReady`."""
        return self.require_service().workflows.list_names()

    async def describe_workflow(self, workflow_name: str) -> DescribedWorkflow:
        """Describe a workflow's inputs. Raises `NotReady`, `WorkflowNotFound`, `WorkflowInvalid`, `EngineError`."""
        job_service = self.require_service()
        document = job_service.workflows.read_workflow(workflow_name)
        inputs_file = job_service.workflows.inputs_file(workflow_name)
        catalogue = await job_service.engine.catalogue()
        # As a text, in which 1, 1.0 and true are not the same.
        described_from = _DescribedFrom(files=repr((document, inputs_file)), catalogue=catalogue)
        known = self._described.get(workflow_name)
        if known is not None and known[0].is_same(described_from):
            return known[1]
        workflow = load_workflow(document, catalogue)
        inputs = offered_inputs(workflow, catalogue, inputs_file)
        if inputs_file is None and not inputs:
            inputs = describe_inputs(workflow.graph, catalogue)
        described = DescribedWorkflow(
            name=workflow_name,
            title=inputs_file.title if inputs_file else None,
            description=inputs_file.description if inputs_file else None,
            inputs=inputs,
        )
        self._described[workflow_name] = (described_from, described)
        return described

    async def make_job(self, workflow_name: str, input_values: object) -> Mapping[str, JsonValue]:
        """Return the job that runs a workflow with these inputs.

        Raises as `describe_workflow`, `RequestInvalid`, `OverrideInvalid`.
        """
        described = await self.describe_workflow(workflow_name)
        return job_for_workflow(workflow_name, input_values, described.inputs)

    @property
    def engine_restarts(self) -> int:
        """Return how often the engine crashed and was started again."""
        return self._handler.crashes if self._handler is not None else 0

    def _live_figures(self) -> LiveFigures:
        return LiveFigures(
            running=self.queue.running_count, engine_restarts=self.engine_restarts, waiting=self.queue.waiting_count
        )

    def require_service(self) -> JobService:
        """Return what jobs share, once the engine is ready. Raises `NotReady`."""
        if self._service is None:
            raise NotReady
        return self._service
