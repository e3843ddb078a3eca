"""Reads the models of workflows ahead: the warm-up's while the engine starts, a job's when it comes."""

import threading
from typing import TYPE_CHECKING

from comfypin.errors import WorkflowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from comfypin.lock.model import Lock
    from comfypin.models.page_cache import PageCacheReader, ReadAhead
    from comfypin.settings.environment import Settings
    from comfypin.workflow.document import Document

_GB = 1_000_000_000


class ModelReadAhead:
    """Reads the files of a lock's models into the page cache, in the order in which a workflow needs them.

    It only speeds up what comes later, so whatever is wrong with a workflow or a model is left to those who need it.
    COMFYPIN_READ_AHEAD_GB says how much; 0 switches it off. Safe for threads.
    """

    def __init__(self, lock: "Lock", settings: "Settings") -> None:
        self._lock = lock
        self._settings = settings
        self._changing = threading.Lock()
        self._reader: PageCacheReader | None = None
        self._earlier_readers: list[PageCacheReader] = []
        self._wanted_paths: tuple[Path, ...] = ()
        # An engine keeps models that memory has no room for beside it: reading those again would help nobody.
        self._read_paths: set[Path] = set()

    @property
    def is_possible(self) -> bool:
        """Return whether there is anything to read."""
        return (
            bool(self._lock.models)
            and self._lock.engine.kind == "comfyui"
            and self._settings.machine.read_ahead_gb != 0
        )

    @property
    def progress(self) -> "ReadAhead | None":
        """Return what all readers have read so far, one after the other; None if there was none."""
        from comfypin.models.page_cache import ReadAhead

        with self._changing:
            if self._reader is None:
                return None
            parts = [reader.progress for reader in (*self._earlier_readers, self._reader)]
        return ReadAhead(
            read_bytes=sum(part.read_bytes for part in parts),
            cached_bytes=sum(part.cached_bytes for part in parts),
            seconds=sum(part.seconds for part in parts),
        )

    def read_warmup(self) -> None:
        """Begin to read the models of the release's warm-up, if there is one."""
        if not self.is_possible or not self._settings.machine.warms_up:
            return
        from comfypin.jobs.warmup import choose_warmup
        from comfypin.jobs.workflow_library import WorkflowLibrary

        document = choose_warmup(self._lock, WorkflowLibrary())
        if document is not None:
            self.read_workflow(document)

    def read_workflow(self, document: "Document") -> None:
        """Begin to read the models that a workflow names, unless they were read before; it goes before the last one."""
        if not self.is_possible:
            return
        from comfypin.free_memory import memory_bytes
        from comfypin.models.page_cache import PageCacheReader

        file_paths = tuple(dict.fromkeys(_model_files(self._lock, self._settings, document)))
        with self._changing:
            if file_paths == self._wanted_paths:
                return
            if self._reader is not None:
                if self._reader.wait(0):
                    self._read_paths.update(self._wanted_paths)
                self._reader.stop()
            self._wanted_paths, unread_paths = file_paths, [path for path in file_paths if path not in self._read_paths]
            if not unread_paths:
                return
            limit_gb = self._settings.machine.read_ahead_gb
            # Half of it: the engine needs memory of its own, and its container may have no more.
            budget_bytes = memory_bytes() // 2 if limit_gb is None else limit_gb * _GB
            if self._reader is not None:
                self._earlier_readers.append(self._reader)
            self._reader = PageCacheReader(unread_paths, budget_bytes=budget_bytes).start()

    def stop(self) -> None:
        """Read no further."""
        with self._changing:
            if self._reader is not None:
                self._reader.stop()


def _model_files(lock: "Lock", settings: "Settings", document: "Document") -> "Iterator[Path]":
    """Yield the files of the models that a workflow names, in the order in which its nodes run."""
    from comfypin.errors import ModelError
    from comfypin.models.target_paths import TargetRoots
    from comfypin.workflow.named_files import named_texts

    machine = settings.machine
    roots = TargetRoots(models_dir=machine.models_dir.absolute(), comfy_home=machine.comfy_home.absolute())
    try:
        texts = named_texts(document)
    except WorkflowError:
        return
    for path_text in texts:
        for model_pin in lock.models:
            # A workflow names a model below its kind's folder: `xl/base.safetensors` in models/checkpoints/xl.
            if not f"/{model_pin.target_path}".endswith(f"/{path_text}"):
                continue
            try:
                file_path = roots.target_path(model_pin)
            # Reading ahead only helps; whoever checks the models says what is wrong with a target.
            except ModelError:
                continue
            # The engine takes a staged copy before the one on the volume.
            if machine.fast_models_dir is not None and file_path.is_relative_to(roots.models_dir):
                staged_path = machine.fast_models_dir.absolute() / file_path.relative_to(roots.models_dir)
                file_path = staged_path if staged_path.is_file() else file_path
            yield file_path
