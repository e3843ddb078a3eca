"""Read a workflow from the bytes of any file that holds one."""

from comfypin.workflow.document import Document, read_document
from comfypin.workflow.saved_files import SavedKey, is_json_text, read_saved_file

# A picture or a video is larger than the workflow in it.
MAX_FILE_BYTES = 512 << 20


def read_workflow_bytes(file_bytes: bytes, *, source: str, prefer: SavedKey = "prompt") -> Document:
    """Read JSON (API or UI format, wrapped or not), or a picture or other file that ComfyUI saved.

    Of what a saved file holds, `prefer` comes first: what ran (`prompt`), or what was on the screen (`workflow`).

    Raises `WorkflowUnreadable`.
    """
    return (
        read_document(file_bytes, source=source)
        if is_json_text(file_bytes)
        else read_saved_file(file_bytes, source=source, prefer=prefer)
    )
