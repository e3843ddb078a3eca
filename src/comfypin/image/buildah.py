"""Builds images with buildah, which needs no daemon."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.image.build_context import FIXED_TIME_S
from comfypin.image.errors import BuildFailed, NoSuchImage, PushFailed
from comfypin.image.image_names import is_local_registry
from comfypin.image.interface import BuildRequest, BuiltImage, Report, request_arguments
from comfypin.image.program_output import run_and_report
from comfypin.image.trial_build import explain_trial_failure
from comfypin.temp_folders import temp_folder
from comfypin.tools.errors import ToolTimedOut
from comfypin.tools.process import run_program


@dataclass(frozen=True, slots=True)
class Buildah:
    """Runs the program `buildah`; its own variables choose its store and isolation."""

    program: str = "buildah"
    name: str = field(default="buildah", init=False)

    def build(self, request: BuildRequest, report: Report) -> BuiltImage:
        output = run_and_report([self.program, "bud", *build_arguments(request)], report)
        if output.exit_code:
            raise BuildFailed(builder=self.name, tag=request.tags[0], _log=output.log_text)
        return self.inspect(request.tags[0])

    def inspect(self, image_tag: str) -> BuiltImage:
        finished = run_program([self.program, "inspect", "--type", "image", image_tag], timeout_s=60)
        if finished.exit_code:
            raise NoSuchImage(tag=image_tag, builder=self.name)
        image_facts = json.loads(finished.stdout)
        layer_digests = tuple(image_facts["OCIv1"]["rootfs"]["diff_ids"])
        image_labels = image_facts["OCIv1"].get("config", {}).get("Labels") or {}
        size_listing = run_program([self.program, "images", "--json", image_tag], timeout_s=60)
        return BuiltImage(
            image_id=f"sha256:{image_facts['FromImageID']}",
            layers=layer_digests,
            size_bytes=_parse_size(size_listing.stdout),
            labels=image_labels,
        )

    def free_bytes(self) -> int | None:
        finished = run_program([self.program, "info"], timeout_s=60)
        # Field names differ from podman's: `GraphRoot` here, `graphRoot` there.
        store_root = Path(json.loads(finished.stdout or b"{}").get("store", {}).get("GraphRoot", "/nowhere"))
        return free_bytes(store_root) if store_root.is_dir() else None

    def push(self, image_tag: str, reference: str, credentials: Path | None, report: Report) -> str:
        self.inspect(image_tag)
        return push_as_buildah(self.program, image_tag, reference, credentials, report)

    def read_file(self, image_tag: str, file_path: str) -> bytes | None:
        started = run_program([self.program, "from", "--pull-never", image_tag], timeout_s=60)
        if started.exit_code:
            raise NoSuchImage(tag=image_tag, builder=self.name)
        container = started.stdout_text.strip().splitlines()[-1]
        try:
            # `buildah mount` would need a user namespace of its own without root; this works wherever builds do.
            printed = run_program([self.program, "run", container, "--", "cat", file_path], timeout_s=60)
        finally:
            run_program([self.program, "rm", container], timeout_s=60)
        return None if printed.exit_code else printed.stdout

    def save(self, image_tag: str, archive_path: Path) -> None:
        save_as_buildah(self.program, image_tag, archive_path)


def build_arguments(request: BuildRequest) -> Sequence[str]:
    """Return a build's flags, for buildah and podman."""
    # Docker's format, because OCI's has no health checks; layers, so that a build takes what one before it made. What
    # buildah mounts into a step leaves traces with the time of the build, so it sets every time itself.
    arguments = ["--format", "docker", "--layers", "--timestamp", str(FIXED_TIME_S)]
    return [
        *arguments,
        *request_arguments(request),
        "--file",
        str(request.context / "Dockerfile"),
        str(request.context),
    ]


def push_as_buildah(program_name: str, image_tag: str, reference: str, credentials: Path | None, report: Report) -> str:
    """Push with the flags that buildah and podman share; return the digest. Raises `PushFailed`."""
    # A file, never `--creds`: the arguments of a process can be read by every user.
    credential_options = ["--authfile", str(credentials / "config.json")] if credentials is not None else []
    # As docker does: registries on this machine itself may speak plain HTTP.
    plain_http_options = ["--tls-verify=false"] if is_local_registry(reference) else []
    with temp_folder("push") as temporary_folder:
        # The digest is printed for people in changing formats; the file is the interface.
        digest_path = Path(temporary_folder, "digest")
        arguments = [
            program_name,
            "push",
            *credential_options,
            *plain_http_options,
            "--digestfile",
            str(digest_path),
            image_tag,
            f"docker://{reference}",
        ]
        output = run_and_report(arguments, report)
        if output.exit_code or not digest_path.is_file():
            raise PushFailed(reference=reference, reason=output.push_reason, tries=1)
        return digest_path.read_text(encoding="utf-8").strip()


def save_as_buildah(program_name: str, image_tag: str, archive_path: Path) -> None:
    """Write an image as docker writes archives. Raises `NoSuchImage`."""
    if run_program(
        [program_name, "push", "--quiet", image_tag, f"docker-archive:{archive_path}:{image_tag}"]
    ).exit_code:
        raise NoSuchImage(tag=image_tag, builder=program_name)


def explain_store_unusable(program_name: str) -> str | None:
    """Return why buildah, or podman, does not work here; None if it does."""
    if shutil.which(program_name) is None:
        return f"{program_name} is not installed"
    try:
        finished = run_program([program_name, "images", "--quiet"], timeout_s=30)
    except ToolTimedOut as timed_out:
        return f"{program_name} does not work here ({timed_out.message})"
    return f"{program_name} does not work here ({finished.error_summary})" if finished.exit_code else None


def explain_store_cannot_build(program_name: str) -> str | None:
    """Return why buildah, or podman, cannot build though it answers; None if it can."""
    build_verb = "bud" if program_name == "buildah" else "build"
    reason = explain_trial_failure([program_name, build_verb], [program_name, "rmi", "--force"])
    return reason and f"{program_name} cannot build ({reason})"


def _parse_size(listing_json: bytes) -> int:
    image_list = json.loads(listing_json or b"[]")
    size_text = str(image_list[0].get("size", "0")) if image_list else "0"
    # buildah prints sizes for people only: "1.2 GB".
    size_number, _, size_unit = size_text.partition(" ")
    unit_factor = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}.get(size_unit.upper(), 1)
    return int(float(size_number or 0) * unit_factor)
