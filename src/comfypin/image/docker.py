"""Builds images with Docker and BuildKit."""

import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.image.container_files import copy_out
from comfypin.image.errors import BuildFailed, NoSuchImage, PushFailed
from comfypin.image.interface import BuildRequest, BuiltImage, Report, request_arguments
from comfypin.image.program_output import run_and_report
from comfypin.image.trial_build import explain_trial_failure
from comfypin.tools.errors import ToolTimedOut
from comfypin.tools.process import run_program

_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Docker:
    """Runs the program `docker`, which talks to the daemon that its environment names."""

    program: str = "docker"
    name: str = field(default="docker", init=False)

    def build(self, request: BuildRequest, report: Report) -> BuiltImage:
        # The old builder knows neither secrets nor cache mounts.
        output = run_and_report(self._build_command(request), report, env={"DOCKER_BUILDKIT": "1"})
        if output.exit_code:
            raise BuildFailed(builder=self.name, tag=request.tags[0], _log=output.log_text)
        return self.inspect(request.tags[0])

    def inspect(self, image_tag: str) -> BuiltImage:
        finished = run_program([self.program, "image", "inspect", image_tag], timeout_s=60)
        if finished.exit_code:
            raise NoSuchImage(tag=image_tag, builder=self.name)
        image_facts = json.loads(finished.stdout)[0]
        return BuiltImage(
            image_id=image_facts["Id"],
            layers=tuple(image_facts["RootFS"]["Layers"]),
            size_bytes=int(image_facts["Size"]),
            labels=image_facts["Config"].get("Labels") or {},
        )

    def free_bytes(self) -> int | None:
        finished = run_program([self.program, "info", "--format", "{{.DockerRootDir}}"], timeout_s=60)
        # With Docker Desktop or a remote daemon this folder is on another machine.
        docker_root = Path(finished.stdout_text.strip() or "/nowhere")
        return free_bytes(docker_root) if docker_root.is_dir() else None

    def push(self, image_tag: str, reference: str, credentials: Path | None, report: Report) -> str:
        # docker pushes under the name of the image only, so it has to have that name.
        finished = run_program([self.program, "tag", image_tag, reference], timeout_s=60)
        if finished.exit_code:
            raise NoSuchImage(tag=image_tag, builder=self.name)
        config_options = ["--config", str(credentials)] if credentials is not None else []
        output = run_and_report([self.program, *config_options, "push", reference], report)
        # The last digest: a push of several tags prints one for each.
        pushed_digest = next(
            (
                digest_match[1]
                for output_line in reversed(output.last_lines)
                if (digest_match := _DIGEST.search(output_line))
            ),
            None,
        )
        if output.exit_code or pushed_digest is None:
            raise PushFailed(reference=reference, reason=output.push_reason, tries=1)
        return pushed_digest

    def read_file(self, image_tag: str, file_path: str) -> bytes | None:
        return copy_out(self.program, image_tag, file_path)

    def save(self, image_tag: str, archive_path: Path) -> None:
        if run_program([self.program, "save", "--output", str(archive_path), image_tag]).exit_code:
            raise NoSuchImage(tag=image_tag, builder=self.name)

    def _build_command(self, request: BuildRequest) -> Sequence[str]:
        return [self.program, "build", "--progress", "plain", *request_arguments(request), str(request.context)]


def explain_docker_unusable(program_name: str = "docker") -> str | None:
    """Return why docker does not work here, None if it does."""
    if shutil.which(program_name) is None:
        return "docker is not installed"
    # A daemon that hangs answers after the client's own timeout; the time tells it from one that is off.
    began_s = time.monotonic()
    try:
        finished = run_program([program_name, "version", "--format", "{{.Server.Version}}"], timeout_s=30)
        reason = finished.error_summary if finished.exit_code else None
    except ToolTimedOut as timed_out:
        reason = timed_out.message
    return reason and f"docker's daemon does not answer ({reason}, {time.monotonic() - began_s:.0f} s)"


def explain_docker_cannot_build(program_name: str = "docker") -> str | None:
    """Return why docker cannot build, though its daemon answers; None if it can."""
    # With BuildKit, which is a plugin of its own (buildx) that may be missing, or too old for the daemon.
    reason = explain_trial_failure(
        [program_name, "build"],
        [program_name, "image", "rm", "--force"],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
    )
    return reason and f"docker cannot build ({reason})"
