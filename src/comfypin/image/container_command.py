"""Decides what a container does: a given command, a worker of a queue, a pod's services, or the API alone (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from comfypin.lock.model import Lock
from comfypin.settings.entry import EntrySettings

Mode: TypeAlias = Literal["command", "worker", "pod", "serve"]
# ComfyUI's own default.
PAGE_PORT = 8188
# Time to write the failures of jobs, and to close, before SIGKILL.
_TO_CLOSE_S = 5
# Where Runpod mounts a volume unless it is told otherwise: in pods, and in Serverless workers.
VOLUMES = (Path("/workspace"), Path("/runpod-volume"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerService:
    """Describes one process of a container. The container ends with a `main` one; others are started again.

    `waits_for` is a port on this machine that must take connections before the service is started.
    """

    name: str
    argv: tuple[str, ...]
    main: bool = False
    waits_for: int | None = None


def choose_mode(given_command: Sequence[str], settings: EntrySettings) -> Mode:
    """Return the mode: a command wins, then COMFYPIN_MODE, then what Runpod's variables say."""
    if given_command:
        return "command"
    for mode in ("worker", "pod", "serve"):
        if settings.mode == mode:
            return mode
    if settings.balanced:
        return "serve"
    return "worker" if settings.serverless else "pod"


def make_pod_services(
    lock: Lock, settings: EntrySettings, *, comfypin: Sequence[str], home: Path, output: Path
) -> tuple[ContainerService, ...]:
    """Return a pod's services: the HTTP API, ComfyUI's own page if there is one, the syncer, what stops the pod."""
    has_page = lock.engine.kind == "comfyui" and settings.page_listen != "off"
    pod_services = []
    serve_command = [*comfypin, "serve", "--host", "0.0.0.0", "--output-dir", str(output / "api")]  # noqa: S104 a container's network is its own
    serve_command += grace_arguments(settings)
    if has_page:
        pod_services.append(ContainerService(name="comfyui", argv=_page_command(lock, settings, home, output)))
        # One ComfyUI for the page and the API: two would not fit on one GPU.
        # Its home too, so that results can say which release made them.
        serve_command += ["--engine-url", f"http://127.0.0.1:{PAGE_PORT}", "--comfy-home", str(home)]
    pod_services.append(
        ContainerService(name="serve", argv=tuple(serve_command), main=True, waits_for=PAGE_PORT if has_page else None)
    )
    if settings.sync_to is not None:
        pod_services.append(ContainerService(name="sync", argv=(*comfypin, "sync", str(output), settings.sync_to)))
    if settings.stop_after_s is not None:
        # The program of all services, with another module: `python -m comfypin.cli.main`.
        stopper = (*comfypin[:-1], "comfypin.cli.self_stop", str(settings.stop_after_s))
        pod_services.append(ContainerService(name="stop", argv=stopper))
    return tuple(pod_services)


def grace_arguments(settings: EntrySettings) -> tuple[str, str]:
    """Return the flag that ends running jobs before the container's grace time does, with time left to close."""
    return "--grace", str(max(1, int(settings.grace_s - _TO_CLOSE_S)))


def choose_output_folder(settings: EntrySettings, home_folder: Path, mounted_volumes: Sequence[Path]) -> Path:
    """Return the folder for a pod's outputs: the one that is named, else on the volume, else in the home."""
    if settings.output_dir is not None:
        return settings.output_dir
    # The volume survives the pod; the home does not.
    volumes = VOLUMES if settings.volume is None else (settings.volume, *VOLUMES)
    return next(
        (volume_path / "output" for volume_path in volumes if volume_path in mounted_volumes), home_folder / "output"
    )


def _page_command(lock: Lock, settings: EntrySettings, home_folder: Path, output_folder: Path) -> tuple[str, ...]:
    return (
        *(str(home_folder / "venv" / "bin" / "python"), str(home_folder / "ComfyUI" / "main.py")),
        *lock.engine.args,
        *("--listen", settings.page_listen, "--port", str(PAGE_PORT)),
        *("--output-directory", str(output_folder), "--input-directory", str(output_folder.with_name("input"))),
        *("--user-directory", str(output_folder.with_name("user")), "--temp-directory", "/tmp"),  # noqa: S108
        # There is no browser in a container.
        "--disable-auto-launch",
    )
