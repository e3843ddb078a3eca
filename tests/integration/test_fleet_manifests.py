"""What we ship for running a fleet is valid by the rules of those who read it, and says what the code does."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").rglob("*.yaml") if path.name != "kustomization.yaml")


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_kubernetes_would_take_a_manifest(path: Path, tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for document in documents(path):
        if document["apiVersion"].startswith("keda.sh/"):
            continue
        validate.validate(document, "1.31", strict=True)


def test_a_wrong_manifest_is_found() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    (document,) = [one for one in documents(DEPLOY / "kubernetes/base/serve.yaml") if one["kind"] == "Deployment"]
    document["spec"]["replicas"] = "two"
    with pytest.raises(validate.ValidationError):
        validate.validate(document, "1.31", strict=True)


def test_keda_would_take_the_scaler() -> None:
    models = pytest.importorskip("cloudcoil.models.keda.v1alpha1")
    (document,) = [
        one for one in documents(DEPLOY / "kubernetes/example/workers.yaml") if one["kind"] == "ScaledObject"
    ]
    scaled = models.ScaledObject.model_validate(document)
    assert scaled.spec.min_replica_count == 0
    assert len(scaled.spec.triggers) == 4
    document["spec"]["minReplicaCount"] = "none"
    with pytest.raises(ValueError, match="minReplicaCount"):
        models.ScaledObject.model_validate(document)


def test_a_scaler_watches_the_lanes_that_its_workers_serve() -> None:
    names = pytest.importorskip("comfypin.queue.nats.names")
    deployment, scaler = documents(DEPLOY / "kubernetes/example/workers.yaml")
    command = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    gpu_class = command[command.index("--class") + 1]
    watched = {trigger["metadata"]["consumer"] for trigger in scaler["spec"]["triggers"]}
    (release,) = {consumer.rpartition("_")[2] for consumer in watched}
    assert watched == {lane.consumer for lane in names.lanes_of_worker(release, gpu_class)}
    assert {trigger["metadata"]["stream"] for trigger in scaler["spec"]["triggers"]} == {names.JOBS_STREAM}


def test_a_running_job_gets_its_grace_before_kubernetes_kills() -> None:
    deployment, _ = documents(DEPLOY / "kubernetes/example/workers.yaml")
    pod = deployment["spec"]["template"]["spec"]
    command = pod["containers"][0]["args"]
    assert int(command[command.index("--grace") + 1]) < pod["terminationGracePeriodSeconds"]


def test_a_running_job_gets_its_grace_before_compose_kills() -> None:
    worker = yaml.safe_load((DEPLOY / "fleet/compose.yaml").read_text())["services"]["gpu0"]
    command = worker["command"]
    assert int(command[command.index("--grace") + 1]) < int(worker["stop_grace_period"].removesuffix("s"))


def test_both_configurations_of_nats_allow_a_worker_the_same() -> None:
    (config,) = [one for one in documents(DEPLOY / "kubernetes/base/nats.yaml") if one["kind"] == "ConfigMap"]
    subjects = [
        set(re.findall(r'"((?:\$|comfypin|_INBOX)[^"]+)"', text))
        for text in ((DEPLOY / "fleet/nats.conf").read_text(), config["data"]["nats.conf"])
    ]
    assert subjects[0] == subjects[1]
    assert "$JS.ACK.COMFYPIN_JOBS.>" in subjects[0]


def test_compose_takes_its_file() -> None:
    compose = pytest.importorskip("compose")
    # pip's wrapper exits 0 whatever Compose says, so the binary itself is asked.
    binary = Path(next(iter(compose.__path__))) / "docker-compose"
    settings = ("COMFYPIN_TOKEN", "NATS_SERVE_PASSWORD", "NATS_WORKER_PASSWORD", "COMFYPIN_FLEET_KEY")
    environment = {"COMFYPIN_IMAGE": "you/mine:1", "HOME": "/tmp", **dict.fromkeys(settings, "x")}
    file = DEPLOY / "fleet" / "compose.yaml"
    told = subprocess.run(
        [binary, "-f", file, "config", "--format", "json"], env=environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    services = yaml.safe_load(told.stdout)["services"]
    assert set(services) == {"nats", "serve", "gpu0", "gpu1"}
    del environment["NATS_SERVE_PASSWORD"]
    refused = subprocess.run(
        [binary, "-f", file, "config", "-q"], env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "NATS_SERVE_PASSWORD" in refused.stderr


def test_every_command_in_them_exists() -> None:
    commands = [
        container["args"]
        for path in MANIFESTS
        for document in documents(path)
        if document["kind"] in ("Deployment", "StatefulSet")
        for container in document["spec"]["template"]["spec"]["containers"]
        if container["args"][0] == "comfypin"
    ]
    services = yaml.safe_load((DEPLOY / "fleet/compose.yaml").read_text())["services"].values()
    commands += [service["command"] for service in services if service["command"][0] == "comfypin"]
    assert len(commands) >= 4
    for _, noun, *flags in commands:
        helped = subprocess.run(
            [sys.executable, "-m", "comfypin.cli.main", noun, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert [flag for flag in flags if flag.startswith("--") and flag not in helped] == []
