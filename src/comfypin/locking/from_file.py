"""Makes a lock's request of a file of another tool, with what the user chooses of it; says every difference."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from comfypin.lock.model import Lock
from comfypin.lock.model_spec import ModelSpec
from comfypin.lock.requirements import normalize_package_name
from comfypin.lock.torch import find_requested_build
from comfypin.locking.errors import CaptureRefused, FileWithoutComfyUI
from comfypin.locking.left_out import is_left_out, require_known
from comfypin.locking.release_files.document import ReleaseFile, UnpinnablePart, package_name
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import ResolveRequest, pin_installed
from comfypin.locking.sources import Upstreams
from comfypin.tools.git import list_tree
from comfypin.tools.git_remote import resolve_ref

# `2.8.0+cu128` is 2.8.0, built for CUDA 12.8.
_LOCAL_BUILD = re.compile(r"(?<=\d)\+[a-z0-9.]+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChoices:
    """What the user takes of a file: `only` are models by name (all, if it is empty), `left_out` any parts."""

    path: str
    comfyui: RepoSpec | None = None
    left_out: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()
    with_models: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenParts:
    """A file's parts that go into a lock; its ComfyUI is known."""

    comfyui: RepoSpec
    release: ReleaseFile


def choose_parts(release: ReleaseFile, choices: FileChoices, upstreams: Upstreams) -> ChosenParts:
    """Return what goes into the lock.

    Raises `FileWithoutComfyUI`, `NothingToLeaveOut`, `CaptureRefused` with all that cannot be pinned, or what fetching
    ComfyUI raises.
    """
    require_known(choices.left_out, _known_names(release), where=f"{choices.path}, {release.kind}")
    model_names = [known_name for model in release.models for known_name in _model_names(model)]
    unpinnable_models = [known_name for part in release.unpinnable if part.kind == "model" for known_name in part.names]
    require_known(choices.only, (*model_names, *unpinnable_models), where=choices.path, flag="--only")
    comfyui, notes = _choose_comfyui(release, choices)
    node_files = [known_name for known_name in release.node_files if not is_left_out(choices.left_out, known_name)]
    # ComfyUI is fetched for the names of its own files only if there is a question about one.
    own_names = _own_node_files(comfyui, upstreams) if node_files else frozenset()
    notes += [f"{known_name} is ComfyUI's own and no node" for known_name in node_files if known_name in own_names]
    strange_files = (
        UnpinnablePart(kind="node", names=(known_name,), reason=f"the node file {known_name} comes from no repository")
        for known_name in node_files
        if known_name not in own_names
    )
    unpinnable = [part for part in (*release.unpinnable, *strange_files) if _is_wanted(part, choices)]
    # All at once, so that one run shows everything that --leave-out must name.
    if unpinnable:
        reasons = [f"{part.reason} (--leave-out {part.names[-1]})" for part in unpinnable]
        raise CaptureRefused(where=choices.path, reasons=reasons)
    chosen = replace(
        release,
        nodes=tuple(node for node in release.nodes if not is_left_out(choices.left_out, node.name, node.repo)),
        installed=_keep_lines(release.installed, choices.left_out),
        requirements=_keep_lines(release.requirements, choices.left_out),
        models=tuple(model for model in release.models if _is_model_chosen(model, choices)),
        notes=(*release.notes, *notes),
    )
    return ChosenParts(comfyui=comfyui, release=chosen)


def _choose_comfyui(release: ReleaseFile, choices: FileChoices) -> tuple[RepoSpec, list[str]]:
    given, in_file = choices.comfyui, release.comfyui
    if given is None:
        if in_file is None:
            raise FileWithoutComfyUI(path=choices.path, kind=release.kind, hint=release.comfyui_hint)
        return in_file, []
    if in_file is None or given.ref is None:
        if in_file is None and given.ref is None:
            return given, [f"{release.kind} does not name ComfyUI's commit; that of its default branch is taken"]
        return replace(given, ref=given.ref or (in_file.ref if in_file else None)), []
    notes = (
        []
        if given.ref == in_file.ref
        else [f"ComfyUI is {in_file.ref} in the file, and {given.ref} is taken (--comfyui)"]
    )
    return given, notes


def _own_node_files(comfyui: RepoSpec, upstreams: Upstreams) -> frozenset[str]:
    """Return what ComfyUI's own commit has under custom_nodes: that is part of ComfyUI and no node pack."""
    commit = resolve_ref(comfyui.repo, comfyui.ref)
    entries = list_tree(upstreams.commits.obtain_repository(comfyui.repo, commit), commit)
    return frozenset(entry.path.split("/")[1] for entry in entries if entry.path.startswith("custom_nodes/"))


def _is_wanted(unpinnable_part: UnpinnablePart, choices: FileChoices) -> bool:
    if is_left_out(choices.left_out, *unpinnable_part.names):
        return False
    if unpinnable_part.kind != "model":
        return True
    return choices.with_models and (not choices.only or is_left_out(choices.only, *unpinnable_part.names))


def _is_model_chosen(model: ModelSpec, choices: FileChoices) -> bool:
    names = _model_names(model)
    return (
        choices.with_models
        and not is_left_out(choices.left_out, *names)
        and (not choices.only or is_left_out(choices.only, *names))
    )


def _model_names(model: ModelSpec) -> tuple[str, ...]:
    target = model.target or model.sources[0]
    return (target, target.rpartition("/")[2], *([model.name] if model.name else []))


def _keep_lines(lines: Iterable[str], left_out: frozenset[str]) -> tuple[str, ...]:
    return tuple(line for line in lines if not is_left_out(left_out, package_name(line)))


def _known_names(release: ReleaseFile) -> list[str]:
    return [
        *(known_name for node in release.nodes for known_name in (node.name, node.repo)),
        *release.node_files,
        *(package_name(line) for line in (*release.installed, *release.requirements)),
        *(known_name for model in release.models for known_name in _model_names(model)),
        *(known_name for part in release.unpinnable for known_name in part.names),
        *release.left_out,
    ]


def prefer_installed(
    installed: Sequence[str], question: ResolveRequest, report: Callable[[str], None]
) -> tuple[ResolveRequest, tuple[str, ...]]:
    """Return the question with the installed packages preferred, and a note for each that no index has."""
    if not installed:
        return question, ()
    # A build of torch is on PyTorch's own index only, and --torch says which is wanted: here the version counts.
    pins, missing = pin_installed([_LOCAL_BUILD.sub("", line) for line in installed], question, report=report)
    notes = [f"{line} was installed, and no index has it" for line in missing]
    build = find_requested_build(sorted(installed))
    if build is not None and build != question.torch:
        notes.append(f"the torch that was installed is built for {build}; --torch {build} takes that build")
    return replace(question, keep=pins.packages), tuple(notes)


def differing_packages(installed: Iterable[str], lock: Lock) -> list[str]:
    """Return a note for each package whose version in the lock is not the one that the file names."""
    locked = {normalize_package_name(pin.name): pin.version for pin in lock.python.packages}
    notes: list[str] = []
    unasked: list[str] = []
    for line in installed:
        name, _, version = line.partition("==")
        here = locked.get(normalize_package_name(package_name(line)))
        if here is None:
            unasked.append(line)
        elif version and version != here:
            notes.append(f"{name} is {version} in the file, and {here} in the lock")
    if unasked:
        notes.append(f"installed there, and asked for by nobody, so not in the lock: {', '.join(unasked)}")
    return notes
