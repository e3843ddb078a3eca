"""Removes what prompts leave on this machine's disk, so that a worker that stays does not fill it.

ComfyUI empties its temp folder when it starts, and never again; its output folder never. What bears a submission's mark
is of that submission alone and goes with it. The temp folder is shared: what the engine's cache may report again stays
for the last prompts, and what no node reported (frames of a video) outlives the prompt that made it by one other.
"""

import os
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from comfypin.engine.host import Folders
from comfypin.engine.output_files import find_marked, remove

_KEPT_PREVIEWS = 64
_KEPT_MARKS = 64


class PreviewKeeper:
    """Keeps the temporary files of the last prompts, which the engine's cache may report again."""

    def __init__(self, kept: int = _KEPT_PREVIEWS) -> None:
        self._kept = kept
        self._prompts: deque[frozenset[Path]] = deque()

    def keep(self, files: Iterable[Path]) -> tuple[Path, ...]:
        """Note the files of one more prompt; returns those that are to be removed."""
        self._prompts.append(frozenset(files))
        if len(self._prompts) <= self._kept:
            return ()
        oldest = self._prompts.popleft()
        return tuple(sorted(oldest.difference(*self._prompts)))

    def kept(self) -> frozenset[Path]:
        """Return the files that are to stay."""
        return frozenset[Path]().union(*self._prompts)


class Leftovers:
    """The files of all prompts of one engine; with `keep` (for debugging) none is removed."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._one_at_a_time = threading.Lock()
        self._previews = PreviewKeeper()
        self._open: set[str] = set()
        self._cleared: deque[str] = deque(maxlen=_KEPT_MARKS)
        # Temporary files that no node reported, with the prompts that may have made them.
        self._unreported: dict[Path, frozenset[str]] = {}

    def begin(self, prompt_id: str, mark: str | None) -> None:
        """Note a prompt before it is submitted: until `clear`, nothing that may be its own is removed."""
        self._open.add(prompt_id)
        if mark is not None and mark in self._cleared:
            self._cleared.remove(mark)

    def keep_previews(self, files: Iterable[Path]) -> None:
        """Note the temporary files that a prompt's nodes reported, and remove those of long ago. Blocks."""
        old = self._previews.keep(files)
        if not self._keep:
            remove(old)

    def clear(self, folders: Folders, prompt_id: str, mark: str | None) -> None:
        """Remove what a prompt left that has ended and been delivered, or will not be. Repeatable. Blocks."""
        with self._one_at_a_time:
            made_by = frozenset(self._open)
            self._open.discard(prompt_id)
            if self._keep:
                return
            if mark is not None and mark not in self._cleared:
                self._cleared.append(mark)
            # A node's thread may still write when its prompt has ended: the last ones' marks are looked for again.
            remove(find_marked(folders, *self._cleared))
            self._clear_temp(folders.temp, made_by)

    def _clear_temp(self, temp: Path, made_by: frozenset[str]) -> None:
        kept = self._previews.kept()
        there = {Path(folder, name) for folder, _, names in os.walk(temp) for name in names} - kept
        outlived = {path for path in there if path in self._unreported and not self._unreported[path] & self._open}
        remove(outlived)
        self._unreported = {path: self._unreported.get(path, made_by) for path in there - outlived}
