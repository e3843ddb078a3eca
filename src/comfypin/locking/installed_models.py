"""The model files of a ComfyUI that lives: in its models folder, and where its extra_model_paths.yaml leads."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE = "extra_model_paths.yaml"
# Beside models lie notes, previews and half downloads; none of them is a model.
_NO_MODEL = (
    *(".md", ".txt", ".part", ".partial", ".tmp", ".aria2", ".incomplete", ".crdownload", ".lock"),
    *(".preview.png", ".metadata.json"),
)


@dataclass(slots=True)
class LiveModels:
    """Files by their path under a models folder, and what their owner should know."""

    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, target: str, path: Path) -> None:
        known = self.files.setdefault(target, path)
        if known != path:
            self.notes.append(f"the model {target} is in two folders; that of {known.parent} is in the lock")


def find_models(comfyui: Path, models_dir: Path, *, left_out: Collection[Path]) -> LiveModels:
    """Every model file that this ComfyUI sees, its own folder first; `left_out` are files of its repository."""
    found = LiveModels()
    for path in _files(models_dir):
        if path not in left_out:
            found.add(path.relative_to(models_dir).as_posix(), path)
    for kind, folder in _extra_folders(comfyui / FILE, found.notes):
        if folder.resolve().is_relative_to(models_dir.resolve()):
            continue
        if kind == "custom_nodes":
            found.notes.append(f"{FILE} names the nodes in {folder} too; they are not in the lock")
            continue
        for path in _files(folder):
            found.add(f"{kind}/{path.relative_to(folder).as_posix()}", path)
    return found


def _extra_folders(path: Path, notes: list[str]) -> Iterator[tuple[str, Path]]:
    """The kinds of models and their folders that the file names, read as ComfyUI reads it."""
    import yaml

    if not path.is_file():
        return
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        notes.append(f"{path} cannot be read ({' '.join(str(error).split())[:200]}), so its models are left out")
        return
    for section in document.values() if isinstance(document, Mapping) else ():
        if not isinstance(section, Mapping):
            continue
        base = path.parent / _expanded(str(section.get("base_path") or ""))
        for kind, lines in section.items():
            if kind not in ("base_path", "is_default") and isinstance(lines, str):
                for line in filter(None, lines.split("\n")):
                    yield str(kind), Path(os.path.normpath(base / line))


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111  (what ComfyUI does)


def _files(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            hidden = name.startswith(("put_", ".")) or name.lower().endswith(_NO_MODEL)
            if not hidden and path.is_file():
                yield path
