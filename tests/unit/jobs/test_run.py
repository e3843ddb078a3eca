"""A job runs to its last delivered output, or says why not and leaves nothing running."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.engine.errors import DeadlineExceeded, EngineCrashed, NodeFailed, OutputEmpty, OutputGone, PromptLost
from comfypin.engine.interface import EngineEvent, NodeStarted, PreviewMade, Prompt, PromptOutputs, Queued, Started
from comfypin.errors import OutputError
from comfypin.jobs.events import PhaseStarted, Requeued, RunEvent
from comfypin.jobs.job import Job
from comfypin.jobs.result_json import report_to_json
from comfypin.jobs.run import run_job
from comfypin.lock.model import Release
from comfypin.outputs.folder import FolderSink
from comfypin.outputs.inline import InlineSink
from comfypin.outputs.interface import Delivery, JobFacts, Output
from comfypin.testing import PIXEL_PNG, FakeEngine, fake_output
from comfypin.workflow.errors import WorkflowRejected
from comfypin.workflow.filename_mark import SubmissionMark
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode

GRAPH = ApiGraph(
    nodes={
        "1": ApiNode(id="1", class_type="EmptyImage", inputs={"width": 1, "height": 1, "batch_size": 1, "color": 0}),
        "2": ApiNode(id="2", class_type="SaveImage", inputs={"images": ApiLink("1", 0), "filename_prefix": "cat"}),
        "3": ApiNode(id="3", class_type="PreviewImage", inputs={"images": ApiLink("1", 0)}),
    }
)


def a_job(**changes: object) -> Job:
    defaults: dict[str, object] = {
        "id": "job",
        "release": Release(name="test", digest=Digest.of(b"lock")),
        "graph": GRAPH,
    }
    return Job(**{**defaults, **changes})  # type: ignore[arg-type]


class SlowSink:
    """A sink that never ends."""

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        await asyncio.Event().wait()
        return ()


async def test_a_result_names_its_outputs_and_release() -> None:
    result = await run_job(a_job(), engine=FakeEngine(), sink=InlineSink())
    (delivery,) = result.deliveries
    assert delivery.output.filename == "cat_00001_.png"
    assert delivery.output.sha256 == Digest.of(PIXEL_PNG)
    assert (delivery.output.width, delivery.output.height) == (1, 1)
    assert result.release.name == "test"


async def test_temporary_outputs_are_held_back_unless_asked_for() -> None:
    without = await run_job(a_job(), engine=FakeEngine(), sink=InlineSink())
    with_them = await run_job(a_job(with_previews=True), engine=FakeEngine(), sink=InlineSink())
    assert (len(without.deliveries), without.held_back) == (1, 1)
    assert [delivery.output.temporary for delivery in with_them.deliveries] == [False, True]


async def test_phases_and_nodes_are_timed() -> None:
    result = await run_job(a_job(), engine=FakeEngine(), sink=InlineSink())
    assert set(result.phase_s) == {"queue", "run", "collect", "deliver"}
    assert set(result.node_s) == {"1", "2", "3"}
    assert all(seconds >= 0 for seconds in [*result.phase_s.values(), *result.node_s.values()])


async def test_the_mark_is_taken_out_of_names_again() -> None:
    mark = SubmissionMark.for_submission("this submission")
    nodes = {**GRAPH.nodes}
    nodes["2"] = ApiNode(
        id="2",
        class_type="SaveImage",
        inputs={"images": ApiLink("1", 0), "filename_prefix": mark.add_to_prefix("d/cat")},
    )
    result = await run_job(a_job(graph=ApiGraph(nodes=nodes), mark=mark), engine=FakeEngine(), sink=InlineSink())
    assert result.deliveries[0].output.filename == "cat_00001_.png"
    assert result.deliveries[0].output.subfolder == "d"


async def test_a_rejected_workflow_names_its_nodes() -> None:
    with pytest.raises(WorkflowRejected) as caught:
        await run_job(a_job(), engine=FakeEngine(rejects={"2": "unknown checkpoint"}), sink=InlineSink())
    assert "unknown checkpoint" in caught.value.message


class DroppingEngine(FakeEngine):
    """Refuses node 4 while it would run the others, as a node's own validation makes ComfyUI do."""

    async def submit(self, prompt: Prompt) -> None:
        if "4" in prompt.graph.nodes:
            raise WorkflowRejected(reason="some of its outputs failed validation", dropped=["4"])
        await super().submit(prompt)


TWO_OUTPUTS = ApiGraph(nodes={**GRAPH.nodes, "4": replace(GRAPH.nodes["2"], id="4")})


async def test_outputs_that_the_engine_refuses_are_left_out_with_an_error() -> None:
    job = a_job(graph=TWO_OUTPUTS, keeps_valid_outputs=True)
    result = await run_job(job, engine=DroppingEngine(), sink=InlineSink())
    assert [delivery.output.node_id for delivery in result.deliveries] == ["2"]
    assert result.errors == ("The outputs of node 4 were left out: some of its outputs failed validation",)


async def test_outputs_that_the_engine_refuses_end_a_job_that_wants_all() -> None:
    with pytest.raises(WorkflowRejected):
        await run_job(a_job(graph=TWO_OUTPUTS), engine=DroppingEngine(), sink=InlineSink())


async def test_a_failed_node_is_named() -> None:
    with pytest.raises(NodeFailed, match=r"Node 1 .*out of luck"):
        await run_job(a_job(), engine=FakeEngine(fails={"1": "out of luck"}), sink=InlineSink())


class PreviewingEngine(FakeEngine):
    """Makes a preview of each prompt that may have some."""

    async def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        if self.prompts[-1].with_previews:
            yield PreviewMade(node_id="1", content_type="image/png", data=PIXEL_PNG)
        async for event in super().events(prompt_id):
            yield event


@dataclass
class Previews:
    """A `PreviewSink` that keeps what it is shown."""

    wanted: bool
    shown: list[PreviewMade] = field(default_factory=list)

    def is_wanted(self, _job_id: str) -> bool:
        return self.wanted

    def show(self, _job_id: str, preview: PreviewMade) -> None:
        self.shown.append(preview)


@pytest.mark.parametrize("wanted", [True, False])
async def test_previews_go_to_those_who_look_on_and_are_asked_for_only_then(wanted: bool) -> None:
    engine, previews, events = PreviewingEngine(), Previews(wanted), list[RunEvent]()
    await run_job(a_job(), engine=engine, sink=InlineSink(), on_event=events.append, previews=previews)
    assert [preview.data for preview in previews.shown] == [PIXEL_PNG]
    assert ("preview_method" in engine.prompts[0].extra_data) is wanted
    assert not any(isinstance(event, PreviewMade) for event in events)


async def test_a_job_that_chose_its_previews_keeps_its_choice() -> None:
    engine = PreviewingEngine()
    job = a_job(extra_data={"preview_method": "taesd"})
    await run_job(job, engine=engine, sink=InlineSink(), previews=Previews(wanted=True))
    assert engine.prompts[0].extra_data["preview_method"] == "taesd"


async def test_without_anybody_to_show_them_to_there_are_no_previews() -> None:
    engine = PreviewingEngine()
    await run_job(a_job(), engine=engine, sink=InlineSink())
    assert not engine.prompts[0].with_previews


async def test_a_job_whose_engine_dies_is_queued_once_more_under_a_new_id() -> None:
    engine, events = FakeEngine(crashes=1), list[RunEvent]()
    result = await run_job(a_job(), engine=engine, sink=InlineSink(), on_event=events.append)
    assert len(result.deliveries) == 1
    assert len({prompt.prompt_id for prompt in engine.prompts}) == 2
    assert [event for event in events if isinstance(event, Requeued)] == [
        Requeued(reason="killed by SIGKILL (exit code 137)")
    ]
    assert "run once more" in result.warnings[0]


async def test_a_job_whose_engine_dies_twice_fails() -> None:
    engine = FakeEngine(crashes=2)
    with pytest.raises(EngineCrashed):
        await run_job(a_job(), engine=engine, sink=InlineSink())
    assert len(engine.prompts) == 2


class CrowdedEngine(FakeEngine):
    """Dies under other jobs, so many times, while ours waits behind them."""

    def __init__(self, deaths: int) -> None:
        super().__init__()
        self._deaths = deaths

    async def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        if self._deaths > 0:
            self._deaths -= 1
            yield Queued(ahead=1)
            raise EngineCrashed(reason="killed by SIGKILL (exit code 137)", log_tail=())
        async for event in super().events(prompt_id):
            yield event


async def test_a_job_that_waited_while_another_killed_the_engine_is_not_blamed() -> None:
    result = await run_job(a_job(), engine=CrowdedEngine(deaths=3), sink=InlineSink())
    assert len(result.deliveries) == 1
    assert "under another job" in result.warnings[0]


async def test_a_job_does_not_wait_for_ever_for_an_engine_that_dies_under_others() -> None:
    engine = CrowdedEngine(deaths=100)
    with pytest.raises(EngineCrashed):
        await run_job(a_job(), engine=engine, sink=InlineSink())
    assert len(engine.prompts) == 4


class FarEngine(FakeEngine):
    """Is restarted by somebody else, once, while a job waits or runs in it."""

    def __init__(self, first: EngineEvent, *, restarted: bool = True) -> None:
        super().__init__()
        self._first: EngineEvent | None = first
        self._restarted = restarted

    async def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
            raise PromptLost(prompt_id=prompt_id, restarted=self._restarted)
        async for event in super().events(prompt_id):
            yield event


async def test_a_job_that_only_waited_in_an_engine_that_was_restarted_is_queued_again() -> None:
    engine = FarEngine(Queued(ahead=1))
    result = await run_job(a_job(), engine=engine, sink=InlineSink())
    assert len(result.deliveries) == 1
    assert len({prompt.prompt_id for prompt in engine.prompts}) == 2
    assert "was restarted before it came to the job" in result.warnings[0]


@pytest.mark.parametrize(
    "engine", [FarEngine(Started()), FarEngine(Queued(ahead=1), restarted=False)], ids=["ran", "was removed"]
)
async def test_a_job_that_ran_or_was_removed_by_a_person_is_not_queued_again(engine: FarEngine) -> None:
    with pytest.raises(PromptLost):
        await run_job(a_job(), engine=engine, sink=InlineSink())
    assert len(engine.prompts) == 1


async def test_a_deadline_cancels_the_prompt_and_names_the_phase() -> None:
    engine = FakeEngine(holds="2")
    with pytest.raises(DeadlineExceeded) as caught:
        await run_job(a_job(timeout_s=0.05), engine=engine, sink=InlineSink())
    assert caught.value.facts["phase"] == "run"
    assert engine.cancelled == [engine.prompts[0].prompt_id]


async def test_a_deadline_counts_to_the_last_delivered_output() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await run_job(a_job(timeout_s=0.1), engine=FakeEngine(), sink=SlowSink())
    assert caught.value.facts["phase"] == "deliver"


async def test_a_timeout_inside_a_sink_is_not_the_jobs_deadline() -> None:
    class Impatient:
        async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
            raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await run_job(a_job(timeout_s=60), engine=FakeEngine(), sink=Impatient())


async def test_a_cancelled_job_cancels_its_prompt() -> None:
    engine = FakeEngine(holds="1")
    running = asyncio.Event()

    def watch(event: RunEvent) -> None:
        if isinstance(event, NodeStarted):
            running.set()

    task = asyncio.ensure_future(run_job(a_job(), engine=engine, sink=InlineSink(), on_event=watch))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.cancelled == [engine.prompts[0].prompt_id]


async def test_phases_are_told_in_order() -> None:
    events = list[RunEvent]()
    await run_job(a_job(), engine=FakeEngine(), sink=InlineSink(), on_event=events.append)
    phases = [event.phase for event in events if isinstance(event, PhaseStarted)]
    assert phases == ["queue", "run", "collect", "deliver"]


async def test_texts_are_part_of_the_result() -> None:
    result = await run_job(a_job(), engine=FakeEngine(texts={"7": ("a caption",)}), sink=InlineSink())
    assert result.texts == {"7": ("a caption",)}


async def test_a_workflow_that_saves_nothing_says_so() -> None:
    nodes = {node_id: node for node_id, node in GRAPH.nodes.items() if node_id != "2"}
    result = await run_job(a_job(graph=ApiGraph(nodes=nodes)), engine=FakeEngine(), sink=InlineSink())
    assert result.deliveries == ()
    assert result.warnings == (
        "The workflow saves no file; --previews delivers its 1 temporary output (previews) too.",
    )


class StreamingEngine(FakeEngine):
    """Has these outputs, and they must be streamed."""

    def __init__(self, *files: object) -> None:
        super().__init__()
        self._given = files

    async def outputs(self, prompt_id: str) -> PromptOutputs:
        return PromptOutputs(files=self._given)  # type: ignore[arg-type]


async def test_streamed_outputs_keep_their_order_and_leave_no_spool(tmp_path: Path) -> None:
    files = [fake_output(bytes([65 + number]) * 10, filename=f"{number}.txt") for number in range(9)]
    engine = StreamingEngine(*files)
    (tmp_path / "spool").mkdir()
    result = await run_job(a_job(spool_folder=tmp_path / "spool"), engine=engine, sink=FolderSink(tmp_path / "out"))
    assert [Path(str(delivery.uri)).read_text() for delivery in result.deliveries] == [
        chr(65 + n) * 10 for n in range(9)
    ]
    assert not list((tmp_path / "spool").iterdir())


async def test_an_output_that_the_engine_lost_fails_the_job_and_leaves_no_spool(tmp_path: Path) -> None:
    engine = StreamingEngine(fake_output(b"here", filename="a.png"), fake_output(None, filename="b.png"))
    with pytest.raises(OutputGone, match=r"b\.png"):
        await run_job(a_job(spool_folder=tmp_path), engine=engine, sink=InlineSink())
    assert not list(tmp_path.iterdir())


async def test_secrets_go_to_the_engine_and_into_no_result() -> None:
    engine = FakeEngine()
    result = await run_job(a_job(extra_data={"api_key_comfy_org": "hush"}), engine=engine, sink=InlineSink())
    (prompt,) = engine.prompts
    assert isinstance(prompt, Prompt)
    assert prompt.extra_data == {"api_key_comfy_org": "hush"}
    assert "hush" not in str(report_to_json(result))


@pytest.mark.parametrize("filename, ends", [("a.png", "fails"), ("a.bin", "fails"), ("a.txt", "is delivered")])
async def test_a_file_without_a_byte_fails_its_node_unless_it_is_a_text(filename: str, ends: str) -> None:
    engine = StreamingEngine(fake_output(b"", filename=filename, node_id="2"))
    if ends == "fails":
        with pytest.raises(OutputEmpty, match=r"Node 2 \(SaveImage\) saved a\."):
            await run_job(a_job(), engine=engine, sink=InlineSink())
    else:
        assert len((await run_job(a_job(), engine=engine, sink=InlineSink())).deliveries) == 1


class Tidy(FakeEngine):
    """An engine whose prompts leave something on this machine."""

    def __init__(self) -> None:
        super().__init__()
        self.cleared = 0

    async def outputs(self, prompt_id: str) -> PromptOutputs:
        found = await super().outputs(prompt_id)
        return replace(found, clear=self._clear, warnings=("found by its name",))

    async def _clear(self) -> None:
        self.cleared += 1


async def test_what_a_prompt_left_is_cleared_and_warnings_are_told() -> None:
    engine = Tidy()
    result = await run_job(a_job(), engine=engine, sink=InlineSink())
    assert "found by its name" in result.warnings
    assert engine.cleared == 1


async def test_what_a_prompt_left_is_cleared_if_it_could_not_be_delivered() -> None:
    class Refusing(InlineSink):
        async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
            raise OutputError("no")

    engine = Tidy()
    with pytest.raises(OutputError):
        await run_job(a_job(), engine=engine, sink=Refusing())
    assert engine.cleared == 1
