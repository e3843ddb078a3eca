"""Builds images with podman: buildah's own code behind docker's commands."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.image.buildah import build_arguments, push_as_buildah, save_as_buildah
from comfypin.image.errors import BuildFailed, NoSuchImage
from comfypin.image.interface import BuildRequest, BuiltImage, Report
from comfypin.image.program_output import run_and_report
from comfypin.tools.process import run_program


@dataclass(frozen=True, slots=True)
class Podman:
    """Runs the program `podman`; its store is buildah's."""

    program: str = "podman"
    name: str = field(default="podman", init=False)

    def build(self, request: BuildRequest, hear: Report) -> BuiltImage:
        spoken = run_and_report([self.program, "build", *build_arguments(request)], hear)
        if spoken.exit_code:
            raise BuildFailed(builder=self.name, tag=request.tags[0], _log=spoken.log_text)
        return self.inspect(request.tags[0])

    def inspect(self, tag: str) -> BuiltImage:
        done = run_program([self.program, "image", "inspect", tag], timeout_s=60)
        if done.exit_code:
            raise NoSuchImage(tag=tag, builder=self.name)
        facts = json.loads(done.stdout)[0]
        return BuiltImage(
            # podman leaves out the algorithm, docker does not.
            image_id=f"sha256:{facts['Id']}",
            layers=tuple(facts["RootFS"]["Layers"]),
            size_bytes=int(facts["Size"]),
            labels=facts.get("Labels") or {},
        )

    def free_bytes(self) -> int | None:
        done = run_program([self.program, "info", "--format", "json"], timeout_s=60)
        root = Path(json.loads(done.stdout or b"{}").get("store", {}).get("graphRoot", "/nowhere"))
        return free_bytes(root) if root.is_dir() else None

    def push(self, tag: str, reference: str, credentials: Path | None, hear: Report) -> str:
        self.inspect(tag)
        return push_as_buildah(self.program, tag, reference, credentials, hear)

    def save(self, tag: str, archive: Path) -> None:
        save_as_buildah(self.program, tag, archive)
