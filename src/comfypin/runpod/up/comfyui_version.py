"""Finds which ComfyUI a workflow means, as far as it says so; else the candidates. Pure."""

import re
from collections.abc import Iterable, Sequence

COMFYUI_REPOSITORY = "https://github.com/comfyanonymous/ComfyUI"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_TAG = re.compile(r"refs/tags/v(\d+)\.(\d+)\.(\d+)")
# As many as somebody chooses from at a glance.
_CANDIDATES = 5


def named_version(core_versions: Sequence[str]) -> str | None:
    """Return the one release that the workflow was saved with, None if it names none or several."""
    releases = {version for version in core_versions if _VERSION.fullmatch(version)}
    return next(iter(releases)) if len(releases) == 1 else None


def newest_releases(refs: Iterable[str]) -> list[str]:
    """Return the tags of the newest releases among these refs, the newest first."""
    numbers = sorted(
        (tuple(map(int, match.groups())) for ref in refs if (match := _TAG.fullmatch(ref)) is not None), reverse=True
    )
    return ["v" + ".".join(map(str, number)) for number in numbers[:_CANDIDATES]]


def version_finding(core_versions: Sequence[str], candidates: Sequence[str]) -> str:
    """Return the sentence that asks for a ComfyUI, with its candidates."""
    finding_text = (
        f"the workflow was saved with several ({', '.join(core_versions)})"
        if core_versions
        else "the workflow names none"
    )
    # Nodes name the release in which they were saved last: the newest of them has all of them.
    named = newest_releases(f"refs/tags/v{version}" for version in core_versions)[:1]
    references = [f"{COMFYUI_REPOSITORY}@{candidate}" for candidate in dict.fromkeys([*named, *candidates])]
    listed = f"; candidates: {', '.join(references)}" if references else ""
    return f"which ComfyUI: {finding_text}; choose by --comfyui URL@REF{listed}"
