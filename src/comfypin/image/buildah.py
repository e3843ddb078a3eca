"""Builds images with buildah, which needs no daemon."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.image.context import FIXED_TIME_S
from comfypin.image.errors import BuildFailed, NoSuchImage, PushFailed
from comfypin.image.image_names import is_local_registry
from comfypin.image.interface import BuildRequest, BuiltImage, Report, request_arguments
from comfypin.image.program_output import run_and_report
from comfypin.temp_folders import temp_folder
from comfypin.tools.process import run_program


@dataclass(frozen=True, slots=True)
class Buildah:
    """Runs the program `buildah`; its own variables choose its store and isolation."""

    program: str = "buildah"
    name: str = field(default="buildah", init=False)

    def build(self, request: BuildRequest, hear: Report) -> BuiltImage:
        spoken = run_and_report([self.program, "bud", *build_arguments(request)], hear)
        if spoken.exit_code:
            raise BuildFailed(builder=self.name, tag=request.tags[0], _log=spoken.log_text)
        return self.inspect(request.tags[0])

    def inspect(self, tag: str) -> BuiltImage:
        done = run_program([self.program, "inspect", "--type", "image", tag], timeout_s=60)
        if done.exit_code:
            raise NoSuchImage(tag=tag, builder=self.name)
        facts = json.loads(done.stdout)
        layers = tuple(facts["OCIv1"]["rootfs"]["diff_ids"])
        labels = facts["OCIv1"].get("config", {}).get("Labels") or {}
        sizes = run_program([self.program, "images", "--json", tag], timeout_s=60)
        return BuiltImage(
            image_id=f"sha256:{facts['FromImageID']}",
            layers=layers,
            size_bytes=_parse_size(sizes.stdout),
            labels=labels,
        )

    def free_bytes(self) -> int | None:
        done = run_program([self.program, "info"], timeout_s=60)
        # Field names differ from podman's: `GraphRoot` here, `graphRoot` there.
        root = Path(json.loads(done.stdout or b"{}").get("store", {}).get("GraphRoot", "/nowhere"))
        return free_bytes(root) if root.is_dir() else None

    def push(self, tag: str, reference: str, credentials: Path | None, hear: Report) -> str:
        self.inspect(tag)
        return push_as_buildah(self.program, tag, reference, credentials, hear)

    def save(self, tag: str, archive: Path) -> None:
        save_as_buildah(self.program, tag, archive)


def build_arguments(request: BuildRequest) -> Sequence[str]:
    """Return a build's flags, for buildah and podman."""
    # Docker's format, because OCI's has no health checks; layers, so that a build takes what one before it made. What
    # buildah mounts into a step leaves traces with the time of the build, so it sets every time itself.
    words = ["--format", "docker", "--layers", "--timestamp", str(FIXED_TIME_S)]
    return [*words, *request_arguments(request), "--file", str(request.context / "Dockerfile"), str(request.context)]


def push_as_buildah(program: str, tag: str, reference: str, credentials: Path | None, hear: Report) -> str:
    """Push with the flags that buildah and podman share; return the digest. Raises `PushFailed`."""
    # A file, never `--creds`: the arguments of a process can be read by every user.
    auth = ["--authfile", str(credentials / "config.json")] if credentials is not None else []
    # As docker does: registries on this machine itself may speak plain HTTP.
    plain = ["--tls-verify=false"] if is_local_registry(reference) else []
    with temp_folder("push") as scratch:
        # The digest is printed for people in changing formats; the file is the interface.
        digest = Path(scratch, "digest")
        words = [program, "push", *auth, *plain, "--digestfile", str(digest), tag, f"docker://{reference}"]
        spoken = run_and_report(words, hear)
        if spoken.exit_code or not digest.is_file():
            raise PushFailed(reference=reference, reason=spoken.error_summary, tries=1)
        return digest.read_text(encoding="utf-8").strip()


def save_as_buildah(program: str, tag: str, archive: Path) -> None:
    """Write an image as docker writes archives. Raises `NoSuchImage`."""
    if run_program([program, "push", "--quiet", tag, f"docker-archive:{archive}:{tag}"]).exit_code:
        raise NoSuchImage(tag=tag, builder=program)


def explain_store_unusable(program: str) -> str | None:
    """Return why buildah, or podman, cannot build here; None if it can."""
    if shutil.which(program) is None:
        return f"{program} is not installed"
    done = run_program([program, "images", "--quiet"], timeout_s=30)
    return f"{program} does not work here ({done.error_summary})" if done.exit_code else None


def _parse_size(listing: bytes) -> int:
    listed = json.loads(listing or b"[]")
    text = str(listed[0].get("size", "0")) if listed else "0"
    # buildah prints sizes for people only: "1.2 GB".
    number, _, unit = text.partition(" ")
    factor = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}.get(unit.upper(), 1)
    return int(float(number or 0) * factor)
