"""Runs one job: submits it, follows it, collects its outputs, delivers them; cancels it if it has to stop."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping

from comfypin.digest import JsonValue
from comfypin.engine.errors import DeadlineExceeded, EngineCrashed, NodeFailed, OutputEmpty, PromptLost
from comfypin.engine.interface import (
    Engine,
    EngineEvent,
    EngineOutput,
    NodeStarted,
    PreviewMade,
    Prompt,
    PromptOutputs,
    Queued,
    Started,
    Warned,
)
from comfypin.errors import ComfypinError, PromptError
from comfypin.jobs.events import EventWatcher, Requeued, RunEvent
from comfypin.jobs.job import Job, JobResult
from comfypin.jobs.output_numbers import number_from_one
from comfypin.jobs.output_spool import WantedOutput, collect_outputs, open_spool
from comfypin.jobs.previews import PreviewSink
from comfypin.jobs.timing import Stopwatch
from comfypin.outputs.interface import JobFacts, Output, OutputSink
from comfypin.workflow.errors import WorkflowRejected
from comfypin.workflow.filename_mark import counting_nodes
from comfypin.workflow.graph import NodeId

# Platforms kill a worker ten seconds after they asked it to stop, and an engine that hangs would take all of them.
_CANCEL_WITHIN_S = 5.0
_DEATHS_OF_OTHERS = 3
"""How often a job that only waited in an engine that died is queued again: whatever killed it was not that job."""


_NO_SAVED_WORKFLOW = (
    "\nThe node may read the workflow as it was saved (extra_pnginfo), which API format does not hold: "
    "send the workflow as ComfyUI saves it, or a whole /prompt body with extra_data.extra_pnginfo."
)


def _ignore_event(engine_event: RunEvent) -> None:
    """Ignore an event: nobody watches this job."""


async def run_job(
    job: Job,
    *,
    engine: Engine,
    sink: OutputSink,
    on_event: EventWatcher = _ignore_event,
    previews: PreviewSink | None = None,
) -> JobResult:
    """Run the job to its last delivered output.

    A job whose engine dies under it is queued once more; one that only waited behind another, a few times. When the
    deadline passes, or this task is cancelled, the prompt is cancelled in the engine before the failure goes up.

    Raises `WorkflowRejected`, `NodeFailed`, `PromptInterrupted`, `PromptLost`, `DeadlineExceeded`, `EngineError`,
    `OutputError`, `StorageError`.
    """
    attempt = _JobRun(job, engine=engine, sink=sink, on_event=on_event, previews=previews, clock=time.monotonic)
    try:
        async with asyncio.timeout(job.timeout_s) as deadline:
            return await attempt.run_to_result()
    except TimeoutError as exc:
        # Somebody else's TimeoutError must not be taken for the job's deadline.
        if job.timeout_s is None or not deadline.expired():
            raise
        raise DeadlineExceeded(
            timeout_s=job.timeout_s, phase=attempt.stopwatch.current_phase, setting=job.words.timeout
        ) from exc


class _JobRun:
    def __init__(
        self,
        job: Job,
        *,
        engine: Engine,
        sink: OutputSink,
        on_event: EventWatcher,
        previews: PreviewSink | None,
        clock: Callable[[], float],
    ) -> None:
        self._job = job
        self._engine = engine
        self._sink = sink
        self._on_event = on_event
        self._previews = previews
        self._warnings = list(job.warnings)
        self._errors = list(job.errors)
        self._graph = job.graph
        self._left_out: set[NodeId] = set()
        self._is_waiting = False
        self.stopwatch = Stopwatch(clock, on_event)

    async def run_to_result(self) -> JobResult:
        prompt_id, prompt_outputs = await self._run_own_prompt()
        for warning_text in prompt_outputs.warnings:
            self._add_warning(warning_text)
        self.stopwatch.enter_phase("collect")
        files, held_back = self._wanted_outputs(prompt_outputs)
        try:
            with open_spool(self._job.spool_folder) as spool:
                spooled_outputs = await collect_outputs(files, spool, on_mark_left=self._warn_of_mark)
                self._refuse_empty(spooled_outputs)
                self.stopwatch.enter_phase("deliver")
                deliveries = await self._sink.deliver(self._job_facts(), spooled_outputs) if spooled_outputs else ()
        finally:
            # Delivered or not, nobody fetches them from there any more: workers that stay would fill their disk.
            await prompt_outputs.clear()
        self.stopwatch.end_last_phase()
        if not spooled_outputs and not any(prompt_outputs.texts.values()):
            self._add_warning(_no_output_warning(held_back, self._job.words.previews))
        return JobResult(
            job_id=self._job.id,
            release=self._job.release,
            prompt_id=prompt_id,
            deliveries=deliveries,
            texts=prompt_outputs.texts,
            warnings=tuple(self._warnings),
            errors=tuple(self._errors),
            phase_s=self.stopwatch.phase_s,
            node_s=self.stopwatch.node_s,
            held_back=held_back,
            models=self._job.models,
            own_values=self._job.own_values,
        )

    async def _run_own_prompt(self) -> tuple[str, PromptOutputs]:
        """Run the prompt; once more, under names of its own, if the engine answered with another submission's files."""
        prompt_id, prompt_outputs = await self._run_prompt()
        if not prompt_outputs.foreign or self._job.marked_graph is None:
            return prompt_id, prompt_outputs
        await prompt_outputs.clear()
        self._graph = self._job.marked_graph.without(self._left_out)
        # Everything before the save nodes comes from the cache again, so this takes moments.
        self.stopwatch.enter_phase("queue")
        return await self._run_prompt()

    async def _run_prompt(self) -> tuple[str, PromptOutputs]:
        """Run the prompt; once more if the engine dies under it, and again if it died under another job's."""
        own_deaths = foreign_deaths = 0
        while True:
            try:
                return await self._run_prompt_once()
            except WorkflowRejected as exc:
                # Each time there are fewer outputs, so this ends.
                if not self._leave_out(exc):
                    raise
            except PromptLost as exc:
                # An engine that was restarted before the job's turn is no fault of the job, so that it has more tries.
                foreign_deaths += 1
                if not (exc.restarted and self._is_waiting) or foreign_deaths > _DEATHS_OF_OTHERS:
                    raise
                self._note_requeue("it was restarted", "The engine was restarted before it came to the job, which")
            except EngineCrashed as exc:
                own_deaths, foreign_deaths = (
                    (own_deaths, foreign_deaths + 1) if self._is_waiting else (own_deaths + 1, foreign_deaths)
                )
                if own_deaths > 1 or foreign_deaths > _DEATHS_OF_OTHERS:
                    raise
                under = "another job, behind which this one waited" if self._is_waiting else "it"
                self._note_requeue(exc.reason, f"The engine died under {under} ({exc.reason}); the job")

    def _leave_out(self, rejection: WorkflowRejected) -> bool:
        """Take the outputs that the engine refused out of the graph; return whether to try again."""
        refused = [node_id for node_id in rejection.dropped if node_id in self._graph.nodes]
        if not (refused and self._job.keeps_valid_outputs):
            return False
        self._graph = self._graph.without(refused)
        self._left_out.update(refused)
        sentences = rejection.problems or (rejection.reason,)
        self._errors += [f"The outputs of node {', '.join(refused)} were left out: {said}" for said in sentences]
        return True

    def _note_requeue(self, reason: str, what: str) -> None:
        self._on_event(Requeued(reason=reason))
        self._warnings.append(f"{what} was run once more.")
        self.stopwatch.close_open_nodes()
        self.stopwatch.enter_phase("queue")

    async def _run_prompt_once(self) -> tuple[str, PromptOutputs]:
        # An id of our own: if the response to the submission is lost, the prompt can still be asked for.
        prompt_id, self._is_waiting = str(uuid.uuid4()), False
        prompt = Prompt(
            prompt_id=prompt_id,
            graph=self._graph,
            inputs=self._job.inputs,
            extra_data=self._extra_data(),
            with_previews=self._previews is not None,
            mark=self._job.mark.text if self._job.mark is not None else None,
        )
        try:
            await self._engine.submit(prompt)
            async with contextlib.aclosing(self._engine.events(prompt_id)) as events:
                await self._follow_events(events)
            return prompt_id, await self._engine.outputs(prompt_id)
        except NodeFailed as exc:
            raise self._explain_failure(exc) from exc.__cause__
        except (EngineCrashed, PromptError):
            raise  # a dead engine, or a prompt that has ended, has nothing to cancel
        # CancelledError is not an Exception, and it is the most important case here.
        except BaseException:
            await self._cancel_prompt(prompt_id)
            raise

    def _extra_data(self) -> Mapping[str, JsonValue]:
        """Ask the engine for previews if somebody would see them; one from before 0.33 does not read it."""
        if self._previews is not None and self._previews.is_wanted(self._job.id):
            return {"preview_method": "auto", **self._job.extra_data}
        return self._job.extra_data

    def _explain_failure(self, node_failure: NodeFailed) -> NodeFailed:
        """Return the failure, with a hint if the node reads the saved workflow, which API format does not hold."""
        # What Python raises when a node reads keys of something that is None.
        is_about_it = node_failure.exception_type.rpartition(".")[2] in ("TypeError", "KeyError", "AttributeError")
        if node_failure.node_id not in self._job.needs_saved_workflow or not is_about_it:
            return node_failure
        return NodeFailed(
            node_id=node_failure.node_id,
            class_type=node_failure.class_type,
            exception_type=node_failure.exception_type,
            message=node_failure.said,
            traceback=node_failure.traceback,
            advice=_NO_SAVED_WORKFLOW,
            command_hint=node_failure.command_hint,
        )

    async def _follow_events(self, events: AsyncGenerator[EngineEvent, None]) -> None:
        async for engine_event in events:
            match engine_event:
                case PreviewMade():
                    if self._previews is not None:
                        self._previews.show(self._job.id, engine_event)
                    continue
                case Warned(message=warning_text):
                    self._warnings.append(warning_text)
                case Queued(ahead=ahead):
                    self._is_waiting = ahead > 0
                case Started() | NodeStarted():
                    self._is_waiting = False
            self.stopwatch.note_event(engine_event)
        self.stopwatch.close_open_nodes()

    async def _cancel_prompt(self, prompt_id: str) -> None:
        """Take the prompt back, within a few seconds: the failure that brought us here matters more."""
        with contextlib.suppress(ComfypinError, TimeoutError):
            async with asyncio.timeout(_CANCEL_WITHIN_S):
                await self._engine.cancel(prompt_id)

    def _refuse_empty(self, spooled_outputs: tuple[Output, ...]) -> None:
        """Raise `OutputEmpty` for a file without a byte; only a text may be empty."""
        for spooled_output in spooled_outputs:
            if spooled_output.size_bytes == 0 and spooled_output.kind != "text":
                node = self._job.graph.nodes.get(spooled_output.node_id)
                class_type = node.class_type if node is not None else "unknown class"
                raise OutputEmpty(
                    node_id=spooled_output.node_id, class_type=class_type, filename=spooled_output.filename
                )

    def _add_warning(self, warning_text: str) -> None:
        self._warnings.append(warning_text)
        self._on_event(Warned(message=warning_text))

    def _wanted_outputs(self, prompt_outputs: PromptOutputs) -> tuple[list[WantedOutput], int]:
        """Return the files to deliver under the names the user chose, and how many temporary ones are held back."""
        kept_files = [
            engine_output
            for engine_output in prompt_outputs.files
            if engine_output.folder == "output" or self._job.with_previews
        ]
        named_outputs = [self._name_output(engine_output) for engine_output in kept_files]
        wanted = number_from_one(named_outputs, counting_nodes(self._graph))
        return wanted, len(prompt_outputs.files) - len(kept_files)

    def _name_output(self, engine_output: EngineOutput) -> WantedOutput:
        filename_mark = self._job.mark
        if filename_mark is None:
            return WantedOutput(
                engine_output=engine_output, filename=engine_output.filename, subfolder=engine_output.subfolder
            )
        return WantedOutput(
            engine_output=engine_output,
            filename=filename_mark.remove_from(engine_output.filename),
            subfolder=filename_mark.remove_from(engine_output.subfolder),
            mark=filename_mark.text
            if filename_mark.text in f"{engine_output.subfolder}/{engine_output.filename}"
            else None,
        )

    def _warn_of_mark(self, wanted_output: WantedOutput) -> None:
        node = self._graph.nodes.get(wanted_output.engine_output.node_id)
        class_type = node.class_type if node is not None else "unknown class"
        self._add_warning(
            f"The metadata of {wanted_output.filename}, of node {wanted_output.engine_output.node_id} ({class_type}), "
            "hold a mark of comfypin's before the prefix, which this format keeps; comfypin takes it out when it reads "
            "the file."
        )

    def _job_facts(self) -> JobFacts:
        return JobFacts(
            job_id=self._job.id,
            release=self._job.release,
            inputs=self._job.input_digests,
            models={f"{model.folder}/{model.filename}": model.sha256 for model in self._job.models},
            phase_s=dict(self.stopwatch.phase_s),
        )


def _no_output_warning(held_back: int, previews: str) -> str:
    if held_back:
        noun = "output" if held_back == 1 else "outputs"
        return f"The workflow saves no file; {previews} delivers its {held_back} temporary {noun} (previews) too."
    return "The workflow has no output: it saved no file and returned no text."
