"""The entry of the image: a RunPod Serverless worker, a pod's services, or the command given.

Not a command of its own: the image starts it as process 1 (`python -m comfypin.cli.entry [COMMAND...]`).
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_release, report_failure
from comfypin.errors import ComfypinError, ConfigError

if TYPE_CHECKING:
    from comfypin.image.container_command import Service
    from comfypin.settings.entry import EntrySettings
    from comfypin.settings.environment import Settings

TEMPORARY = Path("/tmp/comfy/output")  # noqa: S108 - a container's own
COMFYPIN = (sys.executable, "-m", "comfypin.cli.main")


def main(arguments: Sequence[str]) -> int:
    """Run as process 1, or with `--health` say whether the container is well."""
    try:
        return _health() if list(arguments) == ["--health"] else _enter(arguments)
    except ComfypinError as error:
        report_failure(error, arguments)
        return error.exit_code


def _enter(command: Sequence[str]) -> int:
    from comfypin.image.container_command import VOLUMES
    from comfypin.image.container_user import become, choose_user, survey_volumes
    from comfypin.image.init_process import Init
    from comfypin.settings.environment import Settings

    settings = Settings(os.environ)
    entry, machine = settings.entry, settings.machine
    named = [path for path in (machine.named_models_dir, entry.output_dir) if path is not None]
    volumes = survey_volumes([*VOLUMES, machine.models_dir, machine.comfy_home, *named])
    choice = choose_user(volumes)
    why_not = become(choice)
    if why_not is not None:
        print(f"comfypin: {why_not}.", file=sys.stderr, flush=True)
    services = _services(command, entry, settings, [volume.path for volume in volumes])
    return Init(services, _environment(settings), entry.grace_s, _say).run()


def _services(
    command: Sequence[str], entry: "EntrySettings", settings: "Settings", mounted: Sequence[Path]
) -> "tuple[Service, ...]":
    from comfypin.image.container_command import Service, choose_mode, jobs_grace, output_folder, pod_services

    match choose_mode(command, entry):
        case "command":
            return (Service(name=command[0], argv=tuple(command), main=True),)
        case "worker":
            return (Service(name="worker", argv=(*COMFYPIN, "worker", *jobs_grace(entry)), main=True),)
        case "pod":
            lock = read_release(None, settings)
            output = _writable(
                output_folder(entry, settings.machine.comfy_home, mounted), named=entry.output_dir is not None
            )
            services = pod_services(lock, entry, comfypin=COMFYPIN, home=settings.machine.comfy_home, output=output)
            if any(service.name == "comfyui" for service in services):
                _realize(settings)
            return services


def _writable(output: Path, *, named: bool) -> Path:
    """The folder of outputs, made with those beside it; in a read-only container the temporary folder takes them."""
    try:
        for folder in (output, output.with_name("input"), output.with_name("user")):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if named:
            raise ConfigError(
                f"COMFYPIN_OUTPUT_DIR is {output}, which cannot be made ({error.strerror}); name a folder on a volume.",
                variable="COMFYPIN_OUTPUT_DIR",
            ) from error
        return _writable(TEMPORARY, named=True)
    return output


def _realize(settings: "Settings") -> None:
    """Bring the env where the image has none; what is baked is only looked at."""
    from comfypin.wiring import choose_engine, ensure_env

    lock = read_release(None, settings)
    ensure_env(lock, choose_engine(lock.engine, settings), tell=_say)


def _say(text: str) -> None:
    print(f"comfypin: {text}", file=sys.stderr, flush=True)


def _environment(settings: "Settings") -> dict[str, str]:
    """The children's environment: their home is that of whom they run as."""
    home = "/root" if os.geteuid() == 0 else "/home/comfy"
    return {**settings.variables, "HOME": home if os.access(home, os.W_OK) else "/tmp"}  # noqa: S108


def _health() -> int:
    """Whether a pod's HTTP API answers; a worker or a command is well while it runs."""
    import http.client

    from comfypin.image.container_command import choose_mode
    from comfypin.settings.environment import Settings

    command = Path("/proc/1/cmdline").read_bytes().split(b"\0")[:-1]
    given = [word.decode(errors="replace") for word in command[command.index(b"comfypin.cli.entry") + 1 :]]
    settings = Settings(os.environ)
    if choose_mode(given, settings.entry) != "pod":
        return 0
    port = settings.server.port or 8000
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return 0 if connection.getresponse().status < 300 else 1
    except OSError as error:
        print(f"comfypin: the HTTP API does not answer on port {port}: {error}.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
