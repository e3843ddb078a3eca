"""Removes what prompts leave on this machine's disk, so that a worker that stays does not fill it.

ComfyUI empties its temp folder only when it starts, and its output folder never. A file that bears a submission's mark
belongs to that submission alone and goes with it. Files under the user's own names stay for a while after their
delivery, because the engine's cache may report them again (`comfypin.engine.saved_files`). All prompts share the temp
folder: what the engine's cache may report again stays for the last prompts; what no node reported (frames of a video)
stays until one more prompt has ended.
"""

import os
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from comfypin.engine.host import LocalFolders
from comfypin.engine.output_files import find_counted, find_marked, remove_files
from comfypin.engine.saved_files import SavedFiles

# ComfyUI's cache holds the last prompt, or with --cache-lru some more: previews of 64 prompts are ample.
_KEPT_PREVIEWS = 64
# Each mark costs a look at every file of three folders, so they cannot be kept for ever.
_KEPT_MARKS = 64


class PreviewKeeper:
    """Keeps the temporary files of the last prompts, which the engine's cache may report again."""

    def __init__(self, max_count: int = _KEPT_PREVIEWS) -> None:
        self._kept = max_count
        self._prompts: deque[frozenset[Path]] = deque()

    def add_prompt(self, files: Iterable[Path]) -> tuple[Path, ...]:
        """Note the files of one more prompt; return the files to remove."""
        self._prompts.append(frozenset(files))
        if len(self._prompts) <= self._kept:
            return ()
        oldest = self._prompts.popleft()
        return tuple(sorted(oldest.difference(*self._prompts)))

    def kept_files(self) -> frozenset[Path]:
        """Return the files that must stay."""
        return frozenset[Path]().union(*self._prompts)


class PromptCleanup:
    """Removes the files that the prompts of one engine leave; with `keep` (for debugging) it removes none."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._previews = PreviewKeeper()
        self.saved = SavedFiles()
        # Each with the prefixes under which it numbers its files.
        self._open_prompts: dict[str, frozenset[str]] = {}
        self._cleared_marks: deque[str] = deque(maxlen=_KEPT_MARKS)
        # Temporary files that no node reported, with the prompts that may have made them.
        self._unreported: dict[Path, frozenset[str]] = {}

    def begin_prompt(self, prompt_id: str, mark: str | None, prefixes: Iterable[str] = ()) -> None:
        """Note a prompt before it is submitted: its files stay until `clear_prompt`."""
        self._open_prompts[prompt_id] = frozenset(prefixes)
        if mark is not None and mark in self._cleared_marks:
            self._cleared_marks.remove(mark)

    def keep_previews(self, files: Iterable[Path]) -> None:
        """Note the temporary files that a prompt's nodes reported, and remove expired ones. Blocks."""
        expired = self._previews.add_prompt(files)
        if not self._keep:
            remove_files(expired)

    def clear_prompt(self, folders: LocalFolders, prompt_id: str, mark: str | None) -> None:
        """Remove what a prompt left, once its outputs are delivered or never will be. Repeatable. Blocks."""
        with self._lock:
            made_by = frozenset(self._open_prompts)
            prefixes = self._open_prompts.pop(prompt_id, frozenset())
            expired = self.saved.release_files(prompt_id)
            if self._keep:
                return
            remove_files(expired)
            # What a prompt saved before it failed is in no report.
            unused = prefixes.difference(*self._open_prompts.values())
            remove_files(find_counted(folders, unused) - self.saved.kept_files())
            if mark is not None and mark not in self._cleared_marks:
                self._cleared_marks.append(mark)
            # A node's thread may still write when its prompt has ended: look for the marks of the last ones again.
            remove_files(find_marked(folders, *self._cleared_marks))
            self._clear_temp(folders.temp, made_by)

    def _clear_temp(self, temp: Path, made_by: frozenset[str]) -> None:
        kept_files = self._previews.kept_files()
        present = {Path(folder, file_name) for folder, _, names in os.walk(temp) for file_name in names} - kept_files
        # As long as a prompt is open that may have made a file, that file may still be read.
        outlived = {
            path
            for path in present
            if path in self._unreported and not self._unreported[path] & self._open_prompts.keys()
        }
        remove_files(outlived)
        self._unreported = {path: self._unreported.get(path, made_by) for path in present - outlived}
