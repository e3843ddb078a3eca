"""The entrypoint of the image: a Runpod Serverless worker, a pod's services, or the given command.

Not a command of its own: the image starts it as process 1 (`python -m comfypin.cli.entry [COMMAND...]`).
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_release, report_failure
from comfypin.errors import ComfypinError, ConfigError

if TYPE_CHECKING:
    from comfypin.image.container_command import ContainerService
    from comfypin.settings.entry import EntrySettings
    from comfypin.settings.environment import Settings

TEMPORARY_OUTPUT = Path("/tmp/comfy/output")  # noqa: S108 - a container's own
# Not the script `comfypin`, which need not be on PATH in a container.
COMFYPIN = (sys.executable, "-m", "comfypin.cli.main")


def main(arguments: Sequence[str]) -> int:
    """Run as process 1, or with `--health` check the running container."""
    try:
        # HEALTHCHECK of the image calls it with --health.
        return _check_health() if list(arguments) == ["--health"] else _start_services(arguments)
    except ComfypinError as error:
        report_failure(error, arguments)
        return error.exit_code


def _start_services(command: Sequence[str]) -> int:
    from comfypin.image.container_command import VOLUMES, choose_mode
    from comfypin.image.container_user import choose_user, find_mounted_volumes, switch_user
    from comfypin.image.init_process import InitProcess
    from comfypin.settings.environment import Settings

    settings = Settings(os.environ)
    entry_settings, machine = settings.entry, settings.machine
    named = (entry_settings.volume, machine.named_models_dir, entry_settings.output_dir)
    named_folders = [path for path in named if path is not None]
    volumes = find_mounted_volumes([*VOLUMES, machine.models_dir, machine.comfy_home, *named_folders])
    user_choice = choose_user(volumes)
    why_not = switch_user(user_choice)
    if why_not is not None:
        print(f"comfypin: {why_not}.", file=sys.stderr, flush=True)
    services = _choose_services(command, entry_settings, settings, [volume.path for volume in volumes])
    environment = _child_environment(settings)
    if choose_mode(command, entry_settings) == "serve":
        environment = _with_outputs_in_answers(environment, settings)
    return InitProcess(services, environment, entry_settings.grace_s, _print_message).run_services()


def _choose_services(
    command: Sequence[str], entry_settings: "EntrySettings", settings: "Settings", mounted: Sequence[Path]
) -> "tuple[ContainerService, ...]":
    from comfypin.image.container_command import (
        ContainerService,
        choose_mode,
        choose_output_folder,
        grace_arguments,
        make_pod_services,
    )

    match choose_mode(command, entry_settings):
        case "command":
            return (ContainerService(name=command[0], argv=tuple(command), main=True),)
        case "worker":
            return (
                ContainerService(
                    name="worker", argv=(*COMFYPIN, "worker", *grace_arguments(entry_settings)), main=True
                ),
            )
        case "serve":
            # ComfyUI's own page has no password, and a load balancer could not tell one worker's from another's.
            alone = replace(entry_settings, page_listen="off", stop_after_s=None)
            output = _ensure_writable(choose_output_folder(alone, settings.machine.comfy_home, mounted), is_named=False)
            lock = read_release(None, settings)
            return make_pod_services(lock, alone, comfypin=COMFYPIN, home=settings.machine.comfy_home, output=output)
        case "pod":
            lock = read_release(None, settings)
            output = _ensure_writable(
                choose_output_folder(entry_settings, settings.machine.comfy_home, mounted),
                is_named=entry_settings.output_dir is not None,
            )
            services = make_pod_services(
                lock, entry_settings, comfypin=COMFYPIN, home=settings.machine.comfy_home, output=output
            )
            # A pod without ComfyUI among its services serves other engines, which need no env.
            if any(service.name == "comfyui" for service in services):
                _realize_release(settings)
            return services


def _ensure_writable(output: Path, *, is_named: bool) -> Path:
    """Create the output folder and those beside it; a read-only container gets the temporary folder instead."""
    try:
        for folder in (output, output.with_name("input"), output.with_name("user")):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        # Only the default folder may be replaced; outputs must not go elsewhere than the user said.
        if is_named:
            raise ConfigError(
                f"COMFYPIN_OUTPUT_DIR is {output}, which cannot be made ({error.strerror}); name a folder on a volume.",
                variable="COMFYPIN_OUTPUT_DIR",
            ) from error
        return _ensure_writable(TEMPORARY_OUTPUT, is_named=True)
    return output


def _realize_release(settings: "Settings") -> None:
    """Realize the env if the image has none; a baked env is only checked."""
    from comfypin.wiring import choose_engine, ensure_env

    lock = read_release(None, settings)
    ensure_env(lock, choose_engine(lock.engine, settings), report=_print_message)


def _print_message(message: str) -> None:
    print(f"comfypin: {message}", file=sys.stderr, flush=True)


def _child_environment(settings: "Settings") -> dict[str, str]:
    """Return the services' environment, with HOME set for the user they run as."""
    home_folder = "/root" if os.geteuid() == 0 else "/home/comfy"
    # A read-only container has no home that can be written.
    return {**settings.variables, "HOME": home_folder if os.access(home_folder, os.W_OK) else "/tmp"}  # noqa: S108


def _with_outputs_in_answers(environment: dict[str, str], settings: "Settings") -> dict[str, str]:
    """Return the environment, with outputs as base64 in the answers if it names no place for them.

    A folder of this worker would do on a pod; a load balancer sends whoever asks for a file to another worker.
    """
    from comfypin.outputs.modes import named_mode
    from comfypin.storage.registry import first_configured_kind

    is_named = named_mode(settings.variables) or first_configured_kind(settings.variables)
    return environment if is_named else {**environment, "OUTPUT_MODE": "base64"}


def _check_health() -> int:
    """Return 0 if the pod's HTTP API responds, else 1; a worker or a command is healthy while it runs."""
    import http.client

    from comfypin.image.container_command import choose_mode
    from comfypin.settings.environment import Settings

    # The check is a process of its own; only process 1 knows which command was given.
    command = Path("/proc/1/cmdline").read_bytes().split(b"\0")[:-1]
    given_words = [word.decode(errors="replace") for word in command[command.index(b"comfypin.cli.entry") + 1 :]]
    settings = Settings(os.environ)
    if choose_mode(given_words, settings.entry) not in ("pod", "serve"):
        return 0
    port = settings.server.port or 8000
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return 0 if connection.getresponse().status < 300 else 1
    except OSError as error:
        print(f"comfypin: the HTTP API does not respond on port {port}: {error}.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
