"""What a server of a large fleet answers before it has read all jobs."""

from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from comfypin.server.history_gate import HistoryGate


class Queue:
    def __init__(self) -> None:
        self.has_all_jobs = False


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def client(queue: Queue) -> TestClient:
    unknown: Any = queue
    return TestClient(HistoryGate(PlainTextResponse("passed"), queue=unknown))


@pytest.mark.parametrize(
    "path", ["/run", "/runsync", "/v2/demo/run", "/status/7", "/v2/demo/cancel/7", "/workflows/demo", "/ping", "/"]
)
def test_single_jobs_and_the_machine_are_answered_for_at_once(client: TestClient, path: str) -> None:
    assert client.get(path).text == "passed"


@pytest.mark.parametrize("path", ["/jobs", "/health", "/v2/demo/health", "/outputs", "/stream/7", "/purge-queue"])
def test_what_needs_all_jobs_is_refused_until_they_are_known(client: TestClient, queue: Queue, path: str) -> None:
    refused = client.get(path)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "5"
    assert "still reads" in refused.json()["error"]
    queue.has_all_jobs = True
    assert client.get(path).text == "passed"


def test_comfys_own_api_is_refused_in_its_envelope(client: TestClient) -> None:
    refused = client.get("/api/v2/jobs")
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "upstream_error"
