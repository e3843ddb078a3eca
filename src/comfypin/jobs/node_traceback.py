"""Where a node failed, as its author reads it: Python's frames, without the folders of the machine. Pure."""

import re
from collections.abc import Sequence

# Results are limited in size, and people read the last frames.
_MOST_CHARACTERS = 16_000
_FRAME = re.compile(r'File "([^"\n]{1,4000})"')
# What is left of a path begins with one of these folders; of any other path only the file's name.
_KNOWN_FOLDERS = ("site-packages/", "custom_nodes/", "ComfyUI/")
_OTHER_PATH = re.compile(r"(?<![\w.:/<-])/(?:[\w.+@-]+/)+([\w.+@-]+)")


def show_traceback(frames: Sequence[str]) -> str:
    """Return a traceback as one text; of a very long one the end, where the failure is."""
    traceback_text = "".join(frame if frame.endswith("\n") else f"{frame}\n" for frame in frames)
    shown = _OTHER_PATH.sub(r"\1", _FRAME.sub(lambda frame_match: f'File "{_shorten(frame_match[1])}"', traceback_text))
    return shown[-_MOST_CHARACTERS:]


def hide_folders(node_message: str) -> str:
    """Return what a node said with its paths as tracebacks have them: the folders are the server's."""
    return _OTHER_PATH.sub(lambda path_match: _shorten(path_match[0]), node_message)


def _shorten(path: str) -> str:
    plain = path.replace("\\", "/")
    for folder in _KNOWN_FOLDERS:
        _, separator, after = plain.rpartition(f"/{folder}")
        if separator:
            return after if folder == "site-packages/" else f"{folder}{after}"
    return plain.rpartition("/")[2]
