"""Finds the reader of a file by what the file holds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comfypin.locking.errors import SnapshotUnreadable
from comfypin.locking.release_files.cog import is_cog_node_list, read_cog_node_list
from comfypin.locking.release_files.comfy_build import is_comfy_build, read_comfy_build
from comfypin.locking.release_files.comfy_pack import is_comfy_pack_snapshot, read_comfy_pack_snapshot
from comfypin.locking.release_files.desktop import is_desktop_snapshot, read_desktop_snapshot
from comfypin.locking.release_files.dockerfile import read_dockerfile
from comfypin.locking.release_files.dockerfile_syntax import is_dockerfile
from comfypin.locking.release_files.document import MAX_BYTES, ReleaseFile, load_document
from comfypin.locking.release_files.manager import is_manager_snapshot, read_manager_snapshot
from comfypin.locking.release_files.model_list import is_model_list, read_model_list
from comfypin.text_encoding import decode_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReader:
    """A kind of file: how it is recognised, and how it is read."""

    recognizes: Callable[[object], bool]
    read: Callable[[object, Path], ReleaseFile]


# The more telling ones first: comfy-pack's files look like the Manager's with more keys.
READERS = (
    ReleaseReader(recognizes=is_comfy_build, read=read_comfy_build),
    ReleaseReader(recognizes=is_desktop_snapshot, read=read_desktop_snapshot),
    ReleaseReader(recognizes=is_model_list, read=read_model_list),
    ReleaseReader(recognizes=is_cog_node_list, read=read_cog_node_list),
    ReleaseReader(recognizes=is_comfy_pack_snapshot, read=read_comfy_pack_snapshot),
    ReleaseReader(recognizes=is_manager_snapshot, read=read_manager_snapshot),
)


def read_release_file(file_path: Path) -> ReleaseFile:
    """Read a file of another tool. Raises `SnapshotUnreadable`."""
    # A Dockerfile is a text of its own kind; YAML's parser stumbles over most.
    if (dockerfile := _load_dockerfile(file_path)) is not None:
        return read_dockerfile(dockerfile, file_path)
    document = load_document(file_path)
    for reader in READERS:
        if reader.recognizes(document):
            return reader.read(document, file_path)
    if isinstance(document, dict):
        keys = ", ".join(sorted(str(key) for key in document)[:6]) or "no keys"
        raise SnapshotUnreadable(path=str(file_path), reason=f"it has none of their keys ({keys})")
    raise SnapshotUnreadable(path=str(file_path), reason="it is not an object, nor a list of repositories")


def _load_dockerfile(file_path: Path) -> str | None:
    """Return the text of a Dockerfile, None if the file is something else, or cannot be read."""
    try:
        with file_path.open("rb") as file:
            text = decode_text(file.read(MAX_BYTES))
    except (OSError, UnicodeDecodeError):
        return None
    return text if is_dockerfile(text) else None
