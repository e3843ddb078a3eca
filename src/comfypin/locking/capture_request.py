"""What is to be captured, and what was noted while it was looked at."""

from dataclasses import dataclass, field
from pathlib import Path

from comfypin.lock.model import DEFAULT_PYTHON, EngineSpec, NodePin
from comfypin.lock.requirements import RequirementSet
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import ResolveRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRequest:
    """How to capture a ComfyUI.

    `comfyui` names the commit of a folder without `.git`; `allow_dirty` stores changes as diffs; `verify` asks every
    remote for its commit; `left_out` are folders of nodes and names of packages to skip.
    """

    name: str
    folder: Path
    comfyui: RepoSpec | None = None
    interpreter: Path | None = None
    models_dir: Path | None = None
    allow_dirty: bool = False
    verify: bool = True
    with_models: bool = True
    left_out: frozenset[str] = frozenset()
    engine: EngineSpec = field(default_factory=EngineSpec)
    question: ResolveRequest = field(
        default_factory=lambda: ResolveRequest(
            needs=RequirementSet(), python=DEFAULT_PYTHON, platforms=("linux-x86_64",)
        )
    )


@dataclass(slots=True)
class CaptureNotes:
    """What was found, with every reason why something cannot be pinned, so that all are reported at once."""

    nodes: list[NodePin] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # Every name that --leave-out could have meant.
    names: list[str] = field(default_factory=list)
    # What ComfyUI's own commit has in its folder, so that it needs no pin of its own.
    own_files: frozenset[str] = frozenset()
