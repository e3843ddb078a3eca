"""A pod stops itself by Runpod's API, with the id and the key that Runpod gives it."""

from collections.abc import Iterator

import pytest

from comfypin.cli.self_stop import container_age_s, main, stop_this_pod
from tests.conftest import shared_path
from tests.support.runpod_api import GPUS, KEY, FakeRunPod


@pytest.fixture
def runpod(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRunPod]:
    with FakeRunPod(shared_path("openapi") / "runpod-rest-v2.openapi.json") as server:
        body = {"name": "desk", "image": "x", "gpu": {"id": GPUS[0]["id"]}}
        status, pod = server.answer("POST", "/v2/pods", body)
        assert status == 201, pod
        monkeypatch.setenv("RUNPOD_POD_ID", pod["id"])
        monkeypatch.setenv("RUNPOD_API_URL", server.url)
        monkeypatch.setenv("RUNPOD_API_KEY", KEY)
        yield server
    assert server.violations == []


def test_the_pod_is_stopped_and_not_removed(runpod: FakeRunPod) -> None:
    assert stop_this_pod() is None
    (pod,) = runpod.state["pods"].values()
    assert pod["status"] == "EXITED"


def test_a_refusal_is_told_and_nothing_else_happens(runpod: FakeRunPod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "another")
    said = stop_this_pod(sleep=lambda _s: None)
    assert said is not None
    assert "401" in said
    assert "another" not in said


def test_elsewhere_than_on_a_pod_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNPOD_POD_ID", raising=False)
    assert "RUNPOD_POD_ID is not set" in str(stop_this_pod())


def test_time_counts_from_the_containers_start() -> None:
    assert container_age_s() > 0


def test_seconds_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="soon"):
        main(["soon"])
