"""A fleet on this machine: servers that keep nothing, workers on the embedded engine, one NATS between them."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleets import serving_fleet, working
from tests.support.nats_servers import NatsServer, nats_server
from tests.support.workflows import picture


def job(workflow: object, **more: object) -> dict[str, object]:
    return {"input": {"workflow": workflow, **more}}


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path) as server:
        yield server


def test_a_job_sent_to_a_server_comes_back_from_a_worker_with_its_picture(nats: NatsServer, tmp_path: Path) -> None:
    with serving_fleet(tmp_path / "serve", nats.address) as server, working(tmp_path / "worker", nats.address):
        answer = server.post("/runsync", job(picture(1)))
        assert answer["status"] == "COMPLETED", answer
        (image,) = answer["output"]["images"]
        assert base64.b64decode(image["data"]).startswith(b"\x89PNG")
