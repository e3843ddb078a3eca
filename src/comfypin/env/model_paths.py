"""Writes extra_model_paths.yaml, which tells ComfyUI where the models of every model folder are."""

import json
import os
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.env.layout import COMFYUI_FOLDER
from comfypin.env.receipt import Receipt
from comfypin.lock.model import Lock

MODEL_PATHS_FILE = "extra_model_paths.yaml"
# What every ComfyUI has, for one that could not be asked.
_USUAL_FOLDERS = (
    *("audio_encoders", "checkpoints", "clip_vision", "controlnet", "diffusers", "diffusion_models", "embeddings"),
    *("gligen", "hypernetworks", "loras", "model_patches", "photomaker", "style_models", "text_encoders"),
    *("upscale_models", "vae", "vae_approx"),
)


def list_model_folders(receipt: Receipt, lock: Lock, models_dir: Path) -> dict[str, tuple[str, ...]]:
    """Return every name ComfyUI may look under, with its folders: its own, the lock's, and those that exist."""
    found = dict(receipt.model_folders) or {name: (name,) for name in _USUAL_FOLDERS}
    known = {folder for paths in found.values() for folder in paths}
    targets = [model.target_path.split("/") for model in lock.models]
    # `$MODELS_DIR/loras/x.safetensors`: the folder is the first part after the root.
    extra = {parts[1] for parts in targets if parts[0] == "$MODELS_DIR" and len(parts) > 2}
    if models_dir.is_dir():
        extra |= {entry.name for entry in models_dir.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    for name in sorted(extra - known):
        found[name] = (*found.get(name, ()), name)
    return found


def render_model_paths(receipt: Receipt, lock: Lock, models_dir: Path, comfyui: Path) -> bytes:
    """Return the file's bytes. The base path is relative to ComfyUI if possible: volumes are mounted in many places."""
    home = comfyui.parent.parent.parent
    inside = models_dir.absolute().is_relative_to(home.absolute())
    base = os.path.relpath(models_dir.absolute(), comfyui.absolute()) if inside else str(models_dir.absolute())
    kinds = list_model_folders(receipt, lock, models_dir)
    lines = ["# Written by comfypin, again whenever the env is realized.", "comfypin:"]
    # Values are JSON strings, which YAML reads as they are.
    lines.append(f"  base_path: {json.dumps(base)}")
    lines += [f"  {json.dumps(name)}: {json.dumps(chr(10).join(paths))}" for name, paths in sorted(kinds.items())]
    return ("\n".join(lines) + "\n").encode()


def write_model_paths(build: Path, receipt: Receipt, lock: Lock, models_dir: Path) -> None:
    """Write the file beside main.py, which ComfyUI reads by itself, unless it is up to date."""
    comfyui = build / COMFYUI_FOLDER
    data = render_model_paths(receipt, lock, models_dir, comfyui)
    path = comfyui / MODEL_PATHS_FILE
    # Unchanged files keep their time, so that a second realize changes nothing.
    if not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)
