"""Checks whether the env still matches its lock: every file by sha256, each difference by the name of its pin."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.env.bytecode import find_changed_bytecode
from comfypin.env.drift import CODE_SUFFIXES, Drift, shorten_list
from comfypin.env.errors import NothingRealized
from comfypin.env.file_manifest import (
    FileChanges,
    compare_manifests,
    hash_files,
    read_manifest,
)
from comfypin.env.interpreter import is_venv_usable, is_venv_wired, read_venv_version
from comfypin.env.layout import (
    COMFYUI_FOLDER,
    CUSTOM_NODES_FOLDER,
    MANIFEST_FILE,
    VENV_FOLDER,
    Home,
    venv_python,
)
from comfypin.env.package_drifts import find_package_drifts
from comfypin.env.package_overlaps import find_overlap_drifts
from comfypin.env.package_selection import normalize_name
from comfypin.env.receipt import Receipt, SourcePin, read_receipt
from comfypin.lock.codec import env_digest
from comfypin.lock.model import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvStatus:
    """Says what was checked and found; `drifts` is empty if the env matches its lock."""

    home: Path
    folder: Path
    receipt: Receipt | None
    drifts: tuple[Drift, ...]
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "home": str(self.home),
            "folder": str(self.folder),
            "ok": not self.drifts,
            "env_digest": self.receipt.env_digest.hex if self.receipt else None,
            "drifts": [drift.to_json() for drift in self.drifts],
            "notes": list(self.notes),
        }


def check_env(home: Home, lock: Lock | None) -> EnvStatus:
    """Check the home's current env against its receipt and, if one is given, a lock. Changes nothing.

    Raises `NothingRealized` if there is no env at all.
    """
    # A link that leads nowhere is an env that is gone; no link at all is a home without one.
    if not home.current_link.is_symlink():
        raise NothingRealized(home=home.root)
    env_folder = home.root / home.current_link.readlink()
    receipt = read_receipt(env_folder) if env_folder.is_dir() else None
    if receipt is None:
        incomplete_reason = "it has no receipt, so it was never finished" if env_folder.is_dir() else "it is gone"
        drift = Drift(
            kind="env-incomplete",
            subject="env",
            text=f"The env {env_folder}: {incomplete_reason}. Run comfypin realize.",
        )
        return EnvStatus(home=home.root, folder=env_folder, receipt=None, drifts=(drift,))
    drifts = [*_find_link_drifts(home), *_find_interpreter_drifts(env_folder, receipt)]
    drifts += _compare_with_lock(receipt, lock) if lock is not None else []
    manifest = read_manifest(env_folder)
    if manifest is None or manifest.digest != receipt.manifest:
        description = f"{env_folder / MANIFEST_FILE} does not match the receipt: it was changed or is damaged."
        drifts.append(Drift(kind="manifest-changed", subject="env", text=description))
    if manifest is not None:
        drifts += describe_changes(env_folder, receipt, compare_manifests(manifest, hash_files(env_folder)))
    drifts += _find_bytecode_drift(env_folder)
    # Without a lock nobody knows what was chosen.
    if lock is not None:
        drifts += find_overlap_drifts(env_folder, lock.python.variants)
    return EnvStatus(home=home.root, folder=env_folder, receipt=receipt, drifts=tuple(drifts))


def describe_changes(env_folder: Path, receipt: Receipt, changes: FileChanges) -> list[Drift]:
    """Turn differences of files into differences of pins: ComfyUI, each node, each package, and unknown additions."""
    by_subject = _PathGroups(receipt)
    for change_kind, changed_paths in (
        ("edited", changes.edited),
        ("missing", changes.missing),
        ("added", changes.added),
    ):
        for path in changed_paths:
            by_subject.add_path(change_kind, path)
    drifts_found = [*_find_moved_commits(env_folder, receipt)]
    # A node at another commit differs in hundreds of files; the commit says it all.
    moved_subjects = {drift.subject for drift in drifts_found}
    sources = [*receipt.nodes, receipt.comfyui]
    for source_pin in sources:
        subject = _drift_subject(source_pin, receipt)
        if subject not in moved_subjects:
            drifts_found += _source_drifts(
                env_folder, subject, by_subject.paths_under(_source_root(source_pin, receipt))
            )
    drifts_found += _find_strange_nodes(env_folder, receipt)
    drifts_found += find_package_drifts(env_folder, receipt, by_subject.paths_under(VENV_FOLDER))
    return drifts_found


class _PathGroups:
    """Groups changed paths by the root that contains them: a node, ComfyUI, site-packages or the venv."""

    def __init__(self, receipt: Receipt) -> None:
        self._roots = sorted(
            (_source_root(source_pin, receipt) for source_pin in (*receipt.nodes, receipt.comfyui)),
            # The longest root first: custom_nodes is itself inside ComfyUI.
            key=len,
            reverse=True,
        )
        self._found: dict[str, dict[str, list[str]]] = {}

    def add_path(self, change_kind: str, path: str) -> None:
        source_roots = (*self._roots, VENV_FOLDER)
        source_root = next(
            (source_root for source_root in source_roots if path.startswith(f"{source_root}/")), VENV_FOLDER
        )
        self._found.setdefault(source_root, {}).setdefault(change_kind, []).append(path)

    def paths_under(self, source_root: str) -> Mapping[str, tuple[str, ...]]:
        found_paths = self._found.get(source_root, {})
        return {change_kind: tuple(found_paths.get(change_kind, ())) for change_kind in ("edited", "missing", "added")}


def _source_drifts(env_folder: Path, subject: str, paths_by_kind: Mapping[str, tuple[str, ...]]) -> Iterator[Drift]:
    source_folder = env_folder / (
        COMFYUI_FOLDER if subject == "ComfyUI" else f"{CUSTOM_NODES_FOLDER}/{subject.removeprefix('node ')}"
    )
    if not source_folder.is_dir():
        yield Drift(kind="source-missing", subject=subject, text=f"{subject} is gone: {source_folder} does not exist.")
        return
    if edited_paths := paths_by_kind["edited"]:
        yield Drift(
            kind="file-edited",
            subject=subject,
            text=f"Files of {subject} were edited: {shorten_list(edited_paths)}.",
            paths=edited_paths,
        )
    if missing_paths := paths_by_kind["missing"]:
        description = f"Files of {subject} were deleted: {shorten_list(missing_paths)}."
        yield Drift(kind="file-missing", subject=subject, text=description, paths=missing_paths)
    added_paths = tuple(
        path for path in paths_by_kind["added"] if path.endswith(CODE_SUFFIXES) and "/.git/" not in path
    )
    added_paths = tuple(
        # What is in custom_nodes is a node, not a part of ComfyUI: it is told as such.
        path
        for path in added_paths
        if subject != "ComfyUI" or not path.startswith(f"{CUSTOM_NODES_FOLDER}/")
    )
    if added_paths:
        description = f"Code was added to {subject}: {shorten_list(added_paths)}."
        yield Drift(kind="file-added", subject=subject, text=description, paths=added_paths)


def _find_moved_commits(env_folder: Path, receipt: Receipt) -> Iterator[Drift]:
    """Yield the nodes with a .git at another commit; our folders have none, so somebody cloned or checked out there."""
    for source_pin in (*receipt.nodes, receipt.comfyui):
        source_folder = env_folder / _source_root(source_pin, receipt)
        commit_id = _read_head_commit(source_folder / ".git")
        if commit_id is not None and commit_id != source_pin.commit:
            subject = _drift_subject(source_pin, receipt)
            description = f"{subject} is at commit {commit_id}, but the lock says {source_pin.commit}."
            yield Drift(
                kind="commit-moved", subject=subject, text=description, paths=(_source_root(source_pin, receipt),)
            )


def _read_head_commit(git_folder: Path) -> str | None:
    try:
        head_text = (git_folder / "HEAD").read_text().strip()
        if not head_text.startswith("ref: "):
            return head_text
        ref_name = head_text.removeprefix("ref: ")
        if (git_folder / ref_name).is_file():
            return (git_folder / ref_name).read_text().strip()
        # git moves refs into this file when it cleans up.
        packed_refs = (git_folder / "packed-refs").read_text().splitlines()
        return next((ref_line.split()[0] for ref_line in packed_refs if ref_line.endswith(f" {ref_name}")), None)
    except OSError:
        return None


def _find_bytecode_drift(env_folder: Path) -> Iterator[Drift]:
    if changed_paths := find_changed_bytecode(env_folder):
        description = f"Byte-code of packages does not match the env's pack: {shorten_list(changed_paths)}."
        yield Drift(kind="bytecode-changed", subject="site-packages", text=description, paths=changed_paths)


def _find_strange_nodes(env_folder: Path, receipt: Receipt) -> Iterator[Drift]:
    """Yield the nodes that are not in the lock: ComfyUI loads whatever is in custom_nodes."""
    locked_folders = {source_pin.folder for source_pin in receipt.nodes}
    manifest = read_manifest(env_folder)
    shipped_folders = (
        {path.split("/")[2] for path in manifest.files if path.startswith(f"{CUSTOM_NODES_FOLDER}/")}
        if manifest
        else set()
    )
    try:
        directory_entries = sorted(
            os.scandir(env_folder / CUSTOM_NODES_FOLDER), key=lambda directory_entry: directory_entry.name
        )
    except OSError:
        return
    for directory_entry in directory_entries:
        is_loaded = directory_entry.is_dir() or directory_entry.name.endswith(".py")
        if (
            not is_loaded
            or directory_entry.name in locked_folders | shipped_folders
            or directory_entry.name in {"__pycache__", ".git"}
        ):
            continue
        # ComfyUI-Manager disables a node by this suffix, and ComfyUI skips it.
        if not directory_entry.name.endswith(".disabled"):
            description = f"{CUSTOM_NODES_FOLDER}/{directory_entry.name} is not in the lock, but ComfyUI loads it."
            yield Drift(
                kind="node-added",
                subject=f"node {directory_entry.name}",
                text=description,
                paths=(f"{CUSTOM_NODES_FOLDER}/{directory_entry.name}",),
            )


def _compare_with_lock(receipt: Receipt, lock: Lock) -> list[Drift]:
    """Return each pin that differs if the env was made from other pins than this lock's."""
    # Models and the engine's arguments may differ: no env is made anew for them.
    if receipt.env_digest == env_digest(lock):
        return []
    drifts_found: list[Drift] = []
    if lock.comfyui is not None and lock.comfyui.commit != receipt.comfyui.commit:
        drifts_found.append(_describe_new_pin("ComfyUI", receipt.comfyui.commit, lock.comfyui.commit))
    realized_pins = {pin.folder: pin for pin in receipt.nodes}
    locked_pins = {node.folder: node for node in lock.custom_nodes}
    for pin_name in sorted(realized_pins.keys() | locked_pins.keys()):
        realized_pin, locked_pin = realized_pins.get(pin_name), locked_pins.get(pin_name)
        if realized_pin is None or locked_pin is None:
            locations = ("lock", "env") if realized_pin is None else ("env", "lock")
            description = f"Node {pin_name} is in the {locations[0]} but not in the {locations[1]}."
            drifts_found.append(Drift(kind="lock-differs", subject=f"node {pin_name}", text=description))
        elif realized_pin.commit != locked_pin.commit:
            drifts_found.append(_describe_new_pin(f"node {pin_name}", realized_pin.commit, locked_pin.commit))
    locked_versions = {normalize_name(pin.name): pin.version for pin in lock.python.packages}
    for pin_name in sorted(locked_versions.keys() | receipt.packages.keys()):
        if locked_versions.get(pin_name) != receipt.packages.get(pin_name):
            drifts_found.append(
                _describe_new_pin(f"package {pin_name}", receipt.packages.get(pin_name), locked_versions.get(pin_name))
            )
    description = "The env was realized from another lock; run comfypin realize with this one."
    return drifts_found or [Drift(kind="lock-differs", subject="env", text=description)]


def _describe_new_pin(subject: str, realized_pin: str | None, locked_pin: str | None) -> Drift:
    description = f"{subject} was realized at {realized_pin or 'nothing'}, but the lock says {locked_pin or 'nothing'}."
    return Drift(kind="lock-differs", subject=subject, text=description)


def _find_link_drifts(home: Home) -> Iterator[Drift]:
    for link_name in (COMFYUI_FOLDER, VENV_FOLDER):
        link_path = home.root / link_name
        if not link_path.is_symlink() or str(link_path.readlink()) != f"current/{link_name}":
            yield Drift(
                kind="link-changed",
                subject=link_name,
                text=f"{link_path} is not the link to current/{link_name} any more.",
            )


def _find_interpreter_drifts(env_folder: Path, receipt: Receipt) -> Iterator[Drift]:
    python_link, is_wired = venv_python(env_folder), is_venv_wired(env_folder)
    if not python_link.exists():
        description = f"{python_link} does not lead to Python {receipt.python} here; run comfypin realize."
        yield Drift(kind="interpreter-missing", subject="python", text=description)
    elif read_venv_version(env_folder, receipt.python) is None:
        description = (
            f"{python_link} leads to {python_link.resolve()}, not to Python {receipt.python}; run comfypin realize."
        )
        yield Drift(kind="interpreter-changed", subject="python", text=description)
    elif is_wired and not is_venv_usable(env_folder, receipt.python):
        description = (
            f"{python_link} leads to {python_link.resolve()}, not to the Python it was made for; run comfypin realize."
        )
        yield Drift(kind="interpreter-changed", subject="python", text=description)
    if (env_folder / VENV_FOLDER).is_dir() and not is_wired:
        description = f"{VENV_FOLDER}/pyvenv.cfg has other settings than a locked env; run comfypin realize."
        yield Drift(kind="venv-changed", subject=VENV_FOLDER, text=description, paths=(f"{VENV_FOLDER}/pyvenv.cfg",))


def _source_root(source_pin: SourcePin, receipt: Receipt) -> str:
    return COMFYUI_FOLDER if source_pin is receipt.comfyui else f"{CUSTOM_NODES_FOLDER}/{source_pin.folder}"


def _drift_subject(source_pin: SourcePin, receipt: Receipt) -> str:
    return "ComfyUI" if source_pin is receipt.comfyui else f"node {source_pin.folder}"
