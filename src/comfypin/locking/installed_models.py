"""The model files of a ComfyUI that lives: in its models folder, and where its extra_model_paths.yaml leads."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from comfypin.locking.model_suspicions import FindProblem, find_suspicion, is_sidecar

FILE = "extra_model_paths.yaml"
# ComfyUI brings them, even where its commit does not say so: a folder of models that was copied has them too.
_COMFYUI_CONFIGS = frozenset(
    f"configs/{name}.yaml"
    for name in (
        *("anything_v3", "v1-inference", "v1-inference_clip_skip_2", "v1-inference_clip_skip_2_fp16"),
        *("v1-inference_fp16", "v1-inpainting-inference", "v2-inference", "v2-inference-v", "v2-inference-v_fp32"),
        *("v2-inference_fp32", "v2-inpainting-inference"),
    )
)


@dataclass(slots=True)
class InstalledModels:
    """Files by their path under a models folder, and what their owner should know."""

    find_problem: FindProblem
    files: dict[str, Path] = field(default_factory=dict)
    sidecars: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_file(self, target: str, model_path: Path) -> None:
        """Add a file if it is a model; else note why it is left out."""
        if target in _COMFYUI_CONFIGS or is_sidecar(PurePosixPath(target), model_path):
            self.sidecars.append(target)
        elif reason := find_suspicion(model_path, self.find_problem):
            self.notes.append(f"the model {target} is left out: {reason}")
        else:
            known = self.files.setdefault(target, model_path)
            if known != model_path:
                self.notes.append(f"the model {target} is in two folders; that of {known.parent} is in the lock")


def _no_problem(_: Path) -> str | None:
    return None


def find_models(
    comfyui: Path, models_dir: Path, *, left_out: Collection[Path], find_problem: FindProblem = _no_problem
) -> InstalledModels:
    """Every model file that this ComfyUI sees, its own folder first; `left_out` are files of its repository."""
    installed_models = InstalledModels(find_problem=find_problem)
    for model_path in _walk_models(models_dir):
        if model_path not in left_out:
            installed_models.add_file(model_path.relative_to(models_dir).as_posix(), model_path)
    missing_folders: list[str] = []
    for model_kind, folder in _extra_folders(comfyui / FILE, installed_models.notes):
        if folder.resolve().is_relative_to(models_dir.resolve()):
            continue
        if model_kind == "custom_nodes":
            installed_models.notes.append(f"{FILE} names the nodes in {folder} too; they are not in the lock")
            continue
        if not folder.is_dir():
            missing_folders.append(f"{folder} ({model_kind})")
            continue
        for model_path in _walk_models(folder):
            installed_models.add_file(f"{model_kind}/{model_path.relative_to(folder).as_posix()}", model_path)
    # One note each: people keep hundreds of previews, and the example of that file lists folders that few have.
    if missing_folders:
        installed_models.notes.append(f"{FILE} names folders that are not there: {', '.join(missing_folders)}")
    if installed_models.sidecars:
        installed_models.notes.append(f"left out, because they are no models: {', '.join(installed_models.sidecars)}")
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
    """Yield all files that may be models, links that lead nowhere among them."""
    seen_folders: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real_folder = os.path.realpath(folder)
        if real_folder in seen_folders:  # a link that leads back up
            folders.clear()
            continue
        seen_folders.add(real_folder)
        folders[:] = sorted(folder_name for folder_name in folders if not folder_name.startswith("."))
        for file_name in sorted(names):
            model_path = Path(folder, file_name)
            # ComfyUI's repository keeps its empty folders with files such as put_loras_here.
            hidden = file_name.startswith(("put_", "."))
            if not hidden and (model_path.is_file() or model_path.is_symlink()):
                yield model_path
