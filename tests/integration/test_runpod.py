"""plan, apply and destroy against a Runpod that keeps state and checks every request by Runpod's own OpenAPI."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from comfypin.digest import Digest
from comfypin.errors import ConfigError
from comfypin.http.client import HttpClient, HttpTransport
from comfypin.runpod.apply import apply_plan, destroy_resources, survey_account, wait_for_workers
from comfypin.runpod.deployment_file import Deployment
from comfypin.runpod.deployment_plan import DeploymentStep, leftover_resources, owned_resources, plan_deployment
from comfypin.runpod.desired_state import desired_state
from comfypin.runpod.endpoint_client import run_endpoint_job
from comfypin.runpod.errors import ApiRefused, ApiUnreachable, DeploymentInvalid, NotOurs, WaitedTooLong
from comfypin.runpod.management_api import ManagementApi
from comfypin.runpod.release_facts import ReleaseFacts
from tests.conftest import shared_path
from tests.support.runpod_api import KEY, FakeRunPod, Fault

IMAGE = "ghcr.io/me/x@sha256:" + "1" * 64
FACTS = ReleaseFacts(
    name="wan22",
    digest=Digest.of(b"lock"),
    cuda="12.8",
    models_bytes=0,
    largest_model_bytes=0,
    container_disk_gb=12,
)
DOCUMENT: dict[str, Any] = {
    "name": "shop",
    "release": "wan22",
    "image": IMAGE,
    "env": {"HF_TOKEN": "{{ RUNPOD_SECRET_hf }}"},
    "registry": [{"name": "ghcr", "username_env": "GHCR_USER", "password_env": "GHCR_TOKEN"}],
    "volume": [{"name": "models", "data_center": "EU-RO-1", "size": 100}],
    "template": [
        {"name": "worker", "registry": "ghcr"},
        {"name": "studio", "kind": "pod", "ports": ["8000/http", "22/tcp"]},
    ],
    "endpoint": [{"name": "api", "template": "worker", "gpu_pools": ["ADA_24"], "volumes": ["models"]}],
    "pod": [{"name": "desk", "template": "studio", "gpu": "NVIDIA GeForce RTX 4090", "volume": "models"}],
}
CREDENTIALS = {"GHCR_USER": "me", "GHCR_TOKEN": "a-token"}


@pytest.fixture
def runpod() -> Iterator[FakeRunPod]:
    with FakeRunPod(shared_path("openapi") / "runpod-rest-v2.openapi.json") as server:
        yield server
    assert server.violations == []


@pytest.fixture
def api(runpod: FakeRunPod) -> ManagementApi:
    return ManagementApi(key=KEY, base_url=runpod.url, sleep=lambda _s: None)


def planned(api: ManagementApi, **changes: Any) -> tuple[DeploymentStep, ...]:
    deployment = TypeAdapter(Deployment).validate_python({**DOCUMENT, **changes})
    return plan_deployment(deployment.name, desired_state(deployment, FACTS), survey_account(api))


def verbs(steps: tuple[DeploymentStep, ...]) -> dict[str, str]:
    return {f"{step.desired.kind} {step.desired.name}": step.verb for step in steps}


def applied(api: ManagementApi, **changes: Any) -> None:
    apply_plan(api, planned(api, **changes), variables=CREDENTIALS)


def test_an_empty_account_gets_everything_in_order(api: ManagementApi, runpod: FakeRunPod) -> None:
    assert set(verbs(planned(api)).values()) == {"create"}
    applied(api)
    kinds = [path for method, path in runpod.log if method == "POST"]
    assert kinds == [
        "/v2/registries",
        "/v2/network-volumes",
        "/v2/templates",
        "/v2/templates",
        "/v2/serverless",
        "/v2/pods",
    ]
    endpoint = runpod.named("endpoints", "comfypin-shop-api")
    volume = runpod.named("networkVolumes", "comfypin-shop-models")
    assert endpoint["networkVolumes"] == [volume["id"]]
    assert endpoint["gpu"]["minCudaVersion"] == "12.8"
    assert endpoint["env"]["COMFYPIN_LOCK_DIGEST"] == str(FACTS.digest)
    assert endpoint["registry"] == runpod.named("registries", "comfypin-shop-ghcr")["id"]


def test_a_second_apply_sends_no_write(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    runpod.log.clear()
    assert set(verbs(planned(api)).values()) == {"unchanged"}
    applied(api)
    assert runpod.writes == []


def test_a_changed_file_changes_only_what_differs_field_by_field(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    endpoint = [{**DOCUMENT["endpoint"][0], "workers": {"max": 7}, "timeout": 1200}]
    steps = planned(api, endpoint=endpoint)
    changed = [step for step in steps if step.verb != "unchanged"]
    assert [step.desired.name for step in changed] == ["api"]
    assert {(c.path, c.before, c.after) for c in changed[0].changes} == {
        ("workers.max", 3, 7),
        ("timeout", 600_000, 1_200_000),
    }
    apply_plan(api, steps, variables=CREDENTIALS)
    assert runpod.named("endpoints", "comfypin-shop-api")["workers"]["max"] == 7
    assert set(verbs(planned(api, endpoint=endpoint)).values()) == {"unchanged"}


def test_drift_in_the_console_is_seen_and_mended(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    endpoint = runpod.named("endpoints", "comfypin-shop-api")
    endpoint["env"]["EXTRA"] = "typed in the console"
    endpoint["flashboot"] = "OFF"
    (step,) = [step for step in planned(api) if step.verb == "change"]
    assert {change.path for change in step.changes} == {"env.EXTRA", "flashboot"}
    applied(api)
    assert "EXTRA" not in runpod.named("endpoints", "comfypin-shop-api")["env"]


def test_the_mark_survives_a_change_of_the_environment(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    applied(api, env={"OTHER": "1"})
    assert runpod.named("templates", "comfypin-shop-worker")["env"]["COMFYPIN_DEPLOYMENT"] == "shop"


def test_another_gpu_replaces_the_pod(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    before = runpod.named("pods", "comfypin-shop-desk")["id"]
    pod = [{**DOCUMENT["pod"][0], "gpu": "NVIDIA L40S"}]
    assert verbs(planned(api, pod=pod))["pod desk"] == "replace"
    applied(api, pod=pod)
    assert len(runpod.state["pods"]) == 1
    assert runpod.named("pods", "comfypin-shop-desk")["id"] != before


def test_a_volume_is_grown_but_never_shrunk_or_moved(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    applied(api, volume=[{**DOCUMENT["volume"][0], "size": 200}])
    assert runpod.named("networkVolumes", "comfypin-shop-models")["size"] == 200
    with pytest.raises(DeploymentInvalid, match="only grow"):
        planned(api)
    with pytest.raises(DeploymentInvalid, match="another name"):
        planned(api, volume=[{**DOCUMENT["volume"][0], "data_center": "US-TX-3", "size": 200}])


def test_an_existing_volume_is_used_and_never_written(api: ManagementApi, runpod: FakeRunPod) -> None:
    api.create_resource("volume", {"name": "mine", "size": 500, "dataCenter": "EU-RO-1"})
    runpod.log.clear()
    changes: dict[str, Any] = {
        "volume": [{"name": "mine", "data_center": "EU-RO-1", "existing": True}],
        "endpoint": [{**DOCUMENT["endpoint"][0], "volumes": ["mine"]}],
        "pod": [],
    }
    applied(api, **changes)
    assert ("POST", "/v2/network-volumes") not in runpod.log
    assert [str(item["name"]) for kind, item in owned_resources("shop", survey_account(api)) if kind == "volume"] == []


def test_a_name_that_is_not_ours_is_left_alone(api: ManagementApi, runpod: FakeRunPod) -> None:
    body = {"name": "comfypin-shop-api", "image": "x", "type": "QUEUE", "gpu": {"pools": ["ADA_24"]}}
    api.create_resource("endpoint", {**body, "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}})
    with pytest.raises(NotOurs, match="was not made by this deployment"):
        planned(api)


def test_what_failed_half_way_is_resumed(api: ManagementApi, runpod: FakeRunPod) -> None:
    runpod.faults.append(Fault("POST", "/v2/serverless", status=422, times=1))
    with pytest.raises(ApiRefused, match="as the test wishes"):
        applied(api)
    assert len(runpod.state["templates"]) == 2
    assert verbs(planned(api)) == {
        "registry ghcr": "unchanged",
        "volume models": "unchanged",
        "template worker": "unchanged",
        "template studio": "unchanged",
        "endpoint api": "create",
        "pod desk": "create",
    }
    applied(api)
    assert len(runpod.state["endpoints"]) == len(runpod.state["pods"]) == 1


@pytest.mark.parametrize("cut", [True, False])
def test_an_answer_lost_after_creating_makes_nothing_twice(api: ManagementApi, runpod: FakeRunPod, cut: bool) -> None:
    runpod.faults.append(Fault("POST", "/v2/network-volumes", status=502, cut=cut, after_acting=True))
    applied(api)
    assert len(runpod.state["networkVolumes"]) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_waited_out(api: ManagementApi, runpod: FakeRunPod, status: int) -> None:
    runpod.faults.append(Fault("GET", "/v2/pods", status=status, times=3))
    assert planned(api)


def test_the_wait_is_what_the_server_asks_for(runpod: FakeRunPod) -> None:
    waits: list[float] = []
    api = ManagementApi(key=KEY, base_url=runpod.url, sleep=waits.append)
    runpod.faults.append(Fault("GET", "/v2/pods", status=429, headers={"Retry-After": "7"}))
    runpod.faults.append(
        Fault("GET", "/v2/pods", status=429, headers={"RateLimit": '"minute";r=0;t=13, "day";r=9;t=99'})
    )
    api.list_resources("pod")
    assert [7 <= waits[0] <= 8, 13 <= waits[1] <= 15] == [True, True]


def test_trouble_that_stays_is_one_sentence(api: ManagementApi, runpod: FakeRunPod) -> None:
    runpod.faults.append(Fault("GET", "/v2/pods", cut=True, times=99))
    with pytest.raises(ApiUnreachable, match="did not answer GET /v2/pods"):
        survey_account(api)


@pytest.mark.parametrize(("status", "advice"), [(401, "Check RUNPOD_API_KEY"), (403, "permission"), (409, "again")])
def test_a_refusal_says_what_to_do(api: ManagementApi, runpod: FakeRunPod, status: int, advice: str) -> None:
    runpod.faults.append(Fault("GET", "/v2/.*", status=status, times=99))
    with pytest.raises(ApiRefused, match=advice):
        survey_account(api)


def test_a_wrong_key_is_refused_and_never_printed(runpod: FakeRunPod) -> None:
    key = "rpa_SECRETSECRETSECRETSECRETSECRET"
    api = ManagementApi(key=key, base_url=runpod.url, sleep=lambda _s: None)
    with pytest.raises(ApiRefused) as caught:
        survey_account(api)
    assert caught.value.status == 401
    assert key not in repr(caught.value) + str(caught.value) + repr(api)


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    api = ManagementApi(key=KEY, base_url="http://127.0.0.1:9", sleep=lambda _s: None)
    with pytest.raises(ApiUnreachable, match="did not answer"):
        survey_account(api)


def test_missing_registry_credentials_name_the_variable(api: ManagementApi) -> None:
    with pytest.raises(ConfigError, match="GHCR_TOKEN"):
        apply_plan(api, planned(api), variables={"GHCR_USER": "me"})


def test_destroy_takes_only_what_is_ours_users_first(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    api.create_resource("volume", {"name": "somebody-elses", "size": 10, "dataCenter": "EU-RO-1"})
    applied(api, name="other", pod=[], endpoint=[], volume=[], registry=[], template=[{"name": "worker"}])
    ours = owned_resources("shop", survey_account(api))
    assert [kind for kind, _ in ours] == ["pod", "endpoint", "template", "template", "volume", "registry"]
    destroy_resources(api, ours)
    names = [item["name"] for items in runpod.state.values() for item in items.values()]
    assert names == ["somebody-elses", "comfypin-other-worker"]


def test_a_deployment_whose_name_begins_like_ours_is_not_ours(api: ManagementApi) -> None:
    applied(api, name="shop-two", registry=[], volume=[], endpoint=[], pod=[], template=[{"name": "worker"}])
    assert owned_resources("shop", survey_account(api)) == []


def test_waiting_ends_when_a_worker_is_ready_and_says_what_it_saw_otherwise(
    api: ManagementApi, runpod: FakeRunPod
) -> None:
    applied(api)
    endpoint = runpod.named("endpoints", "comfypin-shop-api")["id"]
    wait_for_workers(api, endpoint, wanted_count=1, timeout_s=1)
    runpod.worker_states[:] = ["INITIALIZING", "THROTTLED"]
    with pytest.raises(WaitedTooLong, match="INITIALIZING, THROTTLED"):
        wait_for_workers(api, endpoint, wanted_count=1, timeout_s=0)


def test_a_lost_answer_makes_no_second_endpoint_though_flashboot_changes_its_name(
    api: ManagementApi, runpod: FakeRunPod
) -> None:
    runpod.faults.append(Fault("POST", "/v2/serverless", cut=True, after_acting=True))
    applied(api)
    (endpoint,) = runpod.state["endpoints"].values()
    assert endpoint["name"] == "comfypin-shop-api -fb"


def test_a_job_whose_answer_was_lost_is_not_sent_twice(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    endpoint = runpod.named("endpoints", "comfypin-shop-api")["id"]
    jobs = ManagementApi(key=KEY, base_url=f"{runpod.url}/job", sleep=lambda _s: None)
    runpod.faults.append(Fault("POST", "/job/.*/run", cut=True, after_acting=True))
    with pytest.raises(ApiUnreachable):
        run_endpoint_job(jobs, endpoint, {"workflow": {}}, timeout_s=5)
    assert len(runpod.jobs) == 1


def test_a_job_is_sent_again_when_it_was_told_to_wait(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    endpoint = runpod.named("endpoints", "comfypin-shop-api")["id"]
    jobs = ManagementApi(key=KEY, base_url=f"{runpod.url}/job", sleep=lambda _s: None)
    runpod.faults.append(Fault("POST", "/job/.*/run", status=429))
    assert run_endpoint_job(jobs, endpoint, {"workflow": {}}, timeout_s=5) == {}
    assert len(runpod.jobs) == 1


def test_a_window_that_is_used_up_holds_the_next_request(runpod: FakeRunPod) -> None:
    waits: list[float] = []
    api = ManagementApi(key=KEY, base_url=runpod.url, sleep=waits.append)
    api.quota.note_headers({"RateLimit": '"minute";r=0;t=9, "day";r=100;t=999'})
    api.list_resources("pod")
    api.list_resources("pod")
    assert [round(seconds) for seconds in waits] == [9]


def test_workers_and_pods_look_for_models_on_their_volume(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    endpoint, pod = runpod.named("endpoints", "comfypin-shop-api"), runpod.named("pods", "comfypin-shop-desk")
    assert endpoint["env"]["MODELS_DIR"] == "/runpod-volume/models"
    assert endpoint["env"]["COMFYPIN_PACKS"] == "/runpod-volume/packs"
    assert pod["env"]["MODELS_DIR"] == "/workspace/models"
    applied(api, env={"MODELS_DIR": "/elsewhere"})
    assert runpod.named("endpoints", "comfypin-shop-api")["env"]["MODELS_DIR"] == "/elsewhere"


def test_what_is_not_in_the_file_any_more_is_told_and_left_alone(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    steps = planned(api, pod=[])
    assert [(kind, item["name"]) for kind, item in leftover_resources("shop", steps, survey_account(api))] == [
        ("pod", "comfypin-shop-desk")
    ]
    apply_plan(api, steps, variables=CREDENTIALS)
    assert len(runpod.state["pods"]) == 1


def test_a_slow_answer_is_given_up_and_asked_for_again(runpod: FakeRunPod) -> None:
    client = HttpClient(transport=HttpTransport(timeout_s=0.3))
    api = ManagementApi(key=KEY, base_url=runpod.url, sleep=lambda _s: None, client=client)
    runpod.faults.append(Fault("GET", "/v2/pods", delay_s=1))
    assert api.list_resources("pod") == []
    runpod.faults.append(Fault("GET", "/v2/pods", delay_s=1, times=99))
    with pytest.raises(ApiUnreachable, match="it sent nothing for too long"):
        api.list_resources("pod")


def test_what_is_on_later_pages_of_a_list_is_found_and_removed(api: ManagementApi, runpod: FakeRunPod) -> None:
    applied(api)
    ours = dict(runpod.state["templates"])
    template = next(iter(ours.values()))
    # Ours come last, on the fifth page.
    others = {f"other{number}": {**template, "id": f"other{number}", "name": f"other-{number}"} for number in range(8)}
    runpod.state["templates"] = others | runpod.state["templates"]
    assert [item["id"] for item in api.list_resources("template")] == [*others, *ours]
    writes = len(runpod.writes)
    applied(api)
    assert len(runpod.writes) == writes, "nothing is made twice"


@pytest.mark.parametrize("cursor", ["same", "counting"])
def test_pages_without_an_end_are_no_list(runpod: FakeRunPod, cursor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A thousand real requests would show no more.
    monkeypatch.setattr("comfypin.runpod.management_api._MOST_PAGES", 20)
    asked = itertools.count()

    def page(_answer: Any, collection: str, _query: Any) -> dict[str, Any]:
        next_cursor = cursor if cursor == "same" else str(next(asked))
        return {collection: [], "pagination": {"hasNextPage": True, "nextCursor": next_cursor}}

    runpod._page = page  # type: ignore[method-assign]
    with pytest.raises(ApiUnreachable, match="the pages of the answer do not end"):
        ManagementApi(key=KEY, base_url=runpod.url, sleep=lambda _s: None).list_resources("pod")


def test_an_answer_that_is_not_paged_is_the_whole_list(runpod: FakeRunPod, api: ManagementApi) -> None:
    applied(api)
    runpod._page = lambda answer, _collection, _query: answer  # type: ignore[method-assign]
    assert {item["name"] for item in api.list_resources("pod")} == {"comfypin-shop-desk"}
