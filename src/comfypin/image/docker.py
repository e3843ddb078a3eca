"""Builds images with Docker and BuildKit."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.image.errors import BuildFailed, NoSuchImage, PushFailed
from comfypin.image.interface import BuildRequest, BuiltImage, Report, request_arguments
from comfypin.image.program_output import run_and_report
from comfypin.tools.process import run_program

_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Docker:
    """Runs the program `docker`, which talks to the daemon that its environment names."""

    program: str = "docker"
    name: str = field(default="docker", init=False)

    def build(self, request: BuildRequest, hear: Report) -> BuiltImage:
        # The old builder knows neither secrets nor cache mounts.
        spoken = run_and_report(self._build_command(request), hear, env={"DOCKER_BUILDKIT": "1"})
        if spoken.exit_code:
            raise BuildFailed(builder=self.name, tag=request.tags[0], _log=spoken.log_text)
        return self.inspect(request.tags[0])

    def inspect(self, tag: str) -> BuiltImage:
        done = run_program([self.program, "image", "inspect", tag], timeout_s=60)
        if done.exit_code:
            raise NoSuchImage(tag=tag, builder=self.name)
        facts = json.loads(done.stdout)[0]
        return BuiltImage(
            image_id=facts["Id"],
            layers=tuple(facts["RootFS"]["Layers"]),
            size_bytes=int(facts["Size"]),
            labels=facts["Config"].get("Labels") or {},
        )

    def free_bytes(self) -> int | None:
        done = run_program([self.program, "info", "--format", "{{.DockerRootDir}}"], timeout_s=60)
        # With Docker Desktop or a remote daemon this folder is on another machine.
        root = Path(done.stdout_text.strip() or "/nowhere")
        return free_bytes(root) if root.is_dir() else None

    def push(self, tag: str, reference: str, credentials: Path | None, hear: Report) -> str:
        # docker pushes under the name of the image only, so it has to have that name.
        tagged = run_program([self.program, "tag", tag, reference], timeout_s=60)
        if tagged.exit_code:
            raise NoSuchImage(tag=tag, builder=self.name)
        config = ["--config", str(credentials)] if credentials is not None else []
        spoken = run_and_report([self.program, *config, "push", reference], hear)
        # The last digest: a push of several tags prints one for each.
        found = next((match[1] for line in reversed(spoken.last_lines) if (match := _DIGEST.search(line))), None)
        if spoken.exit_code or found is None:
            raise PushFailed(reference=reference, reason=spoken.error_summary, tries=1)
        return found

    def save(self, tag: str, archive: Path) -> None:
        if run_program([self.program, "save", "--output", str(archive), tag]).exit_code:
            raise NoSuchImage(tag=tag, builder=self.name)

    def _build_command(self, request: BuildRequest) -> Sequence[str]:
        return [self.program, "build", "--progress", "plain", *request_arguments(request), str(request.context)]


def explain_docker_unusable(program: str = "docker") -> str | None:
    """Return why docker cannot build here, None if it can."""
    import shutil

    if shutil.which(program) is None:
        return "docker is not installed"
    # A daemon that hangs answers after the client's own timeout; the time tells it from one that is off.
    began_s = time.monotonic()
    done = run_program([program, "version", "--format", "{{.Server.Version}}"], timeout_s=30)
    if done.exit_code:
        return f"docker's daemon does not answer ({done.error_summary}, {time.monotonic() - began_s:.0f} s)"
    return None
