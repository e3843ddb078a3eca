"""Is the env still what its lock says? Every file by sha256, and each difference by the name of the pin it breaks."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.env.bytecode import changed_bytecode
from comfypin.env.errors import NothingRealized
from comfypin.env.file_manifest import Changes, Record, compare, read_manifest, read_records, survey
from comfypin.env.interpreter import is_wired, runs, works
from comfypin.env.layout import COMFYUI, CUSTOM_NODES, MANIFEST, VENV, Home, site_packages, venv_python
from comfypin.env.package_selection import normalized
from comfypin.env.receipt import Receipt, SourcePin, read_receipt
from comfypin.lock.codec import env_digest
from comfypin.lock.model import Lock

# What is new in a folder and could run; notes, caches and settings that nodes write are not drift.
_CODE = (".py", ".pyc", ".so", ".pth", ".js", ".sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference: a stable `kind` for machines, the pin it breaks, a sentence, and the files it is about."""

    kind: str
    subject: str
    text: str
    paths: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        return {"kind": self.kind, "subject": self.subject, "text": self.text, "paths": list(self.paths)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What was checked and what was found; `drifts` is empty where the env is what its lock says."""

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


def env_status(home: Home, lock: Lock | None) -> Status:
    """Check the home's current env, against its receipt and, where one is given, a lock. Changes nothing.

    Raises `NothingRealized` where there is no env at all.
    """
    if not home.current.is_symlink():
        raise NothingRealized(home=home.root)
    folder = home.root / home.current.readlink()
    receipt = read_receipt(folder) if folder.is_dir() else None
    if receipt is None:
        reason = "it has no receipt: it was never finished" if folder.is_dir() else "it is gone"
        drift = Drift(kind="env-incomplete", subject="env", text=f"The env {folder}: {reason}. Run comfypin realize.")
        return Status(home=home.root, folder=folder, receipt=None, drifts=(drift,))
    drifts = [*_links(home), *_interpreter(folder, receipt)]
    drifts += _against_lock(receipt, lock) if lock is not None else []
    manifest = read_manifest(folder)
    if manifest is None or manifest.digest != receipt.manifest:
        text = f"{folder / MANIFEST} is not the one the receipt was written for: it was changed or is damaged."
        drifts.append(Drift(kind="manifest-changed", subject="env", text=text))
    if manifest is not None:
        drifts += describe(folder, receipt, compare(manifest, survey(folder)))
    drifts += _bytecode(folder)
    return Status(home=home.root, folder=folder, receipt=receipt, drifts=tuple(drifts))


def describe(folder: Path, receipt: Receipt, changes: Changes) -> list[Drift]:
    """File by file differences as differences of pins: ComfyUI, each node, each package, and what nobody asked for."""
    by_subject = _Groups(receipt)
    for kind, paths in (("edited", changes.edited), ("missing", changes.missing), ("added", changes.added)):
        for path in paths:
            by_subject.put(kind, path)
    found = [*_moved_commits(folder, receipt)]
    moved = {drift.subject for drift in found}
    sources = [*receipt.nodes, receipt.comfyui]
    for pin in sources:
        subject = _subject(pin, receipt)
        if subject not in moved:
            found += _source_drifts(folder, subject, by_subject.of(_root(pin, receipt)))
    found += _strange_nodes(folder, receipt)
    found += _package_drifts(folder, receipt, by_subject)
    return found


class _Groups:
    """Changed paths by the root they lie under: a node, ComfyUI, site-packages or the venv."""

    def __init__(self, receipt: Receipt) -> None:
        self._roots = sorted((_root(pin, receipt) for pin in (*receipt.nodes, receipt.comfyui)), key=len, reverse=True)
        self._found: dict[str, dict[str, list[str]]] = {}

    def put(self, kind: str, path: str) -> None:
        roots = (*self._roots, VENV)
        root = next((root for root in roots if path.startswith(f"{root}/")), VENV)
        self._found.setdefault(root, {}).setdefault(kind, []).append(path)

    def of(self, root: str) -> Mapping[str, tuple[str, ...]]:
        found = self._found.get(root, {})
        return {kind: tuple(found.get(kind, ())) for kind in ("edited", "missing", "added")}


def _source_drifts(folder: Path, subject: str, paths: Mapping[str, tuple[str, ...]]) -> Iterator[Drift]:
    root = folder / (COMFYUI if subject == "ComfyUI" else f"{CUSTOM_NODES}/{subject.removeprefix('node ')}")
    if not root.is_dir():
        yield Drift(kind="source-missing", subject=subject, text=f"{subject} is gone: {root} does not exist.")
        return
    if edited := paths["edited"]:
        yield Drift(
            kind="file-edited", subject=subject, text=f"Files of {subject} were edited: {_few(edited)}.", paths=edited
        )
    if missing := paths["missing"]:
        text = f"Files of {subject} were deleted: {_few(missing)}."
        yield Drift(kind="file-missing", subject=subject, text=text, paths=missing)
    added = tuple(path for path in paths["added"] if path.endswith(_CODE) and "/.git/" not in path)
    added = tuple(path for path in added if subject != "ComfyUI" or not path.startswith(f"{CUSTOM_NODES}/"))
    if added:
        text = f"Code was added to {subject}: {_few(added)}."
        yield Drift(kind="file-added", subject=subject, text=text, paths=added)


def _moved_commits(folder: Path, receipt: Receipt) -> Iterator[Drift]:
    """A folder of ours has no .git; one that has was cloned or checked out by somebody."""
    for pin in (*receipt.nodes, receipt.comfyui):
        root = folder / _root(pin, receipt)
        commit = _head(root / ".git")
        if commit is not None and commit != pin.commit:
            subject = _subject(pin, receipt)
            text = f"{subject} is at commit {commit}, and the lock says {pin.commit}."
            yield Drift(kind="commit-moved", subject=subject, text=text, paths=(_root(pin, receipt),))


def _head(git: Path) -> str | None:
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except OSError:
        return None


def _bytecode(folder: Path) -> Iterator[Drift]:
    if changed := changed_bytecode(folder):
        text = f"Byte-code of packages is not what the env's pack brought: {_few(changed)}."
        yield Drift(kind="bytecode-changed", subject="site-packages", text=text, paths=changed)


def _strange_nodes(folder: Path, receipt: Receipt) -> Iterator[Drift]:
    """Whatever lies in custom_nodes is loaded by ComfyUI, asked for or not."""
    ours = {pin.folder for pin in receipt.nodes}
    manifest = read_manifest(folder)
    shipped = (
        {path.split("/")[2] for path in manifest.files if path.startswith(f"{CUSTOM_NODES}/")} if manifest else set()
    )
    try:
        entries = sorted(os.scandir(folder / CUSTOM_NODES), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        loaded = entry.is_dir() or entry.name.endswith(".py")
        if not loaded or entry.name in ours | shipped or entry.name in {"__pycache__", ".git"}:
            continue
        if not entry.name.endswith(".disabled"):
            text = f"{CUSTOM_NODES}/{entry.name} is not in the lock, and ComfyUI loads it."
            yield Drift(
                kind="node-added", subject=f"node {entry.name}", text=text, paths=(f"{CUSTOM_NODES}/{entry.name}",)
            )


def _package_drifts(folder: Path, receipt: Receipt, groups: _Groups) -> Iterator[Drift]:
    try:
        site = site_packages(folder)
    except StopIteration:
        yield Drift(kind="venv-missing", subject=VENV, text=f"The venv is gone: {folder / VENV}.")
        return
    records = read_records(site)
    prefix = f"{site.relative_to(folder)}/"
    installed: dict[str, list[str]] = {}
    for record in records:
        installed.setdefault(normalized(record.name), []).append(record.version)
    yield from _version_drifts(receipt, installed)
    yield from _content_drifts(receipt, installed, groups.of(VENV), records, prefix)


def _version_drifts(receipt: Receipt, installed: Mapping[str, Sequence[str]]) -> Iterator[Drift]:
    for name, version in sorted(receipt.packages.items()):
        here = installed.get(name, [])
        if not here:
            yield Drift(
                kind="package-missing", subject=name, text=f"Package {name} {version} is not installed any more."
            )
        elif not any(_same_version(version, other) for other in here):
            text = f"Package {name} is {', '.join(here)}, and the lock says {version}."
            yield Drift(kind="package-changed", subject=name, text=text)
    for name in sorted(installed.keys() - receipt.packages.keys()):
        text = f"Package {name} {', '.join(installed[name])} is installed, and the lock does not have it."
        yield Drift(kind="package-added", subject=name, text=text)


def _content_drifts(
    receipt: Receipt,
    installed: Mapping[str, Sequence[str]],
    paths: Mapping[str, tuple[str, ...]],
    records: Sequence[Record],
    prefix: str,
) -> Iterator[Drift]:
    """Packages of the right version with other files: edited by hand, or through a hard link in uv's cache."""
    owner = {os.path.normpath(prefix + file): normalized(record.name) for record in records for file in record.files}
    by_package: dict[str, list[str]] = {}
    others: list[str] = []
    for path in (*paths["edited"], *paths["missing"]):
        if path.startswith(prefix) or path in owner:
            name = owner.get(path) or _folder_owner(path.removeprefix(prefix), receipt)
            by_package.setdefault(name, []).append(path)
        else:
            others.append(path)
    if others:
        text = f"The venv's own files changed: {_few(others)}."
        yield Drift(kind="venv-changed", subject=VENV, text=text, paths=tuple(others))
    for name, changed in sorted(by_package.items()):
        versions = installed.get(name, [])
        if any(_same_version(receipt.packages.get(name, ""), version) for version in versions):
            text = f"Files of package {name} are not what its RECORD says: {_few(changed)}."
            yield Drift(kind="package-edited", subject=name, text=text, paths=tuple(changed))
    known = set(owner)
    added = tuple(
        path for path in paths["added"] if path.startswith(prefix) and path.endswith(_CODE) and path not in known
    )
    if added:
        text = f"Code that belongs to no package lies in site-packages: {_few(added)}."
        yield Drift(kind="site-added", subject="site-packages", text=text, paths=added)
    # What lies in bin is found before the system's own programs of that name.
    programs = tuple(path for path in paths["added"] if path.startswith(f"{VENV}/bin/") and path not in known)
    if programs:
        text = f"Programs that belong to no package lie in the venv: {_few(programs)}."
        yield Drift(kind="venv-added", subject=VENV, text=text, paths=programs)


def _folder_owner(path: str, receipt: Receipt) -> str:
    """Whose a path in site-packages is that no RECORD names (any more), judged by its first folder."""
    first = path.split("/", maxsplit=1)[0].removesuffix(".dist-info")
    guess = normalized(first.rpartition("-")[0] or first)
    return guess if guess in receipt.packages else first


def _against_lock(receipt: Receipt, lock: Lock) -> list[Drift]:
    """Where the env was made from other pins than this lock's: each pin that differs."""
    if receipt.env_digest == env_digest(lock):
        return []
    found: list[Drift] = []
    if lock.comfyui is not None and lock.comfyui.commit != receipt.comfyui.commit:
        found.append(_repinned("ComfyUI", receipt.comfyui.commit, lock.comfyui.commit))
    ours = {pin.folder: pin for pin in receipt.nodes}
    theirs = {node.folder: node for node in lock.custom_nodes}
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(name), theirs.get(name)
        if here is None or there is None:
            text = f"Node {name} is in the {'lock' if here is None else 'env'} and not in the other."
            found.append(Drift(kind="lock-differs", subject=f"node {name}", text=text))
        elif here.commit != there.commit:
            found.append(_repinned(f"node {name}", here.commit, there.commit))
    wanted = {normalized(pin.name): pin.version for pin in lock.python.packages}
    for name in sorted(wanted.keys() | receipt.packages.keys()):
        if wanted.get(name) != receipt.packages.get(name):
            found.append(_repinned(f"package {name}", receipt.packages.get(name), wanted.get(name)))
    text = "The env was realized from another lock; run comfypin realize with this one."
    return found or [Drift(kind="lock-differs", subject="env", text=text)]


def _repinned(subject: str, here: str | None, there: str | None) -> Drift:
    text = f"{subject} was realized at {here or 'nothing'}, and the lock says {there or 'nothing'}."
    return Drift(kind="lock-differs", subject=subject, text=text)


def _links(home: Home) -> Iterator[Drift]:
    for name in (COMFYUI, VENV):
        link = home.root / name
        if not link.is_symlink() or str(link.readlink()) != f"current/{name}":
            yield Drift(kind="link-changed", subject=name, text=f"{link} is not the link to current/{name} any more.")


def _interpreter(folder: Path, receipt: Receipt) -> Iterator[Drift]:
    python, wired = venv_python(folder), is_wired(folder)
    if not python.exists():
        text = f"{python} does not lead to a Python {receipt.python} here; run comfypin realize."
        yield Drift(kind="interpreter-missing", subject="python", text=text)
    elif runs(folder, receipt.python) is None:
        text = f"{python} leads to {python.resolve()}, which is no Python {receipt.python}; run comfypin realize."
        yield Drift(kind="interpreter-changed", subject="python", text=text)
    elif wired and not works(folder, receipt.python):
        text = f"{python} leads to {python.resolve()}, which is not the Python it was made for; run comfypin realize."
        yield Drift(kind="interpreter-changed", subject="python", text=text)
    if (folder / VENV).is_dir() and not wired:
        text = f"{VENV}/pyvenv.cfg has other settings than a locked env; run comfypin realize."
        yield Drift(kind="venv-changed", subject=VENV, text=text, paths=(f"{VENV}/pyvenv.cfg",))


def _root(pin: SourcePin, receipt: Receipt) -> str:
    return COMFYUI if pin is receipt.comfyui else f"{CUSTOM_NODES}/{pin.folder}"


def _subject(pin: SourcePin, receipt: Receipt) -> str:
    return "ComfyUI" if pin is receipt.comfyui else f"node {pin.folder}"


def _same_version(one: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _few(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(paths[:5]) + more
