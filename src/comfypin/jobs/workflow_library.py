"""Finds a server's workflows by name: `NAME.json` or a file that ComfyUI saved, in /app/workflows or ./workflows."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from comfypin.workflow.document import Document
from comfypin.workflow.errors import WorkflowNotFound
from comfypin.workflow.findings import closest_names
from comfypin.workflow.inputs_file import InputsFile, read_inputs_file
from comfypin.workflow.read_file import MAX_FILE_BYTES, read_workflow_bytes

WORKFLOW_FOLDERS = (Path("/app/workflows"), Path("workflows"))
# JSON first: a picture beside it is its input.
_SUFFIXES = (
    ".json", ".png", ".webp", ".jpg", ".jpeg", ".avif", ".svg", ".exr",
    ".mp4", ".mkv", ".webm", ".flac", ".mp3", ".opus", ".glb", ".latent",
)  # fmt: skip
# A message is read by people.
_LONGEST_NAME, _MOST_NAMES = 100, 20


class WorkflowLibrary:
    """Finds workflows by name; the first folder that has one wins."""

    def __init__(self, folders: Sequence[Path] = WORKFLOW_FOLDERS) -> None:
        self._folders = folders

    def list_names(self) -> tuple[str, ...]:
        """Return the names of all workflows (JSON files; a picture beside one is its input, not another workflow)."""
        names_found = {
            workflow_path.stem: None
            for folder in self._folders
            if folder.is_dir()
            for workflow_path in sorted(folder.glob("*.json"))
        }
        return tuple(names_found)

    def find_path(self, workflow_name: str) -> Path:
        """Return the file of a workflow. Raises `WorkflowNotFound`."""
        for folder in self._folders:
            for suffix in _SUFFIXES:
                workflow_path = folder / f"{workflow_name}{suffix}"
                if _is_file(workflow_path):
                    return workflow_path
        names = self.list_names()
        # Whoever asks has no use for the folders: they are the server's.
        raise WorkflowNotFound(
            path=repr(workflow_name[:_LONGEST_NAME]),
            reason="this server has no workflow of that name",
            near=closest_names(workflow_name, names),
            _instead=f"it has {', '.join(names[:_MOST_NAMES])}." if names else "it has none: send the workflow itself.",
        )

    def read_workflow(self, workflow_name: str) -> Document:
        """Read a workflow. Raises `WorkflowNotFound`, `WorkflowUnreadable`."""
        workflow_path = self.find_path(workflow_name)
        try:
            with workflow_path.open("rb") as file:
                return read_workflow_bytes(file.read(MAX_FILE_BYTES), source=str(workflow_path))
        except OSError as exc:
            raise WorkflowNotFound(path=str(workflow_path), reason=(exc.strerror or str(exc)).lower()) from exc

    def inputs_file(self, workflow_name: str) -> InputsFile | None:
        """Return the workflow's inputs file, or None if it has none. Raises `InputsFileInvalid`."""
        return read_inputs_file(self.find_path(workflow_name))

    def bring_workflow(self, workflow_name: str, folder: Path) -> tuple[Document, InputsFile | None]:
        """Read a workflow and its inputs file, and put the files beside it into a job's folder.

        Raises as `read_workflow` and `inputs_file`.
        """
        document, inputs_file = self.read_workflow(workflow_name), self.inputs_file(workflow_name)
        self._copy_companions(workflow_name, folder)
        return document, inputs_file

    def _copy_companions(self, workflow_name: str, folder: Path) -> None:
        """Put the files beside a workflow (its pictures) into a job's folder, beneath what the job itself brought.

        The folder is made if there are any.
        """
        workflow_folder = self.find_path(workflow_name).parent
        for workflow_path in workflow_folder.iterdir():
            target = folder / workflow_path.name
            if workflow_path.suffix not in (".json", ".toml") and workflow_path.is_file() and not target.exists():
                folder.mkdir(exist_ok=True)
                shutil.copyfile(workflow_path, target)


def _is_file(workflow_path: Path) -> bool:
    try:
        return workflow_path.is_file()
    except OSError:  # a name that is too long
        return False
