"""Makes the files of a repository that Runpod's Hub takes: listing, tests, a Dockerfile on an image, a handler. Pure.

The Hub builds the Dockerfile of a GitHub release. Ours stands on an image that `comfypin image push` published, by its
digest, so that the Hub's build takes seconds and holds what was tested here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from comfypin.digest import JsonValue
from comfypin.runpod.hub_files import Category
from comfypin.runpod.release_facts import ReleaseFacts
from comfypin.storage.registry import KINDS

# Those that Runpod's hosts report; https://docs.runpod.io/hub/publishing-guide#hubjson-template, and 12.9 and 13.0.
HOST_CUDA_VERSIONS = ("13.0", "12.9", "12.8", "12.7", "12.6", "12.5", "12.4", "12.3", "12.2", "12.1", "12.0", "11.8")
FOLDER = PurePosixPath(".runpod")
# A first job waits for the worker's start, the longest part of a cold one.
_JOB_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions:
    """What a listing says beside its release. `gpu_pools` are ids of the GPU catalog; `cpu_flavor` in place of them."""

    title: str
    description: str
    image: str
    category: Category = "image"
    icon_url: str | None = None
    gpu_pools: tuple[str, ...] = ("ADA_24",)
    test_gpu: str = "NVIDIA GeForce RTX 4090"
    cpu_flavor: str | None = None
    test_workflows: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def hub_repository(release: ReleaseFacts, options: HubOptions) -> dict[PurePosixPath, bytes]:
    """Return the files by their paths in the repository."""
    return {
        FOLDER / "hub.json": _as_json(_make_listing(release, options)),
        FOLDER / "tests.json": _as_json(_make_tests(release, options)),
        FOLDER / "Dockerfile": _DOCKERFILE.format(release=release.name, image=options.image).encode(),
        FOLDER / "handler.py": _HANDLER.encode(),
        PurePosixPath("README.md"): _README.format(title=options.title, description=options.description).encode(),
    }


def _make_listing(release: ReleaseFacts, options: HubOptions) -> dict[str, JsonValue]:
    machine: dict[str, JsonValue] = (
        {"runsOn": "CPU", "cpuFlavor": options.cpu_flavor}
        if options.cpu_flavor
        else {"runsOn": "GPU", "gpuCount": 1, "gpuIds": ",".join(options.gpu_pools), **_cuda_fields(release)}
    )
    disk_gb = release.container_disk_gb + -(-release.models_bytes // 1_000_000_000)
    listing: dict[str, JsonValue] = {
        "title": options.title,
        "description": options.description,
        "type": "serverless",
        "category": options.category,
        "config": {**machine, "containerDiskInGb": disk_gb, "env": _make_variables(release, options)},
    }
    return listing if options.icon_url is None else {**listing, "iconUrl": options.icon_url}


def _make_variables(release: ReleaseFacts, options: HubOptions) -> list[JsonValue]:
    given = {"RUNPOD_INIT_TIMEOUT": str(release.init_timeout_s), **options.variables}
    return [
        *({"key": variable_name, "value": value} for variable_name, value in given.items()),
        {
            "key": "OUTPUT_MODE",
            "input": {
                "name": "Outputs",
                "type": "string",
                "description": "Where pictures go: into the answer, or into the bucket that the other variables name",
                "options": [
                    {"label": "In the answer (base64)", "value": "base64"},
                    *({"label": kind.title, "value": kind.name} for kind in KINDS.values()),
                ],
                "default": "base64",
            },
        },
        {
            "key": "HF_TOKEN",
            "input": {
                "name": "Hugging Face token",
                "type": "string",
                "description": "For models behind a login",
                "default": "",
                "advanced": True,
            },
        },
    ]


def _make_tests(release: ReleaseFacts, options: HubOptions) -> dict[str, JsonValue]:
    timeout_ms = (release.init_timeout_s + _JOB_S) * 1000
    in_answer: JsonValue = {"mode": "base64"}
    tests: list[JsonValue] = [{"name": "smoke", "input": {"workflow": {}, "output": in_answer}, "timeout": timeout_ms}]
    for workflow_name in options.test_workflows:
        job_input: JsonValue = {"workflow_name": workflow_name, "output": in_answer}
        tests.append({"name": workflow_name, "input": job_input, "timeout": timeout_ms})
    machine: dict[str, JsonValue] = (
        {"cpuFlavor": options.cpu_flavor}
        if options.cpu_flavor
        else {"gpuTypeId": options.test_gpu, "gpuCount": 1, **_cuda_fields(release)}
    )
    variables: list[JsonValue] = [
        {"key": variable_name, "value": value} for variable_name, value in options.variables.items()
    ]
    return {"tests": tests, "config": {**machine, **({"env": variables} if variables else {})}}


def _cuda_fields(release: ReleaseFacts) -> dict[str, JsonValue]:
    if release.cuda is None:
        return {}
    # The Hub knows no floor, so the list names every newer one too; a floor above all that are known stands alone.
    fitting: list[JsonValue] = [
        cuda_version
        for cuda_version in HOST_CUDA_VERSIONS
        if _parse_version(cuda_version) >= _parse_version(release.cuda)
    ]
    return {"allowedCudaVersions": fitting or [release.cuda]}


def _parse_version(version_text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version_text.split("."))


def _as_json(document: JsonValue) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


_DOCKERFILE = """\
# The release {release}, as it was published: models, env and comfypin are in the image or come when a worker starts.
# Runpod's builds take public images only.
FROM {image}
"""

_HANDLER = '''\
"""What the image starts by itself; the Hub looks for a handler in the repository."""

import runpy

# As `python -m`: a Serverless worker where Runpod Serverless started the container.
if __name__ == "__main__":
    runpy.run_module("comfypin.cli.entry", run_name="__main__")
'''

_README = """\
# {title}
{description}

A job is `{{"input": {{"workflow": {{...}}}}}}`, with a workflow as ComfyUI saves it; an empty one is a smoke test.
"""
