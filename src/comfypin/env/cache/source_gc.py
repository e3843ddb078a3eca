"""Commits, archives and notes of starts in the caches that no kept lock needs.

Each would be fetched or made again; one that a kept lock names stays, with the submodules that its commits name.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from comfypin.env.install.sources import SourceLocations
from comfypin.errors import ComfypinError
from comfypin.lease import process_token
from comfypin.lock.codec import env_digest
from comfypin.lock.model import Lock
from comfypin.tools.git import list_submodules


def find_unneeded_commits(places: SourceLocations, kept: Sequence[Lock]) -> list[Path]:
    """Return the bare repositories of commits that no kept lock pins. Changes nothing."""
    needed = set(_needed_commits(places.commit_source.cache, kept))
    return [
        path
        for path in sorted(places.commit_source.cache.glob("*.git"))
        if path.name.removesuffix(".git") not in needed
    ]


def find_unneeded_archives(places: SourceLocations, kept: Sequence[Lock]) -> list[Path]:
    """Return the archives of nodes that no kept lock pins. Changes nothing."""
    needed = {node.sha256.hex for lock in kept for node in lock.custom_nodes if node.archive and node.sha256}
    return [path for path in sorted(places.archives.glob("*.zip")) if path.stem not in needed]


def find_unneeded_notes(places: SourceLocations, kept: Sequence[Lock]) -> list[Path]:
    """Return the notes about starts of envs that no kept lock describes. Changes nothing."""
    needed = {env_digest(lock).hex for lock in kept}
    return [path for path in sorted(places.probe_notes.glob("*.json")) if _read_note_env(path) not in needed]


def remove_source(path: Path) -> None:
    """Remove a commit, an archive or a note: out of its place at once, so that nobody finds half of it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    aside = path.with_name(f".tmp-{process_token()}-{path.name}")
    path.rename(aside)
    # A rename is atomic; removing a tree is not.
    shutil.rmtree(aside, ignore_errors=True)


def _needed_commits(cache: Path, kept: Iterable[Lock]) -> Iterator[str]:
    waiting = [
        (str(pin.repo), str(pin.commit))
        for lock in kept
        for pin in (lock.comfyui, *lock.custom_nodes)
        if pin is not None
    ]
    seen = set()
    # A submodule may have submodules of its own.
    while waiting:
        repo, commit = waiting.pop()
        if commit in seen:
            continue
        seen.add(commit)
        yield commit
        if (bare := cache / f"{commit}.git").is_dir():
            try:
                waiting += list_submodules(bare, repo, commit)
            except ComfypinError:
                continue  # a commit that cannot be realized needs no submodules


def _read_note_env(note: Path) -> str | None:
    try:
        return str(json.loads(note.read_bytes())["env"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
