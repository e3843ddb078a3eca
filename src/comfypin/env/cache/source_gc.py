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


def find_unneeded_commits(locations: SourceLocations, kept_locks: Sequence[Lock]) -> list[Path]:
    """Return the bare repositories of commits that no kept lock pins. Changes nothing."""
    needed_names = set(_needed_commits(locations.commit_source.cache, kept_locks))
    return [
        cached_path
        for cached_path in sorted(locations.commit_source.cache.glob("*.git"))
        if cached_path.name.removesuffix(".git") not in needed_names
    ]


def find_unneeded_archives(locations: SourceLocations, kept_locks: Sequence[Lock]) -> list[Path]:
    """Return the archives of nodes that no kept lock pins. Changes nothing."""
    needed_names = {
        node_pin.sha256.hex
        for kept_lock in kept_locks
        for node_pin in kept_lock.custom_nodes
        if node_pin.archive and node_pin.sha256
    }
    return [
        cached_path for cached_path in sorted(locations.archives.glob("*.zip")) if cached_path.stem not in needed_names
    ]


def find_unneeded_notes(locations: SourceLocations, kept_locks: Sequence[Lock]) -> list[Path]:
    """Return the notes about starts of envs that no kept lock describes. Changes nothing."""
    needed_names = {env_digest(kept_lock).hex for kept_lock in kept_locks}
    return [
        cached_path
        for cached_path in sorted(locations.probe_notes.glob("*.json"))
        if _read_note_env(cached_path) not in needed_names
    ]


def remove_source(cached_path: Path) -> None:
    """Remove a commit, an archive or a note: out of its place at once, so that nobody finds half of it."""
    if not cached_path.is_dir():
        cached_path.unlink(missing_ok=True)
        return
    aside_path = cached_path.with_name(f".tmp-{process_token()}-{cached_path.name}")
    cached_path.rename(aside_path)
    # A rename is atomic; removing a tree is not.
    shutil.rmtree(aside_path, ignore_errors=True)


def _needed_commits(cache_folder: Path, kept_locks: Iterable[Lock]) -> Iterator[str]:
    pending_commits = [
        (str(source_pin.repo), str(source_pin.commit))
        for kept_lock in kept_locks
        for source_pin in (kept_lock.comfyui, *kept_lock.custom_nodes)
        if source_pin is not None
    ]
    seen_commits = set()
    # A submodule may have submodules of its own.
    while pending_commits:
        repository, commit_id = pending_commits.pop()
        if commit_id in seen_commits:
            continue
        seen_commits.add(commit_id)
        yield commit_id
        if (bare_repository := cache_folder / f"{commit_id}.git").is_dir():
            try:
                pending_commits += list_submodules(bare_repository, repository, commit_id)
            except ComfypinError:
                continue  # a commit that cannot be realized needs no submodules


def _read_note_env(note_path: Path) -> str | None:
    try:
        return str(json.loads(note_path.read_bytes())["env"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
