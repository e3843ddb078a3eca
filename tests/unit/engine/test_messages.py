"""Websocket messages and queues, as recorded and as nobody should send them."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfypin.engine.interface import NodeFinished, NodeProgress, NodeStarted, Started
from comfypin.engine.messages import (
    AddressedMessage,
    CachedNodes,
    EngineQueue,
    NodeRuns,
    NodeStates,
    PreviewImage,
    PromptDone,
    QueueLength,
    parse_binary,
    parse_message,
    parse_queue,
)
from comfypin.engine.normalize_events import EventNormalizer


def said(kind: str, **data: Any) -> str:
    return json.dumps({"type": kind, "data": data})


def recorded(http_recordings: Path, name: str) -> Iterator[dict[str, Any]]:
    whole = json.loads((http_recordings / f"{name}.json").read_text())
    for message in whole["messages"] if isinstance(whole, dict) else whole:
        if message["kind"] == "text":
            yield message


def test_a_status_is_the_queue_s_length() -> None:
    assert parse_message(said("status", status={"exec_info": {"queue_remaining": 3}})) == QueueLength(3)


def test_the_last_word_is_executing_nothing() -> None:
    assert parse_message(said("executing", node=None, prompt_id="p")) == AddressedMessage("p", PromptDone())


def test_the_greeting_of_a_reconnected_client_names_no_prompt() -> None:
    assert parse_message(said("executing", node="11")) == AddressedMessage(None, NodeRuns("11"))


def test_cached_nodes_are_named() -> None:
    assert parse_message(said("execution_cached", nodes=["1", 2], prompt_id="p")) == AddressedMessage(
        "p", CachedNodes(frozenset({"1", "2"}))
    )


def test_a_node_inside_a_node_is_shown_as_the_one_the_user_placed() -> None:
    assert parse_message(said("executing", node="7.0.3", display_node="7", prompt_id="p")) == AddressedMessage(
        "p", NodeRuns("7")
    )
    inner = {"7.0.3": {"value": 1, "max": 1, "state": "finished", "display_node_id": "7"}}
    assert parse_message(said("progress_state", nodes=inner, prompt_id="p")) == AddressedMessage("p", NodeStates(()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"type": "status"}',
        '{"type": "status", "data": {}}',
        '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": "x"}}}}',
        '{"type": "crystools.monitor", "data": {"cpu": 1}}',
        '{"type": "progress", "data": {"value": null, "max": 1, "node": "1"}}',
        '{"type": "progress_state", "data": {"nodes": "x"}}',
        '{"type": "executed", "data": {"node": null}}',
    ],
)
def test_what_says_nothing_to_us_is_nothing(text: str) -> None:
    assert parse_message(text) is None


def test_a_recorded_run_becomes_events_that_pair(http_recordings: Path) -> None:
    narrator, events = EventNormalizer(), []
    for message in recorded(http_recordings, "ws_tiny_diffusion"):
        parsed = parse_message(json.dumps(message["msg"]))
        if isinstance(parsed, AddressedMessage):
            events += narrator.see_message(parsed.message, message["t"])
    assert events[0] == Started(cached=frozenset())
    started = [event.node_id for event in events if isinstance(event, NodeStarted)]
    finished = [event.node_id for event in events if isinstance(event, NodeFinished)]
    assert started == finished == ["4", "5", "7", "6", "3", "8", "9"]
    assert [event.value for event in events if isinstance(event, NodeProgress)] == [1, 2, 3, 4]


def test_every_recorded_message_is_read_without_a_failure(http_recordings: Path) -> None:
    files = list((http_recordings).glob("ws_*.json"))
    texts = [
        json.dumps(message["msg"])
        for file in files
        if isinstance(json.loads(file.read_text()), list) or "messages" in json.loads(file.read_text())
        for message in recorded(http_recordings, file.stem)
        if "msg" in message
    ]
    assert len(texts) > 300
    for text in texts:
        parse_message(text)


def test_the_queue_is_in_the_order_in_which_it_runs() -> None:
    body = {"queue_running": [[0, "a", {}, {}, []]], "queue_pending": [[3, "d"], [1, "b"], [2, "c"], ["junk"], None]}
    queue = parse_queue(body)
    assert queue == EngineQueue(running=("a",), pending=("b", "c", "d"))
    assert [queue.ahead_of(name) for name in "abcd"] == [None, 1, 2, 3]


@pytest.mark.parametrize("body", [None, [], {}, {"queue_pending": []}, "x"])
def test_what_is_no_queue_is_none(body: Any) -> None:
    assert parse_queue(body) is None


def test_a_recorded_queue_is_read(http_recordings: Path) -> None:
    queue = parse_queue(json.loads((http_recordings / "queue_busy.json").read_text())["body"])
    assert queue is not None
    assert queue.running == ("a939699c-ef22-4e7f-8e59-a6ccbb22c208",)
    assert len(queue.pending) == 2


JPEG, PNG = b"\xff\xd8\xff\xe0 picture", b"\x89PNG\r\n\x1a\n picture"


def framed(message_type: int, number: int, rest: bytes) -> bytes:
    return struct.pack(">II", message_type, number) + rest


def with_metadata(picture: bytes, **metadata: object) -> bytes:
    text = json.dumps(metadata).encode()
    return framed(4, len(text), text + picture)


@pytest.mark.parametrize(("number", "content_type", "picture"), [(1, "image/jpeg", JPEG), (2, "image/png", PNG)])
def test_a_preview_of_an_older_engine_names_no_prompt(number: int, content_type: str, picture: bytes) -> None:
    assert parse_binary(framed(1, number, picture)) == AddressedMessage(None, PreviewImage(None, content_type, picture))


def test_a_preview_with_metadata_is_of_the_node_that_the_user_placed() -> None:
    message = with_metadata(
        JPEG, image_type="image/jpeg", node_id="5:2", display_node_id="5", prompt_id="p", parent_node_id=None
    )
    assert parse_binary(message) == AddressedMessage("p", PreviewImage("5", "image/jpeg", JPEG))


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"\0\0\0\1",
        framed(1, 1, b""),
        framed(1, 1, PNG),
        framed(1, 3, JPEG),
        framed(2, 1, JPEG),
        framed(3, 1, b"1text"),
        framed(4, 2**31, JPEG),
        framed(4, 3, b"[1]" + JPEG),
        framed(4, 5, b"{bad}" + JPEG),
        with_metadata(JPEG, image_type="image/svg+xml"),
        with_metadata(b"<svg/>", image_type="image/png"),
        with_metadata(b"", image_type="image/png"),
    ],
)
def test_another_binary_message_is_no_preview(odd: bytes) -> None:
    assert parse_binary(odd) is None
