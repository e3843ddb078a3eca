"""Walk from one lock to another, part by part, so that what changed a picture can be found by halving (pure)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from comfypin.lock.diff import PinChange, diff_locks
from comfypin.lock.model import Lock, NodePin, PackagePin, RepoPin
from comfypin.lock.requirements import normalize_package_name
from comfypin.lock.torch import TRIO

PACKAGES_PART = "the Python packages"
TORCH_GROUP = "torch and its libraries"
# They are released for each other: half of them would not import.
_TORCH_LIBRARIES = ("nvidia-", "cuda-", "triton", "pytorch-triton", "intel-")
TrialResult = Literal["same", "different", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectStep:
    """The lock after one more part has become the other's, with that part's name and its changed pins."""

    part: str
    lock: Lock
    changes: tuple[PinChange, ...]


def bisect_steps(before: Lock, after: Lock) -> tuple[BisectStep, ...]:
    """Return one step for each part that differs: ComfyUI, each node, all packages together, each model, the engine."""
    steps_so_far: list[BisectStep] = []
    current_lock = before
    for part_name, changed in _changed_parts(before, after, before):
        # A part may differ in a way that no pin shows, such as the order of nodes: such a step proves nothing.
        part_changes = diff_locks(current_lock, changed)
        current_lock = changed
        if part_changes:
            steps_so_far.append(BisectStep(part=part_name, lock=current_lock, changes=part_changes))
    return tuple(steps_so_far)


def _changed_parts(before: Lock, after: Lock, current_lock: Lock) -> Iterator[tuple[str, Lock]]:
    current_lock = replace(current_lock, comfyui=after.comfyui)
    yield "ComfyUI", current_lock
    # Each step keeps what the steps before it changed, so the last one is the other lock.
    nodes_by_folder = {node_pin.folder: node_pin for node_pin in before.custom_nodes}
    wanted_nodes = {node_pin.folder: node_pin for node_pin in after.custom_nodes}
    for folder in sorted({*nodes_by_folder, *wanted_nodes}):
        if folder in wanted_nodes:
            nodes_by_folder[folder] = wanted_nodes[folder]
        else:
            nodes_by_folder.pop(folder)
        current_lock = replace(current_lock, custom_nodes=tuple(nodes_by_folder.values()))
        yield f"the node {folder}", current_lock
    # All packages are one step: half of a resolution was never resolved, and rarely installs.
    current_lock = replace(current_lock, python=after.python)
    yield PACKAGES_PART, current_lock
    models_by_path = {model_pin.target_path: model_pin for model_pin in before.models}
    wanted_models = {model_pin.target_path: model_pin for model_pin in after.models}
    for target_path in sorted({*models_by_path, *wanted_models}):
        if target_path in wanted_models:
            models_by_path[target_path] = wanted_models[target_path]
        else:
            models_by_path.pop(target_path)
        current_lock = replace(current_lock, models=tuple(models_by_path.values()))
        yield f"the model {target_path}", current_lock
    current_lock = replace(current_lock, engine=after.engine)
    yield "the engine", current_lock


def package_steps(before: Lock, after: Lock) -> tuple[BisectStep, ...]:
    """Return one step for each package that differs, those of torch together; none if they cannot be mixed.

    Packages are for one Python and one set of targets: with another, no wheel of the one side fits the other.
    """
    if before.python.version != after.python.version or len(after.python.targets) > 1:
        return ()
    steps_so_far: list[BisectStep] = []
    current_lock = before
    current_pins, wanted_pins = _pins_by_name(before), _pins_by_name(after)
    for group, names in _package_groups(current_pins, wanted_pins).items():
        for package_name in names:
            current_pins.pop(package_name, None)
            if package_name in wanted_pins:
                current_pins[package_name] = wanted_pins[package_name]
        # The name of the target says which build of torch it is.
        targets = after.python.targets if group == TORCH_GROUP else current_lock.python.targets
        packages = tuple(pin for package_name in sorted(current_pins) for pin in current_pins[package_name])
        changed = replace(current_lock, python=replace(current_lock.python, packages=packages, targets=targets))
        part_changes = diff_locks(current_lock, changed)
        current_lock = changed
        if part_changes:
            steps_so_far.append(BisectStep(part=group, lock=current_lock, changes=part_changes))
    return tuple(steps_so_far)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRange:
    """A repository of which two locks pin different commits: ComfyUI's (`folder` is None) or a node's."""

    folder: str | None
    repository: str
    before: str
    after: str


def find_commit_range(before: Lock, after: Lock) -> CommitRange | None:
    """Return the one repository in which two locks that are a step apart differ by the commit alone, or None."""
    changed = [
        (folder, old_pin, new_pin)
        for folder, (old_pin, new_pin) in _repositories(before, after).items()
        if old_pin != new_pin
    ]
    if len(changed) != 1:
        return None
    folder, old_pin, new_pin = changed[0]
    if old_pin.repo is None or None in (old_pin.commit, new_pin.commit) or old_pin.repo != new_pin.repo:
        return None
    # A patch, and what an install script did, belong to the commit that they were made for.
    if any(pin.patch or getattr(pin, "install_script", "skip") == "run" for pin in (old_pin, new_pin)):
        return None
    return CommitRange(folder=folder, repository=old_pin.repo, before=str(old_pin.commit), after=str(new_pin.commit))


def _repositories(before: Lock, after: Lock) -> dict[str | None, tuple[RepoPin, RepoPin] | tuple[NodePin, NodePin]]:
    pins: dict[str | None, tuple[RepoPin, RepoPin] | tuple[NodePin, NodePin]] = {}
    if before.comfyui is not None and after.comfyui is not None:
        pins[None] = (before.comfyui, after.comfyui)
    wanted_nodes = {node_pin.folder: node_pin for node_pin in after.custom_nodes}
    for node_pin in before.custom_nodes:
        if node_pin.folder in wanted_nodes:
            pins[node_pin.folder] = (node_pin, wanted_nodes[node_pin.folder])
    return pins


def commit_steps(
    before: Lock, after: Lock, commit_range: CommitRange, commits: Sequence[str]
) -> tuple[BisectStep, ...]:
    """Return one step for each commit of a repository between two locks, the oldest first; the last is `after`."""
    repository_label = "ComfyUI" if commit_range.folder is None else f"the node {commit_range.folder}"
    steps_so_far: list[BisectStep] = []
    current_lock = before
    for commit in commits:
        changed = after if commit == commit_range.after else _with_commit(before, commit_range.folder, commit)
        steps_so_far.append(
            BisectStep(
                part=f"{repository_label} at {commit[:12]}", lock=changed, changes=diff_locks(current_lock, changed)
            )
        )
        current_lock = changed
    return tuple(steps_so_far)


def _with_commit(lock: Lock, folder: str | None, commit: str) -> Lock:
    if folder is None and lock.comfyui is not None:
        return replace(lock, comfyui=replace(lock.comfyui, commit=commit))
    nodes = tuple(
        replace(node_pin, commit=commit, install_script="skip", install_script_sha256=None)
        if node_pin.folder == folder
        else node_pin
        for node_pin in lock.custom_nodes
    )
    return replace(lock, custom_nodes=nodes)


def _pins_by_name(lock: Lock) -> dict[str, tuple[PackagePin, ...]]:
    pins: dict[str, tuple[PackagePin, ...]] = {}
    for pin in lock.python.packages:
        package_name = normalize_package_name(pin.name)
        # One package may be pinned for each of several markers.
        pins[package_name] = (*pins.get(package_name, ()), replace(pin, target=None))
    return pins


def _package_groups(
    before: Mapping[str, tuple[PackagePin, ...]], after: Mapping[str, tuple[PackagePin, ...]]
) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for package_name in sorted({*before, *after}):
        if before.get(package_name) != after.get(package_name):
            of_torch = package_name in TRIO or package_name.startswith(_TORCH_LIBRARIES)
            groups.setdefault(TORCH_GROUP if of_torch else f"the package {package_name}", []).append(package_name)
    return groups


def find_culprits(count: int, run_trial: Callable[[int], TrialResult]) -> range:
    """Return which of `count` steps may be the first that differs: one of them, or several around trials that failed.

    The last step is known to differ. A trial that fails says nothing, as `git bisect skip`: its neighbours are tried.
    """
    low, high = 0, count - 1
    failed: set[int] = set()
    while True:
        # Each trial costs a realize and a run, so there should be few: the one nearest to the middle.
        candidates = [step for step in range(low, high) if step not in failed]
        if not candidates:
            return range(low, high + 1)
        middle = min(candidates, key=lambda step: abs(2 * step - (low + high - 1)))
        match run_trial(middle):
            case "different":
                high = middle
            case "same":
                low = middle + 1
            case "failed":
                failed.add(middle)
