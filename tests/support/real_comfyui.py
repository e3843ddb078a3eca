"""The real ComfyUI that COMFYUI_DIR names: its version, a lock for it, and a workflow that saves of every kind."""

import json
import os
import re
from pathlib import Path
from typing import Any

COMFYUI_DIR = os.environ.get("COMFYUI_DIR", "")
# What a release with dynamic inputs has at least; older ones have none of the nodes that tests ask it for.
DYNAMIC_INPUTS = (0, 4)


def version() -> tuple[int, ...]:
    """The version, from its own file; empty if COMFYUI_DIR is not set."""
    for folder in ("ComfyUI", "."):
        file = Path(COMFYUI_DIR, folder, "comfyui_version.py")
        if COMFYUI_DIR and file.is_file():
            found = re.search(r'"([\d.]+)"', file.read_text())
            return tuple(int(part) for part in found[1].split(".")) if found else ()
    return ()


def a_lock(path: Path, *arguments: str) -> Path:
    """Write a lock whose engine is a ComfyUI with these arguments; COMFY_HOME says which."""
    engine = {"kind": "comfyui", "args": ["--disable-api-nodes", *arguments]}
    path.write_text(json.dumps({"schema_version": 3, "version_name": "real", "engine": engine}))
    return path


def saves_of_every_kind() -> dict[str, Any]:
    """A picture, a video and a sound, each saved by the node that a person of this version would take. No model."""
    newer = version() >= DYNAMIC_INPUTS
    video: dict[str, Any] = {"format": "mp4", "format.codec": "auto"} if newer else {"format": "mp4", "codec": "h264"}
    still: dict[str, Any] = (
        {"format": "png", "format.bit_depth": "8-bit", "format.input_color_space": "sRGB"} if newer else {}
    )
    sound: dict[str, Any] = {"format": "flac"} if newer else {}
    return {
        "1": _node("EmptyImage", width=64, height=48, batch_size=4, color=255),
        "2": _node("CreateVideo", images=["1", 0], fps=8.0),
        "3": _node("SaveVideo", video=["2", 0], filename_prefix="video/clip", **video),
        "4": _node("SaveImageAdvanced" if newer else "SaveImage", images=["1", 0], filename_prefix="still", **still),
        "5": _node("EmptyAudio", duration=0.5, sample_rate=44100, channels=2),
        "6": _node(
            "SaveAudioAdvanced" if newer else "SaveAudio", audio=["5", 0], filename_prefix="audio/hush", **sound
        ),
    }


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}
