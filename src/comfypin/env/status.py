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
    if not home.current_link.is_symlink():
        raise NothingRealized(home=home.root)
    folder = home.root / home.current_link.readlink()
    receipt = read_receipt(folder) if folder.is_dir() else None
    if receipt is None:
        reason = "it has no receipt, so it was never finished" if folder.is_dir() else "it is gone"
        drift = Drift(kind="env-incomplete", subject="env", text=f"The env {folder}: {reason}. Run comfypin realize.")
        return EnvStatus(home=home.root, folder=folder, receipt=None, drifts=(drift,))
    drifts = [*_find_link_drifts(home), *_find_interpreter_drifts(folder, receipt)]
    drifts += _compare_with_lock(receipt, lock) if lock is not None else []
    manifest = read_manifest(folder)
    if manifest is None or manifest.digest != receipt.manifest:
        text = f"{folder / MANIFEST_FILE} does not match the receipt: it was changed or is damaged."
        drifts.append(Drift(kind="manifest-changed", subject="env", text=text))
    if manifest is not None:
        drifts += describe_changes(folder, receipt, compare_manifests(manifest, hash_files(folder)))
    drifts += _find_bytecode_drift(folder)
    return EnvStatus(home=home.root, folder=folder, receipt=receipt, drifts=tuple(drifts))


def describe_changes(folder: Path, receipt: Receipt, changes: FileChanges) -> list[Drift]:
    """Turn differences of files into differences of pins: ComfyUI, each node, each package, and unknown additions."""
    by_subject = _PathGroups(receipt)
    for kind, paths in (("edited", changes.edited), ("missing", changes.missing), ("added", changes.added)):
        for path in paths:
            by_subject.add_path(kind, path)
    found = [*_find_moved_commits(folder, receipt)]
    moved = {drift.subject for drift in found}
    sources = [*receipt.nodes, receipt.comfyui]
    for pin in sources:
        subject = _drift_subject(pin, receipt)
        if subject not in moved:
            found += _source_drifts(folder, subject, by_subject.paths_under(_source_root(pin, receipt)))
    found += _find_strange_nodes(folder, receipt)
    found += find_package_drifts(folder, receipt, by_subject.paths_under(VENV_FOLDER))
    return found


class _PathGroups:
    """Groups changed paths by the root that contains them: a node, ComfyUI, site-packages or the venv."""

    def __init__(self, receipt: Receipt) -> None:
        self._roots = sorted(
            (_source_root(pin, receipt) for pin in (*receipt.nodes, receipt.comfyui)), key=len, reverse=True
        )
        self._found: dict[str, dict[str, list[str]]] = {}

    def add_path(self, kind: str, path: str) -> None:
        roots = (*self._roots, VENV_FOLDER)
        root = next((root for root in roots if path.startswith(f"{root}/")), VENV_FOLDER)
        self._found.setdefault(root, {}).setdefault(kind, []).append(path)

    def paths_under(self, root: str) -> Mapping[str, tuple[str, ...]]:
        found = self._found.get(root, {})
        return {kind: tuple(found.get(kind, ())) for kind in ("edited", "missing", "added")}


def _source_drifts(folder: Path, subject: str, paths: Mapping[str, tuple[str, ...]]) -> Iterator[Drift]:
    root = folder / (
        COMFYUI_FOLDER if subject == "ComfyUI" else f"{CUSTOM_NODES_FOLDER}/{subject.removeprefix('node ')}"
    )
    if not root.is_dir():
        yield Drift(kind="source-missing", subject=subject, text=f"{subject} is gone: {root} does not exist.")
        return
    if edited := paths["edited"]:
        yield Drift(
            kind="file-edited",
            subject=subject,
            text=f"Files of {subject} were edited: {shorten_list(edited)}.",
            paths=edited,
        )
    if missing := paths["missing"]:
        text = f"Files of {subject} were deleted: {shorten_list(missing)}."
        yield Drift(kind="file-missing", subject=subject, text=text, paths=missing)
    added = tuple(path for path in paths["added"] if path.endswith(CODE_SUFFIXES) and "/.git/" not in path)
    added = tuple(path for path in added if subject != "ComfyUI" or not path.startswith(f"{CUSTOM_NODES_FOLDER}/"))
    if added:
        text = f"Code was added to {subject}: {shorten_list(added)}."
        yield Drift(kind="file-added", subject=subject, text=text, paths=added)


def _find_moved_commits(folder: Path, receipt: Receipt) -> Iterator[Drift]:
    """Yield the nodes with a .git at another commit; our folders have none, so somebody cloned or checked out there."""
    for pin in (*receipt.nodes, receipt.comfyui):
        root = folder / _source_root(pin, receipt)
        commit = _read_head_commit(root / ".git")
        if commit is not None and commit != pin.commit:
            subject = _drift_subject(pin, receipt)
            text = f"{subject} is at commit {commit}, but the lock says {pin.commit}."
            yield Drift(kind="commit-moved", subject=subject, text=text, paths=(_source_root(pin, receipt),))


def _read_head_commit(git: Path) -> str | None:
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text().strip()
        # git moves refs into this file when it cleans up.
        packed = (git / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except OSError:
        return None


def _find_bytecode_drift(folder: Path) -> Iterator[Drift]:
    if changed := find_changed_bytecode(folder):
        text = f"Byte-code of packages does not match the env's pack: {shorten_list(changed)}."
        yield Drift(kind="bytecode-changed", subject="site-packages", text=text, paths=changed)


def _find_strange_nodes(folder: Path, receipt: Receipt) -> Iterator[Drift]:
    """Yield the nodes that are not in the lock: ComfyUI loads whatever is in custom_nodes."""
    ours = {pin.folder for pin in receipt.nodes}
    manifest = read_manifest(folder)
    shipped = (
        {path.split("/")[2] for path in manifest.files if path.startswith(f"{CUSTOM_NODES_FOLDER}/")}
        if manifest
        else set()
    )
    try:
        entries = sorted(os.scandir(folder / CUSTOM_NODES_FOLDER), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        loaded = entry.is_dir() or entry.name.endswith(".py")
        if not loaded or entry.name in ours | shipped or entry.name in {"__pycache__", ".git"}:
            continue
        # ComfyUI-Manager disables a node by this suffix, and ComfyUI skips it.
        if not entry.name.endswith(".disabled"):
            text = f"{CUSTOM_NODES_FOLDER}/{entry.name} is not in the lock, but ComfyUI loads it."
            yield Drift(
                kind="node-added",
                subject=f"node {entry.name}",
                text=text,
                paths=(f"{CUSTOM_NODES_FOLDER}/{entry.name}",),
            )


def _compare_with_lock(receipt: Receipt, lock: Lock) -> list[Drift]:
    """Return each pin that differs if the env was made from other pins than this lock's."""
    if receipt.env_digest == env_digest(lock):
        return []
    found: list[Drift] = []
    if lock.comfyui is not None and lock.comfyui.commit != receipt.comfyui.commit:
        found.append(_describe_new_pin("ComfyUI", receipt.comfyui.commit, lock.comfyui.commit))
    ours = {pin.folder: pin for pin in receipt.nodes}
    theirs = {node.folder: node for node in lock.custom_nodes}
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(name), theirs.get(name)
        if here is None or there is None:
            places = ("lock", "env") if here is None else ("env", "lock")
            text = f"Node {name} is in the {places[0]} but not in the {places[1]}."
            found.append(Drift(kind="lock-differs", subject=f"node {name}", text=text))
        elif here.commit != there.commit:
            found.append(_describe_new_pin(f"node {name}", here.commit, there.commit))
    wanted = {normalize_name(pin.name): pin.version for pin in lock.python.packages}
    for name in sorted(wanted.keys() | receipt.packages.keys()):
        if wanted.get(name) != receipt.packages.get(name):
            found.append(_describe_new_pin(f"package {name}", receipt.packages.get(name), wanted.get(name)))
    text = "The env was realized from another lock; run comfypin realize with this one."
    return found or [Drift(kind="lock-differs", subject="env", text=text)]


def _describe_new_pin(subject: str, here: str | None, there: str | None) -> Drift:
    text = f"{subject} was realized at {here or 'nothing'}, but the lock says {there or 'nothing'}."
    return Drift(kind="lock-differs", subject=subject, text=text)


def _find_link_drifts(home: Home) -> Iterator[Drift]:
    for name in (COMFYUI_FOLDER, VENV_FOLDER):
        link = home.root / name
        if not link.is_symlink() or str(link.readlink()) != f"current/{name}":
            yield Drift(kind="link-changed", subject=name, text=f"{link} is not the link to current/{name} any more.")


def _find_interpreter_drifts(folder: Path, receipt: Receipt) -> Iterator[Drift]:
    python, wired = venv_python(folder), is_venv_wired(folder)
    if not python.exists():
        text = f"{python} does not lead to Python {receipt.python} here; run comfypin realize."
        yield Drift(kind="interpreter-missing", subject="python", text=text)
    elif read_venv_version(folder, receipt.python) is None:
        text = f"{python} leads to {python.resolve()}, not to Python {receipt.python}; run comfypin realize."
        yield Drift(kind="interpreter-changed", subject="python", text=text)
    elif wired and not is_venv_usable(folder, receipt.python):
        text = f"{python} leads to {python.resolve()}, not to the Python it was made for; run comfypin realize."
        yield Drift(kind="interpreter-changed", subject="python", text=text)
    if (folder / VENV_FOLDER).is_dir() and not wired:
        text = f"{VENV_FOLDER}/pyvenv.cfg has other settings than a locked env; run comfypin realize."
        yield Drift(kind="venv-changed", subject=VENV_FOLDER, text=text, paths=(f"{VENV_FOLDER}/pyvenv.cfg",))


def _source_root(pin: SourcePin, receipt: Receipt) -> str:
    return COMFYUI_FOLDER if pin is receipt.comfyui else f"{CUSTOM_NODES_FOLDER}/{pin.folder}"


def _drift_subject(pin: SourcePin, receipt: Receipt) -> str:
    return "ComfyUI" if pin is receipt.comfyui else f"node {pin.folder}"
