"""Builds images with podman: buildah's own code behind docker's commands."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.image.buildah import build_arguments, push_as_buildah, save_as_buildah
from comfypin.image.container_files import copy_out
from comfypin.image.errors import BuildFailed, NoSuchImage
from comfypin.image.interface import BuildRequest, BuiltImage, Report
from comfypin.image.program_output import run_and_report
from comfypin.tools.process import run_program


@dataclass(frozen=True, slots=True)
class Podman:
    """Runs the program `podman`; its store is buildah's."""

    program: str = "podman"
    name: str = field(default="podman", init=False)

    def build(self, request: BuildRequest, report: Report) -> BuiltImage:
        output = run_and_report([self.program, "build", *build_arguments(request)], report)
        if output.exit_code:
            raise BuildFailed(builder=self.name, tag=request.tags[0], _log=output.log_text)
        return self.inspect(request.tags[0])

    def inspect(self, image_tag: str) -> BuiltImage:
        finished = run_program([self.program, "image", "inspect", image_tag], timeout_s=60)
        if finished.exit_code:
            raise NoSuchImage(tag=image_tag, builder=self.name)
        image_facts = json.loads(finished.stdout)[0]
        return BuiltImage(
            # podman leaves out the algorithm, docker does not.
            image_id=f"sha256:{image_facts['Id']}",
            layers=tuple(image_facts["RootFS"]["Layers"]),
            size_bytes=int(image_facts["Size"]),
            labels=image_facts.get("Labels") or {},
        )

    def free_bytes(self) -> int | None:
        finished = run_program([self.program, "info", "--format", "json"], timeout_s=60)
        store_root = Path(json.loads(finished.stdout or b"{}").get("store", {}).get("graphRoot", "/nowhere"))
        return free_bytes(store_root) if store_root.is_dir() else None

    def push(self, image_tag: str, reference: str, credentials: Path | None, report: Report) -> str:
        self.inspect(image_tag)
        return push_as_buildah(self.program, image_tag, reference, credentials, report)

    def read_file(self, image_tag: str, file_path: str) -> bytes | None:
        return copy_out(self.program, image_tag, file_path)

    def save(self, image_tag: str, archive_path: Path) -> None:
        save_as_buildah(self.program, image_tag, archive_path)
