"""What every engine does: the fake, the embedded one, and a real ComfyUI where one is (COMFYUI_DIR, COMFYUI_URL)."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from comfypin.engine.command import comfyui_child, embedded_child, has_gpu
from comfypin.engine.errors import NodeFailed, PromptInterrupted, PromptLost
from comfypin.engine.interface import (
    Engine,
    EngineEvent,
    InputFile,
    NodeFinished,
    NodeProgress,
    NodeStarted,
    Prompt,
    PromptOutputs,
    Started,
)
from comfypin.engine.process import Supervision
from comfypin.engine.progress import PromptProgress
from comfypin.engine.remote import open_remote
from comfypin.engine.standby import open_child
from comfypin.lock.model import EngineSpec
from comfypin.testing import FakeEngine
from comfypin.workflow.errors import WorkflowRejected
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode
from tests.support.graphs import a_prompt, graph, node, picture
from tests.support.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.asyncio(loop_scope="module")

PNG = b"\x89PNG\r\n\x1a\n"
COMFYUI_DIR = os.environ.get("COMFYUI_DIR", "")
COMFYUI_URL = os.environ.get("COMFYUI_URL", "")
CHECKPOINT = "comfypin_tiny.safetensors"


@dataclass
class Subject:
    """An engine under test; `executes` says that it makes real pictures."""

    engine: Engine
    executes: bool
    counter: int = 0

    def color(self) -> int:
        """One that no prompt has had, so that nothing is cached."""
        self.counter += 1
        return self.counter


KINDS = [
    "fake",
    "embedded",
    *([pytest.param("child", marks=pytest.mark.comfyui)] if COMFYUI_DIR else []),
    *([pytest.param("remote", marks=pytest.mark.comfyui)] if COMFYUI_URL else []),
]


@pytest_asyncio.fixture(params=KINDS, scope="module", loop_scope="module")
async def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    work = tmp_path_factory.mktemp("engine")
    async with contextlib.AsyncExitStack() as stack:
        match request.param:
            case "fake":
                yield Subject(FakeEngine(holds="slow", fails={"bad": "cannot identify image file"}), executes=False)
            case "embedded":
                spec = embedded_child(EngineSpec(kind="embedded"), os.environ)
                yield Subject(await stack.enter_async_context(open_child(spec, work)), executes=True)
            case "child":
                models = tmp_path_factory.mktemp("models")
                (models / "checkpoints").mkdir()
                write_tiny_checkpoint(models / "checkpoints" / CHECKPOINT)
                engine = EngineSpec(args=("--disable-api-nodes",))
                spec = comfyui_child(Path(COMFYUI_DIR), engine, os.environ, gpu=has_gpu(os.environ), models_dir=models)
                opening = open_child(spec, work, limits=Supervision(ready_s=150))
                yield Subject(await stack.enter_async_context(opening), executes=True)
            case _:
                yield Subject(await stack.enter_async_context(open_remote(COMFYUI_URL)), executes=True)


async def run(subject: Subject, prompt: Prompt) -> tuple[list[EngineEvent], PromptOutputs]:
    await subject.engine.submit(prompt)
    events = [event async for event in subject.engine.events(prompt.prompt_id)]
    return events, await subject.engine.outputs(prompt.prompt_id)


async def contents(outputs: PromptOutputs) -> list[bytes]:
    return [b"".join([chunk async for chunk in file.read()]) for file in outputs.files]


def slow(subject: Subject) -> ApiGraph:
    """Runs for a long time, in many nodes, unless it is stopped; the fake waits at the node `slow`."""
    first = node("1", "EmptyImage", width=1024, height=1024, batch_size=2, color=subject.color())
    if not subject.executes:
        return graph(first, node("slow", "ImageInvert", image=ApiLink("1", 0)), _save("slow"))
    scaled = [
        node(
            str(number),
            "ImageScale",
            image=ApiLink(str(number - 1), 0),
            upscale_method="lanczos",
            width=1024 + number,
            height=2048,
            crop="disabled",
        )
        for number in range(2, 60)
    ]
    return graph(first, *scaled, _save("59"))


def _save(source: str, prefix: str = "test") -> ApiNode:
    return node("99", "SaveImage", images=ApiLink(source, 0), filename_prefix=prefix)


# -- What succeeds ------------------------------------------------------------------------------------------------


async def test_the_catalogue_has_the_core_classes(subject: Subject) -> None:
    catalogue = await subject.engine.catalogue()
    assert {"EmptyImage", "LoadImage", "SaveImage", "PreviewImage"} <= set(catalogue)
    assert catalogue["SaveImage"]["output_node"] is True


async def test_a_prompt_gives_its_file(subject: Subject) -> None:
    _, outputs = await run(subject, a_prompt(picture(color=subject.color(), prefix="gives")))
    [file] = outputs.files
    assert (file.node_id, file.key, file.folder) == ("2", "images", "output")
    assert file.filename.startswith("gives_")
    assert (await contents(outputs))[0].startswith(PNG)


async def test_a_folder_in_the_prefix_is_a_subfolder(subject: Subject) -> None:
    _, outputs = await run(subject, a_prompt(picture(color=subject.color(), prefix="deep/er/name")))
    assert outputs.files[0].subfolder == "deep/er"
    assert (await contents(outputs))[0].startswith(PNG)


async def test_events_begin_with_started_and_pair_the_nodes(subject: Subject) -> None:
    events, _ = await run(subject, a_prompt(picture(color=subject.color())))
    assert isinstance(events[0], Started)
    for node_id in ("1", "2"):
        kinds = [type(event) for event in events if getattr(event, "node_id", None) == node_id]
        assert [kind for kind in kinds if kind is not NodeProgress] == [NodeStarted, NodeFinished]


async def test_the_same_prompt_again_is_cached_and_gives_the_same_file(subject: Subject) -> None:
    twice = picture(color=subject.color())
    _, first = await run(subject, a_prompt(twice))
    events, second = await run(subject, a_prompt(twice))
    assert second.files[0].filename == first.files[0].filename
    assert second.cached == {"1", "2"}
    assert Started(cached=frozenset({"1", "2"})) in events


async def test_a_preview_is_a_temporary_file(subject: Subject) -> None:
    preview = graph(
        node("1", "EmptyImage", width=8, height=8, batch_size=1, color=subject.color()),
        node("2", "PreviewImage", images=ApiLink("1", 0)),
    )
    _, outputs = await run(subject, a_prompt(preview))
    assert [file.folder for file in outputs.files] == ["temp"]
    assert (await contents(outputs))[0].startswith(PNG)


async def test_many_prompts_at_once_all_end(subject: Subject) -> None:
    prompts = [a_prompt(picture(color=subject.color(), size=16)) for _ in range(8)]
    results = await asyncio.gather(*(run(subject, prompt) for prompt in prompts))
    assert len([file for _, outputs in results for file in outputs.files]) == 8


async def test_an_input_file_is_loaded(subject: Subject, tmp_path: Path) -> None:
    (_, made) = await run(subject, a_prompt(picture(color=subject.color(), size=24)))
    (tmp_path / "mine.png").write_bytes((await contents(made))[0])
    inverted = graph(
        node("1", "LoadImage", image="not uploaded yet.png"),
        node("2", "ImageInvert", image=ApiLink("1", 0)),
        _save("2"),
    )
    file = InputFile(node_id="1", input_name="image", path=tmp_path / "mine.png")
    _, outputs = await run(subject, a_prompt(inverted, file))
    assert (await contents(outputs))[0].startswith(PNG)


async def test_two_jobs_with_inputs_of_one_name_do_not_mix(subject: Subject, tmp_path: Path) -> None:
    if not subject.executes:
        return
    prompts = []
    for name in ("a", "b"):
        (_, made) = await run(subject, a_prompt(picture(color=subject.color() << 16, size=24)))
        (tmp_path / name).mkdir()
        (tmp_path / name / "in.png").write_bytes((await contents(made))[0])
        scene = graph(
            node("1", "LoadImage", image="x"), node("2", "ImageInvert", image=ApiLink("1", 0)), _save("2", name)
        )
        prompts.append(a_prompt(scene, InputFile(node_id="1", input_name="image", path=tmp_path / name / "in.png")))
    (_, first), (_, second) = await asyncio.gather(*(run(subject, prompt) for prompt in prompts))
    assert await contents(first) != await contents(second)


# -- What is refused ----------------------------------------------------------------------------------------------


async def test_an_unknown_class_is_refused(subject: Subject) -> None:
    with pytest.raises(WorkflowRejected, match="NoSuchClass"):
        await subject.engine.submit(a_prompt(graph(node("1", "NoSuchClass"), _save("1"))))


async def test_a_missing_input_is_refused_by_node_and_name(subject: Subject) -> None:
    headless = graph(node("1", "EmptyImage", width=8, height=8, batch_size=1, color=0), node("2", "SaveImage"))
    with pytest.raises(WorkflowRejected) as caught:
        await subject.engine.submit(a_prompt(headless))
    assert ("2", "SaveImage", "images") in [
        (problem.node_id, problem.class_type, problem.input_name) for problem in caught.value.problems
    ]


async def test_one_bad_output_refuses_the_whole(subject: Subject) -> None:
    half = graph(*picture(color=subject.color()).nodes.values(), node("3", "SaveImage", filename_prefix="x"))
    prompt = a_prompt(half)
    with pytest.raises(WorkflowRejected) as caught:
        await subject.engine.submit(prompt)
    assert set(caught.value.node_errors) == {"3"}
    with pytest.raises(PromptLost):
        await anext(subject.engine.events(prompt.prompt_id))


# -- What fails ---------------------------------------------------------------------------------------------------


async def test_a_node_that_raises_is_named(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"this is no picture")
    broken = graph(node("bad", "LoadImage", image="x"), _save("bad"))
    prompt = a_prompt(broken, InputFile(node_id="bad", input_name="image", path=tmp_path / "broken.png"))
    with pytest.raises(NodeFailed, match="cannot identify image file") as caught:
        await run(subject, prompt)
    assert (caught.value.node_id, caught.value.class_type) == ("bad", "LoadImage")


async def test_prompts_that_nobody_submitted_are_lost(subject: Subject) -> None:
    with pytest.raises(PromptLost):
        await anext(subject.engine.events("11111111-1111-4111-8111-111111111111"))
    with pytest.raises(PromptLost):
        await subject.engine.outputs("11111111-1111-4111-8111-111111111111")


# -- What is cancelled --------------------------------------------------------------------------------------------


async def test_a_running_prompt_is_cancelled_and_the_next_one_runs(subject: Subject) -> None:
    prompt = a_prompt(slow(subject))
    await subject.engine.submit(prompt)
    events = subject.engine.events(prompt.prompt_id)
    async for event in events:
        if isinstance(event, NodeStarted) and event.node_id in ("slow", "3"):
            break
    cancelling = asyncio.create_task(subject.engine.cancel(prompt.prompt_id))
    with pytest.raises(PromptInterrupted):
        [event async for event in events]
    await cancelling
    _, outputs = await run(subject, a_prompt(picture(color=subject.color())))
    assert outputs.files


async def test_a_queued_prompt_is_cancelled_and_the_running_one_is_not(subject: Subject) -> None:
    running, queued = a_prompt(slow(subject)), a_prompt(picture(color=subject.color()))
    await subject.engine.submit(running)
    following = subject.engine.events(running.prompt_id)
    async for event in following:
        if isinstance(event, NodeStarted):
            break
    await subject.engine.submit(queued)
    await subject.engine.cancel(queued.prompt_id)
    if subject.executes:
        with pytest.raises(PromptInterrupted):
            [event async for event in subject.engine.events(queued.prompt_id)]
    assert isinstance(await anext(following), NodeFinished | NodeStarted | NodeProgress)
    await subject.engine.cancel(running.prompt_id)
    with pytest.raises(PromptInterrupted):
        [event async for event in following]


async def test_cancelling_what_is_not_there_or_has_ended_is_no_error(subject: Subject) -> None:
    prompt = a_prompt(picture(color=subject.color()))
    await run(subject, prompt)
    await subject.engine.cancel(prompt.prompt_id)
    await subject.engine.cancel("11111111-1111-4111-8111-111111111111")


# -- What only a ComfyUI with its models does ---------------------------------------------------------------------


@pytest.mark.comfyui
@pytest.mark.parametrize("subject", [pytest.param("child")], indirect=True, scope="module")
@pytest.mark.skipif(not COMFYUI_DIR, reason="the checkpoint is written beside an engine of ours: set COMFYUI_DIR")
async def test_a_checkpoint_goes_through_clip_sampler_and_autoencoder(subject: Subject) -> None:
    diffusion = graph(
        node("4", "CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        node("5", "EmptyLatentImage", width=64, height=64, batch_size=1),
        node("6", "CLIPTextEncode", text="a cat", clip=ApiLink("4", 1)),
        node("7", "CLIPTextEncode", text="bad", clip=ApiLink("4", 1)),
        node(
            "3",
            "KSampler",
            seed=1,
            steps=4,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            model=ApiLink("4", 0),
            positive=ApiLink("6", 0),
            negative=ApiLink("7", 0),
            latent_image=ApiLink("5", 0),
        ),
        node("8", "VAEDecode", samples=ApiLink("3", 0), vae=ApiLink("4", 2)),
        _save("8", "tiny"),
    )
    events, outputs = await run(subject, a_prompt(diffusion))
    steps = [event.value for event in events if isinstance(event, NodeProgress) and event.node_id == "3"]
    progress = PromptProgress(diffusion)
    fractions = [progress.apply_event(event) for event in events]
    # Newer engines leave out steps that come within a tenth of a second.
    assert (steps[0], steps[-1], steps) == (1, 4, sorted(set(steps)))
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.9
    assert (await contents(outputs))[0].startswith(PNG)
