"""Which pin of a lock should have brought a missing class or file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from comfypin.workflow.object_info import Catalogue, module_of


class NodePinLike(Protocol):
    """The part of a lock's node pin that we read."""

    @property
    def name(self) -> str: ...
    @property
    def repo(self) -> str | None: ...
    @property
    def directory(self) -> str | None: ...


class ModelPinLike(Protocol):
    """The part of a lock's model pin that we read."""

    @property
    def name(self) -> str: ...
    @property
    def target_path(self) -> str: ...


class LockLike(Protocol):
    """The part of a lock that we read; `comfypin.lock.model.Lock` has this shape."""

    @property
    def version_name(self) -> str: ...
    @property
    def custom_nodes(self) -> Sequence[NodePinLike]: ...
    @property
    def models(self) -> Sequence[ModelPinLike]: ...


@dataclass(frozen=True, slots=True)
class SuspectPins:
    """Node pins without a single class on the engine: one of them should have brought what is missing."""

    names: tuple[str, ...]

    def explain_missing(self, release: str) -> tuple[str | None, str]:
        """Return the pin if only one comes into question, and a sentence for people."""
        match self.names:
            case ():
                reason = "the lock lacks a pack, or the workflow is newer than its ComfyUI"
                return None, f"no node pin of the release {release} brings it ({reason})"
            case (name,):
                return name, f"the pin {name} of the release {release} should have brought it, and did not load"
            case names:
                pin_names = ", ".join(names)
                return None, f"one of these pins of the release {release} should have brought it: {pin_names}"


def find_pack_pin(pack: str, lock: LockLike) -> NodePinLike | None:
    """Return the node pin of a pack, by its name in the registry, its folder or its repository (`owner/name`)."""
    wanted_name = _plain_name(pack.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"))
    return next((node_pin for node_pin in lock.custom_nodes if wanted_name in _folder_names(node_pin)), None)


def find_suspects(catalogue: Catalogue, lock: LockLike) -> SuspectPins:
    """Return the node pins from which the engine loaded nothing."""
    # A pack in `custom_nodes` shows up as the second part of its classes' module name.
    loaded_packs = {
        _plain_name(module_name.split(".", 2)[1])
        for module_name in map(module_of, catalogue.values())
        if module_name.startswith("custom_nodes.") and len(module_name.split(".")) > 1
    }
    return SuspectPins(
        tuple(node_pin.name for node_pin in lock.custom_nodes if loaded_packs.isdisjoint(_folder_names(node_pin)))
    )


def find_model_pin(file_name: str, lock: LockLike) -> ModelPinLike | None:
    """Return the pin whose file a loader would list under this name, `folder/name` included."""
    wanted_parts = PurePosixPath(file_name.replace("\\", "/")).parts
    if not wanted_parts:
        return None
    # From the end, so that `xl/base.safetensors` finds `models/checkpoints/xl/base.safetensors`.
    exact = (
        model_pin
        for model_pin in lock.models
        if PurePosixPath(model_pin.target_path).parts[-len(wanted_parts) :] == wanted_parts
    )
    return next(exact, None)


def _folder_names(node_pin: NodePinLike) -> set[str]:
    repo = (node_pin.repo or "").rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
    return {_plain_name(node_name) for node_name in (node_pin.name, node_pin.directory or "", repo) if node_name}


def _plain_name(node_name: str) -> str:
    # The registry, folders and repositories write one pack's name in different ways.
    return node_name.casefold().replace("_", "-")
