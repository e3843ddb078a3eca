"""The handler: a job from its wire form to its outcome."""

import asyncio
import base64
import importlib
import itertools
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comfypin.engine.errors import NodeFailed
from comfypin.jobs.handler import Handler
from comfypin.jobs.input_files import InputLimits
from comfypin.settings.environment import Settings
from comfypin.storage.s3 import PROBE
from comfypin.testing import FAKE_CATALOGUE, PIXEL_PNG, FakeEngine
from comfypin.wiring import open_sinks
from tests.support.drip_server import ENDLESS, drip_server
from tests.support.graphs import loaded, picture
from tests.support.services import a_fetcher, a_service

JOB: dict[str, Any] = {"workflow": picture().to_api()}


def a_handler(engine: FakeEngine | None = None, *, folder: Path | None = None) -> Handler:
    """A handler whose clock goes on by a minute each time that it is looked at."""
    service = a_service(engine, folder=folder) if folder else a_service(engine)
    ticks = itertools.count(0, 60)
    return Handler(service, clock=lambda: float(next(ticks)))


async def test_a_job_gives_worker_comfyuis_answer_and_more() -> None:
    outcome = await a_handler()("job-1", JOB)
    (image,) = outcome.output["images"]  # type: ignore[misc]
    assert image["filename"] == "test_00001_.png"  # type: ignore[index,call-overload]
    assert image["type"] == "base64"  # type: ignore[index,call-overload]
    assert base64.b64decode(image["data"]) == PIXEL_PNG  # type: ignore[index,call-overload,arg-type]
    assert "errors" not in outcome.output, "clients take the key itself for an error"
    assert outcome.output["release"] == "demo"
    assert outcome.failure is None


async def test_inputs_reach_the_engine() -> None:
    engine = FakeEngine()
    image = {"name": "here.png", "image": base64.b64encode(PIXEL_PNG).decode()}
    await a_handler(engine)("job-1", {"workflow": loaded().to_api(), "images": [image]})
    (file,) = engine.prompts[0].inputs
    assert file.path.name == "here.png"
    assert not file.path.exists(), "a job's files go with it"


async def test_a_node_that_fails_is_named() -> None:
    outcome = await a_handler(FakeEngine(fails={"1": "out of memory"}))("job-1", JOB)
    assert "out of memory" in str(outcome.output["error"])
    assert outcome.output["error_type"] == "NodeFailed"
    assert not outcome.replace_worker


async def test_a_crash_is_survived_by_running_the_job_once_more() -> None:
    outcome = await a_handler(FakeEngine(crashes=1))("job-1", JOB)
    assert outcome.failure is None
    assert "run once more" in str(outcome.output["warnings"])


async def test_a_job_that_always_kills_the_engine_fails_alone() -> None:
    handler = a_handler(FakeEngine(crashes=2))
    killer = await handler("killer", JOB)
    assert killer.output["error_type"] == "EngineCrashed"
    assert "the last line" in str(killer.output["error"])
    assert not killer.replace_worker
    assert (await handler("next", JOB)).failure is None
    assert handler.crashes_in_a_row == 0


async def test_the_third_crash_in_a_row_gives_the_worker_back() -> None:
    handler = a_handler(FakeEngine(crashes=4))
    assert not (await handler("one", JOB)).replace_worker
    outcome = await handler("two", JOB)
    assert outcome.replace_worker
    assert "the last line" in str(outcome.output["error"])


async def test_one_crash_that_hits_two_jobs_is_one() -> None:
    handler = Handler(a_service(FakeEngine(crashes=4)), clock=lambda: 5.0)
    outcomes = [await handler(name, JOB) for name in ("one", "two")]
    assert handler.crashes == 1
    assert not any(outcome.replace_worker for outcome in outcomes)


async def test_a_cancelled_job_takes_its_prompt_back() -> None:
    engine = FakeEngine(holds="1")
    task = asyncio.ensure_future(a_handler(engine)("job-1", JOB))
    while not engine.prompts:  # noqa: ASYNC110, a fake tells nobody
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.cancelled == [engine.prompts[0].prompt_id]


async def test_progress_never_goes_back() -> None:
    told: list[Any] = []
    await a_handler()("job-1", JOB, progress=told.append)
    fractions = [progress["progress"] for progress in told]
    assert fractions == sorted(fractions)
    # When outputs are collected, all nodes are done, whatever was heard of them.
    assert {progress["progress"] for progress in told if progress["phase"] in ("collect", "deliver")} == {1.0}
    assert {"node_started", "phase_started"} <= {progress["event"] for progress in told}


async def test_the_releases_digest_is_as_good_as_its_name() -> None:
    handler = a_handler()
    first = await handler("one", {**JOB, "release": "demo"})
    again = await handler("two", {**JOB, "release": first.output["release_digest"]})
    assert again.failure is None
    assert (await handler("three", {**JOB, "release": "other"})).output["error_type"] == "ReleaseUnavailable"


async def test_a_secret_is_in_no_answer() -> None:
    wish = {**JOB, "comfy_org_api_key": "sesame", "timeout_s": "sesame"}
    assert "sesame" not in str((await a_handler()("job-1", wish)).output)
    engine = FakeEngine()
    outcome = await a_handler(engine)("job-2", {**JOB, "comfy_org_api_key": "sesame"})
    assert "sesame" not in str(outcome.output)
    assert engine.prompts[0].extra_data == {"api_key_comfy_org": "sesame"}


async def test_the_workers_own_key_is_for_jobs_that_bring_none() -> None:
    engine = FakeEngine()
    handler = Handler(a_service(engine, comfy_org_api_key="ours"))
    body = {"prompt": picture().to_api(), "extra_data": {"api_key_comfy_org": "of the body"}}
    wishes = [JOB, {**JOB, "comfy_org_api_key": "theirs"}, {"workflow": body}]
    outcomes = [await handler(f"job-{number}", wish) for number, wish in enumerate(wishes)]
    sent = [prompt.extra_data["api_key_comfy_org"] for prompt in engine.prompts]
    assert sent == ["ours", "theirs", "of the body"]
    assert not any(key in str(outcome.output) for key in sent for outcome in outcomes)


async def test_names_and_limits_beside_a_workflow_hold(tmp_path: Path) -> None:
    (tmp_path / "cat.json").write_text(json.dumps(picture().to_api()))
    (tmp_path / "cat.inputs.toml").write_text('[inputs.size]\ntarget = "1.width"\nmaximum = 100\n')
    engine = FakeEngine()
    handler = a_handler(engine, folder=tmp_path)
    assert (await handler("one", {"workflow_name": "cat", "set": {"size": 80}})).failure is None
    assert engine.prompts[0].graph.nodes["1"].inputs["width"] == 80
    refused = await handler("two", {"workflow_name": "cat", "set": {"size": 120}})
    assert "maximum is 100" in str(refused.output["error"])


async def test_a_mistake_of_ours_ends_the_job_alone() -> None:
    class Broken(FakeEngine):
        async def catalogue(self) -> Any:
            raise KeyError("ours")

    outcome = await a_handler(Broken())("job-1", JOB)
    assert outcome.output["error_type"] == "JobBroken"
    assert "Traceback" not in str(outcome.output)


# -- What a job says, in its own words ----------------------------------------------------------------------------


def an_image(name: str = "here.png", data: bytes = PIXEL_PNG) -> dict[str, str]:
    return {"name": name, "image": base64.b64encode(data).decode()}


async def test_half_a_picture_is_refused(tmp_path: Path) -> None:
    job = {"workflow": loaded().to_api(), "images": [an_image(data=PIXEL_PNG[:-14])]}
    outcome = await a_handler()("job-1", job)
    assert outcome.output["error_type"] == "InputFileInvalid"
    assert "'here.png' cannot be used: it is incomplete: the PNG" in str(outcome.output["error"])


async def test_an_input_that_no_node_reads_is_said_with_the_closest_names() -> None:
    job = {"workflow": loaded().to_api(), "images": [an_image(), an_image("hare.png"), an_image("other.bin")]}
    outcome = await a_handler()("job-1", job)
    assert outcome.output["warnings"] == [
        "No node of the workflow reads 'hare.png' (images.1): did you mean 'here.png'?",
        "No node of the workflow reads 'other.bin' (images.2): its load nodes name 'here.png'",
    ]


async def test_an_input_of_a_workflow_that_loads_nothing_is_said_to_be_unread() -> None:
    outcome = await a_handler()("job-1", {**JOB, "images": [an_image()]})
    assert outcome.output["warnings"] == ["No node of the workflow reads 'here.png' (images.0): it loads no file"]


async def test_an_input_that_points_a_node_is_read() -> None:
    item = {"name": "mine.png", "data": base64.b64encode(PIXEL_PNG).decode(), "node": "1"}
    outcome = await a_handler()("job-1", {"workflow": loaded().to_api(), "inputs": [item]})
    assert (outcome.failure, outcome.output["warnings"]) == (None, [])


async def test_a_node_that_an_input_cannot_point_at_is_told_in_the_jobs_fields() -> None:
    item = {"name": "mine.png", "data": base64.b64encode(PIXEL_PNG).decode(), "node": "2"}
    outcome = await a_handler()("job-1", {"workflow": loaded().to_api(), "inputs": [item]})
    assert str(outcome.output["error"]).startswith("inputs.0, node '2': node 2 (SaveImage) loads no file")
    assert "/" not in str(outcome.output["error"])


async def test_a_file_that_was_not_sent_is_asked_for_in_the_jobs_fields() -> None:
    of_core = {name: {**definition, "python_module": "nodes"} for name, definition in FAKE_CATALOGUE.items()}
    outcome = await a_handler(FakeEngine(catalogue=of_core))("job-1", {"workflow": loaded().to_api()})
    assert "'here.png' is not in the job's inputs; send it in `inputs` under that name" in str(outcome.output["error"])


async def test_a_job_without_time_is_told_of_its_own_field() -> None:
    outcome = await a_handler(FakeEngine(holds="2"))("job-1", {**JOB, "timeout_s": 0.05})
    assert "Give it more time with `timeout_s`." in str(outcome.output["error"])


async def test_what_a_whole_prompt_body_has_beside_the_graph_goes_along() -> None:
    engine = FakeEngine()
    saved = {"nodes": [{"id": 2}], "links": []}
    extra = {"extra_pnginfo": {"workflow": saved}, "preview_method": "none", "client_id": "theirs"}
    body = {"client_id": "theirs", "prompt": picture().to_api(), "extra_data": extra}
    outcome = await a_handler(engine)("job-1", {"workflow": body, "comfy_org_api_key": "sesame"})
    assert outcome.failure is None
    assert engine.prompts[0].extra_data == {
        "extra_pnginfo": {"workflow": saved},
        "preview_method": "none",
        "api_key_comfy_org": "sesame",
    }


READS_WORKFLOW: Any = {
    "input": {"required": {}, "hidden": {"extra_pnginfo": "EXTRA_PNGINFO"}},
    "output": [],
    "output_node": True,
}


@pytest.mark.parametrize("extra, told", [({}, True), ({"extra_pnginfo": {"workflow": {}}}, False)])
async def test_a_node_that_misses_the_saved_workflow_says_what_to_send(extra: dict[str, Any], told: bool) -> None:
    class Engine(FakeEngine):
        async def _execute_node(self, submission: Any, node: Any) -> None:
            raise NodeFailed(node_id=node.id, class_type=node.class_type, exception_type="TypeError", message="None")

    engine = Engine(catalogue={**FAKE_CATALOGUE, "Reader": READS_WORKFLOW})
    body = {"prompt": {"1": {"class_type": "Reader", "inputs": {}}}, "extra_data": extra}
    outcome = await a_handler(engine)("job-1", {"workflow": body})
    assert ("extra_data.extra_pnginfo" in str(outcome.output["error"])) is told


async def test_servers_that_draw_their_inputs_out_hold_no_other_job_and_no_thread() -> None:
    def answer(path: str) -> Iterable[bytes]:
        return [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfile"] if path == "/good" else ENDLESS[path[1:]]()

    def job(path: str) -> dict[str, Any]:
        return {**JOB, "inputs": [{"name": "a", "url": f"{server.url}/{path}"}]}

    with drip_server(answer) as server:
        held = [part for part in ENDLESS if part != "refusal"]  # a refusal is not read
        handler = Handler(a_service(fetcher=a_fetcher(public_only=False)))
        slow = [asyncio.create_task(handler(f"slow-{n}", job(part))) for n in range(8) for part in held]
        assert await asyncio.to_thread(server.wait_for_requests, len(slow))
        assert (await handler("job-1", job("good"))).failure is None
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert await asyncio.to_thread(server.wait_for, 0), "their connections are closed, their threads are back"


OK = b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\n\r\n"


def with_own_bucket(url: str) -> dict[str, Any]:
    keys = {"bucketName": "own", "accessId": "AKID", "accessSecret": "s3cr3t"}
    return {**JOB, "s3Config": {"endpointUrl": url, **keys}, "timeout_s": 6}


def a_handler_of_buckets() -> Handler:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    importlib.import_module("boto3.session")  # takes seconds on a busy machine, and jobs here have six
    sink_for = open_sinks(Settings({"OUTPUT_MODE": "base64"}), private_buckets=True)
    return Handler(a_service(sink_for=sink_for))


@pytest.mark.parametrize("part", ["head", "silence"])
async def test_buckets_of_jobs_that_draw_out_their_opening_hold_no_other_job_and_no_thread(part: str) -> None:
    with drip_server(lambda path: ENDLESS[part]()) as server:
        handler = a_handler_of_buckets()
        slow = [asyncio.create_task(handler(f"slow-{n}", with_own_bucket(server.url))) for n in range(4)]
        assert await asyncio.to_thread(server.wait_for_requests, len(slow))
        assert (await handler("job-1", JOB)).failure is None
        outcomes = await asyncio.gather(*slow)
        assert {outcome.output["error_type"] for outcome in outcomes} == {"StoreTooSlow"}
        assert await asyncio.to_thread(server.wait_for, 0), "their connections are closed, their threads are back"


async def test_a_jobs_own_bucket_that_draws_out_a_delivery_keeps_it_no_longer_than_its_deadline() -> None:
    def answer(path: str) -> Iterable[bytes]:
        return [OK] if PROBE in path or path == "/own" else ENDLESS["head"]()

    with drip_server(answer) as server:
        handler = a_handler_of_buckets()
        slow = [asyncio.create_task(handler(f"slow-{n}", with_own_bucket(server.url))) for n in range(4)]
        outcomes = await asyncio.gather(*slow)
        assert {outcome.output["error_type"] for outcome in outcomes} == {"DeadlineExceeded"}
        assert (await handler("job-1", JOB)).failure is None
        assert await asyncio.to_thread(server.wait_for, 0), "their connections are closed, their threads are back"


async def test_a_job_whose_inputs_do_not_arrive_in_time_fails_and_says_so() -> None:
    with drip_server(lambda path: ENDLESS["body"]()) as server:
        fetcher = a_fetcher(public_only=False, limits=InputLimits(seconds=0.2))
        job = {**JOB, "inputs": [{"name": "a", "url": server.url}]}
        outcome = await Handler(a_service(fetcher=fetcher))("job-1", job)
    assert "The input 'a' cannot be used: the inputs did not arrive within 0.2 s" in str(outcome.output["error"])
