"""Decides where the models of jobs go: into ComfyUI's folders, and never over a file with other bytes."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from comfypin.digest import Digest
from comfypin.engine.command import MODEL_FOLDERS
from comfypin.lock.model import ModelPin
from comfypin.models.errors import JobModelUnusable, TargetRefused
from comfypin.models.file_formats import pickle_by_name
from comfypin.models.store import BlobStore
from comfypin.models.target_paths import TargetRoots

_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}){0,4}")
_FILENAME = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,199}")
# A name beside models that is not a model's could be code or a setting of a node pack.
_SUFFIXES = frozenset({".safetensors", ".sft", ".gguf", ".onnx", ".ckpt", ".pt", ".pth", ".bin", ".pkl"})


class NamedModel(Protocol):
    """What places ask of a model that a job names."""

    @property
    def folder(self) -> str: ...

    def refuse(self, field_name: str, reason: str) -> JobModelUnusable: ...


class JobModelPlaces:
    """Places below the models folder. A name that has bytes keeps them: engines cache by name what they loaded."""

    def __init__(self, store: BlobStore, roots: TargetRoots, pins: Sequence[ModelPin]) -> None:
        self._store = store
        self._roots = roots
        self._bound: dict[Path, Digest] = {}
        self._pinned: dict[Path, Digest | None] = {}
        for pin in pins:
            try:
                self._pinned[roots.target_path(pin)] = pin.sha256
            # Whoever pulls the lock's models says so.
            except TargetRefused:
                continue

    @property
    def bound_names(self) -> frozenset[str]:
        """Return the paths that models got, each as a load node names it."""
        paths = (target.relative_to(self._roots.models_dir) for target in tuple(self._bound))
        return frozenset(path.as_posix().partition("/")[2] for path in paths)

    def check_folder(self, named_model: NamedModel) -> None:
        """Raise `JobModelUnusable` unless the folder is one that ComfyUI looks into."""
        first = named_model.folder.partition("/")[0]
        is_known = first in MODEL_FOLDERS or (self._roots.models_dir / first).is_dir()
        if not _FOLDER.fullmatch(named_model.folder) or not is_known:
            raise named_model.refuse(
                "folder", f"it must be one of {', '.join(MODEL_FOLDERS)}, or a folder in one of them"
            )

    def pin_for(self, named_model: NamedModel, filename: str) -> ModelPin:
        """Return the pin of a job's model. Raises `JobModelUnusable`, `PickleRefused`."""
        if not _FILENAME.fullmatch(filename) or len(os.fsencode(filename)) > 200:
            raise named_model.refuse(
                "filename", f"{filename[:100]!r} is not the name of a file; give one, without a folder"
            )
        if Path(filename).suffix.lower() not in _SUFFIXES:
            raise named_model.refuse(
                "filename", f"{filename!r} does not end as a model's name does; give one, such as name.safetensors"
            )
        pin = ModelPin(name=filename, target_path=f"$MODELS_DIR/{named_model.folder}/{filename}")
        refusal = pickle_by_name(pin)
        if refusal is not None:
            raise refusal
        return pin

    def require_free(self, named_model: NamedModel, pin: ModelPin, digest: Digest) -> None:
        """Raise `JobModelUnusable` if the name has other bytes, or had since the engine started."""
        target = self._roots.target_path(pin)
        if target in self._pinned and self._pinned[target] != digest:
            raise named_model.refuse(
                "filename", f"the release has a model {named_model.folder}/{pin.name}; give another name"
            )
        if self._bound.get(target, digest) != digest or self._has_other_bytes(target, digest):
            reason = f"{named_model.folder}/{pin.name} is the name of other bytes on this server; give another name"
            raise named_model.refuse("filename", reason)

    def place(self, named_model: NamedModel, pin: ModelPin, digest: Digest) -> Path:
        """Link the blob at its place, unless the same bytes are there. Raises as `require_free`."""
        self.require_free(named_model, pin, digest)
        target = self._roots.target_path(pin)
        self._bound[target] = digest
        if not target.is_file():
            self._store.place_blob(digest, target, "symlink")
        return target

    def _has_other_bytes(self, target: Path, digest: Digest) -> bool:
        if target.is_dir():
            return True
        if not target.exists() or self._store.leads_to_blob(digest, target):
            return False
        return self._store.digest_of(target.resolve()) != digest
