"""Writes extra_model_paths.yaml, which tells ComfyUI where the models of every model folder are."""

import json
import os
from pathlib import Path

from comfypin.atomic_files import list_leftovers, write_atomically
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
    folders_by_name = dict(receipt.model_folders) or {folder_name: (folder_name,) for folder_name in _USUAL_FOLDERS}
    known_folders = {folder for folder_paths in folders_by_name.values() for folder in folder_paths}
    target_parts = [model.target_path.split("/") for model in lock.models]
    # `$MODELS_DIR/loras/x.safetensors`: the folder is the first part after the root.
    extra_names = {
        path_parts[1] for path_parts in target_parts if path_parts[0] == "$MODELS_DIR" and len(path_parts) > 2
    }
    if models_dir.is_dir():
        extra_names |= {
            directory_entry.name
            for directory_entry in models_dir.iterdir()
            if directory_entry.is_dir() and not directory_entry.name.startswith(".")
        }
    for folder_name in sorted(extra_names - known_folders):
        folders_by_name[folder_name] = (*folders_by_name.get(folder_name, ()), folder_name)
    return folders_by_name


def render_model_paths(receipt: Receipt, lock: Lock, models_dir: Path, comfyui_folder: Path) -> bytes:
    """Return the file's bytes. The base path is relative to ComfyUI if possible: volumes are mounted in many places."""
    home_folder = comfyui_folder.parent.parent.parent
    is_inside_home = models_dir.absolute().is_relative_to(home_folder.absolute())
    base_path = (
        os.path.relpath(models_dir.absolute(), comfyui_folder.absolute())
        if is_inside_home
        else str(models_dir.absolute())
    )
    folders_by_name = list_model_folders(receipt, lock, models_dir)
    yaml_lines = ["# Written by comfypin, again whenever the env is realized.", "comfypin:"]
    # Values are JSON strings, which YAML reads as they are.
    yaml_lines.append(f"  base_path: {json.dumps(base_path)}")
    yaml_lines += [
        f"  {json.dumps(folder_name)}: {json.dumps(chr(10).join(folder_paths))}"
        for folder_name, folder_paths in sorted(folders_by_name.items())
    ]
    return ("\n".join(yaml_lines) + "\n").encode()


def are_model_paths_current(build_folder: Path, receipt: Receipt, lock: Lock, models_dir: Path) -> bool:
    """Return whether `write_model_paths` has nothing to do; changes nothing."""
    yaml_path = build_folder / COMFYUI_FOLDER / MODEL_PATHS_FILE
    content = render_model_paths(receipt, lock, models_dir, yaml_path.parent)
    return yaml_path.is_file() and yaml_path.read_bytes() == content and not list_leftovers(yaml_path)


def write_model_paths(build_folder: Path, receipt: Receipt, lock: Lock, models_dir: Path) -> None:
    """Write the file beside main.py, which ComfyUI reads by itself, unless it is up to date.

    The build's lease must be held: what killed processes left of the file is removed, and nobody else may write it.
    """
    yaml_path = build_folder / COMFYUI_FOLDER / MODEL_PATHS_FILE
    for leftover in list_leftovers(yaml_path):
        leftover.unlink(missing_ok=True)
    # Unchanged files keep their time, so that a second realize changes nothing.
    if not are_model_paths_current(build_folder, receipt, lock, models_dir):
        write_atomically(yaml_path, render_model_paths(receipt, lock, models_dir, yaml_path.parent))
