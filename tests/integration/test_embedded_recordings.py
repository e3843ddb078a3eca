"""The embedded engine answers as the recordings of a real ComfyUI do, once ids, times and paths are put aside."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from tests.support.embedded import Embedded, embedded_engine, empty, load, node, picture, save

SET = {"prompt_id", "number", "timestamp", "traceback", "sid", "seconds"}
UNORDERED = {"executed", "current_outputs", "dependent_outputs"}


def plain(value: Any, key: str = "") -> Any:
    """A recording's value without what differs from run to run."""
    if key in SET:
        return type(value).__name__ if key != "number" else "number"
    if key == "input_config" and isinstance(value[0], list):
        return ["choices", *value[1:]]
    if isinstance(value, dict):
        return {name: plain(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return sorted(value) if key in UNORDERED else [plain(each) for each in value]
    if isinstance(value, str):
        value = re.sub(r"tensor\(.*\)", "tensor", value, flags=re.DOTALL)
        return re.sub(r"_temp_[a-z]{5}_", "_temp_", re.sub(r"'/\S*/(\w+\.png)'", r"'\1'", value))
    return value


def recorded(http_recordings: Path, name: str) -> Any:
    return json.loads((http_recordings / f"{name}.json").read_text())


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Embedded]:
    async with embedded_engine(tmp_path) as running:
        yield running


BASE = {"1": empty(width=512, height=512, color=3), "2": save("1")}
SCALE = {"image": ["1", 0], "width": 64, "height": 64, "crop": "disabled"}

REFUSED: dict[str, object] = {
    "a_unknown_class": {"1": node("NoSuchNode"), "2": save("1")},
    "b_missing_required": {"1": node("EmptyImage", width=512, height=512, batch_size=1), "2": save("1")},
    "b2_missing_link_input": {"2": node("SaveImage", filename_prefix="t")},
    "c_bad_value_type": {"1": empty(color="red"), "2": save("1")},
    "c2_value_too_big": {"1": empty(width=99999), "2": save("1")},
    "c3_value_too_small": {"1": empty(width=0), "2": save("1")},
    "c4_value_not_in_list": {"1": empty(), "3": node("ImageScale", upscale_method="bogus", **SCALE), "2": save("3")},
    "c5_type_mismatch_link": {"1": node("SolidMask", value=1.0, width=8, height=8), "2": save("1")},
    "d_empty_prompt": {},
    "d4_prompt_null": None,
    "d5_prompt_list": [1, 2],
    "e_no_output_node": {"1": empty()},
    "f_missing_class_type": {"1": {"inputs": {}}},
    "f2_ui_format_workflow": {"nodes": [], "links": [], "version": 0.4},
    "f3_missing_inputs_key": {"1": empty(), "2": {"class_type": "SaveImage"}},
    "g_dangling_link": {"2": save("99")},
    "g2_bad_slot": {"1": empty(), "2": save("1", 5)},
    "g3_link_len3": {"1": empty(), "2": node("SaveImage", images=["1", 0, 0], filename_prefix="t")},
    "h_cycle": {"1": node("ImageInvert", image=["3", 0]), "3": node("ImageInvert", image=["1", 0]), "2": save("1")},
    "i_loadimage_missing_file": {"1": load("nope.png"), "2": save("1")},
    "j_one_good_one_bad_output_is_200": {**BASE, "9": node("SaveImage", filename_prefix="bad")},
    "l_bool_as_int": {"1": empty(width=True), "2": save("1")},
    "l2_float_as_int": {"1": empty(width=8.7), "2": save("1")},
    "l3_numeric_string_as_int": {"1": empty(width="8"), "2": save("1")},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_submitted_graph_is_answered_as_recorded(name: str, engine: Embedded, http_recordings: Path) -> None:
    expected = recorded(http_recordings, f"prompt_err_{name}")
    async with engine.client.post("/prompt", json={"prompt": REFUSED[name]}) as answer:
        assert answer.status == expected["status"]
        if answer.status == 500:
            assert await answer.text() == expected["body"]["_raw_text"]
        else:
            assert plain(await answer.json()) == plain(expected["body"])


@pytest.mark.parametrize(
    ("name", "body"), [("d2_empty_body", b"{}"), ("d3_not_json", b"{nonsense"), ("d6_json_array_body", b"[]")]
)
async def test_a_body_of_another_shape_is_answered_as_recorded(
    name: str, body: bytes, engine: Embedded, http_recordings: Path
) -> None:
    expected = recorded(http_recordings, f"prompt_err_{name}")
    async with engine.client.post("/prompt", data=body) as answer:
        assert answer.status == expected["status"]
        if answer.status == 500:
            assert await answer.text() == expected["body"]["_raw_text"]
        else:
            assert await answer.json() == expected["body"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("prompt_success", {}),
        ("prompt_own_prompt_id", {"prompt_id": "my-own-id-1"}),
        ("prompt_number", {"number": -100.5}),
        ("prompt_front", {"front": True}),
    ],
)
async def test_an_accepted_graph_is_answered_as_recorded(
    name: str, fields: dict[str, object], engine: Embedded, http_recordings: Path
) -> None:
    expected = recorded(http_recordings, name)
    status, answer = await engine.post({"prompt": BASE, **fields})
    assert (status, plain(answer)) == (expected["status"], plain(expected["body"]))
    if "number" in fields:
        assert answer["number"] == expected["body"]["number"]
    if "prompt_id" in fields:
        assert answer["prompt_id"] == expected["body"]["prompt_id"]


@pytest.mark.parametrize(
    "name", ["prompt_get_idle", "queue_idle", "features", "models", "object_info_unknown", "history_unknown_id"]
)
async def test_a_question_is_answered_as_recorded(name: str, engine: Embedded, http_recordings: Path) -> None:
    expected = recorded(http_recordings, name)
    for prefix in ("", "/api"):
        async with engine.client.get(prefix + expected["request"].split()[1]) as answer:
            assert answer.status == expected["status"]
            assert answer.headers["Content-Type"] == expected["headers"]["Content-Type"]
            assert await answer.json() == expected["body"]


@pytest.mark.parametrize("name", ["object_info_one", "system_stats"])
async def test_what_an_engine_says_of_itself_has_the_recorded_shape(
    name: str, engine: Embedded, http_recordings: Path
) -> None:
    expected = recorded(http_recordings, name)
    ours = await engine.get(expected["request"].split()[1])
    if name == "object_info_one":
        assert ours == expected["body"]
    else:
        assert ours["system"].keys() == expected["body"]["system"].keys()
        assert ours["devices"][0].keys() == expected["body"]["devices"][0].keys()
        assert ours["devices"][0]["type"] == "cpu"


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("queue_clear", "/queue", {"clear": True}),
        ("queue_delete_pending", "/queue", {"delete": ["x"]}),
        ("history_clear", "/history", {"clear": True}),
        ("interrupt_idle", "/interrupt", {}),
        ("interrupt_wrong_id", "/interrupt", {"prompt_id": "x"}),
        ("free", "/free", {"unload_models": True, "free_memory": True}),
    ],
)
async def test_an_order_is_answered_as_recorded(
    name: str, path: str, body: object, engine: Embedded, http_recordings: Path
) -> None:
    expected = recorded(http_recordings, name)
    async with engine.client.post(path, json=body) as answer:
        assert (answer.status, await answer.text()) == (expected["status"], "")


async def test_an_order_without_a_body_to_free_is_answered_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    expected = recorded(http_recordings, "free_nobody")
    async with engine.client.post("/free") as answer:
        assert (answer.status, await answer.text()) == (expected["status"], expected["body"]["_raw_text"])
        assert answer.headers["Connection"] == "close"


async def test_another_method_is_answered_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    expected = recorded(http_recordings, "prompt_wrong_method")
    async with engine.client.put("/prompt") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, expected["headers"]["Allow"])
        assert await answer.text() == expected["body"]["_raw_text"]


async def test_a_page_of_another_site_is_refused_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    expected = recorded(http_recordings, "post_origin_mismatch")
    async with engine.client.post("/prompt", json={}, headers={"Origin": "http://evil.example"}) as answer:
        assert (answer.status, await answer.text()) == (expected["status"], "")


async def test_an_unknown_path_is_answered_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    async with engine.client.get("/nope") as answer:
        assert (answer.status, await answer.text()) == (recorded(http_recordings, "unknown_path")["status"], "")


async def test_a_large_body_is_refused_as_recorded(tmp_path: Path, http_recordings: Path) -> None:
    async with embedded_engine(tmp_path, max_upload_bytes=1 << 20) as engine:
        expected = recorded(http_recordings, "prompt_body_too_large")
        async with engine.client.post("/prompt", data=b"x" * (2 << 20)) as answer:
            assert (answer.status, await answer.text()) == (413, expected["body"]["_raw_text"])
        expected = recorded(http_recordings, "upload_too_large")
        form = FormData()
        form.add_field("image", b"x" * (2 << 20), filename="a.png")
        async with engine.client.post("/upload/image", data=form) as answer:
            assert (answer.status, await answer.text()) == (413, expected["body"]["_raw_text"])


async def upload(engine: Embedded, name: str, data: bytes, **fields: str) -> tuple[int, Any]:
    form = FormData()
    form.add_field("image", data, filename=name)
    for key, value in fields.items():
        form.add_field(key, value)
    async with engine.client.post("/upload/image", data=form) as answer:
        return answer.status, await answer.json() if answer.status == 200 else await answer.text()


async def test_uploads_are_answered_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    steps: list[tuple[str, bytes, dict[str, str]]] = [
        ("upload_image", b"a", {}),
        ("upload_same_again", b"a", {}),
        ("upload_same_name_different", b"b", {}),
        ("upload_overwrite", b"c", {"overwrite": "true"}),
        ("upload_subfolder", b"d", {"subfolder": "sub"}),
        ("upload_temp", b"e", {"type": "temp"}),
    ]
    names = {"upload_subfolder": "cap_b.png", "upload_temp": "cap_t.png"}
    for step, data, fields in steps:
        expected = recorded(http_recordings, step)
        assert await upload(engine, names.get(step, "cap_a.png"), data, **fields) == (200, expected["body"]), step
    assert (engine.folders.input / "cap_a.png").read_bytes() == b"c"
    assert (engine.folders.input / "cap_a (1).png").read_bytes() == b"b"
    assert (await upload(engine, "a.png", b"x", subfolder="../.."))[0] == recorded(http_recordings, "upload_traversal")[
        "status"
    ]
    async with engine.client.post("/upload/image", data={"other": "x"}) as answer:
        assert answer.status == recorded(http_recordings, "upload_no_image_field")["status"]


@pytest.mark.parametrize("name", ["missing", "nofilename", "badtype", "traversal"])
async def test_a_file_that_may_not_be_seen_is_answered_as_recorded(
    name: str, engine: Embedded, http_recordings: Path
) -> None:
    expected = recorded(http_recordings, f"view_{name}")
    async with engine.client.get(expected["request"].split()[1]) as answer:
        assert (answer.status, await answer.text()) == (expected["status"], "")


@pytest.mark.parametrize("name", ["full", "head", "range", "preview", "rgb"])
async def test_a_file_is_shown_as_recorded(name: str, engine: Embedded, http_recordings: Path) -> None:
    expected = recorded(http_recordings, f"view_{name}")
    graph = {"1": empty(width=512, height=512, color=16746496), "2": save("1")}
    await engine.run(graph)
    method, path = expected["request"].split()
    headers = {"Range": "bytes=0-99"} if name == "range" else {}
    async with engine.client.request(method, path, headers=headers) as answer:
        assert answer.status == expected["status"]
        ours = {key: value for key, value in answer.headers.items() if key not in ("Date", "Server")}
        assert ours.keys() == expected["headers"].keys() - {"Date", "Server"}
        for key in ("Content-Disposition", "Content-Type", "Content-Length", "Content-Range"):
            assert ours.get(key) == expected["headers"].get(key)
        assert (await answer.read())[:16].hex() == expected["body"]["_head_hex"]


def messages_of(name: str, http_recordings: Path) -> tuple[list[Any], dict[str, Any]]:
    """A recorded run's own messages, and the graph that gave them where its history was recorded too."""
    run = recorded(http_recordings, f"ws_{name}")
    own = [each["msg"] for each in run["messages"] if each["kind"] == "text"]
    prompt_id = run.get("prompt_id") or next(m["data"]["prompt_id"] for m in own if m["type"] == "execution_start")
    told = [m for m in own if m["data"].get("prompt_id") == prompt_id]
    return told, recorded(http_recordings, f"history_{name}")["body"][prompt_id]


async def prepare_inputs(engine: Embedded) -> None:
    picture(engine.folders.input / "cap_a.png")
    picture(engine.folders.input / "sub" / "cap_b.png")
    picture(engine.folders.temp / "cap_t.png")
    (engine.folders.input / "cap_corrupt.png").write_bytes(b"this is no picture")
    whole = picture(engine.folders.input / "cap_trunc.png").read_bytes()
    (engine.folders.input / "cap_trunc.png").write_bytes(whole[: len(whole) // 2])


def comparable(messages: list[Any]) -> list[Any]:
    return [json.loads(re.sub(r"_\d{5}_", "_N_", json.dumps(plain(message)))) for message in messages]


@pytest.mark.parametrize(
    "name",
    [
        "success",
        "chain_loadimage_scale_invert",
        "blend_mask_preview",
        "loadimage_subfolder",
        "loadimage_temp_annotated",
        "scale_zero",
        "error_corrupt_image",
        "error_truncated_image",
        "error_oom",
        "error_scale_impossible",
    ],
)
async def test_a_run_is_told_as_recorded(name: str, engine: Embedded, http_recordings: Path) -> None:
    expected, history = messages_of(name, http_recordings)
    await prepare_inputs(engine)
    told = await engine.watch(history["prompt"][2])
    prompt_id = told[-1]["data"]["prompt_id"]
    own = [message for message in told if message["data"].get("prompt_id") == prompt_id]
    assert comparable(own) == comparable(expected)
    entry = await engine.ended(prompt_id)
    entry["prompt"][3] = history["prompt"][3]
    entry["prompt"][1] = history["prompt"][1]
    entry["prompt"][0] = history["prompt"][0]
    assert comparable([entry]) == comparable([history])


async def test_a_cached_run_is_told_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    expected, history = messages_of("success_fully_cached", http_recordings)
    await engine.run(history["prompt"][2])
    told = await engine.watch(history["prompt"][2])
    own = [message for message in told if "prompt_id" in message["data"]]
    assert comparable(own) == comparable(expected)


async def test_an_error_beside_a_cached_output_is_told_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    body = recorded(http_recordings, "history_error_with_cached_output")["body"]
    (history,) = body.values()
    await prepare_inputs(engine)
    graph = history["prompt"][2]
    await engine.run({key: graph[key] for key in ("1", "2")})
    entry = await engine.run(graph)
    entry["prompt"] = history["prompt"]
    assert comparable([entry]) == comparable([history])


async def test_an_interrupted_run_is_told_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    recording = recorded(http_recordings, "ws_interrupted")
    prompt_id = recording["prompt_id"]
    expected = [m["msg"] for m in recording["messages"] if m["msg"]["data"].get("prompt_id") == prompt_id]
    graph = recorded(http_recordings, "queue_busy")["body"]["queue_running"][0][2]
    async with engine.listening("c") as socket:
        _, answer = await engine.post({"prompt": graph, "client_id": "c"})
        told = []
        while not told or told[-1]["data"].get("node", "") is not None:
            told.append(await socket.receive_json())
            if told[-1]["type"] == "executing" and told[-1]["data"]["node"] == "12":
                await engine.post({"prompt_id": answer["prompt_id"]}, "/interrupt")
    own = [m for m in told if m["data"].get("prompt_id") == answer["prompt_id"]]
    assert comparable(own) == comparable(expected)


async def test_a_busy_queue_is_shown_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    expected = recorded(http_recordings, "queue_busy")["body"]
    graphs = [entry[2] for entry in (*expected["queue_running"], *expected["queue_pending"])]
    ids = [(await engine.post({"prompt": g, "client_id": uuid.uuid4().hex}))[1]["prompt_id"] for g in graphs]
    while not (ours := await engine.get("/queue"))["queue_running"]:  # noqa: ASYNC110, as clients poll
        await asyncio.sleep(0.005)
    assert [entry[1] for entry in (*ours["queue_running"], *sorted(ours["queue_pending"]))] == ids
    remaining = (await engine.get("/prompt"))["exec_info"]["queue_remaining"]
    assert remaining == recorded(http_recordings, "prompt_get_busy")["body"]["exec_info"]["queue_remaining"]
    assert [entry[2:3] + entry[4:] for entry in ours["queue_running"]] == [
        entry[2:3] + entry[4:] for entry in expected["queue_running"]
    ]
    await engine.post({"clear": True}, "/queue")
    await engine.post({}, "/interrupt")


async def test_the_catalogue_is_comfyuis(engine: Embedded, captures: Path) -> None:
    real = json.loads((captures / "http" / "object_info.json").read_text())
    files = ("LoadImage", "LoadImageMask")
    for name, ours in (await engine.get("/object_info")).items():
        if name in files:
            ours["input"]["required"]["image"][0] = real[name]["input"]["required"]["image"][0]
        assert ours == real[name], name


async def test_a_new_websocket_hears_how_many_wait_and_can_ask_for_features(
    engine: Embedded, http_recordings: Path
) -> None:
    expected = [each["msg"] for each in recorded(http_recordings, "ws_connect_and_feature_flags")]
    async with engine.client.ws_connect("/ws") as socket:
        first = await socket.receive_json()
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        second = await socket.receive_json()
    assert [plain(first), plain(second)] == [plain(each) for each in expected]


async def test_a_run_without_a_client_id_is_told_to_all_as_recorded(engine: Embedded, http_recordings: Path) -> None:
    expected = [each["msg"] for each in recorded(http_recordings, "ws_no_client_id")["bystander"]]
    async with engine.client.ws_connect("/ws") as socket:
        await engine.post({"prompt": BASE})
        told = [await socket.receive_json() for _ in expected]
    assert [plain(each) for each in told] == [plain(each) for each in expected]


async def test_a_bystander_hears_of_the_queue_alone(engine: Embedded, http_recordings: Path) -> None:
    expected = [each["msg"] for each in recorded(http_recordings, "ws_bystander_of_other_client")]
    async with engine.listening("other") as socket:
        await engine.watch(BASE)
        told = [await socket.receive_json() for _ in expected]
    assert told == expected


async def test_a_client_that_comes_back_mid_run_hears_which_node_runs(engine: Embedded) -> None:
    slow = {"1": empty(width=256, height=256), "2": node("ImageBlur", image=["1", 0], blur_radius=31, sigma=1.0)}
    async with engine.listening("c") as socket:
        await engine.post({"prompt": {**slow, "3": save("2")}, "client_id": "c"})
        while (await socket.receive_json())["data"].get("node") != "2":
            pass
    async with engine.listening("c") as socket:
        assert await socket.receive_json() == {"type": "executing", "data": {"node": "2"}}
        await engine.post({}, "/interrupt")


async def test_a_client_id_used_twice_goes_deaf_when_the_older_socket_closes(engine: Embedded) -> None:
    older = await engine.client.ws_connect("/ws?clientId=c")
    async with engine.client.ws_connect("/ws?clientId=c") as newer:
        await newer.receive_json()
        await older.close()
        await engine.run(BASE, client_id="c")
        with pytest.raises(TimeoutError):
            await newer.receive_json(timeout=0.2)
