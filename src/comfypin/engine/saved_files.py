"""Keeps account of the files that prompts saved under the user's own names, on one engine.

ComfyUI answers a save node from its cache if the same node with the same inputs ran before: it reports the file that
the earlier prompt saved. That file is this prompt's as well only if the metadata in it is the same: same prompt, same
`extra_pnginfo`. So each file is remembered with what its prompt was, and stays for a while after its delivery.
"""

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path

from comfypin.digest import Digest
from comfypin.engine.interface import Prompt
from comfypin.engine.prompt_history import ReportedFile
from comfypin.workflow.filename_mark import has_mark
from comfypin.workflow.graph import NodeId

# ComfyUI 0.33 keeps results until memory is short; 64 prompts are what PreviewKeeper keeps, too.
_KEPT_PROMPTS = 64
# A worker's disk is small, and videos are large: a cached answer whose file is gone is made once more.
_KEPT_BYTES = 1 << 30
# A worker may live for weeks; only a job that runs again soon asks for what was saved.
_REMEMBERED_FILES = 10_000


class SavedFiles:
    """Remembers who saved which file, and which files on this machine may be removed."""

    def __init__(self, *, kept_prompts: int = _KEPT_PROMPTS, kept_bytes: int = _KEPT_BYTES) -> None:
        self._kept_prompts = kept_prompts
        self._kept_bytes = kept_bytes
        self._makers: OrderedDict[str, Digest] = OrderedDict()
        # Deliveries end in threads.
        self._lock = threading.Lock()
        # Files of prompts that are being delivered, by prompt: nothing removes them.
        self._held: dict[str, frozenset[Path]] = {}
        self._delivered: deque[frozenset[Path]] = deque()

    def note_files(
        self,
        prompt: Prompt,
        files: Iterable[ReportedFile],
        cached: frozenset[NodeId],
        present: Mapping[str, Path] | None,
    ) -> frozenset[NodeId]:
        """Note the files of a prompt that succeeded; return the nodes whose files are those of another submission.

        `present` holds the paths of files on this machine by their names; None if the engine is elsewhere.
        """
        saved = _unmarked_outputs(prompt, files)
        maker, foreign = _describe_maker(prompt), set()
        with self._lock:
            for reported_file in saved:
                # Of an engine elsewhere nobody knows whether the file is still there, or the same.
                is_present = present is not None and reported_file.full_name in present
                if reported_file.node_id not in cached:
                    self._makers[reported_file.full_name] = maker
                    self._makers.move_to_end(reported_file.full_name)
                elif self._makers.get(reported_file.full_name) != maker or not is_present:
                    foreign.add(reported_file.node_id)
            while len(self._makers) > _REMEMBERED_FILES:
                self._makers.popitem(last=False)
            if present is not None:
                names = {reported_file.full_name for reported_file in saved}
                self._held[prompt.prompt_id] = frozenset(
                    path for file_name, path in present.items() if file_name in names
                )
        return frozenset(foreign)

    def release_files(self, prompt_id: str) -> tuple[Path, ...]:
        """Note that a prompt's files are delivered, or will not be; return the files to remove. Repeatable. Blocks."""
        with self._lock:
            files = self._held.pop(prompt_id, frozenset())
            if files:
                self._delivered.append(files)
            expired: set[Path] = set()
            while len(self._delivered) > self._kept_prompts or self._size_of_delivered() > self._kept_bytes:
                expired |= self._delivered.popleft()
            return tuple(sorted(expired - self._kept_files()))

    def kept_files(self) -> frozenset[Path]:
        """Return the files that must stay."""
        with self._lock:
            return self._kept_files()

    def _kept_files(self) -> frozenset[Path]:
        return frozenset[Path]().union(*self._delivered, *self._held.values())

    def _size_of_delivered(self) -> int:
        return sum(_size_of(path) for path in frozenset[Path]().union(*self._delivered))


def _unmarked_outputs(prompt: Prompt, files: Iterable[ReportedFile]) -> list[ReportedFile]:
    # Without a mark of ours the caller chose its names itself.
    if prompt.mark is None:
        return []
    return [
        reported_file
        for reported_file in files
        if reported_file.folder == "output" and not has_mark(reported_file.full_name)
    ]


def _describe_maker(prompt: Prompt) -> Digest:
    """Return the digest of what decides the metadata of a prompt's files: its graph, and what was on the screen."""
    # In the order that they are written in: the metadata has it, too.
    metadata = {"prompt": prompt.graph.to_prompt(), "extra_pnginfo": prompt.extra_data.get("extra_pnginfo")}
    return Digest.of(json.dumps(metadata).encode())


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
