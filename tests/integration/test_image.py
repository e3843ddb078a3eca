"""Images for real: a Docker daemon of our own builds the demo release, and its containers do what is promised."""

import base64
import hashlib
import io
import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from PIL import Image

from tests.conftest import ROOT
from tests.support.containers import BASE, HARDENED, Containers, assert_no_secret, registry
from tests.support.nats_servers import nats_server
from tests.support.nginx import free_port
from tests.support.runpod_queue import RunpodQueue

pytestmark = [
    pytest.mark.needs("dockerd"),
    pytest.mark.needs("docker-registry"),
    pytest.mark.needs("mmdebstrap"),
    pytest.mark.needs("skopeo"),
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("containers"),
]

DOOR = ("python", "-m", "rp_handler.main", "--lock", "lockfiles/comfy-demo.lock.json", "--output", "base64")


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text.strip().splitlines()[-1])))


def test_the_documented_smoke_test_prints_a_picture(daemon: Containers, demo: object) -> None:
    command = "echo '{}' > /tmp/empty.json; " + " ".join((*DOOR, "--workflow", "/tmp/empty.json"))
    assert picture(daemon.run("demo:1", "sh", "-c", command).stdout).size == (64, 64)


def test_it_runs_read_only_without_capabilities_and_as_any_user(daemon: Containers, demo: object) -> None:
    done = daemon.run(*HARDENED, "--user", "4321:4321", "demo:1", *DOOR, "--workflow", "workflows/demo.json")
    assert picture(done.stdout).size == (1280, 800)


def test_a_command_does_not_run_as_root(daemon: Containers, demo: object) -> None:
    assert daemon.run("demo:1", "id", "-u").stdout.strip() == "1000"


def test_a_user_can_write_a_workflow_as_the_guide_says(daemon: Containers, demo: object) -> None:
    script = "id -u; echo '{}' > /app/workflows/minimal.json && cat /app/workflows/minimal.json"
    assert daemon.run("demo:1", "sh", "-c", script).stdout.split() == ["1000", "{}"]


def test_its_list_of_contents_has_what_its_programs_find(daemon: Containers, demo: object) -> None:
    document = daemon.run("demo:1", "cat", "/app/sbom/comfy-demo.cdx.json").stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None
    listed = json.loads(document)["components"]
    debian = daemon.run("demo:1", "dpkg-query", "--show", "--showformat", "${Package} ${Version}\\n").stdout.split("\n")
    found = {f"{one['name']} {one['version']}" for one in listed if str(one.get("purl", "")).startswith("pkg:deb/")}
    assert found == {line for line in debian if line}
    count = "import importlib.metadata as m; [print(d.metadata['Name'], d.version) for d in m.distributions()]"
    python = set(daemon.run("demo:1", "/opt/comfypin/bin/python", "-c", count).stdout.split("\n")) - {""}
    assert len(python) > 50
    assert python <= {f"{one['name']} {one.get('version')}" for one in listed}


def test_an_empty_volume_is_writable(daemon: Containers, demo: object, tmp_path: Path) -> None:
    done = daemon.run("-v", f"{tmp_path}:/workspace", "demo:1", "sh", "-c", "id -u; touch /workspace/file")
    assert done.stdout.strip() == "1000"
    assert (tmp_path / "file").exists()


def test_a_volume_with_content_decides_whom_it_runs_as(daemon: Containers, demo: object, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for path in (tmp_path, tmp_path / "models"):
        os.chown(path, 2345, 2345)
    done = daemon.run("-v", f"{tmp_path}:/runpod-volume", "demo:1", "sh", "-c", "id -u; touch /runpod-volume/models/x")
    assert done.stdout.strip() == "2345"


def test_a_commands_exit_code_is_the_containers(daemon: Containers, demo: object) -> None:
    assert daemon.run("demo:1", "sh", "-c", "exit 7", check=False).returncode == 7


def test_an_unknown_command_is_127(daemon: Containers, demo: object) -> None:
    done = daemon.run("demo:1", "no-such-command", check=False)
    assert done.returncode == 127
    assert "no-such-command cannot be started" in done.stderr


def test_orphans_are_reaped(daemon: Containers, demo: object) -> None:
    script = "(sleep 0.1 &) ; (sh -c 'sleep 0.2 &') ; sleep 1; cat /proc/[0-9]*/stat | grep -c ' Z ' || true"
    assert daemon.run("demo:1", "sh", "-c", script).stdout.strip() == "0"


def test_stopping_reaches_the_command(daemon: Containers, demo: object) -> None:
    script = "trap 'echo stopped; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    name = daemon.docker("run", "--detach", "--network=none", "demo:1", "sh", "-c", script).strip()
    try:
        wait_for_log(daemon, name, "ready")
        daemon.docker("stop", "--time", "20", name)
        assert "stopped" in daemon.docker("logs", name)
        assert daemon.inspect(name)["State"]["ExitCode"] == 3  # type: ignore[index]
    finally:
        daemon.docker("rm", "--force", name)


def test_a_pod_serves_http_from_outside_is_healthy_and_stops_in_time(daemon: Containers, demo: object) -> None:
    port = free_port()
    words = ["run", "--detach", "--network=host", *HARDENED, "--user", "1000", "--health-interval=1s"]
    words += ["--env", "COMFYPIN_TOKEN=token-of-the-test", "--env", f"PORT={port}", "--env", "OUTPUT_MODE=base64"]
    name = daemon.docker(*words, "demo:1").strip()
    try:
        wait_until_ready(daemon, name, port)
        answer = post(f"http://127.0.0.1:{port}/runsync?wait=60000", {"input": {"workflow": SMOKE_GRAPH}})
        assert answer["status"] == "COMPLETED", answer
        deadline = time.monotonic() + 60
        while daemon.inspect(name)["State"]["Health"]["Status"] != "healthy":  # type: ignore[index]
            assert time.monotonic() < deadline, daemon.inspect(name)["State"]
            time.sleep(0.5)
        daemon.docker("stop", "--time", "30", name)
        assert daemon.inspect(name)["State"]["ExitCode"] in {0, 143}  # type: ignore[index]
    finally:
        daemon.docker("rm", "--force", name)


def test_on_serverless_it_takes_a_job(daemon: Containers, demo: object) -> None:
    with RunpodQueue().running() as queue:
        variables = {
            "RUNPOD_WEBHOOK_GET_JOB": f"{queue.url}/v2/ep/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{queue.url}/v2/ep/job-done/$RUNPOD_POD_ID/$ID",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{queue.url}/v2/ep/job-stream/$RUNPOD_POD_ID/$ID",
            "RUNPOD_WEBHOOK_PING": f"{queue.url}/v2/ep/ping/$RUNPOD_POD_ID",
            "RUNPOD_AI_API_KEY": "test",
            "RUNPOD_POD_ID": "pod1",
            "RUNPOD_ENDPOINT_ID": "ep",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }
        flags = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        queue.put("job-1", {"workflow": SMOKE_GRAPH})
        name = daemon.docker("run", "--detach", "--network=host", *flags, "demo:1").strip()
        try:
            answer = queue.wait("job-1", within_s=90)
            assert answer["output"]["images"][0]["filename"].endswith(".png"), answer
            daemon.docker("stop", "--time", "30", name)
            assert daemon.inspect(name)["State"]["ExitCode"] in {0, 143}  # type: ignore[index]
        finally:
            daemon.docker("rm", "--force", name)


@pytest.mark.soak
def test_in_a_fleet_one_container_takes_jobs_and_another_does_them(
    daemon: Containers, demo: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = {"NATS_SERVE_PASSWORD": "s3rve", "NATS_WORKER_PASSWORD": "w0rker"}
    for variable, password in passwords.items():
        monkeypatch.setenv(variable, password)
    logins = (ROOT / "deploy" / "fleet" / "nats.conf").read_text()
    key = base64.b64encode(os.urandom(32)).decode()
    port = free_port()
    with nats_server(tmp_path, more=logins[logins.index("authorization {") :]) as nats:
        names = []
        try:
            for user, words in (("serve", ["--port", str(port)]), ("worker", ["--grace", "20"])):
                variables = {
                    "COMFYPIN_QUEUE": nats.address,
                    "COMFYPIN_NATS_USER": user,
                    "COMFYPIN_NATS_PASSWORD": passwords[f"NATS_{user.upper()}_PASSWORD"],
                    "COMFYPIN_FLEET_KEY": key,
                    "COMFYPIN_TOKEN": "token-of-the-test",
                }
                flags = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
                begin = ["run", "--detach", "--network=host", *flags, "demo:1"]  # as deploy/fleet/compose.yaml does
                names.append(daemon.docker(*begin, "comfypin", user, *words).strip())
                if user == "serve":  # it makes the queue, which a worker's login may not
                    wait_until_ready(daemon, names[0], port)
            answer = post(f"http://127.0.0.1:{port}/runsync?wait=60000", {"input": {"workflow": SMOKE_GRAPH}})
            assert answer["status"] == "COMPLETED", (answer, daemon.all_logs(names[1]))
            assert picture(answer["output"]["images"][0]["data"]).format == "PNG"
            daemon.docker("stop", "--time", "30", names[1])
            assert daemon.inspect(names[1])["State"]["ExitCode"] in {0, 143}  # type: ignore[index]
        finally:
            for name in names:
                daemon.docker("rm", "--force", name)


def test_it_is_less_than_200_mb_over_its_base(daemon: Containers, demo: dict[str, Any]) -> None:
    base = daemon.inspect(BASE)["Size"]
    assert demo["size_bytes"] - base < 200_000_000  # type: ignore[operator]


def test_no_layer_and_no_history_holds_a_secret(daemon: Containers, demo: object, tmp_path: Path) -> None:
    assert_no_secret(daemon, "demo:1", tmp_path / "saved.tar")


def test_the_door_plans_before_it_builds(daemon: Containers, demo: object) -> None:
    door = [str(ROOT / "scripts" / "build_docker.sh"), "--version", "demo", "--tag", "demo:1", "--base", BASE]
    done = subprocess.run(
        [*door, "--dry-run", "--json"],
        capture_output=True,
        text=True,
        env=dict(daemon.environ),
        timeout=120,
        check=True,
    )
    layers = {layer["layer"]: layer for layer in json.loads(done.stdout)["layers"]}
    assert layers["comfypin"]["about_bytes"] > 0
    assert layers["system"]["cached"]


@pytest.mark.soak
def test_scanned_pushed_and_signed_it_is_pulled_by_digest_and_runs_again(
    daemon: Containers, demo: object, tmp_path: Path
) -> None:
    log, lock = tmp_path / "log", tmp_path / "comfy-demo.lock.json"
    path = {"PATH": f"{stand_ins(tmp_path, log)}:{daemon.environ['PATH']}"}
    lock.write_bytes((ROOT / "lockfiles" / "comfy-demo.lock.json").read_bytes())
    with registry(tmp_path / "registry") as address:
        words = ("image", "push", "demo:1", "--registry", f"{address}/me", "--release", str(lock), "--scan", "--sign")
        refused = daemon.comfypin(*words, environ={**path, "HOLES": "1"}, check=False)
        assert refused.returncode == 60
        assert "CVE-1" in refused.stderr
        assert not (tmp_path / "comfy-demo.image.json").exists(), "it was pushed with a known hole"

        by_digest = daemon.comfypin(*words, environ=path).stdout.strip()
        assert json.loads((tmp_path / "comfy-demo.image.json").read_text())["image"] == by_digest
        contents = (tmp_path / "comfy-demo.cdx.json").read_bytes()
        assert json.loads(contents)["bomFormat"] == "CycloneDX"
        contents_are_found_from(daemon, by_digest, contents, tmp_path / "contents")
        daemon.docker("rmi", f"{address}/me/demo:1")
        daemon.docker("pull", by_digest)
        assert picture(daemon.run(by_digest, *DOOR, "--workflow", "workflows/demo.json").stdout).format == "PNG"
    scanned, signed, attested = log.read_text().splitlines()
    assert scanned.startswith("trivy image ")
    assert scanned.endswith("image.tar: a tar archive with manifest.json")
    assert signed == f"cosign sign --yes {by_digest}"
    assert attested.startswith("cosign attest --yes --type cyclonedx --predicate ")
    assert attested.endswith(f"{by_digest}: CycloneDX")


def test_a_scanner_that_is_not_installed_is_told(daemon: Containers, demo: object) -> None:
    done = daemon.comfypin("image", "push", "demo:1", "--release", "demo", "--scan", check=False)
    assert done.returncode == 60
    assert "needs trivy, which is not installed" in done.stderr


def contents_are_found_from(daemon: Containers, by_digest: str, contents: bytes, folder: Path) -> None:
    """As a stranger to comfypin finds them, by what the specification says of a registry without lists of its own."""
    name, _, digest = by_digest.partition("@")
    plain = ("--tls-verify=false", "--raw")
    listed = json.loads(daemon.program("skopeo", "inspect", *plain, f"docker://{name}:{digest.replace(':', '-')}"))
    (entry,) = [one for one in listed["manifests"] if one["artifactType"] == "application/vnd.cyclonedx+json"]
    artifact = f"docker://{name}@{entry['digest']}"
    assert json.loads(daemon.program("skopeo", "inspect", *plain, artifact))["subject"]["digest"] == digest
    daemon.program("skopeo", "copy", "--src-tls-verify=false", artifact, f"dir:{folder}")
    assert (folder / hashlib.sha256(contents).hexdigest()).read_bytes() == contents


def stand_ins(folder: Path, log: Path) -> Path:
    """A trivy and a cosign that write down what they were asked for, and look at the file that they were given."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "trivy").write_text(
        '#!/bin/sh\nfor file; do :; done\n[ -z "$HOLES" ] || { echo "CVE-1 in libhole"; exit 1; }\n'
        f'tar tf "$file" | grep -qx manifest.json && echo "trivy $*: a tar archive with manifest.json" >>{log}\n'
    )
    (programs / "cosign").write_text(
        '#!/bin/sh\nwhat=; while [ "$1" ]; do said="$said $1"; [ "$1" != --predicate ] || what=$2; shift; done\n'
        f'[ -z "$what" ] || said="$said: $(grep -o CycloneDX "$what")"\necho "cosign$said" >>{log}\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    return programs


def test_a_wrong_credential_names_its_variable(daemon: Containers, demo: object, tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    with registry(tmp_path / "registry", htpasswd=f"me:{hashed}") as address:
        words = ("image", "push", "demo:1", "--registry", f"{address}/me", "--release", "demo", "--json")
        wrong = {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "wrong-password"}
        done = daemon.comfypin(*words, environ=wrong, check=False)
        assert done.returncode == 3
        assert "REGISTRY_PASSWORD" in json.loads(done.stdout)["error"]["message"]
        assert "wrong-password" not in done.stdout + done.stderr


SMOKE_GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}


def post(url: str, body: object) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer token-of-the-test"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=90) as answer:
        return dict(json.load(answer))


def wait_for_log(daemon: Containers, name: str, text: str, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while text not in daemon.docker("logs", name):
        assert time.monotonic() < deadline, daemon.docker("logs", name)
        time.sleep(0.1)


def wait_until_ready(daemon: Containers, name: str, port: int, within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        assert daemon.inspect(name)["State"]["Running"], daemon.all_logs(name)  # type: ignore[index]
        assert time.monotonic() < deadline, daemon.all_logs(name)
        time.sleep(0.2)
