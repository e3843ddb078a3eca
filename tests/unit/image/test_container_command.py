"""What a container does, whom it runs as, and its first process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comfypin.errors import ConfigError
from comfypin.image.container_command import choose_mode, choose_output_folder, make_pod_services
from comfypin.image.container_user import MountedVolume, UserChoice, choose_user
from comfypin.lock.model import EngineSpec, Lock
from comfypin.settings.entry import EntrySettings

HOME = Path("/opt/comfy")


def settings(**environ: str) -> EntrySettings:
    return EntrySettings.from_variables(environ)


def services(lock: Lock, entry: EntrySettings) -> dict[str, tuple[str, ...]]:
    made = make_pod_services(lock, entry, comfypin=("comfypin",), home=HOME, output=Path("/workspace/output"))
    return {service.name: service.argv for service in made}


def test_a_command_wins_over_everything() -> None:
    assert choose_mode(["bash"], settings(RUNPOD_ENDPOINT_ID="e", COMFYPIN_MODE="pod")) == "command"


def test_serverless_is_a_worker_and_all_else_a_pod() -> None:
    assert choose_mode([], settings(RUNPOD_ENDPOINT_ID="e")) == "worker"
    assert choose_mode([], settings(RUNPOD_POD_ID="p")) == "pod"
    assert choose_mode([], settings(RUNPOD_ENDPOINT_ID="e", COMFYPIN_MODE="pod")) == "pod"


def test_a_worker_behind_a_load_balancer_serves_http() -> None:
    assert choose_mode([], settings(RUNPOD_ENDPOINT_ID="e", PORT="8000")) == "serve"
    assert choose_mode([], settings(RUNPOD_ENDPOINT_ID="e", COMFYPIN_MODE="serve")) == "serve"
    # A queue's worker may have a port in its variables too.
    queue = settings(RUNPOD_ENDPOINT_ID="e", PORT="8000", RUNPOD_WEBHOOK_GET_JOB="https://x/job-take/$ID?gpu=1")
    assert choose_mode([], queue) == "worker"


def test_a_pod_that_shall_stop_has_what_stops_it() -> None:
    command = ("python", "-m", "comfypin.cli.main")
    made = make_pod_services(
        Lock(version_name="x"), settings(COMFYPIN_STOP_AFTER="7200"), comfypin=command, home=HOME, output=Path("/o")
    )
    assert made[-1].argv == ("python", "-m", "comfypin.cli.self_stop", "7200")
    assert not made[-1].main
    assert "stop" not in services(Lock(version_name="x"), settings())


def test_a_mode_that_is_none_names_its_variable() -> None:
    with pytest.raises(ConfigError, match="COMFYPIN_MODE"):
        settings(COMFYPIN_MODE="queue")


def test_a_pod_serves_shows_the_page_on_loopback_and_syncs_where_told() -> None:
    made = services(Lock(version_name="x"), settings(COMFYPIN_SYNC_TO="s3://b"))
    assert list(made) == ["comfyui", "serve", "sync"]
    assert made["comfyui"][made["comfyui"].index("--listen") + 1] == "127.0.0.1"
    assert "--engine-url" in made["serve"]
    # Compared with the lock, so that results may name it.
    assert "--comfy-home" in made["serve"]
    grace = made["serve"].index("--grace")
    assert made["serve"][grace + 1] == "20", "jobs end before the container does"


def test_without_a_page_serve_starts_its_own_engine() -> None:
    assert "--engine-url" not in services(Lock(version_name="x"), settings(COMFYPIN_PAGE_LISTEN="off"))["serve"]
    assert list(services(Lock(version_name="x", engine=EngineSpec(kind="embedded")), settings())) == ["serve"]


def test_outputs_lie_on_the_volume_where_there_is_one() -> None:
    assert choose_output_folder(settings(), HOME, [Path("/workspace")]) == Path("/workspace/output")
    assert choose_output_folder(settings(), HOME, []) == HOME / "output"
    assert choose_output_folder(settings(COMFYPIN_OUTPUT_DIR="/o"), HOME, [Path("/workspace")]) == Path("/o")
    elsewhere = settings(COMFYPIN_VOLUME="/data/comfy")
    assert choose_output_folder(elsewhere, HOME, [Path("/data/comfy")]) == Path("/data/comfy/output")


def test_an_empty_volume_is_given_to_our_user() -> None:
    volume = MountedVolume(Path("/workspace"), 0, 0, empty=True)
    assert choose_user([volume]) == UserChoice(1000, 1000, (Path("/workspace"),))


def test_a_volume_with_content_decides() -> None:
    assert choose_user([MountedVolume(Path("/workspace"), 0, 0, empty=False)]) == UserChoice(0, 0)


INIT = """
import os, sys, time
from comfypin.image.container_command import ContainerService
from comfypin.image.init_process import InitProcess
services = [
    ContainerService(name=f"s{n}", argv=("sh", "-c", script), main=n == 0)
    for n, script in enumerate(sys.argv[2:])
]
process = InitProcess(services, dict(os.environ), float(sys.argv[1]), lambda text: print(text, flush=True))
sys.exit(process.run_services())
"""


def init(*scripts: str, grace_s: float = 5) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", INIT, str(grace_s), *scripts], stdout=subprocess.PIPE, text=True)


def test_it_ends_with_the_code_of_the_main_service_and_takes_the_others_with_it() -> None:
    process = init("sleep 0.5; exit 9", "exec sleep 600")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 9, out


def test_a_side_service_that_ends_is_started_again() -> None:
    process = init("sleep 4; exit 0", "echo side; exit 1")
    out, _ = process.communicate(timeout=30)
    assert out.count("side\n") >= 2


def test_what_ignores_the_stop_is_killed_after_the_grace() -> None:
    process = init("trap '' TERM; echo ready; while :; do sleep 0.1; done", grace_s=0.5)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGKILL


def test_a_killed_main_service_is_told_as_shells_do() -> None:
    process = init("kill -SEGV $$")
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGSEGV


def test_other_signals_are_handed_on() -> None:
    process = init("trap 'echo heard; exit 0' USR1; echo ready; while :; do sleep 0.1; done")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGUSR1)
    out, _ = process.communicate(timeout=30)
    assert out == "heard\n"
