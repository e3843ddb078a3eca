"""Finds an image's workflows by name: `NAME.json` or a file that ComfyUI saved, in /app/workflows or ./workflows."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from comfypin.workflow.document import Document
from comfypin.workflow.errors import WorkflowNotFound
from comfypin.workflow.findings import closest, did_you_mean
from comfypin.workflow.inputs_file import InputsFile, read_inputs_file
from comfypin.workflow.read_file import MAX_FILE_BYTES, read_workflow_bytes

WORKFLOW_FOLDERS = (Path("/app/workflows"), Path("workflows"))
_SUFFIXES = (
    ".json", ".png", ".webp", ".jpg", ".jpeg", ".avif", ".svg", ".exr",
    ".mp4", ".mkv", ".webm", ".flac", ".mp3", ".opus", ".glb", ".latent",
)  # fmt: skip


class WorkflowLibrary:
    """Finds workflows by name; the first folder that has one wins."""

    def __init__(self, folders: Sequence[Path] = WORKFLOW_FOLDERS) -> None:
        self._folders = folders

    def list_names(self) -> tuple[str, ...]:
        """Return the names of all workflows (JSON files; a picture beside one is its input, not another workflow)."""
        names_found = {
            path.stem: None for folder in self._folders if folder.is_dir() for path in sorted(folder.glob("*.json"))
        }
        return tuple(names_found)

    def find_path(self, name: str) -> Path:
        """Return the file of a workflow. Raises `WorkflowNotFound`."""
        for folder in self._folders:
            for suffix in _SUFFIXES:
                path = folder / f"{name}{suffix}"
                if path.is_file():
                    return path
        hint = did_you_mean(closest(name, self.list_names()))
        raise WorkflowNotFound(path=name, reason=f"the image has no workflow of that name{hint}")

    def read_workflow(self, name: str) -> Document:
        """Read a workflow. Raises `WorkflowNotFound`, `WorkflowUnreadable`."""
        path = self.find_path(name)
        try:
            with path.open("rb") as file:
                return read_workflow_bytes(file.read(MAX_FILE_BYTES), source=str(path))
        except OSError as exc:
            raise WorkflowNotFound(path=str(path), reason=(exc.strerror or str(exc)).lower()) from exc

    def inputs_file(self, name: str) -> InputsFile | None:
        """Return the workflow's inputs file, or None if it has none. Raises `InputsFileInvalid`."""
        return read_inputs_file(self.find_path(name))

    def copy_companions(self, name: str, folder: Path) -> None:
        """Put the files beside a workflow (its pictures) into a job's folder, beneath what the job itself brought."""
        workflow_folder = self.find_path(name).parent
        for path in workflow_folder.iterdir():
            target = folder / path.name
            if path.is_file() and path.suffix not in (".json", ".toml") and not target.exists():
                shutil.copyfile(path, target)
