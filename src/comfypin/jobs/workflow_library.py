"""The workflows of an image, by name: `NAME.json` or a file that ComfyUI saved, in /app/workflows or ./workflows."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from comfypin.workflow.document import Document
from comfypin.workflow.errors import WorkflowNotFound
from comfypin.workflow.findings import closest_names, did_you_mean
from comfypin.workflow.inputs_file import InputsFile, read_inputs_file
from comfypin.workflow.read_file import MAX_FILE_BYTES, read_workflow_bytes

FOLDERS = (Path("/app/workflows"), Path("workflows"))
_SUFFIXES = (
    ".json", ".png", ".webp", ".jpg", ".jpeg", ".avif", ".svg", ".exr",
    ".mp4", ".mkv", ".webm", ".flac", ".mp3", ".opus", ".glb", ".latent",
)  # fmt: skip


class WorkflowFolder:
    """Finds workflows by name; the first folder that has one wins."""

    def __init__(self, folders: Sequence[Path] = FOLDERS) -> None:
        self._folders = folders

    def names(self) -> tuple[str, ...]:
        """Every workflow there is (JSON files; a picture beside one is its input, not another workflow)."""
        found = {
            path.stem: None for folder in self._folders if folder.is_dir() for path in sorted(folder.glob("*.json"))
        }
        return tuple(found)

    def path(self, name: str) -> Path:
        """The file of a workflow. Raises `WorkflowNotFound`."""
        for folder in self._folders:
            for suffix in _SUFFIXES:
                path = folder / f"{name}{suffix}"
                if _is_file(path):
                    return path
        hint = did_you_mean(closest_names(name, self.names()))
        raise WorkflowNotFound(path=name, reason=f"the image has no workflow of that name{hint}")

    def read(self, name: str) -> Document:
        """The workflow. Raises `WorkflowNotFound`, `WorkflowUnreadable`."""
        path = self.path(name)
        try:
            with path.open("rb") as file:
                return read_workflow_bytes(file.read(MAX_FILE_BYTES), source=str(path))
        except OSError as exc:
            raise WorkflowNotFound(path=str(path), reason=(exc.strerror or str(exc)).lower()) from exc

    def inputs_file(self, name: str) -> InputsFile | None:
        """What others may set in the workflow, by name, where that was said. Raises `InputsFileInvalid`."""
        return read_inputs_file(self.path(name))

    def bring_companions(self, name: str, folder: Path) -> None:
        """Put the files beside a workflow (its pictures) into a job's folder, beneath what the job itself brought."""
        home = self.path(name).parent
        for path in home.iterdir():
            target = folder / path.name
            if path.is_file() and path.suffix not in (".json", ".toml") and not target.exists():
                shutil.copyfile(path, target)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
