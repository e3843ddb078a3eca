"""Server-sent events of a server of jobs, and what they say of one job."""

import json
from collections.abc import Iterator, Mapping

from comfypin.client.event_feed import ServerEvent, comfy_job_changes, job_changes, read_events
from comfypin.client.interface import RemoteJob


def frame(name: str, data: object) -> bytes:
    return f"event: {name}\nid: x-1\ndata: {json.dumps(data)}\n\n".encode()


def read_job(document: Mapping[str, object]) -> RemoteJob:
    return RemoteJob(id=str(document["id"]), status=str(document["status"]))


def told(*events: tuple[str, dict[str, object]], job_id: str = "a") -> list[RemoteJob]:
    return list(job_changes((ServerEvent(*event) for event in events), job_id, read_job))


def snapshot(*jobs: tuple[str, str]) -> tuple[str, dict[str, object]]:
    return "snapshot", {"jobs": [{"id": job_id, "status": status} for job_id, status in jobs]}


def test_events_are_read_however_they_are_cut() -> None:
    stream = (
        b": hello\n\n" + frame("job", {"id": "a"}) + frame("queue", [1]) + b"data: {\n\n" + frame("job", {"id": "b"})
    )
    for size in (1, 7, 4096):
        chunks: Iterator[bytes] = (stream[start : start + size] for start in range(0, len(stream), size))
        assert [event.data for event in read_events(chunks)] == [{"id": "a"}, {"id": "b"}]


def test_lines_may_end_as_other_servers_end_them() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        stream = (frame("job", {"id": "a"}) + frame("job", {"id": "b"})).replace(b"\n", end)
        chunks: Iterator[bytes] = (stream[start : start + 5] for start in range(0, len(stream), 5))
        assert [(event.name, event.data) for event in read_events(chunks)] == [
            ("job", {"id": "a"}),
            ("job", {"id": "b"}),
        ]


def test_a_job_of_comfy_api_v2_is_followed_by_its_own_stream() -> None:
    events = [
        ServerEvent("status", {"status": "queued", "queue_position": 3}),
        ServerEvent("preview", {"data": "..."}),
        ServerEvent("status", {"status": "what a later version may say"}),
        ServerEvent("status", {"status": "running", "queue_position": None}),
        ServerEvent("progress", {"value": 0.5}),
        ServerEvent("status", {"status": "succeeded"}),
        ServerEvent("progress", {"value": 0.1}),
    ]
    states = {"queued": "IN_QUEUE", "running": "IN_PROGRESS", "succeeded": "COMPLETED"}
    found = list(comfy_job_changes(events, RemoteJob(id="a", status="IN_QUEUE", created_at="then"), states))
    assert [job.status for job in found] == ["IN_QUEUE", "IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]
    assert [job.position for job in found] == [3, None, None, None]
    assert found[2].progress is not None
    assert found[2].progress.fraction == 0.5
    assert {job.created_at for job in found} == {"then"}


def test_a_job_is_followed_from_the_snapshot_to_its_end() -> None:
    found = told(
        snapshot(("b", "IN_QUEUE"), ("a", "IN_QUEUE")),
        ("job", {"id": "b", "status": "COMPLETED"}),
        ("job", {"id": "a", "status": "IN_PROGRESS"}),
        ("progress", {"id": "a", "progress": {"fraction": 0.5}}),
        ("job", {"id": "a", "status": "COMPLETED"}),
        ("job", {"id": "a", "status": "not read any more"}),
    )
    assert [job.status for job in found] == ["IN_QUEUE", "IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]
    assert found[2].progress is not None
    assert found[2].progress.fraction == 0.5


def test_a_job_that_the_snapshot_does_not_have_or_that_is_removed_is_followed_no_further() -> None:
    assert told(snapshot(("b", "IN_QUEUE")), ("job", {"id": "a", "status": "IN_QUEUE"})) == []
    assert len(told(snapshot(("a", "IN_QUEUE")), ("removed", {"id": "a"}), ("job", {"id": "a", "status": "x"}))) == 1
