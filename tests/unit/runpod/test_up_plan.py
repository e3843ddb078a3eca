"""The plan of `comfypin runpod up`: what is there is kept, what is wanted is made, and no secret is in it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from comfypin.digest import Digest
from comfypin.runpod.desired_state import desired_state
from comfypin.runpod.release_facts import ReleaseFacts
from comfypin.runpod.up.errors import LockTooLarge
from comfypin.runpod.up.numbering import number_release
from comfypin.runpod.up.plan import (
    SecretWish,
    UpFacts,
    UpPlan,
    fill_pod_body,
    fill_pod_name,
    make_deployment,
    plan_up,
    secret_name,
    volume_size_gb,
)
from comfypin.runpod.up.state import UpRelease, UpState

DIGEST = Digest.of(b"lock")
LOCK_FACTS = ReleaseFacts(
    name="card", digest=DIGEST, cuda=None, models_bytes=10**10, largest_model_bytes=10**10, container_disk_gb=12
)
RELEASE = UpRelease(
    number=1,
    release="card",
    lock_digest=str(DIGEST),
    image="ghcr.io/you/worker@sha256:" + "a" * 64,
    gpu_pools=("ADA_24",),
    data_center="EU-RO-1",
    volume_gb=13,
    workflow_sha256="w",
)


def facts(**live: list[dict[str, Any]]) -> UpFacts:
    return UpFacts(release_facts=LOCK_FACTS, carried_lock="text", live=live)  # type: ignore[arg-type]


def live_volume(size: int = 13) -> dict[str, Any]:
    return {"id": "vol1", "name": "comfypin-card-data", "size": size, "dataCenter": "EU-RO-1"}


def live_endpoint(release: UpRelease, known: UpFacts) -> dict[str, Any]:
    deployment = make_deployment("card", release, known)
    (body,) = [dict(item.body) for item in desired_state(deployment, LOCK_FACTS) if item.kind == "endpoint"]
    return {**body, "id": "end1", "networkVolumes": ["vol1"]}


def verbs(plan: UpPlan) -> list[tuple[str, str]]:
    return [(step.verb, step.desired.kind) for step in plan.resources]


def test_from_nothing_everything_is_made() -> None:
    plan = plan_up("card", RELEASE, facts(), UpState(name="card"))
    assert verbs(plan) == [("create", "volume"), ("create", "endpoint")]
    assert plan.fill is not None
    assert (plan.fill.is_done, plan.smoke) == (False, True)


def test_what_is_there_and_proven_is_left_alone() -> None:
    known = facts(volume=[live_volume()])
    known = replace(known, live={**known.live, "endpoint": [live_endpoint(RELEASE, known)]})
    state = UpState(name="card", releases=(replace(RELEASE, stage="proven"),)).with_filled("vol1", str(DIGEST))
    assert plan_up("card", RELEASE, known, state).is_empty


def test_a_volume_filled_for_another_lock_is_filled_again_and_never_shrinks() -> None:
    state = UpState(name="card").with_filled("vol1", str(Digest.of(b"other")))
    plan = plan_up("card", RELEASE, facts(volume=[live_volume(40)]), state)
    assert verbs(plan) == [("unchanged", "volume"), ("create", "endpoint")]
    assert plan.fill is not None
    assert not plan.fill.is_done
    assert plan.release.volume_gb == 40


def test_a_pod_that_fills_for_this_lock_goes_on_and_others_are_removed() -> None:
    ours = {"id": "pod1", "name": fill_pod_name("card", str(DIGEST))}
    old = {"id": "pod2", "name": fill_pod_name("card", str(Digest.of(b"old")))}
    plan = plan_up("card", RELEASE, facts(volume=[live_volume()], pod=[old, ours]), UpState(name="card"))
    assert plan.fill is not None
    assert plan.fill.live == ours
    assert plan.idle_pods == (old,)


def test_a_worker_finds_the_lock_on_the_volume_and_the_pod_in_a_variable() -> None:
    plan = plan_up("card", RELEASE, facts(), UpState(name="card"))
    assert plan.deployment.env["LOCK_PATH"] == f"/runpod-volume/comfypin/locks/{DIGEST.hex}.lock.json"
    body = fill_pod_body(plan, facts(), cpu="cpu5c", vcpus=4, volume_id="vol1")
    variables = body["env"]
    assert isinstance(variables, dict)
    assert variables["COMFYPIN_LOCK_DATA"] == "text"
    assert variables["MODELS_DIR"] == "/runpod-volume/models"
    assert body["mounts"] == {"network": [{"volumeId": "vol1", "path": "/runpod-volume"}]}


def test_without_a_volume_the_lock_is_a_variable_or_an_address() -> None:
    bare = replace(RELEASE, volume_gb=None, data_center=None)
    assert plan_up("card", bare, facts(), UpState(name="card")).deployment.env["COMFYPIN_LOCK_DATA"] == "text"
    by_address = replace(bare, lock_url="https://you/lock.json#sha256=" + "0" * 64)
    variables = plan_up("card", by_address, facts(), UpState(name="card")).deployment.env
    assert "COMFYPIN_LOCK_DATA" not in variables
    assert variables["COMFYPIN_LOCK_URL"] == by_address.lock_url


def test_a_lock_that_no_variable_holds_needs_an_address() -> None:
    large = replace(facts(), carried_lock="x" * 100_000)
    with pytest.raises(LockTooLarge):
        plan_up("card", replace(RELEASE, volume_gb=None), large, UpState(name="card"))


def test_a_secret_is_in_the_plan_by_its_name_only() -> None:
    wish = SecretWish(variable="HF_TOKEN", secret_name=secret_name("my-card", "HF_TOKEN"), own_value=True)
    known = replace(facts(), secrets=(wish,), known_secrets=frozenset({"comfypin_my_card_HF_TOKEN"}))
    (step,) = plan_up("card", RELEASE, known, UpState(name="card")).secrets
    assert (step.secret_name, step.is_there) == ("comfypin_my_card_HF_TOKEN", True)


def test_a_release_that_was_only_planned_gives_its_number_away() -> None:
    state = UpState(
        name="card", releases=(replace(RELEASE, number=1, stage="proven"), replace(RELEASE, number=2, image="x"))
    )
    assert number_release(replace(RELEASE, image="y"), state).number == 2
    assert number_release(replace(RELEASE, image="x"), state).number == 2
    deployed = state.with_release(replace(RELEASE, number=2, image="x", stage="deployed"))
    assert number_release(replace(RELEASE, image="y"), deployed).number == 3


def test_a_volume_holds_the_models_the_env_and_a_fifth_more() -> None:
    assert volume_size_gb(LOCK_FACTS, builds_env=True) == 24
    assert volume_size_gb(replace(LOCK_FACTS, models_bytes=0), builds_env=False) == 10


def test_a_state_is_read_as_it_was_written(tmp_path: Any) -> None:
    from comfypin.runpod.up.state import StateFolder

    folder = StateFolder(root=tmp_path, name="card")
    release = replace(RELEASE, env={"A": "{{ RUNPOD_SECRET_x }}"}, seconds={"job": 1.5}, stage="proven")
    state = UpState(name="card", releases=(release,), filled=frozenset({"vol1 sha256:0"}), lock_request="r")
    folder.write(state)
    assert folder.read() == state
    assert json.loads(folder.path.read_text())["releases"][0]["number"] == 1
