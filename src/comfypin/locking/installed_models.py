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
class InstalledModels:
    """Files by their path under a models folder, and what their owner should know."""

    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_model(self, target: str, model_path: Path) -> None:
        known = self.files.setdefault(target, model_path)
        if known != model_path:
            self.notes.append(f"the model {target} is in two folders; that of {known.parent} is in the lock")


def find_models(comfyui: Path, models_dir: Path, *, left_out: Collection[Path]) -> InstalledModels:
    """Every model file that this ComfyUI sees, its own folder first; `left_out` are files of its repository."""
    installed_models = InstalledModels()
    for model_path in _walk_models(models_dir):
        if model_path not in left_out:
            installed_models.add_model(model_path.relative_to(models_dir).as_posix(), model_path)
    for model_kind, folder in _extra_folders(comfyui / FILE, installed_models.notes):
        if folder.resolve().is_relative_to(models_dir.resolve()):
            continue
        if model_kind == "custom_nodes":
            installed_models.notes.append(f"{FILE} names the nodes in {folder} too; they are not in the lock")
            continue
        for model_path in _walk_models(folder):
            installed_models.add_model(f"{model_kind}/{model_path.relative_to(folder).as_posix()}", model_path)
    return installed_models


def _extra_folders(model_path: Path, notes: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield the kinds of models and their folders that the file names, read as ComfyUI reads it."""
    import yaml

    if not model_path.is_file():
        return
    try:
        document = yaml.safe_load(model_path.read_text(encoding="utf-8-sig")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        notes.append(f"{model_path} cannot be read ({' '.join(str(error).split())[:200]}), so its models are left out")
        return
    for section in document.values() if isinstance(document, Mapping) else ():
        if not isinstance(section, Mapping):
            continue
        base = model_path.parent / _expand_path(str(section.get("base_path") or ""))
        for model_kind, folder_lines in section.items():
            if model_kind not in ("base_path", "is_default") and isinstance(folder_lines, str):
                for line in filter(None, folder_lines.split("\n")):
                    yield str(model_kind), Path(os.path.normpath(base / line))


def _expand_path(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111  (what ComfyUI does)


def _walk_models(root: Path) -> Iterator[Path]:
    seen_folders: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real_folder = os.path.realpath(folder)
        if real_folder in seen_folders:  # a link that leads back up
            folders.clear()
            continue
        seen_folders.add(real_folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file_name in sorted(names):
            model_path = Path(folder, file_name)
            hidden = file_name.startswith(("put_", ".")) or file_name.lower().endswith(_NO_MODEL)
            if not hidden and model_path.is_file():
                yield model_path
